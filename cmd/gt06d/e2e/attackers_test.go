package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gt06/protocol"
	"gt06/protocol/device"
	"gt06/protocol/device/fleet"
	"gt06/server/control"
)

// attack is what somebody does to the port until the context ends. It dials
// through the attacker, who has a network of its own.
type attack struct {
	name string
	late float64 // how much longer a good device may wait than twice as long as it does when it is quiet, ms
	run  func(ctx context.Context, a *attacker)
}

// attacker dials from addresses of a network that no device is in.
type attacker struct {
	addr   string
	net    byte // 127.net.x.y
	dialed *atomic.Int64
}

// dial connects from the n-th address; nil when the server does not want it.
func (a *attacker) dial(ctx context.Context, n int) net.Conn {
	d := net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, a.net, byte(n>>8), byte(n))}}
	c, err := d.DialContext(ctx, "tcp", a.addr)
	if err != nil {
		return nil
	}
	a.dialed.Add(1)
	return c
}

// every does something so many times a second, by several hands.
func every(ctx context.Context, rate int, do func(n int)) {
	const hands = 4
	var wg sync.WaitGroup
	var n atomic.Int64
	for range hands {
		wg.Go(func() {
			tick := time.NewTicker(hands * time.Second / time.Duration(rate))
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					do(int(n.Add(1)))
				}
			}
		})
	}
	wg.Wait()
}

// hangUp closes with a reset, so that no port is left in TIME_WAIT.
func hangUp(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func inventedLogin() []byte {
	var imei protocol.IMEI
	for range 15 {
		imei = imei<<4 | protocol.IMEI(rand.IntN(10))
	}
	return protocol.AppendFrame(nil, 0x01, imei.AppendBCD(nil), 1)
}

const (
	moment = 25  // the machine's: attackers, devices and server share its cores
	flood  = 250 // of frames that count, as fast as the machine can write them; a device waits 5 s

	halfOpen = 5000
	captured = 900_000 // devices from here on are known, and in the wrong hands
)

func attacks() []attack {
	yesterday := time.Now().UTC().Truncate(24 * time.Hour).Add(-time.Hour)
	scans := [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: Mozilla/5.0 zgrab/0.x\r\n\r\n"), []byte("SSH-2.0-Go\r\n"),
		append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, bytes.Repeat([]byte{7}, 600)...), []byte("\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00"),
		[]byte("OPTIONS sip:nm SIP/2.0\r\n\r\n"), []byte("*1\r\n$4\r\nINFO\r\n"), bytes.Repeat([]byte{0}, 2000), bytes.Repeat([]byte("\x78\x78\xff"), 700), []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x7f\x00\x00\x01\x12\x34\x13\x9f"),
	}
	return []attack{
		{"half-open", moment, func(ctx context.Context, a *attacker) {
			// Each says a byte of a login now and then.
			login := inventedLogin()
			conns := make([]net.Conn, 0, halfOpen)
			for n := range halfOpen {
				if c := a.dial(ctx, n); c != nil {
					conns = append(conns, c)
				}
				if n%50 == 49 {
					pauseUntil(ctx, 20*time.Millisecond)
				}
			}
			for at := 0; ctx.Err() == nil; at++ {
				for _, c := range conns {
					_, _ = c.Write(login[at%8 : at%8+1])
				}
				pauseUntil(ctx, time.Second)
			}
			for _, c := range conns {
				hangUp(c)
			}
		}},
		{"logins of invention", moment, func(ctx context.Context, a *attacker) {
			every(ctx, 400, func(n int) {
				if c := a.dial(ctx, n%3); c != nil {
					_, _ = c.Write(inventedLogin())
					_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
					_, _ = c.Read(make([]byte, 16))
					hangUp(c)
				}
			})
		}},
		{"reconnects from one address", moment, func(ctx context.Context, a *attacker) {
			every(ctx, 1000, func(int) {
				if c := a.dial(ctx, 1); c != nil {
					hangUp(c)
				}
			})
		}},
		{"scanners", moment, func(ctx context.Context, a *attacker) {
			every(ctx, 300, func(n int) {
				if c := a.dial(ctx, n%7); c != nil {
					_, _ = c.Write(scans[n%len(scans)])
					_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
					_, _ = c.Read(make([]byte, 64))
					hangUp(c)
				}
			})
		}},
		{"frames without a login", moment, func(ctx context.Context, a *attacker) {
			frame := device.Build(device.Heartbeat, 1, 1, time.Now()).Bytes
			every(ctx, 200, func(n int) {
				if c := a.dial(ctx, n%7); c != nil {
					_, _ = c.Write(bytes.Repeat(frame, 100))
					hangUp(c)
				}
			})
		}},
		{"never read", flood, func(ctx context.Context, a *attacker) {
			frame := bytes.Repeat(device.Build(device.Heartbeat, 1, 1, time.Now()).Bytes, 50)
			every(ctx, 50, func(n int) {
				c := a.dial(ctx, n%50)
				if c == nil {
					return
				}
				_ = c.(*net.TCPConn).SetReadBuffer(1024)
				_, _ = c.Write(device.Build(device.Login, captured+n%20, 0, time.Now()).Bytes)
				_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
				for range 400 {
					if _, err := c.Write(frame); err != nil {
						break
					}
				}
				hangUp(c)
			})
		}},
		{"replayed captures", moment, func(ctx context.Context, a *attacker) {
			// What a device of the fleet said, again and again from elsewhere.
			var session []byte
			at := yesterday // the same whenever they come
			session = append(session, device.Build(device.Login, captured+10_000, 0, at).Bytes...)
			for n := range 20 {
				session = append(session, device.Build(device.Location, captured+10_000, 1+n, at.Add(time.Duration(n)*time.Second)).Bytes...)
			}
			every(ctx, 50, func(n int) {
				if c := a.dial(ctx, n%5); c != nil {
					_, _ = c.Write(session)
					_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
					_, _ = c.Read(make([]byte, 1024))
					hangUp(c)
				}
			})
		}},
		{"urgent bytes", moment, func(ctx context.Context, a *attacker) {
			frame := device.Build(device.Heartbeat, 1, 1, time.Now()).Bytes
			every(ctx, 100, func(n int) {
				c := a.dial(ctx, n%7)
				if c == nil {
					return
				}
				raw, err := c.(*net.TCPConn).SyscallConn()
				if err == nil {
					_, _ = c.Write(device.Build(device.Login, captured+20_000+n%20, 0, time.Now()).Bytes)
					cut := n % len(frame)
					_, _ = c.Write(frame[:cut])
					_ = raw.Write(func(fd uintptr) bool {
						_ = unix.Sendto(int(fd), frame[cut:cut+1], unix.MSG_OOB, nil)
						return true
					})
					_, _ = c.Write(frame[cut+1:])
					_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
					_, _ = c.Read(make([]byte, 64))
				}
				hangUp(c)
			})
		}},
	}
}

func pauseUntil(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// memory returns the resident bytes of server and keeper.
func (d *daemon) memory() int {
	d.t.Helper()
	sum := 0
	for _, pid := range []int{d.serving(), d.keep.Process.Pid} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			d.t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				n, _ := strconv.Atoi(strings.Fields(v)[0])
				sum += n << 10
			}
		}
	}
	return sum
}

// series returns the number of time series of a scrape.
func (d *daemon) series() (n int) {
	d.t.Helper()
	code, text := d.get("/metrics")
	if code != 200 {
		d.t.Fatalf("/metrics: %d", code)
	}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			n++
		}
	}
	return n
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gt06.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Attackers beside good devices: these notice nothing, and nothing grows.
//
// It does not run beside other tests: it measures. A good device's 99th
// percentile under attack may be twice that of the quiet before and after, and
// what the attack's row allows. A machine that does something else at that
// moment gets two more tries; a server that lets devices wait needs three.
// Memory is that of log and store at full speed, which attackers can ask for;
// none of it is for an attacker alone.
func TestAttackersBesideGoodDevices(t *testing.T) { //nolint:paralleltest // it measures
	const devices, unknown, tries = 100, 6000, 3
	d := newDaemon(t, "--config", configFile(t, fmt.Sprintf("limits: {unknown_devices: %d, address_devices: 1500, frames: 2000}\n", unknown)))
	d.start()
	d.drained()
	// The fleet is known: who invents devices uses up the room for unknown ones.
	// So are devices that attackers got hold of: they are let in.
	var known []control.DeviceChange
	for phase := range tries*2*(len(attacks())+1) + 2 {
		for n := range devices {
			known = append(known, control.DeviceChange{IMEI: device.IMEI(phase*1000 + n).String()})
		}
	}
	for _, first := range []int{captured, captured + 10_000, captured + 20_000} {
		for n := range 20 {
			known = append(known, control.DeviceChange{IMEI: device.IMEI(first + n).String()})
		}
	}
	var done control.DevicesChanged
	if err := d.client().Call(t.Context(), "devices-change", known, &done); err != nil || done.Registered != len(known) {
		t.Fatalf("%+v, %v", done, err)
	}
	span := 3 * time.Second
	if soak() {
		span = 30 * time.Second
	}
	phase := 0
	// good runs a fleet for a while, until stop: it loses nothing and its
	// connections stay.
	good := func(t *testing.T, stop func()) (p99 float64) {
		t.Helper()
		phase++
		f := fleet.New(fleet.Options{Addr: d.addr, Devices: devices, First: phase * 1000, Rate: 5, Duration: span, Arrival: 200, Torn: 0.1})
		res := f.Run(t.Context())
		stop()
		if res.Lost > 0 || res.Reconnects > 0 || res.Refused > 0 {
			t.Errorf("good devices: %+v", res)
		}
		d.check(f, res)
		return res.Ack.P99
	}
	quiet := good(t, func() {})
	series, memory := d.series(), d.memory()
	t.Logf("quiet: p99 %.1f ms; %d MiB resident, %d series", quiet, memory>>20, series)
	under := func(t *testing.T, net int, most float64, one attack) (well bool) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		a := &attacker{addr: d.addr, net: byte(60 + net), dialed: new(atomic.Int64)}
		var wg sync.WaitGroup
		wg.Go(func() { one.run(ctx, a) })
		peak := 0
		wg.Go(func() {
			for ctx.Err() == nil {
				peak = max(peak, d.memory())
				pauseUntil(ctx, 200*time.Millisecond)
			}
		})
		p99 := good(t, func() { cancel(); wg.Wait() })
		if p99 > 2*quiet+one.late { // as quiet as it is now
			quiet = max(quiet, good(t, func() {}))
		}
		extra := float64(peak-memory) / (1 << 20)
		t.Logf("%-28s p99 %7.1f ms (%.1f times quiet), %+5.1f MiB, %5d connections", one.name, p99, p99/quiet, extra, a.dialed.Load())
		return p99 <= 2*quiet+one.late && extra <= most
	}
	try := func(net int, most float64, one attack) {
		t.Run(one.name, func(t *testing.T) {
			for range tries {
				if under(t, net, most, one) {
					return
				}
			}
			t.Errorf("good devices wait, or more than %.0f MiB are taken", most)
		})
	}
	for i, one := range attacks() {
		try(i, 40, one)
	}
	try(len(attacks()), 64, attack{"all of them", 2 * flood, func(ctx context.Context, a *attacker) {
		var wg sync.WaitGroup
		for i, one := range attacks() {
			wg.Go(func() { one.run(ctx, &attacker{addr: a.addr, net: byte(100 + i), dialed: a.dialed}) })
		}
		wg.Wait()
	}})
	if n := d.series(); n != series {
		t.Errorf("%d time series, %d before", n, series)
	}
	db := openRows(t, d)
	for query, most := range map[string]int{
		"SELECT COUNT(*) FROM devices": unknown, "SELECT COUNT(*) FROM quarantined_frames WHERE imei IS NULL": 2000,
		"SELECT COUNT(*) FROM positions p JOIN devices d ON d.id = p.device_id WHERE d.imei = '" + device.IMEI(captured+10_000).String() + "'": 20,
	} {
		var n int
		if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil || n > most {
			t.Errorf("%s: %d, at most %d: %v", query, n, most, err)
		}
	}
	if out, _, code := d.ctl("devices", "--problems", "--json"); code != 0 || !strings.Contains(out, `"kind"`) {
		t.Errorf("problems: exit code %d, %.200s", code, out)
	}
	lines := 0 // those that end connections are for debugging
	for line := range strings.Lines(d.out.String()) {
		if !strings.Contains(line, `"level":"debug"`) {
			lines++
		}
	}
	if lines > 500 {
		t.Errorf("%d lines in the log", lines)
	}
}

// After many connections nothing of them is left.
func TestConnectionsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	connects := 6000
	if soak() {
		connects = 100_000
	}
	d := newDaemon(t, "--config", configFile(t, "limits: {failed_logins: -1, network_failed_logins: -1, network_accepts: -1}\n"))
	d.start()
	connect := func(n int) {
		c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
		if err != nil {
			return
		}
		defer hangUp(c)
		switch n % 4 {
		case 0: // says nothing
		case 1:
			_, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		default:
			_, _ = c.Write(device.Build(device.Login, n%500, 0, time.Now()).Bytes)
			_, _ = c.Write(device.Build(device.Heartbeat, n%500, 1, time.Now()).Bytes)
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if k, err := c.Read(make([]byte, 10)); err != nil || k == 0 {
				t.Errorf("connection %d: no answer, %v", n, err)
			}
		}
	}
	many := func(n int) {
		var wg sync.WaitGroup
		for k := range 8 {
			wg.Go(func() {
				for i := k; i < n; i += 8 {
					connect(i)
				}
			})
		}
		wg.Wait()
		d.eventually("all connections are gone", func() bool {
			_, text := d.get("/metrics")
			return strings.Contains(text, "\ngt06_connections_open 0\n")
		})
		d.drained()
	}
	many(connects / 10)
	first := d.usage()
	many(connects)
	last := d.usage()
	t.Logf("%+v, after %d connections %+v", first, connects, last)
	if last.descriptors > first.descriptors+5 || last.goroutines > first.goroutines+5 {
		t.Errorf("%+v, after %d connections %+v", first, connects, last)
	}
	if held, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.keep.Process.Pid)); err != nil || len(held) > 30 {
		t.Errorf("the keeper holds %d descriptors, %v", len(held), err)
	}
}
