package server

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"gt06/protocol"
)

// Who brings one frame is in the first batch beside those who bring thousands,
// and that batch has an end.
func TestWhoBringsLittleComesFirst(t *testing.T) {
	s, addr, turn := byHand(t, Limits{})
	l := s.loops[0]
	beat := unhex(t, beatHex)
	served := func(n int) func() bool {
		return func() bool { turn(); return s.count.in[0x13].Load() == uint64(n) }
	}
	const many, flood = 8, 300
	conns := make([]*net.TCPConn, 0, many+1)
	frames := 0
	for n := range many + 1 {
		c := dial(t, addr)
		conns = append(conns, c)
		write(t, c, loginOf(n))
		k := few + 10 // more than a device has to say
		if n == many {
			k = 1
		}
		write(t, c, bytes.Repeat(beat, k))
		frames += k
	}
	eventually(t, "all of them are known", served(frames))
	for n, c := range conns {
		k := flood
		if n == many {
			k = 1
		}
		write(t, c, bytes.Repeat(beat, k))
	}
	// It came last and has the last slot.
	last, others := l.slots[many], l.slots[:many]
	eventually(t, "all of it is in the kernel", func() bool {
		for _, c := range others {
			if queued(c.fd) < look {
				return false
			}
		}
		return queued(last.fd) > 0
	})
	before := last.in
	turn()
	if last.in == before {
		t.Error("the one frame is not in the first batch")
	}
	if n := int(s.count.in[0x13].Load()) - frames; n < rest || n > 1+rest+look/len(beat)+1 {
		t.Errorf("%d frames in the first batch, at most %d and a look behind the one", n, rest)
	}
	go func() { // they want their answers taken
		for _, c := range conns {
			_, _ = io.Copy(io.Discard, c)
		}
	}()
	eventually(t, "all of it is served", served(frames+many*flood+1))
}

// A batch that is full of what known devices say has room for a new one.
func TestNewOnesAreNotStarved(t *testing.T) {
	s, addr, turn := byHand(t, Limits{})
	l := s.loops[0]
	beat := unhex(t, beatHex)
	const many = full/(look/15) + 2 // a beat has 15 bytes
	conns := make([]*net.TCPConn, many)
	for n := range conns {
		conns[n] = dial(t, addr)
		write(t, conns[n], append(loginOf(n), beat...))
	}
	eventually(t, "all of them are known", func() bool { turn(); return s.count.in[0x13].Load() == many })
	late := dial(t, addr)
	eventually(t, "it is connected", func() bool { turn(); return s.count.open.Load() == many+1 })
	for _, c := range conns {
		write(t, c, bytes.Repeat(beat, look/len(beat)+1))
	}
	write(t, late, loginOf(many))
	eventually(t, "all of it is in the kernel", func() bool {
		for _, c := range l.slots[:many] {
			if queued(c.fd) < look {
				return false
			}
		}
		return queued(l.slots[many].fd) > 0
	})
	turn()
	if n := s.count.in[0x13].Load() - many; n < full {
		t.Fatalf("%d frames are no full batch", n)
	}
	if n := s.count.in[0x01].Load(); n != many+1 {
		t.Error("the new one is not in the batch")
	}
}

// A device that connects again and again brings no more than one that stays.
func TestASurgeIsGivenOnce(t *testing.T) {
	t.Parallel()
	const frames = 1000 // a second, and four seconds' worth at once
	s, addr := start(t, &memoryLog{}, func(c *Config) { c.Loops, c.Limits.Frames = 1, frames })
	beat, answer := unhex(t, beatHex), answerTo(t, 0x13, 15)
	bring := func(n, beats int) {
		t.Helper()
		c := dial(t, addr)
		defer c.Close() //nolint:errcheck // a test's own
		write(t, c, loginOf(n))
		expect(t, c, answerTo(t, 0x01, 1))
		for range beats / 100 {
			write(t, c, bytes.Repeat(beat, 100))
		}
		expect(t, c, bytes.Repeat(answer, beats))
	}
	bring(1, (surge*frames)*9/10)
	if n := s.count.paced.Load(); n != 0 {
		t.Fatalf("paced %d times within its surge", n)
	}
	begin := time.Now()
	bring(1, surge*frames)
	if took := time.Since(begin); took < time.Second/2 || s.count.paced.Load() == 0 {
		t.Errorf("as many more within %v, paced %d times", took, s.count.paced.Load())
	}
	paced := s.count.paced.Load()
	bring(2, 1000)
	if n := s.count.paced.Load(); n != paced {
		t.Errorf("another device is paced %d times", n-paced)
	}
}

// A frame that is longer than a look is seen whole, and at once: what is not
// would be taken for junk after a while.
func TestAFrameLongerThanALook(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	_, addr := start(t, log, nil)
	c := dial(t, addr)
	long := protocol.AppendExtended(nil, 0x0d, bytes.Repeat([]byte{0x30}, 60_000), 7)
	beat := unhex(t, beatHex)
	input := append(unhex(t, loginHex), beat...)
	input = append(append(append(input, long...), beat...), long...)
	go func() { _, _ = c.Write(append(input, beat...)) }()
	expect(t, c, answerTo(t, 0x01, 1))
	eventually(t, "all frames are stored", func() bool { return len(log.stored()) == 6 })
	for i, r := range log.all() {
		want := len(beat)
		switch i {
		case 0:
			want = len(unhex(t, loginHex))
		case 2, 4:
			want = len(long)
		}
		if len(r.Input) != want || r.Flags != 0 {
			t.Errorf("record %d has %d bytes, flags %d, want %d", i, len(r.Input), r.Flags, want)
		}
	}
}
