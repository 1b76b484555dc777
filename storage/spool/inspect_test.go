package spool

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"gt06/storage"
)

// What a log tells about itself without an owner.
func TestVerifyAndMeasure(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openTest(t, dir, func(o *Options) { o.SegmentBytes = 256 << 10 })
	const n = 9000
	at := func(k int) int64 { return time.Date(2026, 1, 1, 0, 0, k, 0, time.UTC).UnixMicro() }
	var batch []*storage.Record
	for k := range n {
		conn := uint64(k % 3)
		end := uint64(k/3+1) * 10
		if k >= 6000 && conn == 1 {
			end += 5 // its bytes go on with a hole of five
		}
		batch = append(batch, &storage.Record{Conn: conn, ReceivedAt: at(k), Input: make([]byte, 10), InputEnd: end})
	}
	batch[7].ReceivedAt = at(-60) // a clock that was set
	var pos storage.Position
	var err error
	for ; len(batch) > 0; batch = batch[100:] {
		if pos, err = w.Append(batch[:100]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Sync(pos, time.Minute); err != nil {
		t.Fatal(err)
	}
	if s := w.Stats(); s.Appended != n {
		t.Errorf("%+v", s)
	}
	w.makeRoom()
	if s := w.Stats(); s.Oldest.IsZero() || s.Bytes == 0 {
		t.Errorf("after a look at the room: %+v", s)
	}
	told := 0
	report, err := Verify(t.Context(), dir, pos, func(*Report) { told++ })
	if err != nil || report.Records != n || report.Bytes != 10*n || report.Connections != 3 || report.Gaps != 1 || report.Missing != 5 || report.Damaged != 0 ||
		report.Whole() || told != 2 || report.First.UnixMicro() != at(-60) || report.Last.UnixMicro() != at(n-1) {
		t.Errorf("%+v, told %d times, %v", report, told, err)
	}
	segments, err := Segments(dir)
	if err != nil || len(segments) < 3 || End(segments) <= pos || End(nil) != 0 {
		t.Errorf("%d segments, end %v, %v", len(segments), End(segments), err)
	}
	all, err := Measure(t.Context(), dir, pos, time.Time{}, math.MaxInt64)
	if err != nil || all.Records != n || all.Bytes < 10*n || all.Last.UnixMicro() != at(n-1) {
		t.Errorf("%+v, %v", all, err)
	}
	half, err := Measure(t.Context(), dir, pos, time.UnixMicro(at(n/2)), math.MaxInt64)
	if err != nil || half.Records != n/2 || half.First.UnixMicro() != at(n/2) || half.Bytes >= all.Bytes {
		t.Errorf("%+v, %v", half, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Verify(gone, dir, pos, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify, given up: %v", err)
	}
	if _, err := Measure(gone, dir, pos, time.Time{}, 1<<20); !errors.Is(err, context.Canceled) {
		t.Errorf("Measure, given up: %v", err)
	}
	if _, err := Count(gone, dir, 0, pos); !errors.Is(err, context.Canceled) {
		t.Errorf("Count, given up: %v", err)
	}
	closeTest(t, w)
	// More damaged places than a report names.
	b, err := os.ReadFile(segments[0].pathIn(dir))
	if err != nil {
		t.Fatal(err)
	}
	for place := range 30 {
		b[headerSize+1000*(place+1)] ^= 0xff
	}
	if err := os.WriteFile(segments[0].pathIn(dir), b, 0o600); err != nil {
		t.Fatal(err)
	}
	report, err = Verify(t.Context(), dir, pos, nil)
	if err != nil || report.Damaged != 30 || len(report.Places) != 20 || report.Skipped == 0 || report.Records != n-30 || report.Whole() {
		t.Errorf("%+v, %v", report, err)
	}
	var damage *CorruptionError
	if !errors.As(error(report.Places[0]), &damage) || !errors.Is(damage, errChecksum) && !errors.Is(damage, errMagic) || damage.Segment != segments[0].Number {
		t.Errorf("%v", report.Places[0])
	}
}

func (s *Segment) pathIn(dir string) string { return segmentPath(dir, s.Number) }

// A reader stands in a segment when its sync fails: what is written again it
// reads once, where it is written again.
func TestReaderInASegmentWhoseSyncFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var bad atomic.Bool
	w := openTest(t, dir, func(o *Options) {
		o.disk = faulty{fault: func(op string) error {
			if op == "sync" && bad.CompareAndSwap(true, false) {
				return errors.New("EIO")
			}
			return nil
		}}
	})
	r := NewReader(dir, 0)
	defer r.Close() //nolint:errcheck // read only
	var got []int
	read := func() {
		var rec storage.Record
		for {
			if _, err := r.Next(w.Durable(), &rec); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
			got = append(got, number(&rec))
		}
	}
	add(t, w, 0, 3)
	read()
	bad.Store(true)
	add(t, w, 3, 6)
	read()
	closeTest(t, w)
	expectRange(t, got, 0, 6)
}
