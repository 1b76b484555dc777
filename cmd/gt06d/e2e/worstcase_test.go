package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gt06/ops/cloud/fake"
	"gt06/protocol/device/fleet"
)

// image is a root volume as a file: ext4 on a loop device.
type image struct {
	t    *testing.T
	file string
	loop string
}

func shell(t *testing.T, format string, args ...any) string {
	t.Helper()
	out, err := exec.CommandContext(context.Background(), "sh", "-ec", fmt.Sprintf(format, args...)).CombinedOutput() //nolint:gosec // a test's own
	if err != nil {
		t.Fatalf("%s: %v\n%s", fmt.Sprintf(format, args...), err, out)
	}
	return strings.TrimSpace(string(out))
}

// attach gives it a loop device until the test ends.
func attach(t *testing.T, file string) *image {
	t.Helper()
	loop := shell(t, "losetup --find --show '%s'", file)
	t.Cleanup(func() {
		_ = exec.CommandContext(context.Background(), "losetup", "-d", loop).Run() //nolint:gosec // as above
	})
	return &image{t, file, loop}
}

func (i *image) mount(dir string) {
	i.t.Helper()
	shell(i.t, "mkdir -p '%s'; mount %s '%s'", dir, i.loop, dir)
	i.t.Cleanup(func() {
		_ = exec.CommandContext(context.Background(), "umount", "-l", dir).Run() //nolint:gosec // as above
	})
}

// TestWorstCaseWithSalvage is the strategy's worst case with a real spool on
// two volumes: a snapshot, ten thousand more frames, the machine is lost, the
// root volume goes back to the snapshot, and the salvage from the kept volume
// makes the ledger exact. Only the cloud is a fake: volumes are images here.
func TestWorstCaseWithSalvage(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("loop devices and mounts take root")
	}
	for _, program := range []string{"losetup", "mkfs.ext4", "fsfreeze"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	work := t.TempDir()
	file := filepath.Join(work, "root.img")
	shell(t, "truncate -s 8G '%s'; mkfs.ext4 -q -E lazy_itable_init=1 '%s'", file, file)
	root := filepath.Join(work, "root")
	old := attach(t, file)
	old.mount(root)
	d := newDaemon(t)
	d.dir = filepath.Join(root, "var/lib/gt06")
	shell(t, "mkdir -p '%s'", d.dir)

	a := fake.New()
	t.Cleanup(a.Close)
	site := a.Production()
	o := maintainer(t, site, d)
	o.keys("services: {mariadb: \"\", nginx_unit: \"\", laravel_dir: \"\"}\n") // the server is alone
	d.start()
	send := func(first, devices int, seconds time.Duration) (*fleet.Fleet, fleet.Result) {
		f := fleet.New(fleet.Options{Addr: d.addr, Devices: devices, First: first, Rate: 20, Duration: seconds, Torn: 0.2})
		return f, f.Run(t.Context())
	}
	before, res0 := send(0, 20, time.Second)
	d.check(before, res0)

	o.ops("change", "open", "--action", "other", "--reason", "the disk is not to be trusted")
	o.apply("snapshot", "create")
	o.apply("run", "--", "true") // the first step passes the gate: the snapshot is the change's
	// What EBS does at that moment: the blocks as they are, under a server that
	// goes on.
	copied := filepath.Join(work, "snapshot.img")
	shell(t, "fsfreeze -f '%s'; cp --sparse=always '%s' '%s'; fsfreeze -u '%s'", root, file, copied, root)
	since, res1 := send(1000, 100, 5200*time.Millisecond)
	if res1.Sent < 10_000 {
		t.Fatalf("%d frames since the snapshot", res1.Sent)
	}
	began := time.Now()
	d.kill()
	d.killKeeper()
	shell(t, "umount '%s'", root)

	var imported string
	a.Guest = func(_, script string) (int, string, string) {
		// The machine runs on the volume of the snapshot, and the old one is
		// lent to it.
		attach(t, copied).mount(root)
		d.start()
		cmd := exec.CommandContext(context.Background(), "sh", "-c", script)
		cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "SALVAGE_DEVICE="+old.loop, "SALVAGE_MOUNT="+filepath.Join(work, "kept"), "GT06_DATA_DIR="+d.dir)
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		imported = string(out)
		if err != nil {
			return 1, imported, errs.String()
		}
		return 0, imported, errs.String()
	}
	o.apply("abort")
	o.apply("restore", "instance", "--guest", "ssm")
	t.Logf("from the loss to the end of the salvage %s (strategy: 10 to 15 minutes with AWS' own time): %s", time.Since(began).Round(time.Millisecond), imported)
	d.check(before, res0)
	d.check(since, res1)
	if at := a.AddressOf(site.Allocation); at != site.Instance {
		t.Errorf("the Elastic IP is at %q", at)
	}
	a.On = site.Instance
	o.ops("validate")
	o.ops("change", "close")
	o.ops("verify-journal")
}

// operated runs gt06ctl ops from another machine.
type operated struct {
	t      *testing.T
	config string
	before []string // flags in front of ops
	env    []string
}

// maintainer writes the configuration for a site whose server is d, which gets a
// port of its own: who holds it is asked for the whole machine, which others
// keep busy.
func maintainer(t *testing.T, site fake.Site, d *daemon) *operated {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // local
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ := net.SplitHostPort(d.addr)
	_, port, _ := net.SplitHostPort(free.Addr().String())
	d.addr = net.JoinHostPort(host, port)
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	more := "limits: {load_factor: 1000, load_rise: 1000, disk_pct: 99}\ngt06: {port: " + port + ", devices_updated: \"simulated ones dial it\"}\n"
	o := &operated{t: t, config: filepath.Join(dir, "ops.yaml"), before: []string{"--data-dir", d.dir}}
	if err := os.WriteFile(o.config, []byte(site.Config(dir)+more), 0o600); err != nil {
		t.Fatal(err)
	}
	return o
}

// keys adds settings to the configuration.
func (o *operated) keys(text string) {
	o.t.Helper()
	b, err := os.ReadFile(o.config)
	if err == nil {
		err = os.WriteFile(o.config, append(b, text...), 0o600)
	}
	if err != nil {
		o.t.Fatal(err)
	}
}

func (o *operated) run(args ...string) (string, error) {
	cmd := exec.CommandContext(context.Background(), filepath.Join(programs, "gt06ctl"), append(append(append([]string{}, o.before...), "ops", "--config", o.config), args...)...) //nolint:gosec // the program under test
	var errs strings.Builder
	cmd.Stderr, cmd.Env = &errs, append(os.Environ(), o.env...)
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%v: %w\n%s", args, err, errs.String())
	}
	return string(out), err
}

func (o *operated) ops(args ...string) {
	o.t.Helper()
	if out, err := o.run(args...); err != nil {
		o.t.Fatalf("%v\n%s", err, out)
	}
}

// apply reads the plan, approves and does it.
func (o *operated) apply(args ...string) {
	o.t.Helper()
	out, _ := o.run(append([]string{"--json"}, args...)...) // 10: a plan has changes
	var p struct{ Plan string }
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		o.t.Fatalf("plan of %v: %v\n%s", args, err, out)
	}
	o.ops(append([]string{"--apply", "--yes", "--plan", p.Plan}, args...)...)
}
