package sink

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"gt06/storage"
)

// lag counts the records between a sink's position and the end of the log by
// reading ahead of it. While the sink keeps up there is nothing to read.
//
// What it has counted and the sink never saw has gone from the log meanwhile: so
// what is missed is known exactly, segment by segment.
//
// mu guards all below it.
type lag struct {
	log     Log
	mu      sync.Mutex
	pos     storage.Position // counted up to here
	reader  Reader           // nil: begin at pos
	counted map[uint32]int64 // records between the sink and pos, by segment
	here    uint32           // segment the sink reads
	missed  int64            // not told yet
}

func newLag(log Log, from storage.Position) *lag {
	return &lag{log: log, pos: from, counted: map[uint32]int64{}, here: from.Segment()}
}

// run counts once a second until the context ends.
func (l *lag) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	defer l.rest()
	for {
		l.gone(l.log.Begin().Segment(), false)
		limit := l.log.Durable()
		for more := true; more && ctx.Err() == nil; {
			more, _ = l.look(limit, 1000) // what fails is tried again in a second
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look counts up to limit, most records at a time: who sends wants the lock,
// too. more: it is not there yet.
func (l *lag) look(limit storage.Position, most int) (more bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pos >= limit {
		return false, nil
	}
	if l.reader == nil {
		l.reader = l.log.Read(l.pos)
	}
	var rec storage.Record
	for range most {
		end, err := l.reader.Next(limit, &rec)
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			l.close()
			return false, err
		}
		l.pos = end
		l.counted[end.Segment()]++
	}
	return true, nil
}

// read tells that the sink has read a record that ends at pos.
func (l *lag) read(pos storage.Position) {
	l.gone(pos.Segment(), true)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.here = pos.Segment()
	if pos > l.pos { // the sink is ahead: nothing is between
		l.close()
		l.pos = pos
		clear(l.counted)
		return
	}
	if l.counted[l.here]--; l.counted[l.here] == 0 {
		delete(l.counted, l.here)
	}
}

// gone tells that the sink will see nothing of the segments before one. The one
// it reads it may hold open, unless it has left it.
func (l *lag) gone(before uint32, left bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for segment, n := range l.counted {
		if segment < before && (left || segment != l.here) {
			l.missed += n
			delete(l.counted, segment)
		}
	}
}

// miss tells of a record that the sink had read and could not send.
func (l *lag) miss() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.missed++
}

// take returns what was missed since it was asked last.
func (l *lag) take() (missed int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	missed, l.missed = l.missed, 0
	return missed
}

// total returns how many records wait.
func (l *lag) total() (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.counted {
		n += c
	}
	return n
}

// restart begins at a position that the sink has gone back to.
func (l *lag) restart(pos storage.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.close()
	l.pos = pos
	clear(l.counted)
}

// rest frees the file.
func (l *lag) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.close()
}

func (l *lag) close() {
	if l.reader != nil {
		_ = l.reader.Close()
		l.reader = nil
	}
}
