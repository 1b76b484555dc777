// Package sinktest gives tests of sinks a log in memory.
package sinktest

import (
	"io"
	"sync"

	"gt06/storage"
	"gt06/storage/sink"
)

// Log is a log in memory, of one segment; positions count records.
type Log struct {
	mu      sync.Mutex
	records []storage.Record
	notify  chan struct{}
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

// Begin implements sink.Log.
func (l *Log) Begin() storage.Position { return 0 }

// Durable implements sink.Log.
func (l *Log) Durable() storage.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return storage.Position(len(l.records))
}

// Notify implements sink.Log.
func (l *Log) Notify() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.notify
}

// Read implements sink.Log.
func (l *Log) Read(from storage.Position) sink.Reader { return &reader{l, from} }

type reader struct {
	l   *Log
	pos storage.Position
}

// Next implements sink.Reader.
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

// Close implements sink.Reader.
func (r *reader) Close() error { return nil }
