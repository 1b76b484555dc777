package handover

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

func TestSecondOwnerIsToldWhoTheFirstIs(t *testing.T) {
	dir := t.TempDir()
	first, err := Acquire(context.Background(), dir, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, gateHeld := range []bool{true, false} {
		if !gateHeld {
			if err := first.Serving(); err != nil {
				t.Fatal(err)
			}
		}
		_, err = Acquire(context.Background(), dir, 20*time.Millisecond)
		var owned *OwnedError
		if !errors.As(err, &owned) || owned.PID != os.Getpid() || owned.Dir != dir {
			t.Fatalf("gate held %v: got %v, want an OwnedError that names pid %d", gateHeld, err, os.Getpid())
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := Acquire(context.Background(), dir, time.Second)
	if err != nil {
		t.Fatalf("after the first ended: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOwnerWaitsForAPredecessorThatEnds(t *testing.T) {
	dir := t.TempDir()
	first, err := Acquire(context.Background(), dir, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		o, err := Acquire(context.Background(), dir, 10*time.Second)
		if err == nil {
			err = o.Close()
		}
		got <- err
	}()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

func TestUnusableDirectoryIsNotABusyOne(t *testing.T) {
	_, err := Acquire(context.Background(), t.TempDir()+"/missing", time.Second)
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("got %v, want the reason of the file system", err)
	}
}
