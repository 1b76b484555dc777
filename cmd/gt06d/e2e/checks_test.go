package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gt06/protocol"
	"gt06/protocol/device"
	"gt06/server/control"
)

// What the vehicles of a test do, each second.
const (
	drive  int32 = iota
	hush         // connected, and silent
	freeze       // says that it drives, and sends one place
	storm        // connects again and again
	park         // heartbeats only, with the ignition off
)

// vehicles are devices that do as they are told: what a simulated fleet does
// too well.
type vehicles struct {
	addr string
	mode atomic.Int32
	n    int
	wg   sync.WaitGroup
}

// roads are where they drive: from, to, in degrees.
var roads = [][4]float64{
	{28.61, 77.21, 26.91, 75.79},
	{19.08, 72.88, 18.52, 73.86},
	{12.97, 77.59, 13.08, 80.27},
	{22.57, 88.36, 23.68, 86.98},
	{17.39, 78.49, 16.51, 80.65},
	{23.02, 72.57, 21.17, 72.83},
	{26.85, 80.95, 25.43, 81.85},
	{21.15, 79.09, 22.72, 75.86},
	{30.73, 76.78, 31.63, 74.87},
	{9.93, 76.27, 8.52, 76.94},
}

func startVehicles(ctx context.Context, addr string, n int) *vehicles {
	v := &vehicles{addr: addr, n: n}
	for i := range n {
		v.wg.Go(func() {
			for ctx.Err() == nil {
				v.connection(ctx, i)
				if v.mode.Load() != storm {
					after(ctx, 200*time.Millisecond)
				}
			}
		})
	}
	return v
}

func after(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// connection is one, until it breaks, or at once when they storm.
func (v *vehicles) connection(ctx context.Context, i int) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", v.addr)
	if err != nil {
		return
	}
	defer c.Close()           //nolint:errcheck // a test's own
	go io.Copy(io.Discard, c) //nolint:errcheck // answers are not looked at
	send := func(b []byte) bool {
		_, err := c.Write(b)
		return err == nil
	}
	if !send(device.Build(device.Login, i, 0, time.Now()).Bytes) || !send(beat(i, true)) {
		return
	}
	if v.mode.Load() == storm {
		after(ctx, 100*time.Millisecond)
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := time.Now()
	for ok, n := true, 1; ok; n++ {
		if m := v.mode.Load(); n%5 == 0 && m != hush && m != park {
			ok = send(beat(i, true))
		}
		switch v.mode.Load() {
		case drive:
			last = time.Now()
			ok = ok && send(fix(0x22, i, last, last))
		case freeze:
			ok = send(fix(0x22, i, last, time.Now()))
		case park:
			ok = send(fixAt(0x22, i, last, time.Now(), 0, false)) && send(beat(i, false))
		case storm:
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// beat is a heartbeat: every ninth device has a battery that is nearly empty.
func beat(i int, ignition bool) []byte {
	info, voltage := byte(0x44), byte(4+i%3)
	if ignition {
		info |= 2
	}
	if i%9 == 8 {
		info, voltage = info&^4, 1
	}
	return protocol.AppendFrame(nil, 0x13, []byte{info, voltage, 4, 0, 1}, uint16(time.Now().Unix()))
}

// fix is where device i is at a time, told at another.
func fix(typ byte, i int, at, told time.Time) []byte {
	return fixAt(typ, i, at, told, byte(40+i%50), true)
}

func fixAt(typ byte, i int, at, told time.Time, speed byte, ignition bool) []byte {
	r := roads[i%len(roads)]
	const hours = 8 * 3_600_000 // there and back
	part := 1 - math.Abs(1-2*math.Mod(float64(i)*.137+float64(at.UnixMilli()%hours)/hours, 1))
	latitude, longitude := r[0]+part*(r[2]-r[0]), r[1]+part*(r[3]-r[1])
	course := uint16(math.Mod(math.Atan2(r[3]-r[1], r[2]-r[0])*180/math.Pi+360, 360))
	told = told.UTC()
	c := []byte{byte(told.Year() - 2000), byte(told.Month()), byte(told.Day()), byte(told.Hour()), byte(told.Minute()), byte(told.Second()), 0xc9}
	c = binary.BigEndian.AppendUint32(c, uint32(latitude*60*30000))
	c = binary.BigEndian.AppendUint32(c, uint32(longitude*60*30000))
	c = binary.BigEndian.AppendUint16(append(c, speed), 0x1400|course)
	if typ == 0x26 { // an alarm: its length of the cells comes first, its kind last
		c = append(c, 9, 0x01, 0x94, 0x0a, 0x12, 0x34, 0x00, 0x56, 0x78, 0x46, 4, 4, 1, 2)
	} else {
		acc := byte(0)
		if ignition {
			acc = 1
		}
		c = append(c, 0x01, 0x94, 0x0a, 0x12, 0x34, 0x00, 0x56, 0x78, acc, 0, 0)
	}
	return protocol.AppendFrame(nil, typ, c, uint16(told.Unix()))
}

// The spans of the tests: short enough to wait for, long enough for a busy
// machine.
const (
	testWindow = 16 * time.Second
	testSilent = 6 * time.Second
)

func newWatched(t *testing.T) *daemon {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gt06.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, "checks: {window: %v, silent: %v}\nupgrade: {probation: 1s}\n", testWindow, testSilent), 0o600); err != nil {
		t.Fatal(err)
	}
	return newDaemon(t, "--config", path)
}

func (d *daemon) validate() control.Validation {
	d.t.Helper()
	var v control.Validation
	d.eventually("validate answers", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		return d.client().Call(ctx, "validate", nil, &v) == nil && len(v.Checks) == 3
	})
	return v
}

// red names the red checks, and young those that warm up.
func red(v control.Validation) (red, young string) {
	for _, c := range v.Checks {
		if !c.OK {
			red += c.Name + " "
		}
		if c.WarmingUp {
			young += c.Name + " "
		}
	}
	return strings.TrimSpace(red), strings.TrimSpace(young)
}

// watch calls for an end of the wait, and fails when a check turns red on the
// way.
func (d *daemon) green(what string, end func(control.Validation) bool) {
	d.t.Helper()
	d.eventually(what, func() bool {
		v := d.validate()
		if r, _ := red(v); r != "" || !v.OK {
			d.t.Fatalf("%s: red before: %s, %+v", what, r, v)
		}
		return end(v)
	})
}

func warm(v control.Validation) bool {
	_, young := red(v)
	return young == "" && !v.WarmingUp
}

// The checks turn red for their own reason and no other, none is red for the
// server's own start, an upgrade changes none, and page, program and API have
// them from one place.
func TestChecks(t *testing.T) {
	t.Parallel()
	const devices = 20
	for name, c := range map[string]struct {
		mode int32
		red  string
		text string
	}{
		"devices silent":   {hush, "timestamps", fmt.Sprintf("0 of %d devices spoke within 6s, %d silent", devices, devices)},
		"positions frozen": {freeze, "locations", fmt.Sprintf("0 of %d devices moved within 16s, %d say they drive and stay where they are", devices, devices)},
		"a storm":          {storm, "reconnects", "connections opened within 16s"},
		"parked at night":  {park, "", fmt.Sprintf("all %d devices are parked, ignition off", devices)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			d := newWatched(t)
			d.start()
			v := startVehicles(ctx, d.addr, devices)
			defer v.wg.Wait()
			defer cancel()
			d.green("the checks are warm", warm)
			if u, code := d.upgrade(); code != 0 || u.Moved != devices {
				t.Errorf("upgrade: exit code %d, %+v", code, u)
			}
			if _, young := red(d.validate()); strings.Contains(young, "reconnects") {
				t.Errorf("behind the upgrade %s warm up: the rates were not handed on", young)
			}
			d.green("the checks are warm behind the upgrade", warm)
			v.mode.Store(c.mode)
			if c.red == "" {
				d.green(c.text, func(v control.Validation) bool { return strings.Contains(v.Checks[1].Text, c.text) })
				return
			}
			var is control.Validation
			d.eventually(c.red+" is red: "+c.text, func() bool {
				is = d.validate()
				r, _ := red(is)
				var texts strings.Builder
				for _, check := range is.Checks {
					texts.WriteString(check.Text + "\n")
				}
				if r != "" && strings.Fields(r)[0] != c.red {
					t.Fatalf("%s is red, not %s: %+v", r, c.red, is)
				}
				return strings.HasPrefix(r, c.red) && strings.Contains(texts.String(), c.text) && !is.OK
			})
			// A storm begins with nobody online, which is red for a moment only.
			d.eventually("gt06ctl validate says so, too", func() bool {
				out, errs, code := d.ctl("validate")
				return code == 7 && strings.Contains(out, "[RED] "+c.red) && strings.Contains(errs, "hint: ")
			})
			if c.mode == hush { // nothing moves any more: all say the same to the letter
				d.same()
			}
			v.mode.Store(drive)
			d.eventually("all is well again", func() bool { return d.validate().OK })
		})
	}
}

// same compares what the program and the API say.
func (d *daemon) same() {
	d.t.Helper()
	var compact bytes.Buffer
	d.eventually("gt06ctl validate --json equals /api/validate", func() bool {
		out, _, _ := d.ctl("validate", "--json")
		_, api := d.get("/api/validate")
		compact.Reset()
		return json.Compact(&compact, []byte(out)) == nil && strings.TrimSpace(api) == compact.String()
	})
}
