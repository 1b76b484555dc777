package server

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"gt06/protocol"
)

// nowhere is an Appender that keeps nothing.
type nowhere struct{ pos uint64 }

func (n *nowhere) Append(recs []*Record) (uint64, error) {
	n.pos += uint64(len(recs))
	return n.pos, nil
}
func (n *nowhere) Sync(uint64, time.Duration) error { return nil }
func (n *nowhere) Room() error                      { return nil }
func (n *nowhere) End() uint64                      { return n.pos }

// byHand makes a server of one loop that writes nowhere, and returns what turns
// the loop once.
func byHand(t *testing.T, limits Limits) (s *Server, addr string, turn func()) {
	t.Helper()
	s, err := New(Config{
		Loops: 1, NewAppender: func() Appender { return &nowhere{} }, Directory: everybody{},
		Decoder: &protocol.Decoder{}, Limits: limits, Logger: zap.NewNop(), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	l := s.loops[0]
	t.Cleanup(l.close)
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	if err := l.listen(ln); err != nil {
		t.Fatal(err)
	}
	events := make([]unix.EpollEvent, 64)
	return s, ln.Addr().String(), func() {
		n, err := unix.EpollWait(l.ep, events, l.patience())
		if err != nil && n < 0 {
			return
		}
		l.now = s.clock()
		l.collect(events[:n])
		l.batch()
	}
}

// TestNoAllocationPerFrame drives one loop by hand: events, batch, answers.
func TestNoAllocationPerFrame(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s, addr, turn := byHand(t, Limits{Frames: -1})
	c := dial(t, addr)
	write(t, c, unhex(t, loginHex))
	eventually(t, "the login is served", func() bool { turn(); return s.count.in[1].Load() == 1 })
	expect(t, c, answerTo(t, 0x01, 1))

	const frames = 64
	burst := bytes.Repeat(append(unhex(t, locationHex), unhex(t, beatHex)...), frames/2)
	answers := make([]byte, 10*frames)
	allocs := testing.AllocsPerRun(200, func() {
		_, _ = c.Write(burst)
		turn()
		_, _ = io.ReadFull(c, answers)
	})
	if allocs >= 1 {
		t.Errorf("%.2f allocations in a batch of %d frames, want none", allocs, frames)
	}
}
