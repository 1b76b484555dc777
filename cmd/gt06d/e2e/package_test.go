package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gt06/server/control"
)

// deb builds a package of a version into /root of the machine. With a script in
// the place of its server it is a bad one.
func (m *machine) deb(version, script string) {
	m.t.Helper()
	dir := programs
	if script != "" {
		dir = m.t.TempDir()
		for name, text := range map[string]string{"gt06d": script, "gt06ctl": "exit 1"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil { //nolint:gosec // a program
				m.t.Fatal(err)
			}
		}
	}
	cmd := exec.CommandContext(m.t.Context(), "../../../ops/deploy/deb/build", version, "amd64", dir, filepath.Join(m.root, "root"), programs)
	cmd.Env = append(os.Environ(), "COMPRESSION=gzip -z1")
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
}

// bare takes from the root what a machine of the user does not have, or has
// otherwise: it boots without any service, and its MariaDB is empty.
func (m *machine) bare() {
	m.t.Helper()
	script := fmt.Sprintf(`set -e
rm -rf %[1]s/etc/systemd/system/multi-user.target.wants %[1]s/var/lib/mysql %[1]s/usr/lib/gt06 %[1]s/var/lib/gt06 %[1]s/etc/gt06
mkdir -p %[1]s/etc/systemd/system/multi-user.target.wants %[1]s/root %[1]s/etc/mysql/mariadb.conf.d
printf '[mysqld]\ninnodb_use_native_aio=0\ninnodb_flush_method=fsync\ninnodb_buffer_pool_size=64M\n' > %[1]s/etc/mysql/mariadb.conf.d/99-test.cnf
rm -f %[1]s/var/lib/man-db/auto-update # a second for each package
echo force-unsafe-io > %[1]s/etc/dpkg/dpkg.cfg.d/quick
`, m.root)
	if out, err := exec.CommandContext(m.t.Context(), "sh", "-c", script).CombinedOutput(); err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
}

type step struct {
	Name, Seen, Next string
	OK               bool
}

// screen is `gt06d check-config --try`.
func (m *machine) screen() (missing []step, text string) {
	m.t.Helper()
	out, _ := m.try("gt06d check-config --try --json --config /etc/gt06/gt06.yaml 2>/dev/null")
	var list []step
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 4 {
		text, _ := m.try("gt06d check-config --try --config /etc/gt06/gt06.yaml")
		m.t.Fatalf("%v\n%s%s", err, out, text)
	}
	for _, s := range list {
		if !s.OK || s.Next != "" && s.Name == "server" {
			missing = append(missing, s)
		}
	}
	return missing, out
}

// serves says what the unit's main process runs.
func (m *machine) serves() string {
	m.t.Helper()
	return m.run("readlink /proc/$(systemctl show -p MainPID --value gt06d)/exe")
}

// A machine whose MariaDB holds a CRM with tables of our names, and whose port
// a Node service has: from there to serving, to other versions under load, good
// ones and bad ones, over a power cut, and away again.
func TestPackage(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.bare()
	const node = `#!/usr/bin/env node
require('net').createServer(() => {}).listen(5023, () => require('fs').writeFileSync('/node.pid', String(process.pid)));
`
	if err := os.WriteFile(filepath.Join(m.root, "node.js"), []byte(node), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	m.deb("1.0", "")
	m.deb("1.1", "")
	bad := []struct{ version, what, script string }{
		{"1.2", "that exits", "echo 'cannot begin' >&2; exit 3"},
		{"1.3", "that hangs", "exec sleep 1000"},
		{"1.4", "that dies in its probation", `GT06_FAILPOINT=probation exec /usr/lib/gt06/1.0/gt06d "$@"`},
	}
	for _, b := range bad {
		m.deb(b.version, b.script)
	}
	m.start()
	step := func(name string, do func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { m.t = t; do(t) })
		m.t = t
		if t.Failed() {
			t.FailNow() // what follows would not say anything
		}
	}
	step("the CRM", func(*testing.T) {
		m.run("mkdir /var/lib/mysql && chown mysql: /var/lib/mysql && TMPDIR=/var/lib/mysql mariadb-install-db --user=mysql --skip-test-db --auth-root-authentication-method=socket")
		m.run("systemctl enable --now mariadb || { journalctl --no-pager -n 40 -u mariadb; false; }")
		m.run(`mariadb -e "CREATE DATABASE crm; CREATE TABLE crm.devices (id INT PRIMARY KEY, plate TEXT); CREATE TABLE crm.alarms (id INT PRIMARY KEY, what TEXT);
			INSERT INTO crm.devices VALUES (1, 'MH12'); CREATE USER laravel@localhost IDENTIFIED BY 'x'; GRANT ALL ON crm.* TO laravel@localhost"`)
	})
	step("install beside a Node service", func(t *testing.T) {
		m.run("node /node.js >/dev/null 2>&1 & until [ -s /node.pid ]; do sleep 0.1; done")
		out := m.run("cd /root && DEBIAN_FRONTEND=noninteractive apt-get install -y ./gt06_1.0_amd64.deb 2>&1")
		for _, want := range []string{"held by pid", "(node /node.js)", "hint: gt06ctl ", "neither started nor enabled", "gt06d check-config --try"} {
			if !strings.Contains(out, want) {
				t.Errorf("apt does not say %q:\n%s", want, out)
			}
		}
		if out, _ := m.try("systemctl is-enabled gt06d; systemctl is-active gt06d gt06-keeper"); out != "disabled\ninactive\ninactive\n" {
			t.Errorf("%q", out)
		}
		m.run("kill $(cat /node.pid)")
	})
	step("from one edited file to serving", func(t *testing.T) {
		edit := func(dsn string) {
			m.run(`sed -i -e 's/^# *store: mariadb/store: mariadb/' -e 's|^#* *dsn:.*|dsn: ` + dsn + `|' /etc/gt06/gt06.yaml; grep -q ^store: /etc/gt06/gt06.yaml`)
		}
		m.run("echo 'upgrade: {probation: 1s}' >> /etc/gt06/gt06.yaml")
		edit("laravel:x@unix(/run/mysqld/mysqld.sock)/crm")
		if missing, text := m.screen(); len(missing) == 0 || !strings.Contains(text, "alarms with the columns id, what") && !strings.Contains(text, "devices with the columns id, plate") {
			t.Errorf("tables of the CRM are not refused: %s", text)
		}
		edit("gt06@unix(/run/mysqld/mysqld.sock)/gt06")
		var typed []string
		for range 5 {
			missing, text := m.screen()
			if len(missing) == 0 {
				break
			}
			if missing[0].Next == "" {
				t.Fatalf("it does not say what to type:\n%s", text)
			}
			typed = append(typed, missing[0].Next)
			m.run(missing[0].Next)
		}
		if got := strings.Join(typed, "; "); got != "gt06ctl store init --apply; systemctl enable --now gt06d" {
			t.Errorf("typed: %s", got)
		}
		m.run("gt06ctl store init --apply --reader laravel")
		m.run("mariadb -ularavel -px -e 'SELECT COUNT(*) FROM gt06.latest_positions'")
		var st control.Status
		if !m.eventually(patience, func() bool { st = m.status(); return st.Store.State == "ok" }) || st.Store.Kind != "mariadb" || !strings.HasSuffix(st.Listen, ":5023") || st.Keeper == nil {
			t.Errorf("%+v", st)
		}
		if got := m.serves(); got != "/usr/lib/gt06/1.0/gt06d" {
			t.Errorf("it runs %s", got)
		}
		m.run("test -e /usr/share/bash-completion/completions/gt06ctl; gt06ctl version; systemctl cat gt06-backup.timer")
	})
	const devices = 50
	m.run(fmt.Sprintf("gt06ctl simulate --json --addr 127.0.0.1:5023 --devices %d --rate 5 --duration 20m > /sim.json 2>/sim.log & echo $! > /sim.pid", devices))
	if !m.eventually(patience, func() bool { return m.status().Connections == devices }) {
		t.Fatal("the devices do not connect")
	}
	dpkg := func(version string) (string, error) {
		return m.try("DEBIAN_FRONTEND=noninteractive dpkg -i /root/gt06_" + version + "_amd64.deb 2>&1")
	}
	holds := func(version string) {
		var said string
		if !m.eventually(patience, func() bool {
			st, serves, current := m.status(), m.serves(), m.run("readlink /usr/lib/gt06/current")
			said = fmt.Sprintf("it runs %s, current is %s, %+v", serves, current, st)
			return serves == "/usr/lib/gt06/"+version+"/gt06d" && current == version && st.Connections == devices && st.State == "ready"
		}) {
			m.t.Error(said)
		}
	}
	step("dpkg -i of the next version", func(t *testing.T) {
		out, err := dpkg("1.1")
		for try := 1; err != nil && try < 3; try++ { // a machine that stands still for a second is a reason to roll back
			out, err = dpkg("1.1")
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		holds("1.1")
		m.run("systemctl restart gt06-keeper")
		holds("1.1")
		if out := m.run("ls /usr/lib/gt06"); out != "1.0\n1.1\ncurrent\npackage" {
			t.Errorf("%q", out)
		}
	})
	for _, b := range bad {
		step("dpkg -i of one "+b.what, func(t *testing.T) {
			out, err := dpkg(b.version)
			if err == nil || !strings.Contains(out, "1.1 serves as before") || !strings.Contains(out, "exit status") {
				t.Errorf("%v\n%s", err, out)
			}
			if status := m.run("dpkg-query -W -f '${Status} ${Version}' gt06"); status != "install ok half-configured "+b.version {
				t.Errorf("dpkg says %s", status)
			}
			holds("1.1")
		})
	}
	step("the ledger", m.ledger)
	step("a power cut behind a version that failed", func(t *testing.T) {
		m.off()
		m.start()
		if !m.eventually(patience, func() bool { return m.status().State == "ready" }) {
			t.Fatal(m.run("systemctl status gt06d mariadb; false"))
		}
		if got := m.serves(); got != "/usr/lib/gt06/1.1/gt06d" {
			t.Errorf("it runs %s", got)
		}
		if out, err := dpkg("1.1"); err != nil { // the hint: install it again
			t.Errorf("%v\n%s", err, out)
		}
		if status := m.run("dpkg-query -W -f '${Status} ${Version}' gt06"); status != "install ok installed 1.1" {
			t.Errorf("dpkg says %s", status)
		}
	})
	step("remove and purge", func(t *testing.T) {
		m.run("DEBIAN_FRONTEND=noninteractive apt-get remove -y gt06")
		if !m.eventually(patience, func() bool { out, _ := m.try("ss -Hltn sport = :5023"); return out == "" }) {
			t.Error(m.run("ss -ltnp"))
		}
		m.run("test -s /var/lib/gt06/node; test -e /etc/gt06/gt06.yaml; test ! -e /usr/lib/gt06; test ! -e /usr/lib/systemd/system/gt06d.service")
		if out := m.run("cd /root && dpkg -i ./gt06_1.0_amd64.deb 2>&1"); strings.Contains(out, "MISSING") {
			t.Errorf("it does not start again with its old settings:\n%s", out)
		}
		if st := m.status(); st.State != "ready" || st.Store.Kind != "mariadb" {
			t.Errorf("%+v", st)
		}
		out := m.run("dpkg -P gt06 2>&1")
		if !strings.Contains(out, "/var/lib/gt06") || !strings.Contains(out, "rm -r /var/lib/gt06") {
			t.Errorf("it does not say where the data are:\n%s", out)
		}
		m.run("test -s /var/lib/gt06/node; test ! -e /etc/gt06; ! ss -Hltn sport = :5023 | grep .; mariadb crm -e 'SELECT plate FROM devices' | grep MH12")
	})
}
