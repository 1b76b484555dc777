package e2e

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gt06/protocol/device/fleet"
	"gt06/server/control"
	"gt06/storage"
	"gt06/storage/spool"
)

// benchDevices is how many devices the bench of the handover drives: as many
// as one process may have descriptors for, at most 10,000.
func benchDevices(t *testing.T) int {
	t.Helper()
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	if v := os.Getenv("GT06_BENCH_DEVICES"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return int(min(lim.Max-1000, 10_000))
}

// scene is one way of replacing a server, as the devices saw it.
type scene struct {
	name    string
	res     fleet.Result
	events  []time.Time // when it was replaced
	trace   []fleet.Answer
	upgrade []control.Upgrade
	ready   []time.Time
	silence []float64 // milliseconds from each event to the last device's next answer
	rows    string
}

// percentile of a list that it sorts.
func percentile(list []float64, p float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(len(list)-1, int(p*float64(len(list))))]
}

// split returns the p99.9 of answers to frames sent around the events and of
// all others, in milliseconds.
func (s *scene) split() (during, outside float64) {
	var in, out []float64
	for _, a := range s.trace {
		sent := a.At.Add(-time.Duration(float64(a.Took) * 1e6))
		near := slices.ContainsFunc(s.events, func(e time.Time) bool {
			return sent.After(e.Add(-100*time.Millisecond)) && sent.Before(e.Add(700*time.Millisecond))
		})
		if near {
			in = append(in, float64(a.Took))
		} else {
			out = append(out, float64(a.Took))
		}
	}
	return percentile(in, .999), percentile(out, .999)
}

// TestBenchHandover is `make bench-handover`.
func TestBenchHandover(t *testing.T) {
	if os.Getenv("GT06_BENCH") == "" {
		t.Skip("make bench-handover runs it")
	}
	devices := benchDevices(t)
	scenes := []*scene{
		benchUpgrade(t, devices), benchKill(t, devices, false), benchKill(t, devices, true), benchStop(t, devices), benchListenerOnly(t, devices),
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d devices, 0.2 frames a second each, a third of the frames in two pieces\n\n", devices)
	fmt.Fprintf(&b, "| way | reconnects | lost | sent twice | answered twice | nobody serves, ms: half / 99 %% | answer p99.9, ms: outside / around | last device's next answer, ms: half / most | ledger |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, s := range scenes {
		during, outside := s.split()
		var stalls, free []float64
		for _, u := range s.upgrade {
			stalls, free = append(stalls, u.StallMS), append(free, u.FreeMS)
		}
		stall := "–"
		if len(stalls) > 0 {
			stall = fmt.Sprintf("%.1f / %.1f, of it without an owner %.1f / %.1f", percentile(stalls, .5), percentile(stalls, .99), percentile(free, .5), percentile(free, .99))
		}
		silence := "–"
		if len(s.silence) > 0 {
			silence = fmt.Sprintf("%.0f / %.0f", percentile(s.silence, .5), percentile(s.silence, 1))
		}
		fmt.Fprintf(&b, "| %s, %d times | %d | %d | %d | %d | %s | %.1f / %.1f | %s | %s |\n", s.name, len(s.events), s.res.Reconnects, s.res.Lost, s.res.Sent-s.res.Answered, s.res.Duplicated, stall, outside, during, silence, s.rows)
	}
	out := os.Getenv("GT06_BENCH_OUT")
	if out == "" {
		out = t.TempDir()
	}
	if err := os.MkdirAll(out, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "handover.md"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "handover.svg"), plot(scenes), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s\nplot: %s", b.String(), filepath.Join(out, "handover.svg"))
}

// arrive starts the fleet of a scene.
func (d *daemon) arrive(devices int, last time.Duration) (*fleet.Fleet, func() fleet.Result) {
	return d.loaded(fleet.Options{Devices: devices, Rate: 0.2, Arrival: 3000, Duration: time.Duration(devices/3000+2)*time.Second + last, Trace: true})
}

func (s *scene) end(d *daemon, f *fleet.Fleet, wait func() fleet.Result) *scene {
	s.res, s.trace = wait(), f.Trace()
	r := d.check(f, s.res)
	s.rows = fmt.Sprintf("%d of %d", r.Expected-r.Missing-r.Doubled-r.Wrong, r.Expected)
	return s
}

func benchUpgrade(t *testing.T, devices int) *scene {
	t.Helper()
	d := newDaemon(t, probation(t, 500*time.Millisecond)...)
	d.start()
	const times = 30
	f, wait := d.arrive(devices, times*1500*time.Millisecond)
	s := &scene{name: "gt06ctl upgrade"}
	pause(2 * time.Second)
	for range times {
		s.events = append(s.events, time.Now())
		u, code := d.upgrade()
		if code != 0 {
			t.Fatalf("%+v", u)
		}
		s.upgrade = append(s.upgrade, u)
		pause(600 * time.Millisecond)
	}
	return s.end(d, f, wait)
}

// benchKill kills the server; full: with a log of a gigabyte that is not in the
// database.
func benchKill(t *testing.T, devices int, full bool) *scene {
	t.Helper()
	args := []string{}
	s := &scene{name: "kill -9 and a start"}
	if full {
		args = append(args, "--store", "mariadb", "--dsn", "nobody@tcp("+freeHost()+":3306)/away")
		s.name = "kill -9 and a start, with 1 GiB of log behind it"
	}
	d := newDaemon(t, args...)
	if full {
		fill(t, filepath.Join(d.dir, "spool"))
	}
	d.start()
	const times = 5
	f, wait := d.arrive(devices, times*2500*time.Millisecond)
	for range times {
		pause(2 * time.Second)
		s.events = append(s.events, time.Now())
		d.kill()
		d.start()
		s.ready = append(s.ready, time.Now())
	}
	s.res, s.trace = wait(), f.Trace()
	for i, e := range s.events {
		// From the kill to the last answer to a frame that was sent before the
		// server was back.
		last := 0.0
		for _, a := range s.trace {
			sent := a.At.Add(-time.Duration(float64(a.Took) * 1e6))
			if sent.Before(s.ready[i]) && a.At.After(e) {
				last = max(last, float64(a.At.Sub(e).Microseconds())/1000)
			}
		}
		s.silence = append(s.silence, last)
	}
	if full {
		s.rows = "database away"
		return s
	}
	return s.end(d, f, func() fleet.Result { return s.res })
}

func fill(t *testing.T, dir string) {
	t.Helper()
	w, err := spool.Open(spool.Options{Dir: dir, MaxBytes: 4 << 30, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	input := make([]byte, 4000)
	batch := make([]*storage.Record, 100)
	for i := range batch {
		batch[i] = &storage.Record{Conn: 7, InputEnd: 1, Input: input, Flags: storage.Junk}
	}
	for w.End().Segment() < 17 { // of 64 MiB
		if _, err := w.Append(batch); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func benchStop(t *testing.T, devices int) *scene {
	t.Helper()
	d := newDaemon(t, "--keeper", "off")
	d.alone = true
	d.start()
	f, wait := d.arrive(devices, 12*time.Second)
	pause(2 * time.Second)
	s := &scene{name: "control: stop and start", events: []time.Time{time.Now()}}
	d.stop()
	d.start()
	return s.end(d, f, wait)
}

func benchListenerOnly(t *testing.T, devices int) *scene {
	t.Helper()
	path := filepath.Join(t.TempDir(), "listeneronly")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./listeneronly").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	addr := freeHost() + ":5023"
	cmd := exec.CommandContext(context.Background(), path, addr)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() }()
	for range 100 {
		if c, err := net.Dial("tcp", addr); err == nil { //nolint:noctx // loopback
			_ = c.Close()
			break
		}
		pause(50 * time.Millisecond)
	}
	f := fleet.New(fleet.Options{
		Addr: addr, Devices: devices, Rate: 0.2, Arrival: 3000, Duration: time.Duration(devices/3000+2)*time.Second + 12*time.Second, Trace: true, Torn: 0.3,
		Redial: 50 * time.Millisecond, Settle: 10 * time.Second,
	})
	wait := run(f)
	pause(time.Duration(devices/3000+3) * time.Second)
	s := &scene{name: "control: tableflip passes the listener only", events: []time.Time{time.Now()}}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.res, s.trace, s.rows = wait(), f.Trace(), "keeps nothing"
	return s
}

// plot draws the slowest answer of each tenth of a second, a row for each
// scene, on a logarithmic scale from 0.1 ms to 10 s.
func plot(scenes []*scene) []byte {
	const width, height, left = 1000, 120, 60
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", width+left+20, len(scenes)*(height+40))
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/>`+"\n")
	for i, s := range scenes {
		if len(s.trace) == 0 {
			continue
		}
		top := i*(height+40) + 25
		begin, end := s.trace[0].At, s.trace[0].At
		for _, a := range s.trace {
			if a.At.Before(begin) {
				begin = a.At
			}
			if a.At.After(end) {
				end = a.At
			}
		}
		span := end.Sub(begin).Seconds()
		x := func(at time.Time) float64 { return left + at.Sub(begin).Seconds()/span*width }
		y := func(ms float64) float64 { return float64(top) + height - (log10(ms)+1)/5*height }
		fmt.Fprintf(&b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", left, top-8, s.name)
		for _, ms := range []float64{.1, 1, 10, 100, 1000, 10000} {
			fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="2" y="%.1f">%g ms</text>`+"\n", left, left+width, y(ms), y(ms), y(ms)+4, ms)
		}
		for _, e := range s.events {
			fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#d33" stroke-dasharray="3"/>`+"\n", x(e), x(e), top, top+height)
		}
		worst := make([]float64, int(span*10)+1)
		for _, a := range s.trace {
			k := int(a.At.Sub(begin).Seconds() * 10)
			worst[k] = max(worst[k], float64(a.Took))
		}
		fmt.Fprintf(&b, `<polyline fill="none" stroke="#07c" points="`)
		for k, ms := range worst {
			if ms > 0 {
				fmt.Fprintf(&b, "%.1f,%.1f ", left+float64(k)/10/span*width, y(ms))
			}
		}
		fmt.Fprintf(&b, `"/>`+"\n")
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

func log10(v float64) float64 { return math.Log10(max(v, .1)) }
