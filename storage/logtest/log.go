// Package logtest gives tests of what reads the log one in memory.
package logtest

import (
	"io"
	"sync"

	"gt06/storage"
)

// Log is a log in memory, of one segment; positions count records.
type Log struct {
	mu       sync.Mutex
	records  []storage.Record
	notify   chan struct{}
	released storage.Position
}

// NewLog returns an empty log.
func NewLog() *Log { return &Log{notify: make(chan struct{})} }

// Add appends records.
func (l *Log) Add(recs ...storage.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, recs...)
	close(l.notify)
	l.notify = make(chan struct{})
}

// Begin is where the oldest record lies.
func (l *Log) Begin() storage.Position { return 0 }

// Durable returns the position before which records may be read.
func (l *Log) Durable() storage.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return storage.Position(len(l.records))
}

// Notify returns a channel that is closed when Durable moves.
func (l *Log) Notify() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.notify
}

// Release says that records before a position are not needed any more.
func (l *Log) Release(p storage.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.released = max(l.released, p)
}

// Released is up to where the log may have dropped its records.
func (l *Log) Released() storage.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.released
}

// Read returns a reader from a position.
func (l *Log) Read(from storage.Position) storage.Reader { return &reader{l, from} }

type reader struct {
	l   *Log
	pos storage.Position
}

// Next implements storage.Reader.
func (r *reader) Next(limit storage.Position, rec *storage.Record) (storage.Position, error) {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	if r.pos >= limit {
		return r.pos, io.EOF
	}
	*rec = r.l.records[r.pos]
	r.pos++
	return r.pos, nil
}

// Close implements storage.Reader.
func (r *reader) Close() error { return nil }
