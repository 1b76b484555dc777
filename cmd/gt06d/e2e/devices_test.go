package e2e

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gt06/protocol"
	"gt06/protocol/device"
	"gt06/server/control"
	"gt06/storage/sqlstore/mariadbtest"
)

// loggedIn dials and logs a device in; ok says whether it was answered.
func (d *daemon) loggedIn(n int) (c net.Conn, ok bool) {
	d.t.Helper()
	c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.Close() })
	return c, d.exchanged(c, device.Build(device.Login, n, 0, time.Now()).Bytes)
}

// exchanged sends a frame and says whether it is answered.
func (d *daemon) exchanged(c net.Conn, frame []byte) bool {
	_, _ = c.Write(frame)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	n, _ := c.Read(make([]byte, 10))
	return n == 10
}

// must runs gt06ctl, which must end with 0.
func (d *daemon) must(args ...string) string {
	d.t.Helper()
	out, errs, code := d.ctl(args...)
	if code != 0 {
		d.t.Fatalf("%v: exit code %d, %s", args, code, errs)
	}
	return out
}

// problemsOf lists the problems of a device and what is to be done.
func (d *daemon) problemsOf(imei string) map[string]string {
	d.t.Helper()
	var list []control.Problem
	if err := json.Unmarshal([]byte(d.must("devices", "--problems", "--json")), &list); err != nil {
		d.t.Fatal(err)
	}
	kinds := map[string]string{}
	for _, p := range list {
		if p.IMEI == imei {
			kinds[p.Kind] = p.Do
		}
	}
	return kinds
}

// What an operator says of devices holds at once, for connected devices, over a
// kill and without the database.
func TestWhoMayComeIn(t *testing.T) {
	t.Parallel()
	for store, args := range map[string][]string{"sqlite": nil, "mariadb": {"--store", "mariadb"}} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			if args != nil {
				args = append(args, "--dsn", mariadbtest.Schema(t))
			}
			d := newDaemon(t, args...)
			d.start()
			d.drained()
			one, two, three := device.IMEI(1).String(), device.IMEI(2).String(), device.IMEI(3).String()

			// open: everybody; blocked: hung up at once, and refused.
			c, ok := d.loggedIn(1)
			if !ok {
				t.Fatal("an unknown device is not answered under the policy open")
			}
			d.must("devices", "block", one)
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
				t.Errorf("a blocked device is still connected: %v", err)
			}
			if _, ok := d.loggedIn(1); ok {
				t.Error("a blocked device is answered")
			}
			if do := d.problemsOf(one)["blocked"]; !strings.Contains(do, "gt06ctl devices allow "+one) {
				t.Errorf("what is to be done of a blocked device: %q", do)
			}

			// allow: who is registered, and nobody else; over a kill, too.
			if _, ok := d.loggedIn(2); !ok {
				t.Fatal("no answer")
			}
			d.drained()
			d.must("devices", "policy", "allow")
			if _, ok := d.loggedIn(2); !ok {
				t.Error("a device that came before is refused under the policy allow")
			}
			for _, when := range []string{"at once", "after a kill"} {
				if _, ok := d.loggedIn(3); ok {
					t.Errorf("%s: an unknown device is answered under the policy allow", when)
				}
				if when == "at once" {
					d.kill()
					d.start()
				}
			}
			d.drained()
			if do := d.problemsOf(three)["not_allowed"]; do != "gt06ctl devices allow "+three {
				t.Errorf("what is to be done of an unknown device: %q", do)
			}
			d.must("devices", "allow", three, one)
			for _, n := range []int{1, 3} {
				if _, ok := d.loggedIn(n); !ok {
					t.Errorf("device %d is allowed and not answered", n)
				}
			}

			// quarantine: served, and listed until somebody confirms.
			d.must("devices", "policy", "quarantine")
			if _, ok := d.loggedIn(4); !ok {
				t.Error("no answer in quarantine")
			}
			d.drained()
			four := device.IMEI(4).String()
			if do := d.problemsOf(four)["quarantined"]; !strings.Contains(do, "gt06ctl devices allow "+four) {
				t.Errorf("what is to be done of a device in quarantine: %q", do)
			}
			d.must("devices", "allow", four)
			if kinds := d.problemsOf(four); kinds["quarantined"] != "" {
				t.Errorf("it is allowed and has %v", kinds)
			}

			file := filepath.Join(t.TempDir(), "fleet.csv")
			if err := os.WriteFile(file, []byte("imei,name,model,timezone\n"+two+",\"Truck, 'two'\",NT20,+05:30\n"+device.IMEI(5).String()+",Five,,\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if out := d.must("devices", "import", file); !strings.Contains(out, "2 changed, 1 of them new") {
				t.Errorf("import: %q", out)
			}
			if out := d.must("devices", "--json"); !strings.Contains(out, `"Truck, 'two'"`) || !strings.Contains(out, `"NT20"`) {
				t.Errorf("devices: %s", out)
			}
			if out := d.must("devices", "policy", "config"); !strings.HasPrefix(out, "open (from the configuration)") {
				t.Errorf("policy: %q", out)
			}
			if said := d.out.String(); !strings.Contains(said, `"msg":"device changed"`) || !strings.Contains(said, `"msg":"device policy changed"`) {
				t.Error("the log does not say who changed what")
			}
		})
	}
}

// With the database away the policy can be changed, devices cannot, and what
// the server knew of them before a start still holds.
func TestWhoMayComeInWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	db := mariadbtest.Start(t)
	d := newDaemon(t, "--store", "mariadb", "--dsn", db.Schema(t))
	d.start()
	d.drained()
	d.must("devices", "block", device.IMEI(1).String())
	d.must("devices", "allow", device.IMEI(2).String())
	db.Kill()
	d.kill()
	d.start()
	d.must("devices", "policy", "allow")
	for n, want := range map[int]bool{1: false, 2: true, 3: false} {
		if _, ok := d.loggedIn(n); ok != want {
			t.Errorf("device %d: answered is %v without a database", n, ok)
		}
	}
	_, errs, code := d.ctl("devices", "allow", device.IMEI(3).String())
	if code != 9 || !strings.Contains(errs, "nothing was changed") {
		t.Errorf("exit code %d, %s", code, errs)
	}
	db.Restart(t)
	d.drained()
	d.must("devices", "allow", device.IMEI(3).String())
	if _, ok := d.loggedIn(3); !ok {
		t.Error("allowed and not answered")
	}
}

// A device on local time is found, and the command that is shown mends it.
func TestAClockOnLocalTimeIsMended(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	const n = 7
	imei := device.IMEI(n).String()
	c, ok := d.loggedIn(n)
	if !ok {
		t.Fatal("no answer")
	}
	send := func(k int, at time.Time) {
		if !d.exchanged(c, device.Build(device.Location, n, k, at).Bytes) {
			t.Fatal("no answer")
		}
	}
	ahead := 330 * time.Minute
	for k, age := range []time.Duration{100 * time.Second, 60 * time.Second, 0} {
		send(1+k, time.Now().Add(ahead-age))
	}
	d.drained()
	do := d.problemsOf(imei)["zone"]
	if do != "gt06ctl devices timezone "+imei+" +05:30" {
		t.Fatalf("what is to be done: %q, problems %v", do, d.problemsOf(imei))
	}
	d.must(strings.Fields(strings.TrimPrefix(do, "gt06ctl "))...)
	mended := time.Now()
	d.eventually("the zone holds for the connected device", func() bool {
		send(int(time.Since(mended).Milliseconds())+10, time.Now().Add(ahead))
		d.drained()
		var at string
		if err := openRows(t, d).QueryRow("SELECT fix_time FROM latest_positions").Scan(&at); err != nil { //nolint:noctx // a test's own
			t.Fatal(err)
		}
		fix, err := time.Parse("2006-01-02 15:04:05", at[:19])
		return err == nil && time.Since(fix) < time.Minute && time.Since(fix) > -time.Minute
	})
	if kinds := d.problemsOf(imei); kinds["zone"] != "" {
		t.Errorf("still %v", kinds)
	}
}

// A login of another device on a connection ends it.
func TestOneConnectionIsOneDevices(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	c, _ := d.loggedIn(1)
	if d.exchanged(c, device.Build(device.Login, 2, 1, time.Now()).Bytes) {
		t.Error("a login of another device is answered")
	}
	if _, text := d.get("/metrics"); !strings.Contains(text, "gt06_connections_closed_total{reason=\"imei_changed\"} 1\n") {
		t.Error("it is not counted")
	}
	if _, ok := d.problemsOf(device.IMEI(2).String())["imei_changed"]; !ok {
		t.Error("it is no problem")
	}
}

// A balancer in front says whose connection it is; over a kill, too.
func TestBehindABalancer(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "--config", configFile(t, "proxies: [127.0.0.0/24]\n"))
	d.start()
	header := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01\x12\x67\x13\x9f")
	c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a test's own
	if !d.exchanged(c, append(header, device.Build(device.Login, 1, 0, time.Now()).Bytes...)) {
		t.Fatal("no answer")
	}
	known := func(when string) {
		if !d.exchanged(c, device.Build(device.Heartbeat, 1, 1, time.Now()).Bytes) {
			t.Fatalf("%s: no answer", when)
		}
		d.eventually(when+": the device has its own address", func() bool {
			return strings.Contains(d.must("devices", "--json"), `"remote":"192.0.2.7:4711"`)
		})
	}
	known("at first")
	d.kill()
	d.start()
	known("after a kill")

	// Killed before anything was taken: the header is there still.
	late, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close() //nolint:errcheck // a test's own
	var st control.Status
	d.eventually("it is accepted", func() bool { return d.status(&st) == nil && st.Connections == 2 })
	d.kill()
	_, _ = late.Write(header)
	d.start()
	if !d.exchanged(late, device.Build(device.Login, 2, 0, time.Now()).Bytes) {
		t.Error("no answer behind a header that came while nobody served")
	}
	if _, ok := d.loggedIn(3); ok {
		t.Error("a balancer's connection without a header is answered")
	}
}

// An IMEI with letters, zeros only, or, where that is asked for, a wrong check
// digit names nobody.
func TestIMEIsThatAreNone(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "--config", configFile(t, "devices: {check_digit: true}\n"))
	d.start()
	for name, imei := range map[string]protocol.IMEI{"letters": 0x35678901234567a, "zeros": 0, "check digit": 0x490154203237519} {
		c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
		if err != nil {
			t.Fatal(err)
		}
		if d.exchanged(c, protocol.AppendFrame(nil, 0x01, imei.AppendBCD(nil), 1)) {
			t.Errorf("%s: answered", name)
		}
		_ = c.Close()
	}
	c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a test's own
	if !d.exchanged(c, protocol.AppendFrame(nil, 0x01, protocol.IMEI(0x490154203237518).AppendBCD(nil), 1)) {
		t.Error("a good IMEI is not answered")
	}
	if _, text := d.get("/metrics"); !strings.Contains(text, "gt06_connections_closed_total{reason=\"bad_imei\"} 3\n") {
		t.Error("they are not counted")
	}
}
