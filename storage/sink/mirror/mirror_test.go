package mirror_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gt06/protocol"
	"gt06/protocol/device"
	"gt06/storage"
	"gt06/storage/sink"
	"gt06/storage/sink/mirror"
)

// target is a server that does to frames what a test says.
type target struct {
	net.Listener
	mu    sync.Mutex
	got   map[protocol.IMEI][]string // "login", or the serial of a frame; "|" is a new connection
	conns []net.Conn
	wg    sync.WaitGroup
	// answer returns what is sent back, and whether the connection goes on.
	answer func(imei protocol.IMEI, m *protocol.Message, frame, right []byte) (reply []byte, goesOn bool)
}

func newTarget(t *testing.T, answer func(protocol.IMEI, *protocol.Message, []byte, []byte) ([]byte, bool)) *target {
	t.Helper()
	g := &target{got: map[protocol.IMEI][]string{}, answer: answer}
	g.listen(t, "127.0.0.1:0")
	t.Cleanup(g.stop)
	return g
}

func (g *target) listen(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	g.Listener = l
	g.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.mu.Lock()
			g.conns = append(g.conns, c)
			g.mu.Unlock()
			g.wg.Go(func() { g.serve(c) })
		}
	})
}

// stop ends it, and all its connections.
func (g *target) stop() {
	_ = g.Close()
	g.mu.Lock()
	for _, c := range g.conns {
		_ = c.Close()
	}
	g.conns = nil
	g.mu.Unlock()
	g.wg.Wait()
}

func (g *target) serve(c net.Conn) {
	defer c.Close() //nolint:errcheck // a test's own
	var imei protocol.IMEI
	var rest []byte
	b := make([]byte, 1024)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		rest = append(rest, b[:n]...)
		for {
			cut := protocol.Framer{}.Next(rest, true)
			if cut.Len == 0 {
				break
			}
			frame := append([]byte(nil), rest[cut.Skip:cut.Skip+cut.Len]...)
			rest = rest[cut.Skip+cut.Len:]
			var m protocol.Message
			new(protocol.Decoder).Decode(&m, frame, protocol.Session{IMEI: imei})
			g.mu.Lock()
			if m.Kind == protocol.KindLogin {
				imei = m.IMEI
				g.got[imei] = append(g.got[imei], "login")
			} else {
				g.got[imei] = append(g.got[imei], fmt.Sprint(m.Serial))
			}
			g.mu.Unlock()
			reply, goesOn := g.answer(imei, &m, frame, protocol.AppendAnswer(nil, &m, frame, time.Unix(0, 0)))
			if _, err := c.Write(reply); err != nil || !goesOn {
				return
			}
		}
	}
}

func (g *target) saw(dev int) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return fmt.Sprint(g.got[device.IMEI(dev)])
}

func right(_ protocol.IMEI, _ *protocol.Message, _, right []byte) ([]byte, bool) { return right, true }

func newMirror(t *testing.T, g *target, timeout time.Duration, connections int) *mirror.Mirror {
	t.Helper()
	m, err := mirror.New(mirror.Options{Name: "traccar", Address: g.Addr().String(), Timeout: timeout, Connections: connections, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// frame is what the log has of a frame that we answered as we do.
func frame(conn uint64, dev int, kind device.Kind, n int) storage.Record {
	r := storage.Record{Conn: conn, Device: device.IMEI(dev), UTCOffset: 19800, Input: device.Build(kind, dev, n, time.Unix(1790000000, 0)).Bytes}
	var m protocol.Message
	new(protocol.Decoder).Decode(&m, r.Input, protocol.Session{IMEI: r.Device})
	r.Answer = protocol.AppendAnswer(nil, &m, r.Input, time.Unix(1790000000, 0))
	return r
}

var batches atomic.Int64

func batch(recs ...storage.Record) *sink.Batch {
	b := &sink.Batch{Key: fmt.Sprint(batches.Add(1))}
	for i := range recs {
		b.Items = append(b.Items, sink.Item{Record: recs[i]})
	}
	return b
}

// counts are those that are not zero.
func counts(m *mirror.Mirror) string {
	all := m.Counts()
	for k, v := range all {
		if v == 0 {
			delete(all, k)
		}
	}
	return fmt.Sprint(all)
}

func send(t *testing.T, m *mirror.Mirror, recs ...storage.Record) {
	t.Helper()
	if err := m.Send(t.Context(), batch(recs...)); err != nil {
		t.Fatal(err)
	}
}

// patient is a time-out of those who answer, brief of those who may not: long
// enough for an answer on a machine that is busy.
const (
	patient = 60 * time.Second
	brief   = 2 * time.Second
)

// Frames go as they came, behind a login: the device's own, or one that says the
// same when it was before this process began.
func TestFramesBehindALogin(t *testing.T) {
	t.Parallel()
	g := newTarget(t, right)
	m := newMirror(t, g, patient, 0)
	send(t, m, frame(1, 1, device.Login, 0), frame(1, 1, device.Location, 1), frame(7, 2, device.Location, 5), frame(1, 1, device.Information, 2), frame(1, 1, device.TimeRequest, 3))
	send(t, m, frame(1, 1, device.Heartbeat, 4))
	send(t, m, frame(2, 1, device.Login, 5), frame(2, 1, device.Heartbeat, 6)) // the device has come again
	if one, two := g.saw(1), g.saw(2); one != "[login 2 3 4 5 login 7]" || two != "[login 6]" {
		t.Errorf("the target saw %s and %s", one, two)
	}
	if got := counts(m); got != "map[connections:2 same:7 silent:1]" {
		t.Errorf("counts %s", got)
	}
	junk := frame(2, 1, device.Heartbeat, 7)
	junk.Flags = storage.Junk
	nameless := frame(9, 3, device.Heartbeat, 1)
	nameless.Device = 0
	send(t, m, junk, nameless, storage.Record{Conn: 2, Device: device.IMEI(1), Answer: []byte("a command")})
	if got := counts(m); got != "map[connections:2 same:7 silent:1]" {
		t.Errorf("counts after what is no frame of a device: %s", got)
	}
}

// What the target answers otherwise is counted by how it differs.
func TestDifferences(t *testing.T) {
	t.Parallel()
	g := newTarget(t, func(_ protocol.IMEI, m *protocol.Message, _, right []byte) ([]byte, bool) {
		switch m.Kind {
		case protocol.KindLocation:
			return protocol.AppendFrame(nil, m.Type, []byte{1}, m.Serial), true
		case protocol.KindHeartbeat:
			return nil, true // never
		case protocol.KindAlarm:
			return nil, false // hangs up
		case protocol.KindInfo: // answers what we do not, and asks for something
			command, _ := protocol.AppendCommand(nil, 1, "WHERE#", false)
			return append(protocol.AppendFrame(nil, m.Type, nil, m.Serial), command...), true
		default:
			return right, true
		}
	})
	m := newMirror(t, g, brief, 0)
	send(t, m, frame(1, 1, device.Login, 0), frame(1, 1, device.Location, 1), frame(1, 1, device.Alarm, 2), frame(1, 1, device.Information, 3))
	send(t, m, frame(1, 1, device.Cells, 4)) // what came late is seen before it
	c := m.Counts()
	if c["same"] != 2 || c["different"] != 1 || c["hung_up"] != 1 || c["extra"] != 1 || c["unsolicited"] != 1 || c["missing"] != 0 {
		t.Errorf("counts %v", c)
	}
	// A kind that is never answered is not waited for for ever.
	for n := range 20 {
		send(t, m, frame(1, 1, device.Heartbeat, 10+n))
	}
	if c := m.Counts(); c["missing"] != 20 {
		t.Errorf("counts %v", c)
	}
	if got := g.saw(1); len(got) < 20 {
		t.Error(got)
	}
}

// A device that the target does not want holds nobody up.
func TestOneDeviceIsNotWanted(t *testing.T) {
	t.Parallel()
	for name, goesOn := range map[string]bool{"it is not answered": true, "it is hung up": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			unwanted := device.IMEI(3)
			g := newTarget(t, func(imei protocol.IMEI, _ *protocol.Message, _, right []byte) ([]byte, bool) {
				if imei == unwanted {
					return nil, goesOn
				}
				return right, true
			})
			m := newMirror(t, g, brief, 0)
			send(t, m, frame(1, 1, device.Login, 0))
			send(t, m, frame(3, 3, device.Login, 0), frame(1, 1, device.Heartbeat, 1), frame(3, 3, device.Heartbeat, 1))
			for n := range 5 {
				send(t, m, frame(1, 1, device.Heartbeat, 2+n), frame(3, 3, device.Heartbeat, 2+n))
			}
			if c := m.Counts(); c["same"] != 7 || c["undelivered"] != 7 {
				t.Errorf("counts %v", c)
			}
		})
	}
}

// A target that is away or hangs gets every frame when it is back, and what it
// has answered is not sent twice.
func TestTargetIsAway(t *testing.T) {
	t.Parallel()
	hangs := make(chan struct{})
	var mu sync.Mutex
	hung := false
	g := newTarget(t, func(_ protocol.IMEI, _ *protocol.Message, _, right []byte) ([]byte, bool) {
		mu.Lock()
		h := hung
		mu.Unlock()
		if h {
			<-hangs
		}
		return right, true
	})
	m := newMirror(t, g, brief, 0)
	send(t, m, frame(1, 1, device.Login, 0), frame(2, 2, device.Login, 0))
	addr := g.Addr().String()
	g.stop()
	b := batch(frame(1, 1, device.Heartbeat, 1), frame(2, 2, device.Heartbeat, 1))
	if err := m.Send(t.Context(), b); kindOf(err) != sink.KindConnect {
		t.Errorf("nobody listens: %v", err)
	}
	g.listen(t, addr)
	if err := m.Send(t.Context(), b); err != nil {
		t.Error(err)
	}
	mu.Lock()
	hung = true
	mu.Unlock()
	b = batch(frame(1, 1, device.Heartbeat, 2), frame(2, 2, device.Heartbeat, 2))
	if err := m.Send(t.Context(), b); kindOf(err) != sink.KindTimeout {
		t.Errorf("it hangs: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := m.Send(ctx, b); err == nil || time.Since(begin) > 30*time.Second {
		t.Errorf("a context that ends: %v after %v", err, time.Since(begin))
	}
	mu.Lock()
	hung = false
	mu.Unlock()
	close(hangs)
	if err := m.Send(t.Context(), b); err != nil {
		t.Error(err)
	}
	if c := m.Counts(); c["same"] != 6 || c["undelivered"]+c["missing"]+c["hung_up"] != 0 {
		t.Errorf("counts %v", c)
	}
}

// Connections are bounded; a device whose was closed logs in again.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	g := newTarget(t, right)
	m := newMirror(t, g, patient, 3)
	for n := range 4 {
		for dev := range 6 {
			send(t, m, frame(uint64(dev), dev, device.Heartbeat, n))
			if open := m.Counts()["connections"]; open > 3 {
				t.Fatalf("%d connections", open)
			}
		}
	}
	if c := m.Counts(); c["same"] != 24 {
		t.Errorf("counts %v", c)
	}
	if got := g.saw(5); got != "[login 1 login 2 login 3 login 4]" {
		t.Errorf("the target saw %s", got)
	}
}

func kindOf(err error) sink.Kind {
	if e, ok := err.(*sink.Error); ok { //nolint:errorlint // a test's own
		return e.Kind
	}
	return ""
}
