package spool

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"gt06/storage"
)

func (d faulty) truncate(f *os.File, size int64) error {
	if err := d.fault("truncate"); err != nil {
		return err
	}
	return d.files.truncate(f, size)
}

func (d faulty) allocate(f *os.File, from, to int64) error {
	if err := d.fault("allocate"); err != nil {
		return err
	}
	return d.files.allocate(f, from, to)
}

func (d faulty) sync(f *os.File) error {
	if err := d.fault("sync of the zeros"); err != nil {
		return err
	}
	return d.files.syncData(f)
}

func (d faulty) syncDir(dir string) error {
	if err := d.fault("directory"); err != nil {
		return err
	}
	return d.files.syncDir(dir)
}

func (d faulty) remove(path string) error {
	if err := d.fault("remove"); err != nil {
		return err
	}
	return d.files.remove(path)
}

// TestEachOperationOfTheDiskFails lets one operation fail, each in turn, of a
// log that is opened, written over several segments, stored, tidied up and
// closed: what Sync said is durable is there, and nothing is there twice.
func TestEachOperationOfTheDiskFails(t *testing.T) {
	t.Parallel()
	ops := []string{"create", "write", "truncate", "allocate", "sync", "sync of the zeros", "directory", "remove"}
	met := map[string]int{}
	for _, op := range ops {
		for failing := int64(1); ; failing++ {
			var seen atomic.Int64
			dir := t.TempDir()
			first := openTest(t, dir, func(o *Options) { o.SegmentBytes = 8 << 10 })
			add(t, first, 0, 10)
			closeTest(t, first)
			durable := failedLife(t, dir, func(at string) error {
				if at == op && seen.Add(1) == failing {
					return syscall.EIO
				}
				return nil
			})
			got, _ := everything(t, dir)
			there := map[int]int{}
			for _, n := range got {
				there[n]++
			}
			for n := range durable {
				if there[n] != 1 && (n >= 10 || there[n] > 1) { // what the first owner left is stored, and may go
					t.Fatalf("%s %d failed: record %d is there %d times", op, failing, n, there[n])
				}
			}
			if seen.Load() < failing {
				break
			}
			met[op]++
		}
	}
	t.Logf("failed: %v", met)
	for _, op := range ops {
		if met[op] == 0 && op != "truncate" && op != "allocate" { // those come with failed writes and with time
			t.Errorf("no %s failed: the test shows nothing", op)
		}
	}
}

// failedLife is an owner over a disk that fails somewhere. It returns how many
// records are durable as far as it was told.
func failedLife(t *testing.T, dir string, fault func(op string) error) (durable int) {
	t.Helper()
	durable = 10
	w, err := Open(Options{Dir: dir, SegmentBytes: 8 << 10, MaxBytes: 1 << 30, MinFree: 1, Retention: -time.Hour, disk: faulty{fault: fault}})
	if err != nil {
		if !errors.Is(err, syscall.EIO) {
			t.Fatalf("open: %v", err)
		}
		return durable
	}
	defer w.Close() //nolint:errcheck // it may be broken
	for n := 10; n < 400; n += 15 {
		var batch []*storage.Record
		for k := range 15 {
			batch = append(batch, record(n+k))
		}
		pos, err := w.Append(batch)
		for range 2 { // a server reads again what it could not write
			if err == nil || errors.Is(err, ErrBroken) {
				break
			}
			w.makeRoom() // "full" ends with a look at the disk
			pos, err = w.Append(batch)
		}
		if err != nil {
			return durable
		}
		if err := w.Sync(pos, time.Minute); err != nil {
			return durable
		}
		durable = n + 15
	}
	w.writeAhead()
	w.Release(storage.At(2, 0))
	w.makeRoom()
	return durable
}

// What lies in the directory under the name of a segment and is none is an
// error for everybody who reads it, never a guess.
func TestWhatIsNoSegmentIsAnError(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	const segments = 2
	limit := storage.At(segments+2, 0)
	for name, c := range map[string]struct {
		put     func(path string) error
		listing bool // it cannot even be listed
	}{
		"a symbolic link": {func(path string) error { return os.Symlink("/etc/passwd", path) }, true},
		"a directory":     {func(path string) error { return os.Mkdir(path, 0o700) }, false},
	} {
		dir := t.TempDir()
		w := openTest(t, dir, nil)
		add(t, w, 0, 10)
		if err := c.put(segmentPath(dir, segments)); err != nil {
			t.Fatal(err)
		}
		w.makeRoom() // says so, and goes on
		w.glance()
		add(t, w, 10, 11)
		closeTest(t, w)
		for what, read := range map[string]func() error{
			"Open": func() error {
				w, err := Open(Options{Dir: dir})
				if err == nil {
					closeTest(t, w)
				}
				return err
			},
			"Next": func() error {
				r := NewReader(dir, 0)
				defer r.Close() //nolint:errcheck // read only
				var rec storage.Record
				for {
					if _, err := r.Next(limit, &rec); err != nil {
						return err
					}
				}
			},
			"Oldest":  func() error { _, err := Oldest(dir, storage.At(segments, 0), limit); return err },
			"Count":   func() error { _, err := Count(ctx, dir, 0, limit); return err },
			"Measure": func() error { _, err := Measure(ctx, dir, limit, time.Time{}, 1<<30); return err },
			"Verify":  func() error { _, err := Verify(ctx, dir, limit, nil); return err },
		} {
			if err := read(); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("%s in the place of a segment: %s says %v", name, what, err)
			}
		}
		for what, look := range map[string]func() error{
			"Segments": func() error { _, err := Segments(dir); return err },
			"Back":     func() error { _, err := Back(dir, limit, 100); return err },
		} {
			if err := look(); (err != nil) != c.listing {
				t.Errorf("%s in the place of a segment: %s says %v", name, what, err)
			}
		}
	}
}

// A claim whose number others took meanwhile moves behind them, and one that was
// taken for left over is made again.
func TestClaimMovesBehindOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	opt := Options{Dir: dir, SegmentBytes: 1 << 20, MaxBytes: 1 << 30, MinFree: 1}
	add := func(w *Writer, n int) {
		t.Helper()
		add(t, w, n, n+1)
	}
	claimed, err := Claim(opt)
	if err != nil {
		t.Fatal(err)
	}
	other := openTest(t, dir, nil)
	add(other, 0)
	closeTest(t, other)
	if err := claimed.Own(); err != nil {
		t.Fatal(err)
	}
	if claimed.First() <= other.First() || claimed.Generation() <= other.Generation() {
		t.Errorf("segment %d of generation %d behind %d of %d", claimed.First(), claimed.Generation(), other.First(), other.Generation())
	}
	add(claimed, 1)
	closeTest(t, claimed)
	if err := claimed.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
	got, _ := everything(t, dir)
	expectRange(t, got, 0, 2)
	unused, err := Claim(opt)
	if err != nil {
		t.Fatal(err)
	}
	closeTest(t, unused)
	// What cannot be taken over or removed is an error.
	for _, op := range []string{"create", "remove"} {
		armed := false
		bad := opt
		bad.disk = faulty{fault: func(at string) error {
			if armed && at == op {
				return syscall.EIO
			}
			return nil
		}}
		claimed, err := Claim(bad)
		if err != nil {
			t.Fatal(err)
		}
		other := openTest(t, dir, nil)
		add(other, 2)
		closeTest(t, other)
		armed = true
		if err := claimed.Own(); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s fails: %v", op, err)
		}
	}
}

func TestDirectoryMustBeOurs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	list := map[string]string{"a file": file, "below a file": filepath.Join(file, "x"), "a symbolic link": link}
	if os.Geteuid() == 0 {
		theirs := filepath.Join(dir, "theirs")
		if err := errors.Join(os.Mkdir(theirs, 0o700), os.Chown(theirs, 4711, 4711)); err != nil {
			t.Fatal(err)
		}
		list["somebody else's"] = theirs
	}
	for name, dir := range list {
		if w, err := Open(Options{Dir: dir}); !errors.Is(err, ErrNotWritable) {
			t.Errorf("%s: %v, %v", name, w, err)
		}
	}
}

// Segments of long ago were written back by the kernel: a start does not sync
// them one by one.
func TestOldSegmentsAreNotSynced(t *testing.T) {
	t.Parallel()
	for age, want := range map[time.Duration]bool{0: true, 2 * time.Hour: false} {
		dir := t.TempDir()
		w := openTest(t, dir, nil)
		add(t, w, 0, 3)
		closeTest(t, w)
		then := time.Now().Add(-age)
		if err := os.Chtimes(segmentPath(dir, 1), then, then); err != nil {
			t.Fatal(err)
		}
		synced := false
		d := &watching{seen: func(f *os.File) { synced = synced || f.Name() == segmentPath(dir, 1) }}
		closeTest(t, openTest(t, dir, func(o *Options) { o.disk = d }))
		if synced != want {
			t.Errorf("a segment of %v ago: synced %v", age, synced)
		}
	}
}

type watching struct {
	files
	seen func(f *os.File)
}

func (d *watching) syncData(f *os.File) error {
	d.seen(f)
	return d.files.syncData(f)
}

// A record that lies about what is in it, with a checksum that is right.
func TestLyingRecords(t *testing.T) {
	t.Parallel()
	whole := appendRecord(nil, record(1))
	sealed := func(change func(b []byte)) []byte {
		b := bytes.Clone(whole)
		change(b)
		le.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":           {nil, errTorn},
		"half a head":       {whole[:recordHead-1], errTorn},
		"half a record":     {whole[:len(whole)-1], errTorn},
		"no record":         {sealed(func(b []byte) { b[0] ^= 1 }), errMagic},
		"too small":         {sealed(func(b []byte) { le.PutUint32(b[8:], recordFixed-1) }), errSize},
		"too large":         {sealed(func(b []byte) { le.PutUint32(b[8:], maxRecordSize+1) }), errSize},
		"a flipped bit":     {append(bytes.Clone(whole[:len(whole)-1]), whole[len(whole)-1]^1), errChecksum},
		"more input than b": {sealed(func(b []byte) { le.PutUint32(b[recordHead+48:], 1000) }), errSize},
		"a long model":      {sealed(func(b []byte) { b[recordHead+45] = 200 }), errSize},
		"all of it":         {whole, nil},
	} {
		var rec storage.Record
		if _, err := parseRecord(c.b, &rec, map[string]string{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// The metrics of the log, full and not, and of a directory that is gone.
func TestMetrics(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "log")
	reg := prometheus.NewRegistry()
	w := openTest(t, dir, func(o *Options) { o.Registerer = reg })
	add(t, w, 0, 5)
	values := func() map[string]float64 {
		t.Helper()
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		list := map[string]float64{}
		for _, f := range families {
			m := f.GetMetric()[0]
			list[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
		return list
	}
	if v := values(); v["gt06_spool_records_total"] != 5 || v["gt06_spool_full"] != 0 || v["gt06_disk_bytes"] <= v["gt06_disk_free_bytes"] || v["gt06_spool_max_bytes"] != 1<<30 {
		t.Errorf("%v", v)
	}
	w.setFull(fmt.Errorf("%w: for the test", ErrFull))
	if v := values(); v["gt06_spool_full"] != 1 {
		t.Errorf("full: %v", v)
	}
	if _, err := w.Append([]*storage.Record{record(6)}); !errors.Is(err, ErrFull) {
		t.Errorf("Append: %v", err)
	}
	w.makeRoom() // there is room
	add(t, w, 6, 7)
	closeTest(t, w)
	if _, err := Open(Options{Dir: dir, Registerer: reg}); err == nil {
		t.Error("the metrics are there twice")
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	w.makeRoom() // says so
	if v := values(); !math.IsNaN(v["gt06_disk_bytes"]) {
		t.Errorf("no directory: %v", v)
	}
}

// Where a reader ends when its limit lies behind what is there: at the end of
// the records, of a torn one, and in front of a segment that is gone.
func TestLimitsBehindTheEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openTest(t, dir, nil)
	end := add(t, w, 0, 3)
	if err := w.Sync(end, 0); err != nil {
		t.Errorf("what is durable needs no time: %v", err)
	}
	closeTest(t, w)
	read := func(limit storage.Position) (n int) {
		t.Helper()
		r := NewReader(dir, 0)
		defer r.Close() //nolint:errcheck // read only
		var rec storage.Record
		for {
			if _, err := r.Next(limit, &rec); errors.Is(err, io.EOF) {
				return n
			} else if err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	behind := storage.At(end.Segment(), 1<<30)
	if n := read(behind); n != 3 {
		t.Errorf("%d records before a limit in the zeros", n)
	}
	if err := os.Truncate(segmentPath(dir, end.Segment()), int64(end.Offset())-1); err != nil {
		t.Fatal(err)
	}
	if n := read(behind); n != 2 {
		t.Errorf("%d records before a limit behind a torn one", n)
	}
	for range 2 {
		w = openTest(t, dir, nil)
		end = add(t, w, 3, 4)
		closeTest(t, w)
	}
	if err := os.Remove(segmentPath(dir, end.Segment()-1)); err != nil {
		t.Fatal(err)
	}
	if n := read(storage.At(end.Segment()-1, 1<<20)); n != 2 {
		t.Errorf("%d records before a limit in a segment that is gone", n)
	}
	for from, want := range map[storage.Position]int64{0: record(0).ReceivedAt, end: 0} {
		if at, err := Oldest(dir, from, end); at != want || err != nil {
			t.Errorf("the oldest from %d: %d, %v", from, at, err)
		}
	}
}

// A segment that begins with a hole looks unused and is not: a next owner keeps
// it.
func TestSegmentThatBeginsWithAHoleStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := openTest(t, dir, nil)
	add(t, w, 0, 5)
	closeTest(t, w)
	f, err := os.OpenFile(segmentPath(dir, 1), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, recordHead), headerSize); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	closeTest(t, openTest(t, dir, nil))
	got, _ := everything(t, dir)
	expectRange(t, got, 1, 5)
}

// What may go wrong around the records: none of it loses one.
func TestEdgesOfAnOwner(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var op string
	var left atomic.Int64
	d := faulty{fault: func(at string) error {
		if at == op && left.Add(-1) >= 0 {
			return syscall.ENOSPC
		}
		return nil
	}}
	opt := Options{Dir: dir, SegmentBytes: 16 << 20, MaxBytes: 1 << 30, MinFree: 1, Logger: zap.NewNop(), disk: d}

	// Two want the same number: the second takes the next.
	if err := os.WriteFile(segmentPath(dir, 1), segmentHeader{generation: 1, number: 1}.bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := create(dir, segmentHeader{generation: 2, number: 1}, 0, files{})
	if err != nil || s.number != 2 {
		t.Errorf("%+v, %v", s, err)
	}
	_ = s.f.Close()

	// No room is reserved ahead: records extend the file.
	op = "allocate"
	left.Store(math.MaxInt64)
	w, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	add(t, w, 0, 3)
	w.writeAhead()
	add(t, w, 3, 6)
	// A release that is older than the last one changes nothing.
	w.Release(w.End())
	w.Release(1)
	if storage.Position(w.released.Load()) != w.End() {
		t.Errorf("released %d", w.released.Load())
	}
	w.setFull(ErrFull)
	w.setFull(ErrFull)
	w.makeRoom()
	add(t, w, 6, 7)
	closeTest(t, w)
	got, _ := everything(t, dir)
	expectRange(t, got, 0, 7)

	// Somebody puts something into the directory between claim and ownership.
	claimed, err := Claim(opt)
	if err != nil {
		t.Fatal(err)
	}
	link := segmentPath(dir, 4711)
	if err := os.Symlink("/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	if err := claimed.Own(); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("Own: %v", err)
	}
	if err := errors.Join(os.Remove(link), os.Mkdir(segmentPath(dir, 0), 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := Claim(opt); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("Claim: %v", err)
	}
	if err := os.Remove(segmentPath(dir, 0)); err != nil {
		t.Fatal(err)
	}

	// More must be left to others than there is.
	greedy := opt
	greedy.MinFree = math.MaxInt64 / 2
	w, err = Open(greedy)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Append([]*storage.Record{record(9)}); !errors.Is(err, ErrFull) {
		t.Errorf("Append: %v", err)
	}
	closeTest(t, w)

	if err := (files{}).syncDir(filepath.Join(dir, "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// A sync fails, and what was not durable cannot be written elsewhere: nothing
// is called durable that is not.
func TestFailedSyncAndNoRoomElsewhere(t *testing.T) {
	t.Parallel()
	var failed atomic.Bool
	w := openTest(t, t.TempDir(), func(o *Options) {
		o.disk = faulty{fault: func(op string) error {
			switch {
			case op == "sync":
				failed.Store(true)
				return syscall.EIO
			case op == "write" && failed.Load():
				return syscall.ENOSPC
			}
			return nil
		}}
	})
	pos, err := w.Append([]*storage.Record{record(0)})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Sync(pos, time.Minute); !errors.Is(err, ErrBroken) || !errors.Is(err, syscall.EIO) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Sync: %v", err)
	}
	if w.Durable() >= pos {
		t.Error("it is called durable")
	}
	if err := w.Close(); !errors.Is(err, ErrBroken) {
		t.Errorf("Close: %v", err)
	}
}
