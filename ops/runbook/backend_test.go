package runbook_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"gt06/ops"
	"gt06/ops/cloud/fake"
	"gt06/ops/runbook"
)

// TestTwoHostsRaceForTheLock: one wins, every time, and the other is told who.
func TestTwoHostsRaceForTheLock(t *testing.T) {
	t.Parallel()
	for backend, races := range map[string]int{"s3": 100, "tag": 10} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			a := fake.New()
			t.Cleanup(a.Close)
			s, at := session(t, a.Production())
			s.Config.Lock.Backend = backend
			b, err := runbook.Backend(at.Cloud, s.Config)
			if err != nil {
				t.Fatal(err)
			}
			for n := range races {
				var wg sync.WaitGroup
				holders, won := make([]ops.Holder, 2), make([]bool, 2)
				for host := range 2 {
					wg.Go(func() {
						mine := ops.Holder{Change: fmt.Sprintf("c-20261122-%02d", n+1), Host: fmt.Sprint("host", host), Since: "2026-11-22T12:00:00Z"}
						who, err := b.Lock.Acquire(t.Context(), mine)
						holders[host], won[host] = who, err == nil
						if err != nil && !errors.Is(err, ops.ErrHeld) {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if won[0] == won[1] {
					t.Fatalf("race %d: won %v", n, won)
				}
				now, err := b.Lock.Holder(t.Context())
				if err != nil || now != holders[0] || now != holders[1] {
					t.Fatalf("race %d: held by %+v, told %+v, %v", n, now, holders, err)
				}
				other := now
				other.Host = "elsewhere"
				if err := b.Lock.Release(t.Context(), other); !errors.Is(err, ops.ErrHeld) {
					t.Errorf("another gave it back: %v", err)
				}
				if err := b.Lock.Release(t.Context(), now); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestLockWithLostReply: who won and did not hear of it has won.
func TestLockWithLostReply(t *testing.T) {
	t.Parallel()
	a := fake.New()
	t.Cleanup(a.Close)
	s, _ := session(t, a.Production())
	mine := ops.Holder{Change: "c-20261122-01", Host: "laptop", Since: "2026-11-22T12:00:00Z"}
	a.Inject(fake.Fault{Action: "PutObject", Kind: fake.LostReply})
	if who, err := s.Backend.Lock.Acquire(t.Context(), mine); err != nil || who != mine {
		t.Errorf("%+v, %v", who, err)
	}
	a.Inject(fake.Fault{Action: "PutObject", Kind: fake.LostReply})
	if err := s.Backend.Lock.Release(t.Context(), mine); err != nil {
		t.Error(err)
	}
	if who, err := s.Backend.Lock.Holder(t.Context()); err != nil || who != (ops.Holder{}) {
		t.Errorf("%+v, %v", who, err)
	}
}

// TestJournalCopyIsTamperProof: a copy altered or taken away in the bucket is
// found, and one is never written over.
func TestJournalCopyIsTamperProof(t *testing.T) {
	t.Parallel()
	a := fake.New()
	t.Cleanup(a.Close)
	site := a.Production()
	s, _ := session(t, site)
	c, err := s.Open(t.Context(), ops.Restart, "to look at its journal")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Note(t.Context(), c.ID, ops.KindNote, 0, map[string]string{"text": "seen"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Backend.Mirror.Put(t.Context(), c.ID, 1, []byte("{}")); !errors.Is(err, ops.ErrExists) {
		t.Errorf("written over: %v", err)
	}
	if _, err := s.Backend.Mirror.Get(t.Context(), c.ID, 99); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	if v, err := s.Journals.Verify(t.Context()); err != nil || v.Copies == 0 {
		t.Fatalf("%+v, %v", v, err)
	}
	for path, body := range a.Objects(site.Bucket + "/journal/") {
		for _, other := range [][]byte{append([]byte(nil), body[:len(body)-1]...), []byte("{}"), nil} {
			if other == nil && strings.HasSuffix(path, "00000003.json") {
				continue // the last may not have been sent yet
			}
			a.Tamper(path, other)
			if _, err := s.Journals.Verify(t.Context()); ops.KindOf(err) != ops.JournalBroken {
				t.Errorf("%s altered to %q: %v", path, other, err)
			}
			a.Tamper(path, body)
		}
	}
}
