package server

import (
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"gt06/protocol"
)

// Who watches sees junk and frames alike, with their answers and who sent them,
// and nothing once they look away.
func TestWatchersSeeWhatIsNoFrame(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	type sight struct {
		input, answer, peer string
		flags               Flags
		kind                protocol.Kind
	}
	var mu sync.Mutex
	var sights []sight
	s, addr := start(t, log, func(c *Config) {
		c.Observe = func(r *Record, m *protocol.Message, peer netip.AddrPort) {
			mu.Lock()
			defer mu.Unlock()
			sights = append(sights, sight{string(r.Input), hex.EncodeToString(r.Answer), peer.String(), r.Flags, m.Kind})
		}
	})
	off := s.Watch()
	c, err := net.Dial("tcp", addr) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a test's own
	login := protocol.AppendFrame(nil, 0x01, []byte{0x03, 0x56, 0x30, 0x73, 0x86, 0x44, 0x99, 0x91}, 1)
	if _, err := c.Write(append([]byte("hello?"), login...)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 10)
	if _, err := io.ReadFull(c, answer); err != nil {
		t.Fatal(err)
	}
	off()
	if _, err := c.Write(login); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, answer); err != nil {
		t.Fatal(err)
	}
	peer := c.LocalAddr().String()
	want := []sight{
		{"hello?", "", peer, Junk, protocol.KindUnknown},
		{string(login), hex.EncodeToString(answer), peer, 0, protocol.KindLogin},
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(sights, want) {
		t.Errorf("seen %+v, want %+v", sights, want)
	}
}
