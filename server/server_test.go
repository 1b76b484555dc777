package server

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"gt06/protocol"
)

// memoryLog is an Appender that remembers, and fails as it is told.
type memoryLog struct {
	mu        sync.Mutex
	records   []Record
	pos       uint64
	synced    uint64
	appendErr error
	syncErr   error
	roomErr   error
}

func (m *memoryLog) Append(recs []*Record) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.appendErr != nil {
		return 0, m.appendErr
	}
	for _, r := range recs {
		c := *r
		c.Input, c.Answer = bytes.Clone(r.Input), bytes.Clone(r.Answer)
		m.records = append(m.records, c)
	}
	m.pos += uint64(len(recs))
	return m.pos, nil
}

func (m *memoryLog) Sync(pos uint64, _ time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.syncErr != nil {
		return m.syncErr
	}
	m.synced = max(m.synced, pos)
	return nil
}

func (m *memoryLog) Room() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.roomErr
}

func (m *memoryLog) End() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pos
}

func (m *memoryLog) durable() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.synced
}

func (m *memoryLog) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// all returns the records so far.
func (m *memoryLog) all() []Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.records)
}

// stored returns the input of the records that are frames of a device.
func (m *memoryLog) stored() (frames []string) {
	for _, r := range m.all() {
		if r.Flags == 0 {
			frames = append(frames, hex.EncodeToString(r.Input))
		}
	}
	return frames
}

type everybody struct{}

func (everybody) Device(protocol.IMEI) (DeviceSettings, bool) { return DeviceSettings{}, true }

func (everybody) Len() int { return 0 }

type nobody struct{}

func (nobody) Len() int { return 0 }

func (nobody) Device(protocol.IMEI) (DeviceSettings, bool) { return DeviceSettings{}, false }

// start runs a server on a free port of the loopback; the test ends it.
func start(t testing.TB, log *memoryLog, change func(*Config)) (*Server, string) {
	t.Helper()
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Generation: 7, Loops: 2, NewAppender: func() Appender { return log }, Directory: everybody{},
		Decoder: &protocol.Decoder{}, Logger: zap.NewNop(), Registerer: prometheus.NewRegistry(),
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { err := s.Serve(ctx, ln); s.Close(CloseShutdown); done <- err }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, ln.Addr().String()
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

func write(t testing.TB, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

// expect reads exactly what is wanted.
func expect(t testing.TB, c net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := io.ReadFull(c, got); err != nil {
		t.Fatalf("want answer %x, got %x, %v", want, got[:n], err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("answer %x, want %x", got, want)
	}
}

// closed expects the end of the connection and nothing before it.
func closed(t testing.TB, c net.Conn, within time.Duration) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(within))
	b, err := io.ReadAll(c)
	if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		t.Fatalf("connection still open after %v", within)
	}
	if len(b) > 0 {
		t.Fatalf("got %x before the end", b)
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// eventually polls until the condition holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("did not happen: %s", what)
		}
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Frames printed in the documents (PROTOCOL.md section 12).
const (
	loginHex    = "78780d01012345678901234500018cdd0d0a"
	beatHex     = "78780a134004040001000fdcee0d0a"
	locationHex = "787822220f0c1d023305c9027ac8180c46586000140001cc00287d001f71000001000820860d0a"
)

func answerTo(t testing.TB, typ byte, serial uint16) []byte {
	t.Helper()
	return protocol.AppendFrame(nil, typ, nil, serial)
}

func TestEverySplitOfAFrameIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	_, addr := start(t, log, nil)
	location := unhex(t, locationHex)
	c := dial(t, addr)
	write(t, c, unhex(t, loginHex))
	expect(t, c, answerTo(t, 0x01, 1))
	for at := 1; at < len(location); at++ {
		write(t, c, location[:at])
		write(t, c, location[at:])
		expect(t, c, answerTo(t, 0x22, 8))
	}
	for _, b := range location {
		write(t, c, []byte{b})
	}
	expect(t, c, answerTo(t, 0x22, 8))
	if n := len(log.stored()); n != 1+len(location) {
		t.Errorf("%d records, want %d", n, 1+len(location))
	}
	// The offsets in the records are those of the stream.
	in, out := uint64(0), uint64(0)
	for i, r := range log.all() {
		in, out = in+uint64(len(r.Input)), out+uint64(len(r.Answer))
		if r.InputEnd != in || r.AnswerEnd != out {
			t.Fatalf("record %d ends at %d/%d, want %d/%d", i, r.InputEnd, r.AnswerEnd, in, out)
		}
		if r.Conn>>40 != 7 {
			t.Fatalf("record %d is of generation %d", i, r.Conn>>40)
		}
	}
}

func TestManyFramesInOneReadAreAnsweredInOrder(t *testing.T) {
	t.Parallel()
	_, addr := start(t, &memoryLog{}, nil)
	c := dial(t, addr)
	stream := unhex(t, loginHex)
	want := answerTo(t, 0x01, 1)
	for serial := range uint16(3000) {
		stream = protocol.AppendFrame(stream, 0x13, []byte{0x40, 4, 4, 0, 1}, serial)
		want = protocol.AppendFrame(want, 0x13, nil, serial)
	}
	go func() { _, _ = c.Write(stream) }()
	expect(t, c, want)
}

// A device that uploads its memory at full speed: the kernel hands over large
// segments, of which the last bytes are half a frame each time.
func TestBulkUploadIsNotHeldUpByHalfFrames(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	_, addr := start(t, log, func(c *Config) { c.Limits.Frames = -1 })
	c := dial(t, addr)
	write(t, c, unhex(t, loginHex))
	expect(t, c, answerTo(t, 0x01, 1))
	const frames = 100_000
	var stream, want []byte
	for i := range frames {
		stream = protocol.AppendFrame(stream, 0x13, []byte{0x40, 4, 4, 0, 1}, uint16(i))
		want = protocol.AppendFrame(want, 0x13, nil, uint16(i))
	}
	go func() { _, _ = c.Write(stream) }()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d of %d answer bytes: %v", n, len(want), err)
	}
	if n := len(log.stored()); n != frames+1 {
		t.Errorf("%d frames are stored, want %d", n, frames+1)
	}
}

func TestNothingIsAnsweredBeforeItIsDurable(t *testing.T) {
	t.Parallel()
	log := &memoryLog{syncErr: errors.New("the disk says no")}
	_, addr := start(t, log, nil)
	c := dial(t, addr)
	write(t, c, unhex(t, loginHex))
	closed(t, c, 5*time.Second) // unanswered: the device sends it again
}

func TestStepsOfABatchComeInOrder(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	var mu sync.Mutex
	var steps []string
	_, addr := start(t, log, func(c *Config) {
		c.Loops = 1
		c.Failpoint = func(name string) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case name == "appended" && log.End() == 0, name == "synced" && log.durable() != log.End():
				name += " too early"
			}
			steps = append(steps, name)
		}
	})
	c := dial(t, addr)
	write(t, c, unhex(t, loginHex))
	expect(t, c, answerTo(t, 0x01, 1))
	eventually(t, "the batch ends", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Contains(steps, "answered")
	})
	mu.Lock()
	defer mu.Unlock()
	steps = slices.DeleteFunc(steps, func(s string) bool { return s == "framed" && !slices.Contains(steps, "peeked") })
	at := slices.Index(steps, "peeked")
	want := []string{"peeked", "framed", "declared", "appended", "released", "synced", "answered"}
	if at < 0 || !slices.Equal(steps[at:], want) {
		t.Errorf("steps %v, want them to end with %v", steps, want)
	}
}

func TestInputStaysInTheKernelWhileNothingCanBeWritten(t *testing.T) {
	for name, fault := range map[string]func(*memoryLog, error){
		"no room":      func(m *memoryLog, err error) { m.roomErr = err },
		"append fails": func(m *memoryLog, err error) { m.appendErr = err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &memoryLog{}
			s, addr := start(t, log, nil)
			c := dial(t, addr)
			write(t, c, unhex(t, loginHex))
			expect(t, c, answerTo(t, 0x01, 1))

			log.set(func() { fault(log, errors.New("full")) })
			write(t, c, unhex(t, locationHex))
			eventually(t, "the server says why it reads nothing", func() bool { return s.Stopped() == "full" })
			log.set(func() { fault(log, nil) })
			expect(t, c, answerTo(t, 0x22, 8))
			if got := log.stored(); len(got) != 2 || got[1] != locationHex {
				t.Errorf("stored %v", got)
			}

			// Longer than a device waits: it is hung up and nobody is let in.
			log.set(func() { fault(log, errors.New("full")) })
			write(t, c, unhex(t, locationHex))
			closed(t, c, 8*time.Second)
			if late, err := net.Dial("tcp", addr); err == nil { //nolint:noctx // loopback
				closed(t, late, 2*time.Second)
				_ = late.Close()
			}
			log.set(func() { fault(log, nil) })
			eventually(t, "the server serves again", func() bool { return s.Stopped() == "" })
			again := dial(t, addr)
			write(t, again, unhex(t, loginHex))
			expect(t, again, answerTo(t, 0x01, 1))
			if n := len(log.stored()); n != 3 {
				t.Errorf("%d frames stored, want 3", n)
			}
		})
	}
}

func TestHalfClosedConnectionIsReadAndAnsweredToItsEnd(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	_, addr := start(t, log, nil)
	c := dial(t, addr)
	write(t, c, append(unhex(t, loginHex), unhex(t, locationHex)...))
	write(t, c, unhex(t, locationHex)[:9])
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expect(t, c, append(answerTo(t, 0x01, 1), answerTo(t, 0x22, 8)...))
	closed(t, c, 5*time.Second)
}

func TestDeadlines(t *testing.T) {
	quick := func(c *Config) {
		c.Limits = Limits{Login: time.Second, Frame: 2 * time.Second, Idle: 3 * time.Second, Write: time.Second}
	}
	type situation struct {
		name   string
		send   string
		answer []byte
		reason CloseReason
	}
	for _, now := range []situation{
		{"silent from the start", "", nil, CloseLogin},
		{"half a login", loginHex[:10], nil, CloseLogin},
		{"half a frame after the login", loginHex + locationHex[:20], answerTo(t, 1, 1), CloseFrame},
		{"silent after the login", loginHex, answerTo(t, 1, 1), CloseIdle},
	} {
		t.Run(now.name, func(t *testing.T) {
			t.Parallel()
			s, addr := start(t, &memoryLog{}, quick)
			c := dial(t, addr)
			write(t, c, unhex(t, now.send))
			expect(t, c, now.answer)
			closed(t, c, 8*time.Second)
			eventually(t, "the reason is counted", func() bool { return s.count.closed[now.reason].Load() == 1 })
		})
	}
}

func TestDeviceThatDoesNotReadIsHungUp(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	s, addr := start(t, log, func(c *Config) { c.Limits.Write, c.Limits.Frames = time.Second, -1 })
	c := dial(t, addr)
	write(t, c, unhex(t, loginHex))
	beats := bytes.Repeat(unhex(t, beatHex), 1000)
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for range 100_000 {
		if _, err := c.Write(beats); err != nil {
			break
		}
	}
	eventually(t, "the connection is closed for not reading", func() bool { return s.count.closed[CloseWrite].Load() == 1 })
}

func TestOtherProtocolsOnThePort(t *testing.T) {
	for name, hello := range map[string][]byte{
		"HTTP":  append([]byte("GET / HTTP/1.1\r\nHost: "), bytes.Repeat([]byte("a"), 2000)...),
		"TLS":   append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, bytes.Repeat([]byte{7}, 2000)...),
		"zeros": make([]byte, 2000),
		"79s":   bytes.Repeat([]byte{0x79}, 2000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, addr := start(t, &memoryLog{}, nil)
			c := dial(t, addr)
			write(t, c, hello)
			closed(t, c, 5*time.Second)
			eventually(t, "the reason is counted", func() bool { return s.count.closed[CloseNoLogin].Load() == 1 })
		})
	}
}

func TestJunkBetweenFramesIsKeptInTheLogAndSkipped(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	_, addr := start(t, log, nil)
	c := dial(t, addr)
	write(t, c, unhex(t, loginHex))
	expect(t, c, answerTo(t, 0x01, 1))
	for _, junk := range [][]byte{[]byte("\r\n"), []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), {0x16, 3, 1, 2, 0}, {0x78}, {0x78, 0x78, 0x78}, {0x79, 0x79, 0xff, 0xff}} {
		write(t, c, junk)
		write(t, c, unhex(t, locationHex))
		expect(t, c, answerTo(t, 0x22, 8))
	}
	total := 0
	records := log.all()
	for _, r := range records {
		total += len(r.Input)
	}
	if end := records[len(records)-1].InputEnd; end != uint64(total) {
		t.Errorf("records hold %d bytes, the stream has %d", total, end)
	}
}

func TestUrgentByteDoesNotHideWhatFollows(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	s, addr := start(t, log, nil)
	c := dial(t, addr)
	write(t, c, unhex(t, loginHex))
	expect(t, c, answerTo(t, 0x01, 1))
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	urgent := func(b []byte) {
		t.Helper()
		if err := raw.Write(func(fd uintptr) bool { return sendUrgent(int(fd), b) == nil }); err != nil {
			t.Fatal(err)
		}
	}
	// Between frames: a byte of junk, then a frame.
	urgent([]byte{'!'})
	write(t, c, unhex(t, locationHex))
	expect(t, c, answerTo(t, 0x22, 8))
	// The last byte of a frame is urgent.
	location := unhex(t, locationHex)
	write(t, c, location[:20])
	urgent(location[20:])
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	answer := make([]byte, 10)
	if _, err := io.ReadFull(c, answer); err != nil && s.count.closed[CloseUrgent].Load() == 0 {
		t.Fatalf("neither answered nor closed as urgent: %v", err)
	}
}

func TestNewestConnectionWinsAfterItsFirstValidFrame(t *testing.T) {
	t.Parallel()
	s, addr := start(t, &memoryLog{}, nil)
	login := func() *net.TCPConn {
		c := dial(t, addr)
		write(t, c, unhex(t, loginHex))
		expect(t, c, answerTo(t, 0x01, 1))
		return c
	}
	beat := func(c *net.TCPConn) {
		write(t, c, unhex(t, beatHex))
		expect(t, c, answerTo(t, 0x13, 15))
	}
	current := func() string {
		if on := s.Registry().Online(); len(on) == 1 {
			return on[0].Remote.String()
		}
		return ""
	}
	first := login()
	beat(first)
	eventually(t, "the first is current", func() bool { return current() == first.LocalAddr().String() })
	second := login()
	if current() != first.LocalAddr().String() {
		t.Error("a login alone took the device over")
	}
	beat(second)
	eventually(t, "the second is current", func() bool { return current() == second.LocalAddr().String() })
	beat(first) // a twin is answered
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first is current again", func() bool { return current() == first.LocalAddr().String() })
}

func TestUnknownDevicesAreLimited(t *testing.T) {
	t.Parallel()
	s, addr := start(t, &memoryLog{}, func(c *Config) {
		c.Directory = nobody{}
		c.Limits.UnknownDevices = 3
	})
	for i := range 5 {
		c := dial(t, addr)
		imei := []byte{0x01, 0x23, 0x45, 0x67, 0x89, 0x01, 0x23, byte(i)}
		write(t, c, protocol.AppendFrame(nil, 0x01, imei, 1))
		if i < 3 {
			expect(t, c, answerTo(t, 0x01, 1))
		} else {
			closed(t, c, 5*time.Second)
		}
	}
	if n := s.count.closed[CloseUnknownMax].Load(); n != 2 {
		t.Errorf("%d refused, want 2", n)
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	t.Parallel()
	s, addr := start(t, &memoryLog{}, func(c *Config) { c.Limits.Connections = 2 })
	for range 2 {
		c := dial(t, addr)
		write(t, c, unhex(t, loginHex))
		expect(t, c, answerTo(t, 0x01, 1))
	}
	// The reset may already be there when connect returns.
	if c, err := net.Dial("tcp", addr); err == nil { //nolint:noctx // loopback
		closed(t, c, 5*time.Second)
		_ = c.Close()
	}
	if n := s.count.refused[refusedLimit].Load(); n != 1 {
		t.Errorf("%d refused, want 1", n)
	}
}
