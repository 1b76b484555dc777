package keeper

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A keeper outlives many servers: it must understand what each released version
// says. A line is the hex of a message; +fd passes a descriptor with it.
func TestReleasedVersionsAreUnderstood(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../testdata/released/*/keeper.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("no messages of released versions, %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "k")
		run(t, path, time.Minute)
		fd, _, err := connect(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			text, with, _ := strings.Cut(strings.TrimSpace(line), " ")
			msg, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			var fds []int
			if with == "+fd" {
				ours, _ := conn(t)
				fds = []int{ours}
			}
			if err := send(fd, msg, fds...); err != nil {
				t.Fatal(err)
			}
		}
		blobs, mark := fetched(t, link(t, path))
		if got := fmt.Sprint(len(blobs), len(blobs[1<<40|7]), mark); got != "2 37 21474836512" {
			t.Errorf("%s: got %s, %v", file, got, blobs)
		}
		_ = unix.Close(fd)
	}
}
