package spool

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"gt06/storage"
)

var update = flag.Bool("update", false, "write the files of this version anew")

const released = "../../testdata/released"

// Each version that was released left a segment; this one reads them all.
func TestReleasedVersionsAreRead(t *testing.T) {
	t.Parallel()
	records := []*storage.Record{
		{Conn: 1<<40 | 7, InputEnd: 18, AnswerEnd: 10, ReceivedAt: 1_795_000_000_000_000, Device: 0x490154203237518, UTCOffset: 19800, Model: "NT20", Input: []byte("a login"), Answer: []byte("its answer")},
		{Conn: 1<<40 | 7, InputEnd: 21, AnswerEnd: 10, ReceivedAt: 1_795_000_001_000_000, Flags: storage.Junk, Device: 0x490154203237518, Input: []byte{0, 1, 2}},
		{Conn: 1<<40 | 7, InputEnd: 25, AnswerEnd: 10, ReceivedAt: 1_795_000_002_000_000, Flags: storage.Partial, Device: 0x490154203237518, Input: []byte("half")},
		{Conn: 1<<40 | 7, InputEnd: 25, AnswerEnd: 15, ReceivedAt: 1_795_000_003_000_000, Device: 0x490154203237518, Answer: []byte("a cmd")},
		{Conn: 1<<40 | 7, InputEnd: 25, AnswerEnd: 15, ReceivedAt: 1_795_000_004_000_000, Flags: storage.Carry, Device: 0x490154203237518, Answer: []byte("cmd")},
	}
	if *update {
		b := segmentHeader{generation: 1, number: 1}.bytes()
		for _, r := range records {
			b = appendRecord(b, r)
		}
		if err := os.WriteFile(filepath.Join(released, "v1", "spool.seg"), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	versions, err := filepath.Glob(filepath.Join(released, "*", "spool.seg"))
	if err != nil || len(versions) == 0 {
		t.Fatalf("no segments of released versions, %v", err)
	}
	for _, path := range versions {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := os.WriteFile(segmentPath(dir, 1), b, 0o600); err != nil {
			t.Fatal(err)
		}
		w := openTest(t, dir, nil) // it goes on behind them
		if w.Generation() != 2 || w.First() != 2 {
			t.Errorf("%s: generation %d, first segment %d", path, w.Generation(), w.First())
		}
		closeTest(t, w)
		r := NewReader(dir, 0)
		defer r.Close() //nolint:errcheck // read only
		var got storage.Record
		for _, want := range records {
			if _, err := r.Next(storage.At(2, 0), &got); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if got.Conn != want.Conn || got.InputEnd != want.InputEnd || got.AnswerEnd != want.AnswerEnd || got.ReceivedAt != want.ReceivedAt || got.Flags != want.Flags || got.Device != want.Device ||
				got.UTCOffset != want.UTCOffset || got.Model != want.Model || string(got.Input) != string(want.Input) || string(got.Answer) != string(want.Answer) {
				t.Errorf("%s: got %+v, want %+v", path, got, want)
			}
		}
		if _, err := r.Next(storage.At(2, 0), &got); !errors.Is(err, io.EOF) || r.Skipped() != 0 {
			t.Errorf("%s: then %v, %d bytes skipped", path, err, r.Skipped())
		}
	}
}
