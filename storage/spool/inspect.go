package spool

import (
	"context"
	"errors"
	"io"
	"time"

	"gt06/storage"
)

// Segment is a file of the log.
type Segment struct {
	Number     uint32
	Generation uint64 // 0: its header is damaged
	Bytes      int64  // of the file, zeros ahead of use included
	Valid      int64  // what lies behind was written again elsewhere after a failed sync
	Written    time.Time
}

// Segments returns the segments of a log, which nobody needs to own, in their
// order.
func Segments(dir string) ([]Segment, error) {
	infos, err := list(dir, 0)
	if err != nil {
		return nil, err
	}
	segments := make([]Segment, len(infos))
	for i := range infos {
		s := &infos[i]
		segments[i] = Segment{Number: s.number, Generation: s.generation, Bytes: s.size, Valid: limitOf(infos, i), Written: time.Unix(s.mod, 0).UTC()}
	}
	return segments, nil
}

// End returns a position behind every record of segments.
func End(segments []Segment) storage.Position {
	if len(segments) == 0 {
		return 0
	}
	return storage.At(segments[len(segments)-1].Number+1, 0)
}

// Recent is how fast the log grows.
type Recent struct {
	Records, Bytes int64
	First, Last    time.Time // receipt of the oldest and the newest of them
}

// Measure counts the records of the last bytes of the log before end, those
// that were received since a time.
func Measure(ctx context.Context, dir string, end storage.Position, since time.Time, bytes int64) (m Recent, err error) {
	from, err := Back(dir, end, bytes)
	if err != nil {
		return m, err
	}
	r := NewReader(dir, from)
	defer func() { err = errors.Join(err, r.Close()) }()
	var rec storage.Record
	for ctx.Err() == nil {
		pos, err := r.Next(end, &rec)
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if err != nil {
			return m, err
		}
		at := time.UnixMicro(rec.ReceivedAt).UTC()
		if at.Before(since) {
			from = pos
			continue
		}
		if m.Records++; m.First.IsZero() {
			m.First = at
		}
		m.Last = at
		if pos.Segment() == from.Segment() {
			m.Bytes += int64(pos - from)
		} else {
			m.Bytes += int64(pos.Offset()) - headerSize
		}
		from = pos
	}
	return m, ctx.Err()
}

// Report is what Verify found in a log.
type Report struct {
	Records     int64              `json:"records"`
	Bytes       int64              `json:"bytes"` // taken from devices
	Connections int                `json:"connections"`
	First       time.Time          `json:"first"`         // receipt of the oldest record
	Last        time.Time          `json:"last"`          // and of the newest
	Damaged     int                `json:"damaged"`       // places
	Skipped     int64              `json:"skipped_bytes"` // of the log, passed over as damaged
	Gaps        int                `json:"gaps"`          // places where bytes of a connection are missing
	Missing     int64              `json:"missing_bytes"` // so many
	Places      []*CorruptionError `json:"-"`             // the first of the damages
}

// Whole says whether nothing is damaged or missing.
func (r *Report) Whole() bool { return r.Damaged == 0 && r.Gaps == 0 }

// Verify reads every record before limit: it proves its checksum, and the bytes
// of a connection must follow each other without a hole. What was before the
// first record of a connection is not asked: older segments are dropped.
// progress hears of it now and then; nil: nobody.
func Verify(ctx context.Context, dir string, limit storage.Position, progress func(*Report)) (report *Report, err error) {
	const most = 20
	report = &Report{}
	r := NewReader(dir, 0)
	defer func() { err = errors.Join(err, r.Close()) }()
	r.Damaged = func(e *CorruptionError) {
		report.Damaged++
		report.Skipped += e.Skipped
		if len(report.Places) < most {
			report.Places = append(report.Places, e)
		}
	}
	ends := map[uint64]uint64{}
	var rec storage.Record
	for {
		if _, err := r.Next(limit, &rec); errors.Is(err, io.EOF) {
			report.Connections = len(ends)
			return report, nil
		} else if err != nil {
			return report, err
		}
		report.see(&rec, ends)
		if report.Records%4096 == 0 {
			if ctx.Err() != nil {
				return report, ctx.Err()
			}
			if progress != nil {
				progress(report)
			}
		}
	}
}

// see takes one record in. Half frames are there again in the record of the
// whole one, so only what begins behind the end before is a hole.
func (r *Report) see(rec *storage.Record, ends map[uint64]uint64) {
	r.Records++
	r.Bytes += int64(len(rec.Input))
	if at := time.UnixMicro(rec.ReceivedAt).UTC(); r.First.IsZero() || at.Before(r.First) {
		r.First = at
	}
	if at := time.UnixMicro(rec.ReceivedAt).UTC(); at.After(r.Last) {
		r.Last = at
	}
	begin := rec.InputEnd - uint64(len(rec.Input))
	if end, known := ends[rec.Conn]; known && begin > end {
		r.Gaps++
		r.Missing += int64(begin - end)
	}
	ends[rec.Conn] = max(ends[rec.Conn], rec.InputEnd)
}
