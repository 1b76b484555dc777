package spool

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"gt06/storage"
)

// Options of a Writer. Zero values mean the defaults in brackets.
type Options struct {
	Dir          string
	SegmentBytes int64         // [64 MiB, or an eighth of MaxBytes when that is less]
	MaxBytes     int64         // of all segments [10 % of the file system, at most 4 GiB]
	MinFree      int64         // bytes left to others [the larger of 5 % and 2 GiB, at most 10 % of the file system]
	Retention    time.Duration // of what is in the database [7 days]
	Logger       *zap.Logger
	Registerer   prometheus.Registerer
	Now          func() time.Time

	disk disk // tests: one that fails
}

// Writer appends to the log and makes it durable. It may be used by many
// goroutines.
type Writer struct {
	opt    Options
	log    *zap.Logger
	first  uint32
	sealed uint32 // segments below were durable at Claim

	mu      sync.Mutex
	changed sync.Cond // durable, seg or err moved, or time passed
	seg     *segment
	end     int64  // of the records in seg
	buf     []byte // records being appended
	pending []byte // copies of the records of seg that are not durable
	err     error  // ErrBroken: for good
	closing bool
	owned   bool

	durable  atomic.Uint64 // storage.Position
	last     atomic.Uint64 // storage.Position behind the last record
	settled  atomic.Uint64
	released atomic.Uint64
	appended atomic.Uint64
	full     atomic.Pointer[error]
	bytes    atomic.Int64
	oldest   atomic.Int64  // Unix seconds of the oldest segment's last write
	front    atomic.Uint32 // number of the oldest segment
	free     atomic.Int64

	notifyMu sync.Mutex
	notify   chan struct{} // closed when durable moves

	metrics metrics
	stop    chan struct{}
	done    sync.WaitGroup
}

// opening is how many zeros a segment begins with, ahead how much is reserved
// before records, and step how much at a time. The zeros of an opening are
// written for good: they are in the way of who takes over, so they are few.
const (
	opening = 256 << 10
	ahead   = 1 << 20
	step    = 4 << 20
)

// Open is Claim and Own in one: for who is the owner already.
func Open(opt Options) (*Writer, error) {
	w, err := Claim(opt)
	if err != nil {
		return nil, err
	}
	w.sealed = 0 // nobody waits: tidy up, too
	if err := w.Own(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// Claim makes a new segment under the next generation, which costs a sync or
// two. It may be called before this process is the owner; nothing can be
// appended before Own.
func Claim(opt Options) (*Writer, error) {
	if err := opt.complete(); err != nil {
		return nil, err
	}
	w := &Writer{opt: opt, log: opt.Logger, notify: make(chan struct{}), stop: make(chan struct{})}
	w.changed.L = &w.mu
	if err := w.metrics.register(w, opt.Registerer); err != nil {
		return nil, err
	}
	segments, err := list(opt.Dir, 0)
	if err != nil {
		return nil, err
	}
	// What nobody writes to any more can be made durable now: it need not be
	// waited for when a server before this one lets go.
	for i := range max(0, len(segments)-1) {
		if err := settle(opt.disk, &segments[i], opt.Now().Unix()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		w.sealed = segments[i+1].number
	}
	if err := w.claim(segments); err != nil {
		return nil, err
	}
	w.front.Store(w.first)
	if len(segments) > 0 {
		w.front.Store(segments[0].number)
	}
	w.glance()
	return w, nil
}

// claim takes the number and the generation behind the highest there are.
func (w *Writer) claim(segments []segmentInfo) (err error) {
	next := segmentHeader{generation: 1, number: 1}
	for i := range segments {
		next.generation = max(next.generation, segments[i].generation+1)
		next.number = max(next.number, segments[i].number+1)
	}
	w.seg, err = create(w.opt.Dir, next, min(opening, w.opt.SegmentBytes), w.opt.disk)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNotWritable, w.opt.Dir, err)
	}
	w.end, w.first = headerSize, w.seg.number
	w.moved(storage.At(w.first, headerSize))
	w.last.Store(w.durable.Load())
	w.settled.Store(w.durable.Load())
	return nil
}

// Own begins to write, under the owner lock. Numbers that earlier owners took
// since Claim move the claim behind them. What they wrote is made durable: a
// kill may have left it in the page cache.
func (w *Writer) Own() error {
	segments, err := list(w.opt.Dir, w.sealed)
	if err != nil {
		return err
	}
	overtaken, found := false, false
	for i := range segments {
		s := &segments[i]
		if s.number == w.first {
			found = true
			continue
		}
		overtaken = overtaken || s.number > w.first || s.generation >= w.seg.generation
		if err := adopt(w.opt.disk, s, w.opt.Now().Unix()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	overtaken = overtaken || !found // an owner between took it for left over
	if overtaken {
		unused := w.seg
		if err := w.claim(segments); err != nil {
			return err
		}
		if err := w.opt.disk.remove(unused.f.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		_ = unused.f.Close()
	}
	w.owned = true
	w.done.Go(w.commit)
	w.done.Go(w.keep)
	return nil
}

// adopt makes a segment of an earlier owner durable, or deletes it when it was
// claimed and never used.
func adopt(d disk, s *segmentInfo, now int64) error {
	f, err := open(s.path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // synced below
	head := make([]byte, recordHead)
	if n, _ := f.ReadAt(head, headerSize); s.cut == 0 && (n == 0 || allZero(head[:n]) && s.size <= headerSize+ahead) {
		r := NewReader("", 0)
		r.f, r.number, r.valid = f, s.number, s.size
		if r.search(headerSize, s.size) < 0 {
			return d.remove(s.path)
		}
	}
	return settle(d, s, now)
}

// settle makes a segment durable. The kernel wrote those of long ago back.
func settle(d disk, s *segmentInfo, now int64) error {
	const recent = 3600
	if now-s.mod > recent {
		return nil
	}
	f, err := open(s.path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // synced below
	return d.syncData(f)
}

// complete fills the defaults in and checks the directory.
func (o *Options) complete() error {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.disk == nil {
		o.disk = files{}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("%w: %w", ErrNotWritable, err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(o.Dir, &st); err != nil {
		return fmt.Errorf("%w: %w", ErrNotWritable, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s must be a directory of user %d", ErrNotWritable, o.Dir, os.Geteuid())
	}
	total, _, err := space(o.Dir)
	if err != nil {
		return err
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = min(total/10, 4<<30)
	}
	if o.MinFree == 0 {
		o.MinFree = min(max(total/20, 2<<30), total/10)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = max(64<<10, min(64<<20, o.MaxBytes/8))
	}
	if o.Retention == 0 {
		o.Retention = 7 * 24 * time.Hour
	}
	return nil
}

// First returns the number of the first segment of this owner.
func (w *Writer) First() uint32 { return w.first }

// Generation returns the number of this owner: one more than of any before.
func (w *Writer) Generation() uint64 { return w.seg.generation }

// Append writes all records with one write(2) and returns the position behind
// the last. They are not durable yet. After an error none of them is in the
// log: ErrFull, or what the disk said.
func (w *Writer) Append(recs []*storage.Record) (storage.Position, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.Room(); err != nil {
		return 0, err
	}
	for {
		w.buf = w.buf[:0] // again after a rotation: it waits, and others append meanwhile
		for _, r := range recs {
			w.buf = appendRecord(w.buf, r)
		}
		if w.end == headerSize || w.end+int64(len(w.buf)) <= w.opt.SegmentBytes {
			break
		}
		if err := w.rotate(); err != nil {
			return 0, err
		}
	}
	if w.err != nil {
		return 0, w.err
	}
	if err := w.opt.disk.writeAt(w.seg.f, w.buf, w.end); err != nil {
		// Part of it may be there: it must not be read as records some day.
		if cut := w.opt.disk.truncate(w.seg.f, w.end); cut != nil {
			w.fail(fmt.Errorf("%w: write: %w; cut the torn write: %w", ErrBroken, err, cut))
			return 0, w.err
		}
		w.seg.written = min(w.seg.written, w.end)
		return 0, fmt.Errorf("append: %w", err)
	}
	w.pending = append(w.pending, w.buf...)
	w.end += int64(len(w.buf))
	w.seg.written = max(w.seg.written, w.end)
	w.appended.Add(uint64(len(recs)))
	pos := storage.At(w.seg.number, uint32(w.end))
	w.last.Store(uint64(pos))
	w.changed.Broadcast()
	return pos, nil
}

// rotate waits until the segment is durable and goes on in a new one.
func (w *Writer) rotate() error {
	number := w.seg.number
	for len(w.pending) > 0 && w.err == nil && w.seg.number == number {
		w.changed.Wait()
	}
	if w.err != nil || w.seg.number != number {
		return w.err // somebody else was here meanwhile
	}
	h := segmentHeader{generation: w.seg.generation, number: number + 1}
	next, err := create(w.opt.Dir, h, min(opening, w.opt.SegmentBytes), w.opt.disk)
	if err != nil {
		w.setFull(fmt.Errorf("%w: new segment: %w", ErrFull, err))
		return w.Room()
	}
	w.enter(next)
	return nil
}

func (w *Writer) enter(next *segment) {
	_ = w.seg.f.Close()
	w.seg, w.end = next, headerSize
	w.moved(storage.At(next.number, headerSize))
	w.last.Store(w.durable.Load())
}

// commit is the goroutine that syncs: one fdatasync for all that was appended
// before it begins, and at once when there is something.
func (w *Writer) commit() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.pending) == 0 && !w.closing || w.err != nil && !w.closing {
			w.changed.Wait()
		}
		if len(w.pending) == 0 || w.err != nil {
			return
		}
		seg, end, n := w.seg, w.end, len(w.pending)
		w.mu.Unlock()
		begin := time.Now()
		err := w.opt.disk.syncData(seg.f)
		w.metrics.sync.Observe(time.Since(begin).Seconds())
		w.mu.Lock()
		if err != nil {
			w.rewrite(end-int64(n), err)
			continue
		}
		w.pending = w.pending[:copy(w.pending, w.pending[n:])]
		w.moved(storage.At(seg.number, uint32(end)))
	}
}

// rewrite takes what is not durable to a new segment after a failed sync. The
// old one is valid up to cut and never synced again: it could lie.
func (w *Writer) rewrite(cut int64, cause error) {
	w.metrics.failedSyncs.Inc()
	w.log.Error("a sync failed: what was not durable is written again elsewhere", zap.Error(cause), zap.Uint32("segment", w.seg.number))
	h := segmentHeader{generation: w.seg.generation, number: w.seg.number + 1, cut: uint32(cut), cutOf: w.seg.number}
	next, err := create(w.opt.Dir, h, int64(len(w.pending)), w.opt.disk)
	if err == nil {
		if err = w.opt.disk.writeAt(next.f, w.pending, headerSize); err == nil {
			err = w.opt.disk.syncData(next.f)
		}
	}
	if err != nil {
		w.fail(fmt.Errorf("%w: sync: %w; again elsewhere: %w", ErrBroken, cause, err))
		return
	}
	size := int64(len(w.pending))
	w.pending = w.pending[:0]
	w.enter(next)
	w.end = headerSize + size
	end := storage.At(next.number, uint32(w.end))
	w.last.Store(uint64(end))
	w.moved(end)
}

func (w *Writer) fail(err error) {
	w.err = err
	w.log.Error("the log is broken: nothing is answered any more", zap.Error(err))
	w.changed.Broadcast()
}

// moved publishes a new durable position. mu is held.
func (w *Writer) moved(pos storage.Position) {
	w.durable.Store(uint64(pos))
	w.changed.Broadcast()
	w.notifyMu.Lock()
	close(w.notify)
	w.notify = make(chan struct{})
	w.notifyMu.Unlock()
}

// Sync returns nil once everything before pos is durable: ErrTimeout when that
// takes longer than within, ErrBroken when it will not happen.
func (w *Writer) Sync(pos storage.Position, within time.Duration) error {
	if w.Durable() >= pos {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	begin := time.Now()
	for w.Durable() < pos {
		if w.err != nil {
			return w.err
		}
		if time.Since(begin) > within {
			return fmt.Errorf("%w: %v", ErrTimeout, within)
		}
		w.changed.Wait() // keep broadcasts while time passes
	}
	return nil
}

// Durable returns the position before which everything survives a power
// failure. A reader must not go beyond it.
func (w *Writer) Durable() storage.Position { return storage.Position(w.durable.Load()) }

// End returns the position behind the last record.
func (w *Writer) End() storage.Position { return storage.Position(w.last.Load()) }

// Begin returns where the oldest segment begins, as of the last look at the
// room.
func (w *Writer) Begin() storage.Position { return storage.At(w.front.Load(), 0) }

// Notify returns a channel that is closed when Durable moves.
func (w *Writer) Notify() <-chan struct{} {
	w.notifyMu.Lock()
	defer w.notifyMu.Unlock()
	return w.notify
}

// SetSettled moves the settled mark: before it all input is released and every
// answer was taken (HANDOVER.md section 2).
func (w *Writer) SetSettled(pos storage.Position) { w.settled.Store(uint64(pos)) }

// Settled returns the settled mark.
func (w *Writer) Settled() storage.Position { return storage.Position(w.settled.Load()) }

// Stats are what `gt06ctl status` says of the log.
type Stats struct {
	Bytes    int64
	Waiting  int64     // of it, in segments that are not wholly in the database
	Most     int64     // MaxBytes
	Free     int64     // on the file system
	Left     int64     // MinFree
	Oldest   time.Time // zero: empty
	Appended uint64    // records, by this owner
}

// Stats returns figures of the log as of the last second.
func (w *Writer) Stats() Stats {
	s := Stats{
		Bytes: w.bytes.Load(), Waiting: w.metrics.unstored.Load(), Most: w.opt.MaxBytes, Free: w.free.Load(), Left: w.opt.MinFree, Appended: w.appended.Load(),
	}
	if t := w.oldest.Load(); t > 0 {
		s.Oldest = time.Unix(t, 0).UTC()
	}
	return s
}

// Close makes all durable and ends the Writer. A claim that never became
// owner is given back.
func (w *Writer) Close() error {
	w.mu.Lock()
	closed := w.closing
	w.closing = true
	w.changed.Broadcast()
	w.mu.Unlock()
	switch {
	case closed:
		return nil
	case !w.owned:
		return errors.Join(w.seg.f.Close(), w.opt.disk.remove(w.seg.f.Name()))
	}
	close(w.stop)
	w.done.Wait()
	return errors.Join(w.err, w.seg.f.Close())
}
