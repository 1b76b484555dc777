package spool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gt06/storage"
)

// record makes a record that says its number in every field.
func record(n int) *storage.Record {
	return &storage.Record{
		Conn: 1<<40 | uint64(n), InputEnd: uint64(n) * 10, AnswerEnd: uint64(n) * 3, ReceivedAt: int64(n) * 1000, Device: 0x123456789012345,
		UTCOffset: int32(-n), Model: "NT20", Input: []byte(fmt.Sprintf("input %d", n)), Answer: []byte(fmt.Sprintf("answer %d", n)),
	}
}

func number(r *storage.Record) int { return int(r.Conn & 0xffffffff) }

func openTest(t testing.TB, dir string, change func(*Options)) *Writer {
	t.Helper()
	opt := Options{Dir: dir, SegmentBytes: 1 << 20, MaxBytes: 1 << 30, MinFree: 1}
	if change != nil {
		change(&opt)
	}
	w, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func closeTest(t testing.TB, w *Writer) {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func add(t testing.TB, w *Writer, from, to int) storage.Position {
	t.Helper()
	var pos storage.Position
	for n := from; n < to; n++ {
		var err error
		if pos, err = w.Append([]*storage.Record{record(n)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Sync(pos, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	return pos
}

// everything reads a directory to its end.
func everything(t testing.TB, dir string) (found []int, skipped int64) {
	t.Helper()
	r := NewReader(dir, 0)
	defer r.Close() //nolint:errcheck // read only
	var rec storage.Record
	for {
		_, err := r.Next(storage.At(1<<31, 0), &rec)
		if errors.Is(err, io.EOF) {
			return found, r.Skipped()
		}
		if err != nil {
			t.Fatal(err)
		}
		n := number(&rec)
		if want := record(n); !bytes.Equal(rec.Input, want.Input) || !bytes.Equal(rec.Answer, want.Answer) || rec.UTCOffset != want.UTCOffset || rec.Model != want.Model || rec.InputEnd != want.InputEnd || rec.AnswerEnd != want.AnswerEnd || rec.ReceivedAt != want.ReceivedAt || rec.Device != want.Device {
			t.Fatalf("record %d came back as %+v", n, rec)
		}
		found = append(found, n)
	}
}

func expectRange(t testing.TB, got []int, from, to int) {
	t.Helper()
	if len(got) != to-from {
		t.Fatalf("%d records, want %d", len(got), to-from)
	}
	for i, n := range got {
		if n != from+i {
			t.Fatalf("record %d stands at place %d", n, from+i)
		}
	}
}

func TestWhatIsWrittenIsReadAcrossSegmentsAndOwners(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for owner := range 3 {
		w := openTest(t, dir, func(o *Options) { o.SegmentBytes = 4 << 10 })
		if w.Generation() != uint64(owner)+1 {
			t.Fatalf("generation %d of owner %d", w.Generation(), owner)
		}
		add(t, w, owner*200, owner*200+200)
		closeTest(t, w)
	}
	got, skipped := everything(t, dir)
	expectRange(t, got, 0, 600)
	if skipped != 0 {
		t.Errorf("%d bytes skipped", skipped)
	}
	n, err := Count(context.Background(), dir, 0, storage.At(1<<31, 0))
	if err != nil || n != 600 {
		t.Errorf("Count is %d, %v", n, err)
	}
	if w := openTest(t, dir, nil); w.Generation() != 4 {
		t.Errorf("generation %d", w.Generation())
	} else {
		closeTest(t, w)
	}
}

func TestReaderNeverGoesBeyondTheLimit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openTest(t, dir, nil)
	defer closeTest(t, w)
	first := add(t, w, 0, 10)
	add(t, w, 10, 20)
	r := NewReader(dir, 0)
	defer r.Close() //nolint:errcheck // read only
	var rec storage.Record
	for range 10 {
		if _, err := r.Next(first, &rec); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Next(first, &rec); !errors.Is(err, io.EOF) {
		t.Fatalf("beyond the limit: %v", err)
	}
	if _, err := r.Next(w.Durable(), &rec); err != nil || number(&rec) != 10 {
		t.Fatalf("after the limit moved: record %d, %v", number(&rec), err)
	}
}

// onlySegment returns the path of the one segment in dir.
func onlySegment(t testing.TB, dir string) string {
	t.Helper()
	m, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(m) != 1 {
		t.Fatalf("segments %v, %v", m, err)
	}
	return m[0]
}

func TestEveryFlippedByteCostsAtMostItsRecord(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openTest(t, dir, nil)
	const records = 20
	pos := add(t, w, 0, records)
	closeTest(t, w)
	path := onlySegment(t, dir)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range int(pos.Offset()) {
		broken := bytes.Clone(whole)
		broken[at] ^= 0x41
		if err := os.WriteFile(path, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		if at >= 6 && at < 8 {
			if _, err := list(dir, 0); !errors.Is(err, ErrVersion) {
				t.Fatalf("byte %d of the version: %v", at, err)
			}
			continue
		}
		got, _ := everything(t, dir)
		if len(got) < records-1 {
			t.Fatalf("byte %d flipped: %d of %d records left", at, len(got), records)
		}
		for i := 1; i < len(got); i++ {
			if got[i] <= got[i-1] {
				t.Fatalf("byte %d flipped: order %v", at, got)
			}
		}
	}
}

func TestEveryTruncationKeepsWhatIsWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openTest(t, dir, nil)
	var ends []int64
	for n := range 10 {
		ends = append(ends, int64(add(t, w, n, n+1).Offset()))
	}
	closeTest(t, w)
	path := onlySegment(t, dir)
	for size := ends[9]; size >= 0; size-- {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, e := range ends {
			if e <= size {
				want++
			}
		}
		got, _ := everything(t, dir)
		expectRange(t, got, 0, want)
	}
	// The next owner begins a segment of its own behind it.
	w = openTest(t, dir, nil)
	add(t, w, 0, 5)
	closeTest(t, w)
	got, _ := everything(t, dir)
	expectRange(t, got, 0, 5)
}

func TestHoleInTheMiddleIsPassedOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openTest(t, dir, nil)
	a, b := add(t, w, 0, 10), add(t, w, 10, 20)
	add(t, w, 20, 30)
	closeTest(t, w)
	f, err := os.OpenFile(onlySegment(t, dir), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, b.Offset()-a.Offset()), int64(a.Offset())); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	got, skipped := everything(t, dir)
	if len(got) != 20 || got[10] != 20 || skipped != int64(b.Offset()-a.Offset()) {
		t.Errorf("records %v, %d bytes skipped", got, skipped)
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := segmentHeader{generation: 1, number: 1}.bytes()
	binary.LittleEndian.PutUint16(h[6:], version+1)
	if err := os.WriteFile(segmentPath(dir, 1), h, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrVersion) {
		t.Errorf("got %v", err)
	}
}

func TestUnusedSegmentsOfEarlierOwnersGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 5 {
		closeTest(t, openTest(t, dir, nil))
	}
	if m, _ := filepath.Glob(filepath.Join(dir, "*.seg")); len(m) != 1 {
		t.Errorf("segments %v", m)
	}
}

// TestFailedSyncIsNeverCalledGood lets the n-th sync fail: the segment is not
// synced again, and what was not durable is there exactly once all the same.
func TestFailedSyncIsNeverCalledGood(t *testing.T) {
	t.Parallel()
	for failing := int64(1); failing <= 5; failing++ {
		dir := t.TempDir()
		var syncs atomic.Int64
		w := openTest(t, dir, func(o *Options) {
			o.disk = faulty{fault: func(op string) error {
				if op == "sync" && syncs.Add(1) == failing {
					return errors.New("EIO")
				}
				return nil
			}}
		})
		failedOn := w.seg
		for n := range 10 {
			add(t, w, n, n+1)
		}
		if w.seg == failedOn || w.seg.cut == 0 {
			t.Errorf("sync %d failed and the segment is still in use", failing)
		}
		durable := w.Durable()
		closeTest(t, w)
		got, _ := everything(t, dir)
		expectRange(t, got, 0, 10)
		if durable != storage.At(w.seg.number, uint32(w.end)) {
			t.Errorf("durable %x", durable)
		}
	}
}

func TestLogThatCannotBeWrittenElsewhereIsBroken(t *testing.T) {
	t.Parallel()
	var bad atomic.Bool
	w := openTest(t, t.TempDir(), func(o *Options) {
		o.disk = faulty{fault: func(op string) error {
			if op != "write" && bad.Load() {
				return errors.New("EIO")
			}
			return nil
		}}
	})
	add(t, w, 0, 1)
	bad.Store(true)
	pos, err := w.Append([]*storage.Record{record(1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Sync(pos, 5*time.Second); !errors.Is(err, ErrBroken) {
		t.Errorf("Sync: %v", err)
	}
	if _, err := w.Append([]*storage.Record{record(2)}); !errors.Is(err, ErrBroken) {
		t.Errorf("Append: %v", err)
	}
	if err := w.Close(); !errors.Is(err, ErrBroken) {
		t.Errorf("Close: %v", err)
	}
}

func TestFailedWriteLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var bad atomic.Bool
	w := openTest(t, dir, func(o *Options) {
		o.disk = faulty{fault: func(op string) error {
			if op == "write" && bad.Load() {
				return errors.New("ENOSPC")
			}
			return nil
		}}
	})
	add(t, w, 0, 3)
	bad.Store(true)
	if _, err := w.Append([]*storage.Record{record(99)}); err == nil {
		t.Fatal("no error")
	}
	bad.Store(false)
	add(t, w, 3, 6)
	closeTest(t, w)
	got, skipped := everything(t, dir)
	expectRange(t, got, 0, 6)
	if skipped != 0 {
		t.Errorf("%d bytes skipped", skipped)
	}
}

func TestSyncTimesOut(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	w := openTest(t, t.TempDir(), func(o *Options) {
		o.disk = faulty{fault: func(op string) error {
			if op == "sync" {
				<-release
			}
			return nil
		}}
	})
	pos, err := w.Append([]*storage.Record{record(0)})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Sync(pos, 100*time.Millisecond); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
	close(release)
	if err := w.Sync(pos, 5*time.Second); err != nil {
		t.Error(err)
	}
	closeTest(t, w)
}

func TestManyAppendersShareSyncs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var syncs atomic.Int64
	w := openTest(t, dir, func(o *Options) {
		o.SegmentBytes = 64 << 10
		o.disk = faulty{fault: func(op string) error {
			if op == "sync" {
				syncs.Add(1)
			}
			return nil
		}}
	})
	const goroutines, each = 16, 200
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for n := range each {
				pos, err := w.Append([]*storage.Record{record(g*each + n)})
				if err == nil {
					err = w.Sync(pos, 10*time.Second)
				}
				if err != nil {
					t.Error(err)
					return
				}
				if w.Durable() < pos {
					t.Error("Sync came back too early")
				}
			}
		})
	}
	wg.Wait()
	closeTest(t, w)
	if n := syncs.Load(); n >= goroutines*each {
		t.Errorf("%d syncs for %d records", n, goroutines*each)
	}
	got, skipped := everything(t, dir)
	if len(got) != goroutines*each || skipped != 0 {
		t.Errorf("%d records, %d bytes skipped", len(got), skipped)
	}
}

func TestRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now()
	w := openTest(t, dir, func(o *Options) {
		o.SegmentBytes, o.MaxBytes = 8<<10, 64<<10
		o.Now = func() time.Time { return now }
	})
	defer closeTest(t, w)
	n := 0
	for ; w.Room() == nil; n++ {
		if _, err := w.Append([]*storage.Record{record(n)}); err != nil {
			if errors.Is(err, ErrFull) {
				break
			}
			t.Fatal(err)
		}
		w.makeRoom()
	}
	if err := w.Room(); !errors.Is(err, ErrFull) {
		t.Fatalf("after %d records: %v", n, err)
	}
	got, _ := everything(t, dir)
	expectRange(t, got, 0, n) // what is not in the database stays
	if err := w.Sync(w.End(), time.Second); err != nil {
		t.Fatal(err)
	}
	w.Release(w.End())
	w.makeRoom()
	if err := w.Room(); err != nil {
		t.Fatalf("after the release: %v", err)
	}
	if got, _ := everything(t, dir); len(got) == n || got[len(got)-1] != n-1 {
		t.Errorf("the oldest did not go first: %d to %d", got[0], got[len(got)-1])
	}
}

func TestOldSegmentsGoOnlyWhenReleased(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now().Add(30 * 24 * time.Hour)
	w := openTest(t, dir, func(o *Options) {
		o.SegmentBytes = 8 << 10
		o.Now = func() time.Time { return now }
	})
	defer closeTest(t, w)
	add(t, w, 0, 500)
	w.makeRoom()
	got, _ := everything(t, dir)
	expectRange(t, got, 0, 500)
	w.Release(w.End())
	w.makeRoom()
	if got, _ := everything(t, dir); len(got) >= 500 {
		t.Error("old segments in the database stay")
	}
}

func TestNoAllocationPerRecord(t *testing.T) {
	w := openTest(t, t.TempDir(), func(o *Options) { o.SegmentBytes = 1 << 30 })
	defer closeTest(t, w)
	recs := make([]*storage.Record, 100)
	for i := range recs {
		recs[i] = record(i)
	}
	for range 50 {
		pos, _ := w.Append(recs)
		_ = w.Sync(pos, time.Second)
	}
	if n := testing.AllocsPerRun(100, func() {
		pos, err := w.Append(recs)
		if err == nil {
			err = w.Sync(pos, time.Second)
		}
		if err != nil {
			t.Error(err)
		}
	}); n > 20 {
		t.Errorf("%v allocations for 100 records and their sync", n)
	}
}

// FuzzRecover: whatever stands in a segment, reading it ends and what is read
// proves itself.
func FuzzRecover(f *testing.F) {
	seed := segmentHeader{generation: 1, number: 1}.bytes()
	for n := range 5 {
		seed = appendRecord(seed, record(n))
	}
	f.Add(seed, 40, byte(1))
	f.Add(seed, 200, byte(0xff))
	f.Add(append(seed, make([]byte, 100)...), 300, byte(0))
	f.Fuzz(func(t *testing.T, b []byte, at int, v byte) {
		if at >= 0 && at < len(b) {
			b[at] ^= v
		}
		dir := t.TempDir()
		if err := os.WriteFile(segmentPath(dir, 1), b, 0o600); err != nil {
			t.Fatal(err)
		}
		r := NewReader(dir, 0)
		defer r.Close() //nolint:errcheck // read only
		var rec storage.Record
		last := storage.Position(0)
		for {
			pos, err := r.Next(storage.At(9, 0), &rec)
			if err != nil {
				break
			}
			if pos <= last {
				t.Fatalf("position %x after %x", pos, last)
			}
			last = pos
		}
	})
}

func BenchmarkAppendSync(b *testing.B) {
	w := openTest(b, b.TempDir(), func(o *Options) { o.SegmentBytes = 64 << 20 })
	recs := []*storage.Record{record(1)}
	b.ReportAllocs()
	for b.Loop() {
		pos, err := w.Append(recs)
		if err == nil {
			err = w.Sync(pos, time.Second)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	closeTest(b, w)
}

func TestBackReachesEachRecord(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openTest(t, dir, func(o *Options) { o.SegmentBytes = 16 << 10 })
	const records = 1000
	end := add(t, w, 0, records)
	defer closeTest(t, w)
	// Pieces of any size, each read to the end of the first record of the one
	// before, hold every record once.
	for _, piece := range []int64{300, 5000, 1 << 30} {
		seen := map[int]int{}
		for limit, open := end, false; limit > 0; {
			from, err := Back(dir, limit, piece)
			if err != nil {
				t.Fatal(err)
			}
			r := NewReader(dir, from)
			var rec storage.Record
			first := storage.Position(0)
			for {
				pos, err := r.Next(limit, &rec)
				if errors.Is(err, io.EOF) {
					break
				}
				if first == 0 {
					first = pos
				}
				if pos < limit || !open {
					seen[number(&rec)]++
				}
			}
			_ = r.Close()
			open = true
			if limit = first; from == 0 {
				break
			}
		}
		for n := range records {
			if seen[n] != 1 {
				t.Fatalf("pieces of %d: record %d was seen %d times", piece, n, seen[n])
			}
		}
	}
}
