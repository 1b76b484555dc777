package server

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"gt06/protocol"
)

func TestBudget(t *testing.T) {
	t.Parallel()
	b := newBudget(64, 10, second)
	for i := range 10 {
		if !b.take(1, 5) {
			t.Fatalf("token %d of 10 is not there", i)
		}
	}
	if b.take(1, 4) || !b.spent(1, 5) {
		t.Error("an eleventh token")
	}
	if !b.take(2, 5) {
		t.Error("another key has a budget of its own")
	}
	if !b.take(1, 5+100) || b.take(1, 5+100) {
		t.Error("a tenth of the span brings one token")
	}
	if b.spent(1, 5+100_000) || b.of(1, 5+100_000).tokens != 10 {
		t.Error("a budget fills up to its burst and no further")
	}
	unlimited := newBudget(64, -1, second)
	for range 1000 {
		if !unlimited.take(1, 1) || unlimited.spent(1, 1) {
			t.Fatal("a negative number is no limit")
		}
	}
}

// Whoever invents keys gets no memory, and who is seen all the time keeps its
// bucket as long as others are older.
func TestBudgetForgetsTheOldest(t *testing.T) {
	b := newBudget(tableSize, 1, hour)
	if !b.take(42, 1) {
		t.Fatal("no token")
	}
	for i := range uint64(10 * tableSize) {
		b.take(1000+i, int64(2+i))
		if i%16 == 0 && !b.spent(42, int64(2+i)) {
			t.Fatalf("a key in use was forgotten after %d others", i)
		}
	}
	if len(b.buckets) != tableSize {
		t.Errorf("%d buckets", len(b.buckets))
	}
	if n := testing.AllocsPerRun(100, func() { b.take(7, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestNetworks(t *testing.T) {
	t.Parallel()
	a := netip.MustParseAddr
	for _, c := range []struct {
		one, other string
		network    bool
		host       bool
	}{
		{"192.0.2.7", "192.0.2.200", true, false},
		{"192.0.2.7", "192.0.3.7", false, false},
		{"192.0.2.7", "192.0.2.7", true, true},
		{"2001:db8:1:2::3", "2001:db8:1:2::4", true, true},
		{"2001:db8:1:2::3", "2001:db8:1:9::3", true, false},
		{"2001:db8:1:2::3", "2001:db8:2:2::3", false, false},
	} {
		if network(a(c.one)) == network(a(c.other)) != c.network || host(a(c.one)) == host(a(c.other)) != c.host {
			t.Errorf("%s and %s", c.one, c.other)
		}
	}
}

// from dials from an address of the loopback.
func from(t testing.TB, local, addr string) (*net.TCPConn, error) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}, Timeout: 5 * time.Second}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn), nil
}

func loginOf(n int) []byte {
	imei := []byte{0x03, 0x56, 0x78, 0x90, 0x12, 0x34, byte(n / 100 % 10 << 4), byte(n/10%10<<4 | n%10)}
	return protocol.AppendFrame(nil, 0x01, imei, 1)
}

// answered says whether a login from an address is answered, and the
// connection, when it is.
func answered(t testing.TB, local, addr string, login []byte) (*net.TCPConn, bool) {
	t.Helper()
	c, err := from(t, local, addr)
	if err != nil {
		return nil, false
	}
	if _, err := c.Write(login); err != nil {
		return nil, false
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	n, _ := c.Read(make([]byte, 10))
	return c, n == 10
}

func TestFailedLoginsShutTheirNetworkOut(t *testing.T) {
	t.Parallel()
	s, addr := start(t, &memoryLog{}, func(c *Config) { c.Limits.NetworkFailedLogins = 5 })
	for range 5 {
		c, err := from(t, "127.0.7.1", addr)
		if err != nil {
			t.Fatal(err)
		}
		write(t, c, append([]byte("GET / HTTP/1.1\r\n"), make([]byte, 2000)...))
		_, _ = c.Read(make([]byte, 1))
	}
	eventually(t, "the next of the network is refused", func() bool {
		_, ok := answered(t, "127.0.7.99", addr, loginOf(1))
		return !ok && s.count.refused[refusedNetworkFailures].Load() > 0
	})
	if _, ok := answered(t, "127.0.8.1", addr, loginOf(2)); !ok {
		t.Error("another network is refused, too")
	}
}

// When failures come from everywhere, only networks that a device has come from
// are let in.
func TestFailedLoginsFromEverywhere(t *testing.T) {
	t.Parallel()
	s, addr := start(t, &memoryLog{}, func(c *Config) { c.Limits.FailedLogins = 3 })
	c, ok := answered(t, "127.0.9.1", addr, loginOf(1))
	if !ok {
		t.Fatal("no answer")
	}
	write(t, c, unhex(t, beatHex))
	expect(t, c, answerTo(t, 0x13, 15))
	for i := range 3 {
		c, err := from(t, net.IPv4(127, 0, byte(10+i), 1).String(), addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	eventually(t, "strangers are refused", func() bool {
		_, ok := answered(t, "127.0.20.1", addr, loginOf(2))
		return !ok && s.count.refused[refusedFailures].Load() > 0
	})
	if _, ok := answered(t, "127.0.9.77", addr, loginOf(3)); !ok {
		t.Error("a network that a device has come from is refused, too")
	}
}

func TestNetworksHaveABudgetOfAccepts(t *testing.T) {
	t.Parallel()
	s, addr := start(t, &memoryLog{}, func(c *Config) { c.Limits.NetworkAccepts = 1 })
	good := 0
	for i := range 30 {
		if _, ok := answered(t, "127.0.7.1", addr, loginOf(i)); ok {
			good++
		}
	}
	if n := s.count.refused[refusedNetwork].Load(); good < 10 || good > 15 || n < 10 {
		t.Errorf("%d of 30 came in and %d were refused, the budget is ten and one a second", good, n)
	}
}

// Too many accepts in all wait in the kernel: nobody is refused.
func TestAcceptsWait(t *testing.T) {
	t.Parallel()
	s, addr := start(t, &memoryLog{}, func(c *Config) { c.Limits.Accepts = 2 })
	for i := range 24 {
		if _, ok := answered(t, "127.0.7.1", addr, loginOf(i)); !ok {
			t.Errorf("connection %d got no answer", i)
		}
	}
	if s.count.waits.Load() == 0 {
		t.Error("nobody waited")
	}
}

func TestUnknownDevicesOfOneAddressAreLimited(t *testing.T) {
	t.Parallel()
	s, addr := start(t, &memoryLog{}, func(c *Config) {
		c.Directory = nobody{}
		c.Limits.AddressDevices = 3
	})
	for i := range 6 {
		if _, ok := answered(t, "127.0.7.1", addr, loginOf(i%5)); ok != (i < 3 || i == 5) { // the last one is known by now
			t.Errorf("device %d: answered is %v", i, ok)
		}
	}
	if _, ok := answered(t, "127.0.7.2", addr, loginOf(9)); !ok {
		t.Error("another address is limited, too")
	}
	if n := s.count.closed[CloseAddressMax].Load(); n != 2 {
		t.Errorf("%d refused, want 2", n)
	}
	if list := s.Troubles(); len(list) != 2 || list[0].Kind != "address_devices" {
		t.Errorf("troubles %+v", list)
	}
}

// list is a Directory that a test changes.
type list struct {
	refuse  atomic.Uint32
	offset  atomic.Int32
	unknown bool
}

func (d *list) Len() int { return 1 }

func (d *list) Device(protocol.IMEI) (DeviceSettings, bool) {
	s := DeviceSettings{Refuse: CloseReason(d.refuse.Load()), Model: "NT20"}
	if o := d.offset.Load(); o != 0 {
		s.UTCOffset = &o
	}
	return s, !d.unknown
}

// What is refused costs nothing: it is not recorded, not answered, and counted.
func TestRefusedLogins(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Config)
		login  []byte
		reason CloseReason
		kept   int
	}{
		"blocked":     {func(c *Config) { d := &list{}; d.refuse.Store(uint32(CloseBlocked)); c.Directory = d }, loginOf(1), CloseBlocked, 0},
		"not allowed": {func(c *Config) { d := &list{unknown: true}; d.refuse.Store(uint32(CloseNotAllowed)); c.Directory = d }, loginOf(1), CloseNotAllowed, 0},
		"letters":     {func(*Config) {}, protocol.AppendFrame(nil, 0x01, []byte{3, 0x5a, 0, 0, 0, 0, 0, 1}, 1), CloseIMEI, 1},
		"zeros":       {func(*Config) {}, protocol.AppendFrame(nil, 0x01, make([]byte, 8), 1), CloseIMEI, 1},
		"check digit": {func(c *Config) { c.CheckDigit = true }, protocol.AppendFrame(nil, 0x01, []byte{4, 0x90, 0x15, 0x42, 3, 0x23, 0x75, 0x19}, 1), CloseIMEI, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &memoryLog{}
			var seen atomic.Int32
			s, addr := start(t, log, func(cfg *Config) {
				c.change(cfg)
				cfg.Observe = func(r *Record, m *protocol.Message, _ netip.AddrPort) {
					if m.Kind == protocol.KindLogin && r.Device == 0 {
						seen.Add(1)
					}
				}
			})
			defer s.Watch()()
			conn := dial(t, addr)
			write(t, conn, append(c.login, unhex(t, beatHex)...))
			_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
			if n, err := conn.Read(make([]byte, 10)); n > 0 || err == nil || isTimeout(err) {
				t.Errorf("%d bytes, %v", n, err)
			}
			eventually(t, "the reason is counted", func() bool { return s.count.closed[c.reason].Load() == 1 })
			if n := len(log.all()); n != c.kept {
				t.Errorf("%d records, want %d", n, c.kept)
			}
			if n := seen.Load(); n != 1 {
				t.Errorf("who watches saw %d logins, want 1", n)
			}
		})
	}
}

func TestWrongCheckDigitIsCountedAndServed(t *testing.T) {
	t.Parallel()
	s, addr := start(t, &memoryLog{}, nil)
	if _, ok := answered(t, "127.0.0.1", addr, protocol.AppendFrame(nil, 0x01, []byte{4, 0x90, 0x15, 0x42, 3, 0x23, 0x75, 0x19}, 1)); !ok {
		t.Error("no answer")
	}
	if n := s.count.badDigit.Load(); n != 1 {
		t.Errorf("%d counted", n)
	}
}

func TestALoginOfAnotherDeviceEndsTheConnection(t *testing.T) {
	t.Parallel()
	s, addr := start(t, &memoryLog{}, nil)
	c, ok := answered(t, "127.0.0.1", addr, loginOf(1))
	if !ok {
		t.Fatal("no answer")
	}
	write(t, c, loginOf(1)) // the same again is fine
	expect(t, c, answerTo(t, 0x01, 1))
	write(t, c, loginOf(2))
	closed(t, c, 5*time.Second)
	if n := s.count.closed[CloseIMEIChanged].Load(); n != 1 {
		t.Errorf("%d counted", n)
	}
}

func TestManyFramesBeforeALogin(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	s, addr := start(t, log, nil)
	c := dial(t, addr)
	write(t, c, bytes.Repeat(unhex(t, beatHex), 100))
	closed(t, c, 5*time.Second)
	if n := s.count.closed[CloseNoLogin].Load(); n != 1 || len(log.all()) > maxEarly+1 {
		t.Errorf("%d counted, %d records", n, len(log.all()))
	}
}

// What an operator says holds for devices that are connected.
func TestReview(t *testing.T) {
	t.Parallel()
	log, d := &memoryLog{}, &list{}
	s, addr := start(t, log, func(c *Config) { c.Directory = d })
	c, ok := answered(t, "127.0.0.1", addr, loginOf(1))
	if !ok {
		t.Fatal("no answer")
	}
	d.offset.Store(19800)
	s.Review()
	eventually(t, "the offset holds from the next frame on", func() bool {
		write(t, c, unhex(t, beatHex))
		expect(t, c, answerTo(t, 0x13, 15))
		all := log.all()
		return all[len(all)-1].UTCOffset == 19800
	})
	d.refuse.Store(uint32(CloseBlocked))
	s.Review()
	closed(t, c, 5*time.Second)
	if n := s.count.closed[CloseBlocked].Load(); n != 1 {
		t.Errorf("%d counted", n)
	}
}

func TestTwinsAndFlappingDevicesAreNoted(t *testing.T) {
	t.Parallel()
	s, addr := start(t, &memoryLog{}, func(c *Config) { c.Limits.DeviceLogins = 3 })
	beat := func(c net.Conn) {
		write(t, c, unhex(t, beatHex))
		expect(t, c, answerTo(t, 0x13, 15))
	}
	kinds := func() map[TroubleKind]int {
		m := map[TroubleKind]int{}
		for _, tr := range s.Troubles() {
			m[tr.Kind] = tr.Count
		}
		return m
	}
	one, _ := answered(t, "127.0.7.1", addr, loginOf(1))
	beat(one)
	two, _ := answered(t, "127.0.8.1", addr, loginOf(1))
	beat(two)
	if n := kinds()[TroubleTwin]; n != 0 {
		t.Error("a device that comes back is no twin")
	}
	eventually(t, "a twin is noted", func() bool { beat(one); beat(two); return kinds()[TroubleTwin] > 0 })
	if n := kinds()[TroubleTwin]; n != 1 {
		t.Errorf("it is noted %d times", n)
	}
	if tr := s.Troubles()[0]; tr.Remote[:9] != "127.0.7.1" || tr.Other[:9] != "127.0.8.1" {
		t.Errorf("%+v", tr)
	}
	for range 3 {
		answered(t, "127.0.7.1", addr, loginOf(1))
	}
	eventually(t, "logins too many are noted", func() bool { return kinds()[TroubleFlapping] == 2 && s.count.flaps.Load() == 2 })
}

func TestTroublesAreBounded(t *testing.T) {
	t.Parallel()
	var list troubles
	for i := range 3 * troublesMost {
		list.note(&Trouble{IMEI: protocol.IMEI(i + 1), Kind: TroubleTwin})
	}
	if len(list.ring) != troublesMost || len(list.at) != troublesMost {
		t.Errorf("%d and %d remembered", len(list.ring), len(list.at))
	}
	list.note(&Trouble{IMEI: 3 * troublesMost, Kind: TroubleTwin})
	found := 0
	for _, tr := range list.list() {
		if tr.IMEI == 3*troublesMost {
			found = tr.Count
		}
	}
	if found != 2 {
		t.Errorf("counted %d times, want 2", found)
	}
}

// A connection that brings more than its share is read slower; nothing is
// dropped, and others do not wait for it.
func TestFramesArePaced(t *testing.T) {
	t.Parallel()
	log := &memoryLog{}
	s, addr := start(t, log, func(c *Config) { c.Loops, c.Limits.Frames = 1, 100 })
	fast, other := dial(t, addr), dial(t, addr)
	for _, c := range []net.Conn{fast, other} {
		write(t, c, unhex(t, loginHex))
		expect(t, c, answerTo(t, 0x01, 1))
	}
	const frames = 1200 // a thousand at once, then a hundred a second
	begin := time.Now()
	write(t, fast, bytes.Repeat(unhex(t, beatHex), frames))
	expect(t, fast, bytes.Repeat(answerTo(t, 0x13, 15), 900))
	write(t, fast, bytes.Repeat(unhex(t, beatHex), 100)) // while it is not read
	write(t, other, unhex(t, beatHex))
	expect(t, other, answerTo(t, 0x13, 15))
	for range 40 { // whatever part of it comes: all of it does
		expect(t, fast, bytes.Repeat(answerTo(t, 0x13, 15), 10))
	}
	if took := time.Since(begin); took < 1500*time.Millisecond || s.count.paced.Load() == 0 {
		t.Errorf("%d frames within %v, paced %d times", frames, took, s.count.paced.Load())
	}
	if n := len(log.stored()); n != frames+100+3 {
		t.Errorf("%d frames stored, want %d", n, frames+103)
	}
}

// proxyHeader is what a balancer sends first.
func proxyHeader(command byte, peer netip.AddrPort, tlvs int) []byte {
	b := append([]byte(proxySignature), 0x20|command)
	var at []byte
	if peer.Addr().Is4() {
		b = append(b, 0x11)
		at = append(append(at, peer.Addr().AsSlice()...), 127, 0, 0, 1)
	} else {
		b = append(b, 0x21)
		at = append(append(at, peer.Addr().AsSlice()...), make([]byte, 16)...)
	}
	at = binary.BigEndian.AppendUint16(at, peer.Port())
	at = append(append(at, 0x13, 0x9f), make([]byte, tlvs)...)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(at))), at...)
}

func TestParseProxy(t *testing.T) {
	t.Parallel()
	four, six := netip.MustParseAddrPort("192.0.2.7:4711"), netip.MustParseAddrPort("[2001:db8::7]:4711")
	for name, c := range map[string]struct {
		header []byte
		from   netip.AddrPort
		bad    bool
	}{
		"IPv4":              {proxyHeader(1, four, 0), four, false},
		"IPv6":              {proxyHeader(1, six, 0), six, false},
		"TLVs":              {proxyHeader(1, four, 84), four, false},
		"a health check":    {proxyHeader(0, four, 0), netip.AddrPort{}, false},
		"too long":          {proxyHeader(1, four, proxyLongest), netip.AddrPort{}, true},
		"version 1":         {[]byte("PROXY TCP4 192.0.2.7 192.0.2.8 4711 5023\r\n"), netip.AddrPort{}, true},
		"another version":   {append([]byte(proxySignature), 0x31, 0x11, 0, 12), netip.AddrPort{}, true},
		"another command":   {append([]byte(proxySignature), 0x22, 0x11, 0, 12), netip.AddrPort{}, true},
		"a unix socket":     {append(append([]byte(proxySignature), 0x21, 0x31, 0, 12), make([]byte, 12)...), netip.AddrPort{}, true},
		"addresses too few": {append(append([]byte(proxySignature), 0x21, 0x21, 0, 12), make([]byte, 12)...), netip.AddrPort{}, true},
		"a frame":           {loginOf(1), netip.AddrPort{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, size, err := parseProxy(append(c.header, loginOf(1)...))
			if c.bad {
				if err == nil {
					t.Fatalf("taken: %v, %d", from, size)
				}
				return
			}
			if err != nil || from != c.from || size != len(c.header) {
				t.Fatalf("%v, %d, %v", from, size, err)
			}
			for n := range len(c.header) {
				if _, size, err := parseProxy(c.header[:n]); err != nil || size != 0 {
					t.Fatalf("cut at %d: %d, %v", n, size, err)
				}
			}
		})
	}
}

func FuzzProxy(f *testing.F) {
	f.Add(proxyHeader(1, netip.MustParseAddrPort("192.0.2.7:4711"), 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, size, err := parseProxy(b); size > len(b) || err == nil && size > proxyLongest {
			t.Errorf("size %d of %d bytes, %v", size, len(b), err)
		}
	})
}

// blobs is a Keeper that remembers what it was told.
type blobs struct {
	NoKeeper
	said chan []byte
}

func (b blobs) Update(_ uint64, blob []byte) {
	select {
	case b.said <- blob:
	default:
	}
}

func TestBehindABalancer(t *testing.T) {
	t.Parallel()
	said := make(chan []byte, 8)
	log := &memoryLog{}
	s, addr := start(t, log, func(c *Config) {
		c.Proxies, c.Keeper = []netip.Prefix{netip.MustParsePrefix("127.0.7.0/24")}, blobs{said: said}
	})
	peer := netip.MustParseAddrPort("192.0.2.7:4711")
	header := proxyHeader(1, peer, 7)
	c, err := from(t, "127.0.7.1", addr)
	if err != nil {
		t.Fatal(err)
	}
	write(t, c, header[:20])
	<-time.After(50 * time.Millisecond) // so that it comes in two
	write(t, c, append(header[20:], loginOf(1)...))
	expect(t, c, answerTo(t, 0x01, 1))
	write(t, c, unhex(t, beatHex))
	expect(t, c, answerTo(t, 0x13, 15))
	eventually(t, "the device is known by its own address", func() bool {
		on := s.Registry().Online()
		return len(on) == 1 && on[0].Remote.String() == peer.String()
	})
	var first Session
	if err := first.setBlob(<-said); err != nil || first.peer != peer || !first.state.has(stateBehindProxy) || first.loggedIn() {
		t.Errorf("the keeper was told of %v, flags %b, %v", first.peer, first.state, err)
	}
	if all := log.all(); len(all) != 2 || all[0].InputEnd != uint64(len(header)+len(loginOf(1))) {
		t.Errorf("records %+v", all)
	}

	for name, c := range map[string]struct {
		local string
		send  []byte
	}{
		"no header":               {"127.0.7.1", loginOf(2)},
		"a header from elsewhere": {"127.0.8.1", append(header, loginOf(2)...)},
	} {
		before := s.count.closed[CloseProxy].Load()
		if _, ok := answered(t, c.local, addr, c.send); ok {
			t.Errorf("%s: answered", name)
		}
		eventually(t, name+" is counted", func() bool { return s.count.closed[CloseProxy].Load() == before+1 })
	}
	if c, err := from(t, "127.0.7.1", addr); err == nil { // a health check
		write(t, c, proxyHeader(0, peer, 0))
		_ = c.Close()
	}
}

// The budgets are of the network behind the balancer.
func TestBudgetsBehindABalancer(t *testing.T) {
	t.Parallel()
	s, addr := start(t, &memoryLog{}, func(c *Config) {
		c.Proxies, c.Limits.NetworkFailedLogins = []netip.Prefix{netip.MustParsePrefix("127.0.7.0/24")}, 3
	})
	bad, good := netip.MustParseAddrPort("192.0.2.7:4711"), netip.MustParseAddrPort("198.51.100.1:4711")
	for range 3 {
		c, err := from(t, "127.0.7.1", addr)
		if err != nil {
			t.Fatal(err)
		}
		write(t, c, append(proxyHeader(1, bad, 0), make([]byte, 2000)...))
		_, _ = c.Read(make([]byte, 1))
	}
	eventually(t, "the network is refused", func() bool {
		_, ok := answered(t, "127.0.7.1", addr, append(proxyHeader(1, bad, 0), loginOf(1)...))
		return !ok && s.count.refused[refusedNetworkFailures].Load() > 0
	})
	if _, ok := answered(t, "127.0.7.1", addr, append(proxyHeader(1, good, 0), loginOf(1)...)); !ok {
		t.Error("another network behind the same balancer is refused, too")
	}
}
