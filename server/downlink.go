package server

import (
	"context"
	"errors"
	"sync/atomic"

	"gt06/protocol"
)

// Errors of Send.
var (
	// ErrOffline: the device has no connection, or lost it meanwhile.
	ErrOffline = errors.New("gt06/server: the device is not connected")
	// ErrEnding: this server ends; ask the next one.
	ErrEnding = errors.New("gt06/server: the server is ending")
)

// downlink is bytes for a device that it did not ask for.
type downlink struct {
	s        *Session
	id       uint64 // of s: the descriptor may be somebody else's by now
	bytes    []byte
	by       string // who asked for it
	canceled atomic.Bool
	done     chan error
}

// Send hands bytes to the current connection of a device; by says who asked for
// them, and stands in the record. It returns nil once they are recorded, durable
// and given to the kernel: they arrive exactly once unless the connection breaks.
func (s *Server) Send(ctx context.Context, imei protocol.IMEI, b []byte, by string) error {
	to := s.registry.current(imei)
	if to == nil {
		return ErrOffline
	}
	d := &downlink{s: to, id: to.id, bytes: b, by: by, done: make(chan error, 1)}
	if !to.home.ask(d) {
		return ErrEnding
	}
	select {
	case err := <-d.done:
		return err
	case <-ctx.Done():
		d.canceled.Store(true)
		return ctx.Err()
	}
}

// ask hands a downlink to the loop, from any goroutine.
func (l *loop) ask(d *downlink) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.quit {
		return false
	}
	l.asked = append(l.asked, d)
	l.wake()
	return true
}

// deliver puts a downlink into the next batch of its session.
func (l *loop) deliver(d *downlink) {
	if d.s.fd < 0 || d.s.id != d.id {
		d.done <- ErrOffline
		return
	}
	l.down[d.s] = append(l.down[d.s], d)
	l.queue(d.s)
}

// command adds the downlinks of a session to the batch: records without input.
func (l *loop) command(s *Session) {
	w := &l.work
	for _, d := range l.down[s] {
		if d.canceled.Load() {
			continue
		}
		w.answers = append(w.answers, d.bytes...)
		l.record(s, nil, len(s.held()), 0, len(d.bytes))
		w.records[len(w.records)-1].Model = d.by
		protocol.EachFrame(d.bytes, func(frame []byte) { w.tally.frame(protocol.TypeOf(frame), 0, 1) })
		s.batch.commands++
	}
}

// commanded tells those who asked that their bytes left.
func (l *loop) commanded() {
	if len(l.down) == 0 {
		return
	}
	for _, s := range l.ready {
		if s.batch.commands == 0 {
			continue
		}
		for _, d := range l.down[s] {
			d.done <- nil
		}
		delete(l.down, s)
	}
}

// abandon tells those who asked that the connection is gone, or the server.
func (l *loop) abandon(s *Session, err error) {
	for _, d := range l.down[s] {
		d.done <- err
	}
	delete(l.down, s)
}
