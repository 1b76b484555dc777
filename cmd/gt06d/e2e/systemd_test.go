package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gt06/protocol/device/fleet"
	"gt06/server/control"
)

// machine is a real systemd with the units as they are shipped, booted in a
// container of the kernel's own means on an overlay of this root.
type machine struct {
	t      *testing.T
	root   string
	leader string // pid of its systemd
	nspawn *exec.Cmd
}

// boot runs a machine with the programs and units installed.
func boot(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t)
	m.install()
	m.start()
	return m
}

// cannot skips the test loudly.
func (m *machine) cannot(format string, args ...any) {
	m.t.Helper()
	m.t.Skipf("NO REAL SYSTEMD IS TESTED HERE: "+format, args...)
}

// newMachine makes the root of one, not started.
func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t}
	cannot := m.cannot
	if os.Geteuid() != 0 {
		cannot("it takes root")
	}
	if _, err := exec.LookPath("systemd-nspawn"); err != nil {
		cannot("systemd-nspawn is not installed (systemd-container)")
	}
	dir := t.TempDir()
	m.root = filepath.Join(dir, "root")
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		cannot("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	for _, d := range []string{"up", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil { //nolint:gosec // a root directory
			t.Fatal(err)
		}
	}
	if err := syscall.Mount("overlay", m.root, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s/up,workdir=%s/work", dir, dir)); err != nil {
		cannot("mount an overlay of /: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(m.root, syscall.MNT_DETACH) })
	t.Cleanup(m.off)
	return m
}

// off is a power cut.
func (m *machine) off() {
	if m.nspawn == nil {
		return
	}
	// Its systemd is the first process of a namespace: all end with it.
	if pid, err := strconv.Atoi(m.leader); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = m.nspawn.Process.Kill()
	_ = m.nspawn.Wait()
	m.nspawn = nil
}

// start boots it, again after off.
func (m *machine) start() {
	m.t.Helper()
	nspawn := exec.CommandContext(context.Background(), "systemd-nspawn", "-q", "-b", "-D", m.root, "--register=no", "--keep-unit", "--private-network", "--console=pipe")
	nspawn.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := nspawn.Start(); err != nil {
		m.cannot("systemd-nspawn: %v", err)
	}
	m.nspawn = nspawn
	up := m.eventually(patience, func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", nspawn.Process.Pid, nspawn.Process.Pid))
		if err != nil || len(strings.Fields(string(b))) == 0 {
			return false
		}
		m.leader = strings.Fields(string(b))[0]
		out, _ := m.try("systemctl is-system-running")
		return strings.HasPrefix(out, "running") || strings.HasPrefix(out, "degraded")
	})
	if !up {
		m.cannot("systemd does not boot in a container here")
	}
}

// install puts the programs and the shipped units where the package puts them.
func (m *machine) install() {
	m.t.Helper()
	script := fmt.Sprintf(`set -e
mkdir -p %[1]s/usr/lib/gt06/1.0 %[1]s/etc/gt06
cp %[2]s/gt06d %[2]s/gt06ctl %[1]s/usr/lib/gt06/1.0/
ln -sfn 1.0 %[1]s/usr/lib/gt06/current
printf 'listen: ":5023"\nupgrade:\n  probation: 1s\n' > %[1]s/etc/gt06/gt06.yaml
cp ../../../ops/deploy/systemd/*.service %[1]s/etc/systemd/system/
chroot %[1]s useradd -r -d /var/lib/gt06 -s /usr/sbin/nologin gt06
rm -rf %[1]s/etc/systemd/system/multi-user.target.wants
mkdir %[1]s/etc/systemd/system/multi-user.target.wants
ln -s ../gt06d.service ../gt06-keeper.service %[1]s/etc/systemd/system/multi-user.target.wants/
`, m.root, programs)
	if out, err := exec.CommandContext(m.t.Context(), "sh", "-c", script).CombinedOutput(); err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
}

// try runs a script in the machine.
func (m *machine) try(script string) (string, error) {
	cmd := exec.CommandContext(context.Background(), "nsenter", "-t", m.leader, "-a", "sh", "-c", "export PATH=$PATH:/usr/lib/gt06/current; "+script)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *machine) run(script string) string {
	m.t.Helper()
	out, err := m.try(script)
	if err != nil {
		journal, _ := m.try("journalctl --no-pager -n 30 -u gt06d -u gt06-keeper")
		m.t.Fatalf("%s: %v\n%s\n%s", script, err, out, journal)
	}
	return strings.TrimSpace(out)
}

func (m *machine) eventually(most time.Duration, ok func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(most); time.Now().Before(end); <-tick.C {
		if ok() {
			return true
		}
	}
	return false
}

// ledger ends the simulator that the machine runs: it waits for what is owed and
// compares, and nobody may have noticed anything.
func (m *machine) ledger(t *testing.T) {
	t.Helper()
	m.run("kill $(cat /sim.pid)")
	if !m.eventually(patience, func() bool { _, err := m.try("test -s /sim.json"); return err == nil }) {
		t.Fatal(m.run("tail -3 /sim.log"))
	}
	var res struct {
		fleet.Result
		Missing int `json:"missing"`
	}
	text := m.run("cat /sim.json")
	if err := json.Unmarshal([]byte(text), &res); err != nil || res.Lost+res.Duplicated+res.OutOfOrder+res.Reconnects+res.Refused != 0 || res.Missing != 0 || res.Sent == 0 {
		t.Errorf("%v, %s", err, text)
	}
	t.Log(text)
}

func (m *machine) status() (st control.Status) {
	m.t.Helper()
	if !m.eventually(patience, func() bool {
		out, err := m.try("gt06ctl status --json")
		return err == nil && json.Unmarshal([]byte(out), &st) == nil
	}) {
		m.t.Fatal(m.run("systemctl status gt06d gt06-keeper; false"))
	}
	return st
}

func TestUnderARealSystemd(t *testing.T) {
	t.Parallel()
	m := boot(t)
	step := func(name string, do func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { m.t = t; do(t) })
		m.t = t
	}
	step("boot", func(t *testing.T) {
		if st := m.status(); st.State != "ready" || st.Keeper == nil {
			t.Errorf("%+v", st)
		}
		if out := m.run("systemctl show -p User --value gt06d"); out != "gt06" {
			t.Errorf("it runs as %q", out)
		}
	})
	const devices = 100
	m.run(fmt.Sprintf("gt06ctl simulate --json --addr 127.0.0.1:5023 --devices %d --rate 5 --duration 10m > /sim.json 2>/sim.log & echo $! > /sim.pid", devices))
	if !m.eventually(patience, func() bool { return m.status().Connections == devices }) {
		t.Fatal("the devices do not connect")
	}
	main := func() string { return m.run("systemctl show -p MainPID --value gt06d") }
	step("reload", func(t *testing.T) {
		for range 2 {
			before := main()
			m.run("systemctl reload gt06d")
			st := m.status()
			if !m.eventually(patience, func() bool { return main() != before && main() == fmt.Sprint(st.PID) }) || st.Connections != devices || st.LastUpgrade == nil || st.LastUpgrade.Result != control.Upgraded {
				t.Errorf("main process %s, before %s, %+v", main(), before, st)
			}
		}
	})
	step("reload with a broken program", func(t *testing.T) {
		m.run("cd /usr/lib/gt06/1.0 && mv gt06d good && printf '#!/bin/sh\\nexit 3\\n' > gt06d && chmod +x gt06d")
		before := main()
		if out, err := m.try("systemctl reload gt06d"); err == nil {
			t.Errorf("the reload says success: %s", out)
		}
		if st := m.status(); main() != before || st.State != "ready" || st.Connections != devices {
			t.Errorf("%+v", st)
		}
		m.run("printf '#!/bin/sh\\nGT06_FAILPOINT=probation exec /usr/lib/gt06/1.0/good \"$@\"\\n' > /usr/lib/gt06/1.0/gt06d")
		if out, err := m.try("systemctl reload gt06d"); err == nil {
			t.Errorf("the reload of a program that dies in its probation says success: %s", out)
		}
		if st := m.status(); main() != before || st.Connections != devices || st.LastUpgrade.Result != control.RolledBack {
			t.Errorf("%+v", st)
		}
		m.run("cd /usr/lib/gt06/1.0 && mv good gt06d")
	})
	step("reload during reload", func(*testing.T) {
		m.run("systemctl reload gt06d & gt06ctl upgrade --json > /second.json & wait; grep -q upgraded /second.json")
	})
	step("restart", func(t *testing.T) {
		m.run("systemctl restart gt06d")
		if st := m.status(); st.Connections != devices || st.State != "ready" {
			t.Errorf("%+v", st)
		}
	})
	step("twenty crashes in a row", func(t *testing.T) {
		for range 20 {
			pid := main()
			m.run("kill -9 " + pid)
			if !m.eventually(patience, func() bool { p := main(); return p != pid && p != "0" && m.status().State == "ready" }) {
				t.Fatal("not back")
			}
		}
		if st := m.status(); st.Connections != devices {
			t.Errorf("%+v", st)
		}
		if n := m.run("systemctl show -p NRestarts --value gt06d"); n != "20" {
			t.Errorf("%s restarts", n)
		}
	})
	step("the ledger", m.ledger)
	step("journal", func(t *testing.T) {
		seen := map[string]int{}
		for line := range strings.Lines(m.run("journalctl --no-pager -u gt06d -o json --output-fields=PRIORITY,MESSAGE")) {
			var e struct{ Priority, Message string }
			if json.Unmarshal([]byte(line), &e) != nil {
				continue // a message that is no text
			}
			var l struct{ Level, Msg string }
			if strings.HasPrefix(e.Message, "<") {
				t.Errorf("the journal does not take the priority: %s", line)
			}
			if json.Unmarshal([]byte(e.Message), &l) != nil || l.Msg == "" {
				continue
			}
			seen[l.Level]++
			if want := map[string]string{"info": "6", "warn": "4", "error": "3"}[l.Level]; e.Priority != want {
				t.Errorf("priority %s, want %s: %s", e.Priority, want, line)
			}
		}
		if seen["info"] == 0 || seen["warn"]+seen["error"] == 0 { // a rolled back upgrade warns
			t.Errorf("what is logged: %v", seen)
		}
		t.Log(seen)
	})
	step("support bundle", func(t *testing.T) {
		m.run("gt06ctl support-bundle --out /bundle.tar.gz")
		if out := m.run("tar -xzOf /bundle.tar.gz bundle/log.txt bundle/process.txt"); !strings.Contains(out, "connections taken over") || !strings.Contains(out, "Max open files") {
			t.Errorf("the journal is not in the bundle: %s", out[max(0, len(out)-500):])
		}
	})
	step("stop", func(t *testing.T) {
		m.run("systemctl stop gt06d")
		if !m.eventually(promised(t, time.Second), func() bool { out, _ := m.try("ss -ltn sport = :5023"); return !strings.Contains(out, "5023") }) {
			t.Errorf("the port is held a second after the stop:\n%s", m.run("ss -ltnp sport = :5023; journalctl --no-pager -n 12 -u gt06d -u gt06-keeper"))
		}
		if out, _ := m.try("systemctl is-active gt06d gt06-keeper"); out != "inactive\nactive\n" {
			t.Errorf("%s", out)
		}
		m.run("systemctl start gt06d")
		if st := m.status(); st.State != "ready" || st.Keeper == nil {
			t.Errorf("%+v", st)
		}
	})
	step("stop in a probation", func(t *testing.T) {
		m.run("gt06ctl upgrade --no-wait")
		begin := time.Now()
		m.run("systemctl stop gt06d")
		if took := time.Since(begin); took > promised(t, 5*time.Second) {
			t.Errorf("it took %v", took)
		}
	})
}

func TestUnitsAreHardened(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("NO REAL SYSTEMD IS TESTED HERE: systemd-analyze is not installed")
	}
	for _, unit := range []string{"gt06d.service", "gt06-keeper.service"} {
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=15", "../../../ops/deploy/systemd/"+unit).CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Log(lines[len(lines)-1])
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	// The runtime directory of the units is the one that gt06ctl looks in.
	b, err := os.ReadFile("../../../ops/deploy/systemd/gt06-keeper.service")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := control.RuntimeDir("/var/lib/gt06")
	if err != nil || os.Getenv("RUNTIME_DIRECTORY") == "" && os.Geteuid() == 0 && !strings.Contains(string(b), "RuntimeDirectory="+strings.TrimPrefix(dir, "/run/")+"\n") {
		t.Errorf("the unit does not name %s, %v", dir, err)
	}
}
