package spool

import (
	"fmt"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"gt06/storage"
)

// glanceEvery is how often room is looked at, and how long a waiter of Sync may
// oversleep.
const glanceEvery = 250 * time.Millisecond

// Room returns nil while there is room, else ErrFull with the reason.
func (w *Writer) Room() error {
	if err := w.full.Load(); err != nil {
		return *err
	}
	return nil
}

func (w *Writer) setFull(err error) {
	if w.full.Swap(&err) == nil {
		w.log.Error("no room in the log", zap.Error(err))
	}
}

// Limits returns how large the log may become, and how long it keeps what is
// stored.
func (w *Writer) Limits() (bytes int64, retention time.Duration) {
	return w.opt.MaxBytes, w.opt.Retention
}

// Release says that everything before pos is in the database. Segments wholly
// before it may go, the oldest first, when they are old or room is short.
func (w *Writer) Release(pos storage.Position) {
	if uint64(pos) > w.released.Load() {
		w.released.Store(uint64(pos))
	}
}

// keep is the goroutine that makes room, writes zeros ahead and wakes waiters
// so that they see time pass.
func (w *Writer) keep() {
	tick := time.NewTicker(glanceEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		w.makeRoom()
		w.writeAhead()
		w.changed.Broadcast()
	}
}

// writeAhead extends the segment when records come near the end of the zeros.
// A sync of the same file may run meanwhile; it only has more to do.
func (w *Writer) writeAhead() {
	w.mu.Lock()
	seg, to := w.seg, int64(0)
	if w.seg.written-w.end < ahead && w.seg.written < w.opt.SegmentBytes && w.err == nil && w.full.Load() == nil {
		to = min(w.seg.written+step, w.opt.SegmentBytes)
	}
	from := seg.written
	w.mu.Unlock()
	if to == 0 {
		return
	}
	// Records may overtake the zeros: those are written only where the file
	// does not reach yet.
	if err := w.opt.disk.allocate(seg.f, from, to); err != nil {
		return // records extend the file themselves
	}
	w.mu.Lock()
	if w.seg == seg {
		seg.written = max(seg.written, to)
	}
	w.mu.Unlock()
}

// makeRoom drops segments that may go and decides whether more may come.
func (w *Writer) makeRoom() {
	segments, err := list(w.opt.Dir, 0)
	if err != nil {
		w.log.Error("look at the log", zap.Error(err))
		return
	}
	_, free, err := space(w.opt.Dir)
	if err != nil {
		w.log.Error("look at the disk", zap.Error(err))
		return
	}
	total := sum(segments)
	released := storage.Position(w.released.Load())
	old := w.opt.Now().Add(-w.opt.Retention).Unix()
	for len(segments) > 1 {
		s := &segments[0]
		// Behind the last record of a segment comes the next segment.
		if storage.At(s.number+1, 0) > released || storage.At(s.number+1, 0) > w.Durable() {
			break
		}
		if s.mod > old && total <= w.opt.MaxBytes && free >= w.opt.MinFree {
			break
		}
		if err := w.opt.disk.remove(s.path); err != nil {
			w.log.Error("make room", zap.Error(err))
			break
		}
		w.metrics.dropped.Inc()
		total -= s.size
		free += s.size
		segments = segments[1:]
	}
	w.bytes.Store(total)
	stored := slices.IndexFunc(segments, func(s segmentInfo) bool { return storage.At(s.number+1, 0) > released })
	w.metrics.unstored.Store(sum(segments[max(0, stored):]))
	if len(segments) > 0 {
		w.oldest.Store(segments[0].mod)
		w.front.Store(segments[0].number)
	}
	w.judge(total, free)
}

func sum(segments []segmentInfo) (total int64) {
	for i := range segments {
		total += segments[i].size
	}
	return total
}

// glance judges the room without making any: who only claims is not the owner.
func (w *Writer) glance() {
	segments, err := list(w.opt.Dir, 0)
	_, free, err2 := space(w.opt.Dir)
	if err == nil && err2 == nil {
		w.bytes.Store(sum(segments))
		w.judge(sum(segments), free)
	}
}

// judge sets or clears "full", with a margin between the two, so that a server
// does not open and close with every segment.
func (w *Writer) judge(total, free int64) {
	w.free.Store(free)
	const margin = 20 // a twentieth
	switch {
	case free < w.opt.MinFree:
		w.setFull(fmt.Errorf("%w: %d MiB free on the disk, %d MiB are left to others (disk.min_free)", ErrFull, free>>20, w.opt.MinFree>>20))
	case total > w.opt.MaxBytes:
		w.setFull(fmt.Errorf("%w: the log has %d MiB that are not in the database yet, its limit is %d MiB (spool.max_bytes)", ErrFull, total>>20, w.opt.MaxBytes>>20))
	case w.full.Load() != nil && free >= w.opt.MinFree+w.opt.MinFree/margin && total <= w.opt.MaxBytes-w.opt.MaxBytes/margin:
		w.full.Store(nil)
		w.log.Info("room in the log again")
	}
}

// space returns the size of the file system and what is free of it.
func space(dir string) (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, os.NewSyscallError("statfs", err)
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}
