package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gt06/protocol/device"
	"gt06/protocol/device/fleet"
	"gt06/server/control"
	"gt06/storage/sqlstore/mariadbtest"
)

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

// frames returns how many frames the server has counted.
func (d *daemon) frames() (n int) {
	d.t.Helper()
	_, text := d.get("/metrics")
	for line := range strings.Lines(text) {
		if name, v, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(name, `gt06_frames_total{dir="in"`) {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil {
				d.t.Fatal(line)
			}
			n += int(f)
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
// percentile under attack may be twice that of the quiet before or after; when
// all attack at once, five times.
// A machine that does something else at that moment gets two more tries, and in
// the short form the few moments of one core; a server that lets devices wait
// needs three. Memory is that of log and store at full speed, which attackers
// can ask for; none of it is for an attacker alone.
func TestAttackersBesideGoodDevices(t *testing.T) { //nolint:paralleltest // it measures
	t.Run("sqlite", func(t *testing.T) { //nolint:paralleltest // as above
		attackersBeside(t)
	})
	t.Run("mariadb", func(t *testing.T) { //nolint:paralleltest // as above
		if !soak() {
			t.Skip("in the long form: the attackers meet the same server")
		}
		attackersBeside(t, "--store", "mariadb", "--dsn", mariadbtest.Schema(t))
	})
}

func attackersBeside(t *testing.T, args ...string) {
	t.Helper()
	const devices, tries = 100, 3
	span, allowance := 3*time.Second, 25.
	if soak() {
		span, allowance = 20*time.Second, 0
	}
	var kinds [][]string
	all := []string{}
	for _, one := range attacks() {
		kinds, all = append(kinds, []string{one.name}), append(all, one.name)
	}
	kinds = append(kinds, all)
	// The fleet is known: who invents devices uses up the room for unknown ones.
	// So are devices that attackers got hold of: they are let in.
	var known []control.DeviceChange
	for n := range devices * (2*tries + 1) * len(kinds) {
		known = append(known, control.DeviceChange{IMEI: device.IMEI(n).String()})
	}
	for _, first := range []int{captured, captured + 10_000, captured + 20_000} {
		for n := range 20 {
			known = append(known, control.DeviceChange{IMEI: device.IMEI(first + n).String()})
		}
	}
	unknown := len(known) + 2000
	args = append(args, "--log-level", "info", "--config", configFile(t, fmt.Sprintf("limits: {unknown_devices: %d, address_devices: 1500}\n", unknown)))
	d := newDaemon(t, args...)
	d.start()
	d.drained()
	var done control.DevicesChanged
	if err := d.client().Call(t.Context(), "devices-change", known, &done); err != nil || done.Registered != len(known) {
		t.Fatalf("%+v, %v", done, err)
	}
	// good runs a fleet for a while, until stop: it loses nothing and its
	// connections stay.
	phase := 0
	good := func(t *testing.T, stop func()) (p99 float64) {
		t.Helper()
		f := fleet.New(fleet.Options{Addr: d.addr, Devices: devices, First: phase * devices, Rate: 10, Duration: span, Arrival: 200, Torn: 0.1})
		phase++
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
	under := func(t *testing.T, names []string, times, most float64) (well bool) {
		t.Helper()
		watched, enough := context.WithCancel(t.Context())
		defer enough()
		connections, peak := 0, 0
		var wg sync.WaitGroup
		wg.Go(func() {
			for watched.Err() == nil {
				peak = max(peak, d.memory())
				pauseUntil(watched, 200*time.Millisecond)
			}
		})
		end := d.attack(orders{Names: names, Net: byte(60 + phase)})
		before := d.frames()
		p99 := good(t, func() { enough(); wg.Wait(); connections = end() })
		frames := d.frames() - before
		after := good(t, func() {})
		calm := max(quiet, after)
		quiet = after
		extra := float64(peak-memory) / (1 << 20)
		t.Logf("p99 %.1f ms, %.1f times the quiet %.1f ms; %+.1f MiB, %d connections, %d frames", p99, p99/calm, calm, extra, connections, frames)
		return p99 <= times*calm+allowance && extra <= most
	}
	for _, names := range kinds {
		name, times, most := names[0], 2., 40.
		if len(names) > 1 {
			name, times, most = "all of them", 5, 64
		}
		t.Run(name, func(t *testing.T) {
			for range tries {
				if under(t, names, times, most) {
					return
				}
			}
			t.Errorf("good devices wait, or more than %.0f MiB are taken", most)
		})
	}
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
