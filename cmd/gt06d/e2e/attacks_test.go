package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gt06/protocol"
	"gt06/protocol/device"
)

// attack is what somebody does to the port until the context ends. It dials
// through the attacker, who has a network of its own.
type attack struct {
	name string
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
		{"half-open", func(ctx context.Context, a *attacker) {
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
		{"logins of invention", func(ctx context.Context, a *attacker) {
			every(ctx, 400, func(n int) {
				if c := a.dial(ctx, n%3); c != nil {
					_, _ = c.Write(inventedLogin())
					_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
					_, _ = c.Read(make([]byte, 16))
					hangUp(c)
				}
			})
		}},
		{"reconnects from one address", func(ctx context.Context, a *attacker) {
			every(ctx, 1000, func(int) {
				if c := a.dial(ctx, 1); c != nil {
					hangUp(c)
				}
			})
		}},
		{"scanners", func(ctx context.Context, a *attacker) {
			every(ctx, 300, func(n int) {
				if c := a.dial(ctx, n%7); c != nil {
					_, _ = c.Write(scans[n%len(scans)])
					_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
					_, _ = c.Read(make([]byte, 64))
					hangUp(c)
				}
			})
		}},
		{"frames without a login", func(ctx context.Context, a *attacker) {
			frame := device.Build(device.Heartbeat, 1, 1, time.Now()).Bytes
			every(ctx, 200, func(n int) {
				if c := a.dial(ctx, n%7); c != nil {
					_, _ = c.Write(bytes.Repeat(frame, 100))
					hangUp(c)
				}
			})
		}},
		{"never read", func(ctx context.Context, a *attacker) {
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
		{"replayed captures", func(ctx context.Context, a *attacker) {
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
		{"urgent bytes", func(ctx context.Context, a *attacker) {
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

// attackVariable makes a process of this program one of attackers.
const attackVariable = "GT06_E2E_ATTACK"

// orders are what attackers are told, as JSON in attackVariable.
type orders struct {
	Addr  string
	Names []string // of attacks, all of them at once
	Net   byte     // of the first
}

// attackAs runs attacks until the standard input ends, and says how many
// connections were made.
func attackAs(text string) {
	var o orders
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var dialed atomic.Int64
	var wg sync.WaitGroup
	for i, one := range attacks() {
		if slices.Contains(o.Names, one.name) {
			wg.Go(func() { one.run(ctx, &attacker{addr: o.Addr, net: o.Net + byte(i), dialed: &dialed}) })
		}
	}
	wg.Wait()
	fmt.Print(dialed.Load()) //nolint:forbidigo // a program's own
	os.Exit(0)               //nolint:forbidigo // its main is TestMain
}

// attack starts attackers and returns how to end them. They are another
// process, of the lowest priority: theirs are other machines' cores, so what
// good devices notice should be what the server has to do and not what it
// costs to attack it.
func (d *daemon) attack(o orders) (end func() (connections int)) {
	d.t.Helper()
	o.Addr = d.addr
	text, err := json.Marshal(o)
	if err != nil {
		d.t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), "nice", "-n", "19", os.Args[0]) //nolint:gosec // this program
	cmd.Env = append(os.Environ(), attackVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	return func() int {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			d.t.Errorf("attackers: %v", err)
		}
		n, err := strconv.Atoi(out.String())
		if err != nil {
			d.t.Errorf("attackers said %q", out.String())
		}
		return n
	}
}

func pauseUntil(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
