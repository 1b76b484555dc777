package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gt06/protocol/device/fleet"
	"gt06/server/control"
	"gt06/storage/sqlstore/mariadbtest"
)

// ctl runs gt06ctl and returns what it printed and its exit code.
func (d *daemon) ctl(args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	cmd := exec.CommandContext(context.Background(), filepath.Join(programs, "gt06ctl"), append([]string{"--data-dir", d.dir}, args...)...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// upgrade runs `gt06ctl upgrade --json`.
func (d *daemon) upgrade(args ...string) (u control.Upgrade, code int) {
	d.t.Helper()
	out, errs, code := d.ctl(append([]string{"upgrade", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &u); err != nil {
		d.t.Errorf("gt06ctl upgrade: exit code %d, %q, %q", code, out, errs)
	}
	return u, code
}

// probation makes the configuration with a probation of its own.
func probation(t *testing.T, d time.Duration) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gt06.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, "upgrade:\n  probation: %v\n", d), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--config", path}
}

// program writes a script that stands for a new program.
func program(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gt06d")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// failing is gt06d with a failpoint.
func failing(t *testing.T, point string) string {
	t.Helper()
	return program(t, fmt.Sprintf("#!/bin/sh\nGT06_FAILPOINT='%s' exec %s \"$@\"\n", point, filepath.Join(programs, "gt06d")), 0o755)
}

// loaded starts a fleet and waits until it is connected.
func (d *daemon) loaded(opt fleet.Options) (f *fleet.Fleet, wait func() fleet.Result) {
	d.t.Helper()
	opt.Addr, opt.Torn, opt.Redial = d.addr, 0.3, 50*time.Millisecond
	f, wait = least(opt)
	d.eventually("the fleet is connected", func() bool {
		var s control.Status
		return d.status(&s) == nil && s.DevicesOnline == opt.Devices
	})
	return f, wait
}

func TestUpgradeUnderLoad(t *testing.T) {
	devices := 5000
	if soak() {
		devices = 19_000
	}
	d := newDaemon(t, probation(t, time.Second)...)
	d.start()
	f, wait := d.loaded(fleet.Options{Devices: devices, Rate: 0.3, Arrival: 2500, Duration: 10 * time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	commands := d.command(ctx, f)
	for range 3 {
		u, code := d.upgrade()
		t.Logf("%+v", u)
		if code != 0 || u.Result != control.Upgraded || u.Moved != devices || u.Dropped != 0 || u.From.PID == u.To.PID || u.To.Generation <= u.From.Generation {
			t.Errorf("exit code %d, %+v", code, u)
		}
	}
	cancel()
	d.received(f)
	var st control.Status
	if err := d.status(&st); err != nil || st.Connections != devices || st.DevicesOnline != devices || st.LastUpgrade == nil || st.Keeper.Held != devices+1 {
		t.Errorf("%+v, %v", st, err)
	}
	res := wait()
	nobodyNoticed(t, &res, 0)
	d.check(f, res)
	commands.check(t, f)
}

// usage is what a process holds.
type usage struct{ descriptors, rss, goroutines int }

// usage returns what the serving process holds at its quietest: questions under
// way hold something, too.
func (d *daemon) usage() usage {
	u := d.usageNow()
	for range 10 {
		pause(20 * time.Millisecond)
		n := d.usageNow()
		u = usage{min(u.descriptors, n.descriptors), min(u.rss, n.rss), min(u.goroutines, n.goroutines)}
	}
	return u
}

func (d *daemon) usageNow() (u usage) {
	d.t.Helper()
	pid := d.serving()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		d.t.Fatal(err)
	}
	u.descriptors = len(fds)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			u.rss, _ = strconv.Atoi(strings.Fields(v)[0])
		}
	}
	_, text := d.get("/metrics")
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			u.goroutines, _ = strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return u
}

func (d *daemon) get(path string) (code int, text string) {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + d.admin + path) //nolint:noctx // the client has a time-out
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// Again and again: nothing piles up, nobody notices, and whoever scrapes sees
// no error and no dip.
func TestUpgradesInARow(t *testing.T) {
	t.Parallel()
	upgrades := 20
	if soak() {
		upgrades = 200
	}
	d := newDaemon(t, probation(t, 200*time.Millisecond)...)
	d.start()
	const devices = 200
	f, wait := d.loaded(fleet.Options{Devices: devices, Rate: 3})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	commands := d.command(ctx, f)
	var scraping sync.WaitGroup
	scraping.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for ; ctx.Err() == nil; <-tick.C {
			for _, path := range []string{"/metrics", "/healthz"} {
				code, text := d.get(path)
				if code != http.StatusOK || path == "/metrics" && !strings.Contains(text, fmt.Sprintf("\ngt06_connections_open %d\n", devices)) {
					t.Errorf("%s: %d %.200s", path, code, text)
				}
			}
		}
	})
	var first usage
	for i := range upgrades {
		if u, code := d.upgrade(); code != 0 || u.Moved != devices {
			t.Errorf("exit code %d, %+v", code, u)
		}
		if i == 4 {
			first = d.usage()
		}
	}
	last := d.usage()
	t.Logf("after 5 upgrades %+v, after %d %+v", first, upgrades, last)
	if last.descriptors > first.descriptors+5 || last.goroutines > first.goroutines+5 || last.rss > first.rss*3/2 {
		t.Errorf("something piles up: %+v, then %+v", first, last)
	}
	cancel()
	scraping.Wait()
	d.received(f)
	res := wait()
	nobodyNoticed(t, &res, 0)
	d.check(f, res)
	commands.check(t, f)
	out, _, code := d.ctl("upgrades", "--json")
	var list []control.Upgrade
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list) != upgrades {
		t.Errorf("%d upgrades in the history, exit code %d, %v", len(list), code, err)
	}
}

// faulty runs an upgrade in which something goes wrong under load, and asks
// that nobody noticed.
func faulty(t *testing.T, env string, binary func(t *testing.T) string, check func(t *testing.T, d *daemon, u control.Upgrade, code int)) {
	t.Helper()
	d := newDaemon(t, probation(t, 500*time.Millisecond)...)
	if env != "" {
		d.env = []string{"GT06_FAILPOINT=" + env}
	}
	d.start()
	f, wait := d.loaded(fleet.Options{Devices: 50, Rate: 5, Duration: 5 * time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	commands := d.command(ctx, f)
	pause(300 * time.Millisecond)
	args := []string{}
	if binary != nil {
		args = []string{"--binary", binary(t)}
	}
	u, code := d.upgrade(args...)
	check(t, d, u, code)
	cancel()
	d.received(f)
	res := wait()
	nobodyNoticed(t, &res, 0)
	d.check(f, res)
	commands.check(t, f)
}

// The new program fails at every step, in every way.
func TestNewProgramFails(t *testing.T) {
	t.Parallel()
	before := map[string]bool{"new.begin": true, "new.fetched": true}
	for _, point := range []string{"new.begin", "new.fetched", "new.warm", "new.free", "new.locked", "new.synced", "new.resumed", "new.serving", "new.served", "new.ready"} {
		for _, action := range []string{"kill", "hang", "exit", "stop"} {
			// A second for each hang; the rest of the table is for the soak.
			if !soak() && action != "kill" && point != "new.begin" && point != "new.locked" && point != "new.served" {
				continue
			}
			t.Run(point+"="+action, func(t *testing.T) {
				t.Parallel()
				faulty(t, "", func(t *testing.T) string { return failing(t, point+"="+action) }, func(t *testing.T, _ *daemon, u control.Upgrade, code int) {
					want, exit := control.RolledBack, 6
					switch {
					case before[point], point == "new.warm" && u.Result == control.Refused:
						// Dead as it says that it is warm: its end may be seen before its word.
						want, exit = control.Refused, 3
					case point == "new.ready" && action == "hang", point == "new.served" && action == "stop":
						// It serves, and dies or not in its probation: both are right.
						return
					}
					if u.Result != want || code != exit {
						t.Errorf("exit code %d, %+v, want %s", code, u, want)
					}
				})
			})
		}
	}
}

// The old program dies at every step.
func TestOldProgramDies(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"old.warm", "old.frozen", "old.unlocked", "old.free", "old.served", "old.end"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, probation(t, 500*time.Millisecond)...)
			d.start("GT06_FAILPOINT=" + point)
			f, wait := d.loaded(fleet.Options{Devices: 50, Rate: 5, Duration: 4 * time.Second})
			pid := d.serving()
			clean := program(t, "#!/bin/sh\nGT06_FAILPOINT= exec "+filepath.Join(programs, "gt06d")+" \"$@\"\n", 0o755)
			go func() { _, _, _ = d.ctl("upgrade", "--binary", clean) }()
			d.eventually("the old one dies", d.ended)
			var st control.Status
			d.eventually("the new one serves", func() bool { return d.status(&st) == nil && st.PID != pid && st.State == "ready" })
			res := wait()
			nobodyNoticed(t, &res, 0)
			d.check(f, res)
		})
	}
}

func TestBrokenPrograms(t *testing.T) {
	t.Parallel()
	gt06d := filepath.Join(programs, "gt06d")
	for name, c := range map[string]struct {
		binary func(t *testing.T) string
		result string
		says   string
	}{
		"exits at once":            {func(t *testing.T) string { return program(t, "#!/bin/sh\nexit 3\n", 0o755) }, control.Refused, "exit status 3"},
		"hangs before it is ready": {func(t *testing.T) string { return program(t, "#!/bin/sh\nexec sleep 60\n", 0o755) }, control.Refused, "timed out"},
		"not executable":           {func(t *testing.T) string { return program(t, "#!/bin/sh\n", 0o644) }, control.Refused, "not executable"},
		"a text file":              {func(t *testing.T) string { return program(t, "hello\n", 0o755) }, control.Refused, "exec format error"},
		"no file":                  {func(t *testing.T) string { return filepath.Join(t.TempDir(), "nothing") }, control.Refused, "no such file"},
		"a directory":              {func(t *testing.T) string { return t.TempDir() }, control.Refused, "not a file"},
		"too few descriptors": {func(t *testing.T) string {
			return program(t, "#!/bin/sh\nulimit -n 45; exec "+gt06d+" \"$@\"\n", 0o755)
		}, control.Refused, ""},
		"another log format": {alien, control.Refused, "version"},
		"configuration is wrong": {func(t *testing.T) string {
			return program(t, "#!/bin/sh\nGT06_STORE=oracle exec "+gt06d+" \"$@\"\n", 0o755)
		}, control.Refused, ""},
		"dies in its probation": {func(t *testing.T) string { return failing(t, "probation") }, control.RolledBack, "probation"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			faulty(t, "", c.binary, func(t *testing.T, d *daemon, u control.Upgrade, code int) {
				want := map[string]int{control.Refused: 3, control.RolledBack: 6}[c.result]
				if u.Result != c.result || code != want || !strings.Contains(u.Reason, c.says) {
					t.Errorf("exit code %d, %+v; want %s that says %q", code, u, c.result, c.says)
				}
				// A good one afterwards.
				if u, code := d.upgrade(); code != 0 {
					t.Errorf("and then a good one: exit code %d, %+v", code, u)
				}
			})
		})
	}
}

// alien builds a gt06d whose log has another format.
func alien(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	file, err := filepath.Abs("../../../storage/spool/version.go")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {file: filepath.Join(dir, "version.go")}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"version.go": "package spool\n\nconst version = 99\n", "overlay.json": string(overlay)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return variant(t, "gt06_alien", "-overlay", filepath.Join(dir, "overlay.json"))
}

// variant builds another gt06d.
func variant(t *testing.T, name string, flags ...string) string {
	t.Helper()
	path := filepath.Join(programs, name, "gt06d")
	args := append([]string{"build", "-ldflags", "-X gt06/cmd/internal/cli.version=" + name, "-o", path}, flags...)
	cmd := exec.CommandContext(context.Background(), "go", append(args, "gt06/cmd/gt06d")...) //nolint:gosec // a test's
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// The link that a restart follows moves when the probation is over, and not
// before.
func TestTheCurrentVersionIsTheLastThatSurvived(t *testing.T) {
	t.Parallel()
	lib := t.TempDir()
	install := func(version, text string) string {
		path := filepath.Join(lib, version, "gt06d")
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil { //nolint:gosec // it must be executable
			t.Fatal(err)
		}
		return path
	}
	run := "#!/bin/sh\nexec " + filepath.Join(programs, "gt06d") + " \"$@\"\n"
	install("1.0", run)
	good, bad := install("1.1", run), install("1.2", "#!/bin/sh\nGT06_FAILPOINT=probation exec "+filepath.Join(programs, "gt06d")+" \"$@\"\n")
	link := filepath.Join(lib, "current")
	if err := os.Symlink("1.0", link); err != nil {
		t.Fatal(err)
	}
	current := func(want string) {
		t.Helper()
		if got, err := os.Readlink(link); err != nil || got != want {
			t.Errorf("current is %q, want %q", got, want)
		}
	}
	d := newDaemon(t, probation(t, 500*time.Millisecond)...)
	d.start()
	if u, code := d.upgrade("--binary", good); code != 0 {
		t.Fatalf("%+v", u)
	}
	current("1.1")
	if u, code := d.upgrade("--binary", bad); code != 6 {
		t.Errorf("exit code %d, %+v", code, u)
	}
	current("1.1")
}

// A second upgrade waits for the probation of the first.
func TestUpgradeDuringUpgrade(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, probation(t, time.Second)...)
	d.start()
	f, wait := d.loaded(fleet.Options{Devices: 50, Rate: 5, Duration: 8 * time.Second})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if u, code := d.upgrade(); code != 0 || u.Result != control.Upgraded {
				t.Errorf("exit code %d, %+v", code, u)
			}
		})
		pause(300 * time.Millisecond)
	}
	if u, code := d.upgrade("--no-wait"); code != 0 || u.TotalMS <= 0 {
		t.Errorf("exit code %d, %+v", code, u)
	}
	wg.Wait()
	res := wait()
	nobodyNoticed(t, &res, 0)
	d.check(f, res)
}

func TestSignals(t *testing.T) {
	t.Parallel()
	signal := func(t *testing.T, pid int, sig syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("SIGTERM is a restart", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t)
		d.start()
		f, wait := d.loaded(fleet.Options{Devices: 50, Rate: 10, Duration: 4 * time.Second})
		for range 5 {
			d.stop()
			d.start()
			pause(200 * time.Millisecond)
		}
		res := wait()
		nobodyNoticed(t, &res, 0)
		d.check(f, res)
	})
	for name, stop := range map[string]func(t *testing.T, d *daemon){
		"SIGINT releases": func(t *testing.T, d *daemon) { signal(t, d.serving(), syscall.SIGINT) },
		"gt06ctl stop releases": func(t *testing.T, d *daemon) {
			if out, errs, code := d.ctl("stop"); code != 0 || !strings.Contains(out, "stopped") {
				t.Errorf("exit code %d, %s%s", code, out, errs)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t)
			d.start()
			f, wait := d.loaded(fleet.Options{Devices: 20, Rate: 10, Duration: 3 * time.Second, Settle: time.Second})
			stop(t, d)
			d.listenable(time.Second)
			d.start()
			res := wait()
			if res.Lost+res.Duplicated != 0 || res.Reconnects == 0 {
				t.Errorf("%+v", res)
			}
			d.check(f, res)
		})
	}
	t.Run("SIGTERM in the probation is passed on", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t, probation(t, 5*time.Second)...)
		d.start()
		f, wait := d.loaded(fleet.Options{Devices: 20, Rate: 10, Duration: 3 * time.Second})
		main := d.cmd.Process.Pid
		if u, code := d.upgrade("--no-wait"); code != 0 {
			t.Fatalf("%+v", u)
		}
		signal(t, main, syscall.SIGTERM)
		if code := d.wait(patience); code != 0 {
			t.Errorf("exit code %d", code)
		}
		var st control.Status
		if err := d.status(&st); err == nil {
			t.Errorf("pid %d still serves", st.PID)
		}
		d.start()
		res := wait()
		nobodyNoticed(t, &res, 0)
		d.check(f, res)
	})
	t.Run("SIGINT before the new one is ready", func(t *testing.T) {
		t.Parallel()
		d := newDaemon(t)
		d.start()
		go func() { _, _, _ = d.ctl("upgrade", "--binary", program(t, "#!/bin/sh\nexec sleep 30\n", 0o755)) }()
		pause(500 * time.Millisecond)
		signal(t, d.cmd.Process.Pid, syscall.SIGINT)
		if code := d.wait(patience); code != 0 {
			t.Errorf("exit code %d", code)
		}
		d.listenable(time.Second)
	})
}

// Devices that arrive during an upgrade wait in the queue, none is refused.
func TestArrivalsDuringUpgrades(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, probation(t, 300*time.Millisecond)...)
	d.start()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	dialled := 0
	for range 20 { // 2,000 a second
		wg.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for ; ctx.Err() == nil; <-tick.C {
				c, err := net.DialTimeout("tcp", d.addr, 5*time.Second) //nolint:noctx // loopback
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = c.Write([]byte{0x78, 0x78, 0x0d, 0x01, 0x01, 0x23, 0x45, 0x67, 0x89, 0x01, 0x23, 0x45, 0x00, 0x01, 0x8c, 0xdd, 0x0d, 0x0a})
				_ = c.SetReadDeadline(time.Now().Add(patience))
				if n, err := io.ReadFull(c, make([]byte, 10)); err != nil {
					t.Errorf("%d bytes, %v", n, err)
				}
				_ = c.Close()
				mu.Lock()
				dialled++
				mu.Unlock()
			}
		})
	}
	for range 4 {
		pause(200 * time.Millisecond)
		if u, code := d.upgrade(); code != 0 {
			t.Errorf("exit code %d, %+v", code, u)
		}
	}
	cancel()
	wg.Wait()
	t.Logf("%d connections", dialled)
}

// Up a version with a migration, a crash in its probation, and down again.
func TestMigrationUpAndDown(t *testing.T) {
	t.Parallel()
	next := variant(t, "gt06_next", "-tags", "gt06_next")
	dying := program(t, "#!/bin/sh\nGT06_FAILPOINT=probation exec "+next+" \"$@\"\n", 0o755)
	now := filepath.Join(programs, "gt06d")
	for name, args := range map[string][]string{"sqlite": nil, "mariadb": {"--store", "mariadb"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append(args, probation(t, 500*time.Millisecond)...)
			if name == "mariadb" {
				args = append(args, "--dsn", mariadbtest.Schema(t))
			}
			d := newDaemon(t, args...)
			d.start()
			d.drained()
			f, wait := d.loaded(fleet.Options{Devices: 50, Rate: 5, Duration: 8 * time.Second})
			for _, step := range []struct {
				binary, result, version string
			}{{dying, control.RolledBack, "devel"}, {next, control.Upgraded, "gt06_next"}, {now, control.Upgraded, "devel"}, {next, control.Upgraded, "gt06_next"}, {now, control.Upgraded, "devel"}} {
				u, _ := d.upgrade("--binary", step.binary)
				var st control.Status
				d.eventually("somebody serves", func() bool { return d.status(&st) == nil })
				if u.Result != step.result || st.Version != step.version {
					t.Errorf("%+v, then version %q; want %s and %s", u, st.Version, step.result, step.version)
				}
				pause(500 * time.Millisecond)
			}
			res := wait()
			nobodyNoticed(t, &res, 0)
			d.check(f, res)
		})
	}
}

// Where no systemd does it, the keeper starts the server again, and ends with
// it.
func TestSpawnedKeeper(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.alone = true
	d.start()
	var st control.Status
	if err := d.status(&st); err != nil || st.Keeper == nil {
		t.Fatalf("%+v, %v", st, err)
	}
	keeper := st.Keeper.PID
	defer func() { _ = syscall.Kill(keeper, syscall.SIGKILL) }()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", keeper))
	if err != nil || !strings.Contains(string(b), "\x00--data-dir\x00"+d.dir) {
		t.Errorf("command line %q, %v", b, err)
	}
	f, wait := d.loaded(fleet.Options{Devices: 50, Rate: 5, Duration: 6 * time.Second})
	for range 3 {
		pid := d.serving()
		pause(1200 * time.Millisecond)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		d.eventually("the keeper starts it again", func() bool { return d.status(&st) == nil && st.PID != pid })
	}
	res := wait()
	nobodyNoticed(t, &res, 0)
	d.check(f, res)
	if out, errs, code := d.ctl("stop"); code != 0 {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	d.listenable(time.Second)
	d.eventually("the keeper ends", func() bool { return !running(keeper) })
	d.cmd = nil
}

// running says whether a process exists and is no zombie.
func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(state, "Z")
}

func TestUpgradeIsRefusedWithoutAChange(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gt06.yaml")
	if err := os.WriteFile(path, []byte("upgrade:\n  require_change: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, "--config", path)
	d.start()
	if u, code := d.upgrade(); code != 3 || u.Result != control.Refused || !strings.Contains(u.Reason, "require_change") {
		t.Errorf("exit code %d, %+v", code, u)
	}
	// What the tool sends of a change: old, then as the gate was just read.
	path, err := control.Path(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	change := control.Change{ID: "c-20261122-01", Snapshot: "snap-1", Head: "sha256:" + strings.Repeat("0a", 32), CheckedAt: "2026-11-22T10:00:00Z"}
	for _, want := range []string{control.Refused, control.Upgraded} {
		var u control.Upgrade
		err := control.Client{Path: path}.Stream(t.Context(), "upgrade", control.UpgradeArgs{Change: &change}, func(b json.RawMessage) error {
			e := control.UpgradeEvent{Result: &u}
			return json.Unmarshal(b, &e)
		})
		if err != nil || u.Result != want || u.Change == nil || *u.Change != change {
			t.Errorf("%v, %+v, want %s", err, u, want)
		}
		change.CheckedAt = time.Now().UTC().Format(time.RFC3339)
	}
	var list []control.Upgrade
	if out, errs, code := d.ctl("upgrades", "--json"); code != 0 || json.Unmarshal([]byte(out), &list) != nil || len(list) != 3 || list[2].Change == nil || list[2].Change.ID != change.ID {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}

func TestUpgradeIsRefusedWithoutAKeeper(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "--keeper", "off")
	d.alone = true
	d.start()
	if u, code := d.upgrade(); code != 3 || !strings.Contains(u.Reason, "keeper") {
		t.Errorf("exit code %d, %+v", code, u)
	}
}
