package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gt06/protocol"
	"gt06/protocol/device"
	"gt06/protocol/device/fleet"
	"gt06/server/control"
)

// watcher is a gt06ctl that goes on; its lines are kept.
type watcher struct {
	d    *daemon
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	list []string
}

func (d *daemon) watch(args ...string) *watcher {
	d.t.Helper()
	w := &watcher{d: d, done: make(chan struct{})}
	w.cmd = exec.CommandContext(context.Background(), filepath.Join(programs, "gt06ctl"), append([]string{"--data-dir", d.dir}, args...)...)
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	w.cmd.Stderr = d.out.File
	out, err := w.cmd.StdoutPipe()
	if err == nil {
		err = w.cmd.Start()
	}
	if err != nil {
		d.t.Fatal(err)
	}
	go func() {
		defer close(w.done)
		for s := bufio.NewScanner(out); s.Scan(); {
			w.mu.Lock()
			w.list = append(w.list, s.Text())
			w.mu.Unlock()
		}
	}()
	d.t.Cleanup(func() { _ = w.cmd.Process.Kill(); <-w.done; _ = w.cmd.Wait() })
	return w
}

func (w *watcher) lines() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.list)
}

// shows waits until a line contains all of the texts.
func (w *watcher) shows(texts ...string) {
	w.d.t.Helper()
	ok := func(line string) bool {
		return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) })
	}
	if !w.d.eventuallyOr(10*time.Second, func() bool { return slices.ContainsFunc(w.lines(), ok) }) {
		w.d.t.Errorf("no line has %q in\n%s", texts, strings.Join(w.lines(), "\n"))
	}
}

// end interrupts it, as an operator does.
func (w *watcher) end() {
	w.d.t.Helper()
	_ = w.cmd.Process.Signal(syscall.SIGINT)
	<-w.done
	if err := w.cmd.Wait(); err != nil {
		w.d.t.Errorf("interrupted: %v", err)
	}
}

func (d *daemon) send(parts ...[]byte) net.Conn {
	d.t.Helper()
	c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.Close() })
	for _, p := range parts {
		if _, err := c.Write(p); err != nil {
			d.t.Fatal(err)
		}
	}
	return c
}

// Who is at the port that is no tracker of ours is seen, with where it comes
// from; who is, is not.
func TestTailUnidentified(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	w, all := d.watch("tail", "--unidentified"), d.watch("tail", "--frames")
	now := time.Now()
	good := device.IMEI(7).String()
	// The streams have begun when they show something.
	d.eventually("tail shows", func() bool {
		d.send([]byte("GET / HTTP/1.1\r\nHost: a\x1b[2Jb\r\n\r\n"))
		return len(w.lines()) > 0 && len(all.lines()) > 0
	})
	login := device.Build(device.Login, 7, 1, now).Bytes
	wrong := device.Build(device.Location, 7, 2, now).Bytes
	wrong[len(wrong)-3] ^= 0xff
	d.send([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
	d.send([]byte("##,imei:359586015829802,A;"))
	early := d.send(device.Build(device.Heartbeat, 8, 1, now).Bytes)
	d.send(login, device.Build(device.Location, 7, 3, now).Bytes, wrong, protocol.AppendFrame(nil, 0xee, []byte("what is this"), 9))
	w.shows("no login from 127.", "looks like HTTP")
	w.shows("looks like TLS")
	w.shows("looks like a GPS103 tracker")
	w.shows("no login from "+early.LocalAddr().String(), "heartbeat")
	w.shows(good, "unknown")
	w.shows(good, "location", "wrong checksum")
	all.shows("checksum", "wrong, should be")
	all.shows("checksum", "right")
	w.end()
	all.end()
	for _, line := range w.lines() {
		if strings.Contains(line, " login") && !strings.Contains(line, "no login") || strings.ContainsRune(line, '\x1b') {
			t.Errorf("shown: %q", line)
		}
	}
}

// Alarms are followed over an upgrade and a kill: each that is in the database
// is printed, once.
func TestAlarmsAreFollowedOverUpgrades(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, probation(t, 500*time.Millisecond)...)
	d.start()
	w := d.watch("alarms", "--follow", "--since", "1m", "--json")
	f, wait := d.loaded(fleet.Options{Devices: 50, Rate: 4, Arrival: 500, Duration: 6 * time.Second, Mix: []device.Kind{device.Alarm, device.Location}})
	if u, code := d.upgrade(); code != 0 {
		t.Fatalf("%+v", u)
	}
	res := wait()
	d.check(f, res)
	var stored []control.Alarm
	out, errs, code := d.ctl("alarms", "--since", "5m", "--most", "100000", "--json")
	if err := json.Unmarshal([]byte(out), &stored); err != nil || code != 0 || len(stored) < 100 {
		t.Fatalf("%d alarms, %v, %s", len(stored), err, errs)
	}
	d.eventuallyOr(5*time.Second, func() bool { return len(w.lines()) >= len(stored) })
	type key struct {
		imei, alarm string
		at          int64
		latitude    float64
	}
	seen := map[key]int{}
	for _, line := range w.lines() {
		var a control.Alarm
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		seen[key{a.IMEI, a.Alarm, a.Time.Unix(), *a.Latitude}]++
	}
	for i := range stored {
		a := &stored[i]
		if n := seen[key{a.IMEI, a.Alarm, a.Time.Unix(), *a.Latitude}]; n != 1 {
			t.Errorf("%+v was printed %d times", a, n)
		}
	}
	if len(seen) != len(stored) {
		t.Errorf("%d printed, %d stored", len(seen), len(stored))
	}
	w.end()
}

// A trace logs the frames of one device and no others, goes on after an
// upgrade, and ends by itself.
func TestTrace(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, probation(t, 300*time.Millisecond)...)
	d.start()
	_, wait := d.loaded(fleet.Options{Devices: 3, Rate: 10, Duration: 6 * time.Second, First: 40})
	imei := device.IMEI(41).String()
	out, errs, code := d.ctl("trace", imei, "--for", "4s")
	if code != 0 || !strings.Contains(out, imei) {
		t.Fatalf("exit %d, %s%s", code, out, errs)
	}
	traced := func() (n int) {
		for line := range strings.Lines(d.out.String()) {
			var l struct {
				Logger, IMEI, Hex, Answer string
				Frame                     struct{ Type string }
			}
			if json.Unmarshal([]byte(line), &l) != nil || l.Logger != "trace" {
				continue
			}
			n++
			if l.IMEI != imei || l.Hex == "" || l.Frame.Type == "" {
				t.Errorf("traced: %s", line)
			}
		}
		return n
	}
	d.eventually("frames are traced", func() bool { return traced() > 5 })
	if u, code := d.upgrade(); code != 0 {
		t.Fatalf("%+v", u)
	}
	before := traced()
	d.eventually("frames are traced after the upgrade", func() bool { return traced() > before+5 })
	d.eventually("it ends", func() bool { return strings.Contains(d.out.String(), `"trace ends"`) })
	end := traced()
	wait()
	if n := traced(); n != end {
		t.Errorf("%d frames were traced after the end", n-end)
	}
	if out, _, _ := d.ctl("trace"); !strings.Contains(out, "no device is traced") {
		t.Errorf("%s", out)
	}
	// One that is ended by hand; a limit; who may not.
	if out, _, code := d.ctl("trace", imei, "--for", "1h", "--json"); code != 0 || !strings.Contains(out, imei) {
		t.Errorf("exit %d, %s", code, out)
	}
	if out, _, code := d.ctl("trace", imei, "--off"); code != 0 || !strings.Contains(out, "no device is traced") {
		t.Errorf("exit %d, %s", code, out)
	}
	if _, errs, code := d.ctl("trace", imei, "--for", "48h"); code != 2 || !strings.Contains(errs, "24h") {
		t.Errorf("exit %d, %s", code, errs)
	}
}

func TestTrack(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	f, wait := d.loaded(fleet.Options{Devices: 2, Rate: 10, Duration: 3 * time.Second, First: 60, Mix: []device.Kind{device.Location, device.Cells, device.Alarm}})
	res := wait()
	d.check(f, res)
	imei := device.IMEI(60).String()
	out, errs, code := d.ctl("track", imei, "--format", "geojson")
	var g struct {
		Type     string
		Features []struct {
			Type     string
			Geometry struct {
				Type        string
				Coordinates json.RawMessage
			}
			Properties map[string]any
		}
	}
	if err := json.Unmarshal([]byte(out), &g); err != nil || code != 0 || g.Type != "FeatureCollection" || len(g.Features) < 10 {
		t.Fatalf("exit %d, %v, %s%s", code, err, out, errs)
	}
	last := g.Features[len(g.Features)-1]
	var line [][2]float64
	if err := json.Unmarshal(last.Geometry.Coordinates, &line); err != nil || last.Geometry.Type != "LineString" || len(line) != len(g.Features)-1 || len(last.Properties["coordTimes"].([]any)) != len(line) {
		t.Errorf("%v, %s, %d points of %d", err, last.Geometry.Type, len(line), len(g.Features)-1)
	}
	csv, _, _ := d.ctl("track", imei, "--format", "csv")
	jsons, _, _ := d.ctl("track", imei, "--json")
	rows, objects := strings.Count(csv, "\n")-1, strings.Count(jsons, "\n")
	if rows != objects || rows <= len(line) {
		t.Errorf("%d rows, %d objects, %d of them with a fix", rows, objects, len(line))
	}
	if _, errs, code := d.ctl("track", imei, "--from", "3h", "--to", "2h"); code != 0 || !strings.Contains(errs, "no position of "+imei) {
		t.Errorf("exit %d, %s", code, errs)
	}
	if _, errs, code := d.ctl("track", "490154203237518"); code != 14 || !strings.Contains(errs, "hint: ") {
		t.Errorf("exit %d, %s", code, errs)
	}
}

// A support bundle of a server with traffic: everything is there, and no IMEI.
func TestSupportBundle(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	f, wait := d.loaded(fleet.Options{Devices: 5, Rate: 5, Duration: 2 * time.Second, First: 80})
	imei := device.IMEI(80).String()
	if _, errs, code := d.ctl("trace", imei, "--for", "1h"); code != 0 {
		t.Fatal(errs)
	}
	d.send(device.Build(device.Heartbeat, 81, 1, time.Now()).Bytes) // before a login: in quarantine
	wait()
	d.drained()
	path := filepath.Join(t.TempDir(), "bundle.tar.gz")
	out, errs, code := d.ctl("support-bundle", "--out", path)
	if code != 0 || !strings.Contains(out, "config.yaml") {
		t.Fatalf("exit %d, %s%s", code, out, errs)
	}
	text, err := exec.CommandContext(t.Context(), "tar", "-xzOf", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"gt06_", "listen: " + d.addr, `"state": "ready"`, `"reason": "no login"`, `"msg":"trace"`, "Max open files", "inodes free"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in the bundle:\n%s", want, out)
		}
	}
	for _, imei := range f.IMEIs() {
		if strings.Contains(string(text), imei) {
			t.Errorf("%s is in the bundle", imei)
		}
	}
}
