package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"gt06/protocol"
	"gt06/protocol/device"
	"gt06/protocol/device/fleet"
	"gt06/server/control"
	"gt06/storage/sqlstore/mariadbtest"
)

// nobodyNoticed asks the ledger of a fleet whether its devices saw anything.
// accepted is how many connections may have died between accept and register.
func nobodyNoticed(t *testing.T, res *fleet.Result, accepted int64) {
	t.Helper()
	if res.Lost+res.Duplicated+res.OutOfOrder != 0 || res.Reconnects > accepted || res.Refused > accepted {
		t.Errorf(broken+"the devices noticed: %+v", *res)
	}
}

// commander sends commands to devices of a fleet while servers come and go. An
// accepted command must arrive exactly once.
type commander struct {
	mu       sync.Mutex
	accepted map[uint32]bool
	failed   int
}

// command sends commands until the end of ctx.
func (d *daemon) command(ctx context.Context, f *fleet.Fleet) *commander {
	c := &commander{accepted: map[uint32]bool{}}
	imeis := f.IMEIs()
	go func() {
		for flag := uint32(1); ctx.Err() == nil; flag++ {
			args := control.SendArgs{IMEI: imeis[rand.IntN(len(imeis))], Command: "STATUS#", Flag: flag}
			one, cancel := context.WithTimeout(ctx, 2*time.Second)
			err := d.client().Call(one, "send", args, &struct{}{})
			cancel()
			c.mu.Lock()
			if err == nil {
				c.accepted[flag] = true
			} else {
				c.failed++
			}
			c.mu.Unlock()
			pause(3 * time.Millisecond)
		}
	}()
	return c
}

// received waits until what was sent to the devices has reached them: who was
// answered later has had it before. Nothing is sent any more.
func (d *daemon) received(f *fleet.Fleet) {
	d.t.Helper()
	_, answered := f.Progress()
	enough := answered + 3*int64(len(f.IMEIs()))
	d.eventually("the last commands have reached their devices", func() bool { _, n := f.Progress(); return n >= enough })
}

// check compares what was accepted with what arrived.
func (c *commander) check(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	got := f.Commands()
	for flag := range c.accepted {
		if got[flag] != 1 {
			t.Errorf(broken+"command %d arrived %d times", flag, got[flag])
		}
	}
	for flag, n := range got {
		if n > 1 {
			t.Errorf(broken+"command %d arrived %d times", flag, n)
		}
	}
	t.Logf("%d commands accepted, %d not", len(c.accepted), c.failed)
	if len(c.accepted) == 0 {
		t.Error("no command was accepted: the test shows nothing")
	}
}

func TestKillsUnderLoad(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	kills := 50
	if soak() {
		kills = 500
	}
	const devices = 200
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f, wait := d.loaded(fleet.Options{Devices: devices, Rate: 5})
	commands := d.command(ctx, f)
	for range kills {
		pause(time.Duration(50+rand.IntN(350)) * time.Millisecond)
		d.kill()
		d.start()
	}
	cancel()
	d.received(f)
	res := wait()
	nobodyNoticed(t, &res, 0)
	d.check(f, res)
	commands.check(t, f)
}

// The process dies between each pair of steps, under load; the next goes on.
func TestDeathAtEveryFailpoint(t *testing.T) {
	t.Parallel()
	for _, point := range []string{
		"accepted", "registered", "peeked", "framed", "declared", "appended", "released", "synced", "answered", "store.inserted", "store.committed",
		"new.fetched", "placing", "new.resumed", "new.serving", "new.served", "new.ready",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t)
			d.start()
			f, wait := least(fleet.Options{Addr: d.addr, Devices: 20, Rate: 20, Duration: 4 * time.Second, Torn: 0.3, Redial: 50 * time.Millisecond, Settle: 10 * time.Second})
			d.eventually("all are connected", func() bool { var s control.Status; return d.status(&s) == nil && s.Connections == 20 })
			// Others come and go, so that there is something to accept.
			ctx, stop := context.WithCancel(t.Context())
			var churn sync.WaitGroup
			churn.Go(func() {
				for ctx.Err() == nil {
					if c, err := net.DialTimeout("tcp", d.addr, time.Second); err == nil { //nolint:noctx // loopback
						_, _ = c.Write(device.Build(device.Login, 500_000, 1, time.Now()).Bytes)
						pause(5 * time.Millisecond)
						_ = c.Close()
					}
				}
			})
			for i := range 3 {
				d.kill()
				n := 3 + 3*i
				switch point {
				case "placing":
					n = 1 + i
				case "new.fetched", "new.resumed", "new.serving", "new.served", "new.ready":
					n = 1
				}
				d.launch(fmt.Sprintf("GT06_FAILPOINT=%s:%d", point, n))
				d.eventuallyOr(8*time.Second, d.ended)
				if point != "placing" && !d.ended() {
					t.Fatalf("the failpoint does not kill the server")
				}
			}
			stop()
			churn.Wait()
			d.kill()
			d.start()
			res := wait()
			nobodyNoticed(t, &res, 0)
			d.check(f, res)
		})
	}
}

// What the kernel can do to a connection while nobody serves.
func TestOddConnectionsAcrossAKill(t *testing.T) {
	t.Parallel()
	login := func(n int) []byte { return device.Build(device.Login, n, 0, time.Now()).Bytes }
	beat := func(n, k int) []byte { return device.Build(device.Heartbeat, n, k, time.Now()).Bytes }
	answer := func(b []byte) []byte {
		var m protocol.Message
		new(protocol.Decoder).Decode(&m, b, protocol.Session{})
		return protocol.AppendAnswer(nil, &m, b, time.Now())
	}
	type step func(t *testing.T, c *net.TCPConn, n int)
	send := func(b []byte) step {
		return func(t *testing.T, c *net.TCPConn, _ int) {
			t.Helper()
			if _, err := c.Write(b); err != nil {
				t.Error(err)
			}
		}
	}
	expect := func(want []byte) step {
		return func(t *testing.T, c *net.TCPConn, _ int) {
			t.Helper()
			_ = c.SetReadDeadline(time.Now().Add(patience))
			got := make([]byte, len(want))
			for at := 0; at < len(got); {
				k, err := c.Read(got[at:])
				if err != nil {
					t.Errorf("%v after %x of %x", err, got[:at], want)
					return
				}
				at += k
			}
			if string(got) != string(want) {
				t.Errorf("answered %x, want %x", got, want)
			}
		}
	}
	closed := func(t *testing.T, c *net.TCPConn, _ int) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if n, err := c.Read(make([]byte, 100)); err == nil {
			t.Errorf("%d bytes instead of an end", n)
		}
	}
	cases := map[string]struct{ before, while, after []step }{
		"half a frame, its rest while nobody serves": {
			before: []step{send(beat(1, 1)[:6])}, while: []step{send(beat(1, 1)[6:])}, after: []step{expect(answer(beat(1, 1)))},
		},
		"half a frame, its rest afterwards": {
			before: []step{send(beat(2, 1)[:6])}, after: []step{send(beat(2, 1)[6:]), expect(answer(beat(2, 1)))},
		},
		"a frame while nobody serves": {
			while: []step{send(beat(3, 1))}, after: []step{expect(answer(beat(3, 1)))},
		},
		"an urgent byte before": {
			before: []step{urgent(0x11)}, after: []step{send(beat(4, 1)), expect(answer(beat(4, 1)))},
		},
		"an urgent byte while nobody serves": {
			while: []step{urgent(0x11)}, after: []step{send(beat(5, 1)), expect(answer(beat(5, 1)))},
		},
		"a frame and its end while nobody serves": {
			while: []step{send(beat(6, 1)), func(_ *testing.T, c *net.TCPConn, _ int) { _ = c.CloseWrite() }},
			after: []step{expect(answer(beat(6, 1))), closed},
		},
		"a reset with unread data": {
			while: []step{send(beat(7, 1)), func(_ *testing.T, c *net.TCPConn, _ int) { _ = c.SetLinger(0); _ = c.Close() }},
		},
		"half a frame and its end": {
			before: []step{send(beat(8, 1)[:5])},
			while:  []step{func(_ *testing.T, c *net.TCPConn, _ int) { _ = c.CloseWrite() }},
			after:  []step{closed},
		},
		"idle since long before": {
			after: []step{send(beat(9, 1)), expect(answer(beat(9, 1)))},
		},
		"the longest frame in single bytes": {
			before: []step{singles(longest()[:30_000])}, while: []step{singles(longest()[30_000:50_000])},
			after: []step{singles(longest()[50_000:]), expect(answer(longest()))},
		},
		"megabytes of junk": {
			before: []step{send(junk())}, while: []step{send(junk()[:500_000])}, after: []step{send(junk()), send(beat(11, 1)), expect(answer(beat(11, 1)))},
		},
	}
	d := newDaemon(t, "--config", configFile(t, "limits: {frames: -1}\n")) // megabytes would take minutes
	d.start()
	conns := map[string]*net.TCPConn{}
	each := func(part func(name string, c *net.TCPConn, n int)) {
		var wg sync.WaitGroup
		n := 0
		for name := range cases {
			n++
			wg.Go(func() { part(name, conns[name], n) })
		}
		wg.Wait()
	}
	for name := range cases {
		c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
		if err != nil {
			t.Fatal(err)
		}
		tcp, _ := c.(*net.TCPConn)
		defer tcp.Close() //nolint:errcheck // a test's own
		conns[name] = tcp
		send(login(700+len(conns)))(t, tcp, 0)
		expect(answer(login(700)))(t, tcp, 0)
	}
	steps := func(list []step, c *net.TCPConn, n int) {
		for _, s := range list {
			s(t, c, n)
		}
	}
	each(func(name string, c *net.TCPConn, n int) { steps(cases[name].before, c, n) })
	pause(300 * time.Millisecond)
	d.kill()
	each(func(name string, c *net.TCPConn, n int) { steps(cases[name].while, c, n) })
	d.start()
	each(func(name string, c *net.TCPConn, n int) { steps(cases[name].after, c, n) })
	var st control.Status
	if err := d.status(&st); err != nil || st.State != "ready" {
		t.Errorf("%+v, %v", st, err)
	}
}

func urgent(b byte) func(*testing.T, *net.TCPConn, int) {
	return func(t *testing.T, c *net.TCPConn, _ int) {
		t.Helper()
		raw, err := c.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { err = syscall.Sendto(int(fd), []byte{b}, syscall.MSG_OOB, nil) })
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// longest is a frame with the greatest length the field can hold.
func longest() []byte {
	return protocol.AppendExtended(nil, 0x9b, make([]byte, 65535-5), 1)
}

func junk() []byte {
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(i*7 + 1)
	}
	return b
}

// singles sends each byte in a segment of its own as far as the kernel goes
// along.
func singles(b []byte) func(*testing.T, *net.TCPConn, int) {
	return func(t *testing.T, c *net.TCPConn, _ int) {
		t.Helper()
		_ = c.SetNoDelay(true)
		_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
		for i := range b {
			if _, err := c.Write(b[i : i+1]); err != nil {
				t.Errorf("byte %d: %v", i, err)
				return
			}
		}
	}
}

// Devices that do not read for seconds get each answer once, across kills.
func TestAnswersNobodyReadsSurvive(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	const devices, frames = 30, 3000
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for n := range devices {
		c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() //nolint:errcheck // a test's own
		tcp, _ := c.(*net.TCPConn)
		_ = tcp.SetReadBuffer(2048)
		var want []byte
		var stream []byte
		for k := range frames {
			b := device.Build(device.Heartbeat, n, k, time.Now()).Bytes
			if k == 0 {
				b = device.Build(device.Login, 800+n, 0, time.Now()).Bytes
			}
			stream = append(stream, b...)
			var m protocol.Message
			new(protocol.Decoder).Decode(&m, b, protocol.Session{})
			want = protocol.AppendAnswer(want, &m, b, time.Now())
		}
		go func() { _, _ = c.Write(stream) }()
		wg.Go(func() {
			<-stop
			got := make([]byte, len(want))
			_ = c.SetReadDeadline(time.Now().Add(patience))
			for at := 0; at < len(got); {
				k, err := c.Read(got[at:])
				if err != nil {
					t.Errorf("device %d: %v after %d of %d bytes", n, err, at, len(got))
					return
				}
				at += k
			}
			if string(got) != string(want) {
				t.Errorf("device %d: the answers differ", n)
			}
			_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			if k, _ := c.Read(make([]byte, 100)); k > 0 {
				t.Errorf("device %d: %d bytes too many", n, k)
			}
		})
	}
	for range 4 {
		pause(300 * time.Millisecond)
		d.kill()
		d.start()
	}
	close(stop)
	for range 2 {
		pause(20 * time.Millisecond)
		d.kill()
		d.start()
	}
	wg.Wait()
}

func TestKeeperDies(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	f, wait := least(fleet.Options{Addr: d.addr, Devices: 100, Rate: 5, Duration: 6 * time.Second, Torn: 0.3, Redial: 50 * time.Millisecond})
	held := func() bool {
		var s control.Status
		return d.status(&s) == nil && s.Keeper != nil && s.Keeper.Held == 101 && s.Connections == 100
	}
	d.eventually("the keeper holds all", held)
	d.killKeeper()
	var s control.Status
	d.eventually("status says it", func() bool { return d.status(&s) == nil && s.State == "degraded" && s.Keeper == nil })
	d.startKeeper()
	d.eventually("the next one holds all", held)
	// It is worth as much as the first.
	d.kill()
	d.start()
	// A keeper that hangs is found out, and taken back.
	_ = d.keep.Process.Signal(syscall.SIGSTOP)
	d.eventually("status says that it hangs", func() bool { return d.status(&s) == nil && s.Keeper == nil })
	_ = d.keep.Process.Signal(syscall.SIGCONT)
	d.eventually("it holds all again", held)
	d.kill()
	d.start()
	res := wait()
	nobodyNoticed(t, &res, 0)
	d.check(f, res)
}

// Both die: connections end, what was answered is there.
func TestServerAndKeeperDie(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	f, wait := least(fleet.Options{Addr: d.addr, Devices: 50, Rate: 10, Duration: 3 * time.Second, Redial: 50 * time.Millisecond})
	pause(time.Second)
	d.kill()
	d.killKeeper()
	d.start()
	res := wait()
	if res.Lost != 0 || res.Reconnects < 50 {
		t.Errorf("%+v", res)
	}
	d.check(f, res)
}

// Nobody comes back: after the grace everything is closed and the port free.
func TestGrace(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a test's own
	_, _ = c.Write(device.Build(device.Login, 1, 0, time.Now()).Bytes)
	_, _ = c.Read(make([]byte, 20))
	d.kill()
	begin := time.Now()
	_ = c.SetReadDeadline(begin.Add(patience))
	_, err = c.Read(make([]byte, 1))
	if took := time.Since(begin); err == nil || took < 9*time.Second || took > promised(t, 13*time.Second) {
		t.Errorf("the connection ended after %v, %v", took, err)
	}
	d.listenable(time.Second)
	d.start()
	var st control.Status
	if err := d.status(&st); err != nil || st.State != "ready" || st.Keeper == nil || st.Keeper.Held != 1 {
		t.Errorf("%+v, %v", st, err)
	}
}

// listenable asks that another program can have the device port.
func (d *daemon) listenable(within time.Duration) {
	d.t.Helper()
	if within = promised(d.t, within); !d.eventuallyOr(within, func() bool {
		ln, err := net.Listen("tcp", d.addr) //nolint:noctx // loopback
		return err == nil && ln.Close() == nil
	}) {
		d.t.Fatalf("the port is held after %v", within)
	}
}

func TestKernelThatCannotBeTrusted(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start("GT06_FAILPOINT=selftest")
	f, wait := least(fleet.Options{Addr: d.addr, Devices: 10, Rate: 10, Duration: 2 * time.Second, Redial: 50 * time.Millisecond})
	pause(700 * time.Millisecond)
	var st control.Status
	if err := d.status(&st); err != nil || st.State != "degraded" || st.Keeper != nil {
		t.Errorf("%+v, %v", st, err)
	}
	d.kill()
	d.start("GT06_FAILPOINT=selftest")
	res := wait()
	if res.Lost != 0 || res.Reconnects < 10 {
		t.Errorf("%+v", res)
	}
	d.check(f, res)
}

// A frame of every kind, cut at every byte, its halves on both sides of a kill.
func TestEveryCutAcrossAKill(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	type half struct {
		c          net.Conn
		rest, want []byte
		kind       device.Kind
		at         int
	}
	var list []half
	for kind := device.Login; kind <= device.TimeRequest; kind++ {
		for at := range device.Build(kind, 1, 1, time.Now()).Bytes {
			c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close() //nolint:errcheck // a test's own
			n := 2000 + len(list)
			if _, err := c.Write(device.Build(device.Login, n, 0, time.Now()).Bytes); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(c, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			f := device.Build(kind, n, 1, time.Now()).Bytes
			var m protocol.Message
			new(protocol.Decoder).Decode(&m, f, protocol.Session{})
			if _, err := c.Write(f[:at]); err != nil {
				t.Fatal(err)
			}
			list = append(list, half{c, f[at:], protocol.AppendAnswer(nil, &m, f, time.Now()), kind, at})
		}
	}
	d.kill()
	d.start()
	for _, h := range list {
		if _, err := h.c.Write(h.rest); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range list {
		got := make([]byte, len(h.want))
		if _, err := io.ReadFull(h.c, got); err != nil || h.kind != device.TimeRequest && !bytes.Equal(got, h.want) {
			t.Errorf("kind %d cut at %d: %x, %v, want %x", h.kind, h.at, got, err, h.want)
		}
	}
}

// The database dies, hangs and comes back while programs are replaced.
func TestUpgradesWhileTheDatabaseDies(t *testing.T) {
	t.Parallel()
	db := mariadbtest.Start(t)
	d := newDaemon(t, append(probation(t, 300*time.Millisecond), "--store", "mariadb", "--dsn", db.Schema(t))...)
	d.start()
	d.drained()
	f, wait := d.loaded(fleet.Options{Devices: 50, Rate: 10, Duration: 10 * time.Second})
	upgrade := func() {
		if u, code := d.upgrade(); code != 0 {
			t.Errorf("exit code %d, %+v", code, u)
		}
	}
	db.Kill()
	upgrade()
	d.kill()
	d.start()
	db.Restart(t)
	upgrade()
	_ = db.Process().Signal(syscall.SIGSTOP)
	upgrade()
	d.kill()
	d.start()
	_ = db.Process().Signal(syscall.SIGCONT)
	upgrade()
	res := wait()
	nobodyNoticed(t, &res, 0)
	d.check(f, res)
}
