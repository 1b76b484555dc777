package spool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"gt06/storage"
)

// Reader yields the records of a log in their order. It belongs to one
// goroutine and may read while a Writer writes.
type Reader struct {
	// Damaged is told of each damage it passes over; nil: only counted.
	Damaged func(*CorruptionError)

	dir     string
	pos     storage.Position // of the next record
	f       *os.File
	number  uint32 // of f
	valid   int64  // how far f is valid
	buf     []byte // bytes of f from bufAt
	bufAt   int64
	window  int
	models  map[string]string
	skipped int64
}

// window is how much a reader takes from the file at a time, and first how much
// of a segment it takes first: who looks at the end of a log finds little.
const (
	window = 1 << 20
	first  = 64 << 10
)

// NewReader begins at a position that a Writer or Reader returned, or at 0 for
// the oldest record. The segment of the position may be gone: then it begins
// with the next.
func NewReader(dir string, from storage.Position) *Reader {
	return &Reader{dir: dir, pos: from, models: map[string]string{}}
}

// Close frees the file.
func (r *Reader) Close() error {
	if r.f == nil {
		return nil
	}
	err := r.f.Close()
	r.f = nil
	return err
}

// Position returns where the next record is expected.
func (r *Reader) Position() storage.Position { return r.pos }

// Skipped returns how many bytes were passed over as damaged.
func (r *Reader) Skipped() int64 { return r.skipped }

// Next decodes the next record before limit into rec and returns the position
// behind it. The slices of rec are valid until the next call. io.EOF: there is
// none before limit.
func (r *Reader) Next(limit storage.Position, rec *storage.Record) (storage.Position, error) {
	for r.pos < limit {
		if r.f == nil {
			if err := r.enter(limit); err != nil {
				return r.pos, err
			}
		}
		if r.valid == math.MaxInt64 && r.number != limit.Segment() {
			if err := r.settle(); err != nil {
				return r.pos, err
			}
		}
		end := r.valid
		if r.number == limit.Segment() {
			end = min(end, int64(limit.Offset()))
		}
		at := int64(r.pos.Offset())
		b, err := r.bytes(at, recordHead, end)
		if err != nil {
			return r.pos, err
		}
		if len(b) < recordHead || allZero(b[:recordHead]) {
			if r.damagedTail(at, end, b) {
				continue
			}
			if r.number == limit.Segment() {
				return r.pos, io.EOF
			}
			r.leave()
			continue
		}
		size, err := recordSize(b)
		if err == nil {
			if b, err = r.bytes(at, size, end); err != nil {
				return r.pos, err
			}
			size, err = parseRecord(b, rec, r.models)
		}
		if err != nil {
			r.resync(at, end, err)
			continue
		}
		r.pos = storage.At(r.number, uint32(at)+uint32(size))
		return r.pos, nil
	}
	return r.pos, io.EOF
}

// enter opens the segment of the position, or the next there is.
func (r *Reader) enter(limit storage.Position) error {
	segments, err := list(r.dir, r.pos.Segment())
	if err != nil {
		return err
	}
	for i := range segments {
		s := &segments[i]
		if s.number < r.pos.Segment() || s.number > limit.Segment() {
			continue
		}
		if s.number > r.pos.Segment() || r.pos.Offset() < headerSize {
			r.pos = storage.At(s.number, headerSize)
		}
		f, err := open(s.path, os.O_RDONLY)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		r.f, r.number, r.valid = f, s.number, limitOf(segments, i)
		if s.number == limit.Segment() {
			r.valid = math.MaxInt64 // it grows; the limit ends it
		}
		r.buf, r.bufAt, r.window = r.buf[:0], 0, first
		return nil
	}
	r.pos = limit
	return io.EOF
}

// settle finds out how far a segment is valid that was written when the reader
// came and is not any more: when a sync failed, a part is written again.
func (r *Reader) settle() error {
	segments, err := list(r.dir, r.number)
	if err != nil {
		return err
	}
	r.valid = r.size() // of one that was dropped meanwhile
	for i := range segments {
		if segments[i].number == r.number {
			r.valid = limitOf(segments, i)
		}
	}
	return nil
}

func (r *Reader) leave() {
	_ = r.f.Close()
	r.f = nil
	r.pos = storage.At(r.number+1, 0)
}

// bytes returns at least n bytes of the segment from at, fewer at its end.
func (r *Reader) bytes(at int64, n int, end int64) ([]byte, error) {
	if off := at - r.bufAt; off >= 0 && off+int64(n) <= int64(len(r.buf)) {
		return r.buf[off:min(int64(len(r.buf)), max(off, end-r.bufAt))], nil
	}
	want := max(n, r.window)
	r.window = min(2*max(want, first), window)
	if cap(r.buf) < want {
		r.buf = make([]byte, want)
	}
	r.buf = r.buf[:min(int64(want), max(0, end-at))]
	got, err := r.f.ReadAt(r.buf, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	r.buf, r.bufAt = r.buf[:got], at
	return r.buf, nil
}

// damagedTail looks behind zeros that should be the end: a hole in the middle
// must not hide the records after it.
func (r *Reader) damagedTail(at, end int64, b []byte) bool {
	if len(b) < recordHead {
		return false
	}
	next := r.search(at, end)
	if next < 0 {
		return false
	}
	r.skip(at, next, errMagic)
	return true
}

// resync passes over damage to the next record that proves itself, or to the
// end of the segment.
func (r *Reader) resync(at, end int64, cause error) {
	next := r.search(at+1, end)
	if next < 0 {
		size := min(end, r.size())
		if errors.Is(cause, errTorn) && r.number != 0 {
			// A torn tail is what a kill leaves: nothing behind it was promised.
			r.pos = storage.At(r.number, uint32(min(size, math.MaxUint32)))
			if r.valid != math.MaxInt64 {
				r.leave()
			} else {
				r.skip(at, size, cause)
			}
			return
		}
		next = size
	}
	r.skip(at, next, cause)
}

func (r *Reader) size() int64 {
	st, err := r.f.Stat()
	if err != nil {
		return int64(r.pos.Offset())
	}
	return st.Size()
}

func (r *Reader) skip(at, next int64, cause error) {
	next = max(next, at+1)
	r.skipped += next - at
	if r.Damaged != nil {
		r.Damaged(&CorruptionError{Segment: r.number, Offset: uint32(at), Skipped: next - at, Err: cause})
	}
	r.pos = storage.At(r.number, uint32(next))
}

// search returns where from at on a record begins that is whole and right, or
// -1.
func (r *Reader) search(at, end int64) int64 {
	mark := le.AppendUint32(nil, recordMagic)
	var rec storage.Record
	for {
		if at = r.data(at); at < 0 || at >= end {
			return -1
		}
		b, err := r.bytes(at, first, end)
		if err != nil || len(b) < recordHead {
			return -1
		}
		i := bytes.Index(b, mark)
		if i < 0 {
			if len(b) < first {
				return -1
			}
			at += int64(len(b) - len(mark) + 1)
			continue
		}
		at += int64(i)
		if size, err := recordSize(b[i:]); err == nil {
			if b, err = r.bytes(at, size, end); err == nil {
				if _, err := parseRecord(b, &rec, r.models); err == nil {
					return at
				}
			}
		}
		at++
	}
}

// data returns where from at on the file has data: what is reserved and was
// never written need not be read. -1: there is none.
func (r *Reader) data(at int64) int64 {
	next, err := unix.Seek(int(r.f.Fd()), at, unix.SEEK_DATA)
	switch {
	case err == nil:
		return max(next, at)
	case errors.Is(err, unix.ENXIO):
		return -1
	}
	return at // a file system that does not say
}

func allZero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// Oldest returns when the first record between two positions was received, in
// Unix microseconds, 0: there is none.
func Oldest(dir string, from, to storage.Position) (at int64, err error) {
	r := NewReader(dir, from)
	defer func() { err = errors.Join(err, r.Close()) }()
	var rec storage.Record
	if _, err := r.Next(to, &rec); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return rec.ReceivedAt, nil
}

// Count returns how many records lie between two positions. It reads all of
// them.
func Count(ctx context.Context, dir string, from, to storage.Position) (n int64, err error) {
	r := NewReader(dir, from)
	defer func() { err = errors.Join(err, r.Close()) }()
	var rec storage.Record
	for {
		if _, err := r.Next(to, &rec); errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return n, err
		}
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return n, ctx.Err()
		}
	}
}

// Back returns a position about n bytes before pos for a Reader to begin at, or
// the oldest record's when there is not so much: who looks for the newest
// records reads the log in pieces from its end. The Reader finds the first
// whole record behind it.
func Back(dir string, pos storage.Position, n int64) (storage.Position, error) {
	segments, err := list(dir, 0)
	if err != nil {
		return 0, err
	}
	for i := len(segments) - 1; i >= 0; i-- {
		s := &segments[i]
		if s.number > pos.Segment() {
			continue
		}
		end := limitOf(segments, i)
		if s.number == pos.Segment() {
			end = min(end, int64(pos.Offset()))
		}
		if end-headerSize >= n {
			return storage.At(s.number, uint32(end-n)), nil
		}
		n -= max(0, end-headerSize)
	}
	return 0, nil
}
