package runbook

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // the driver

	"gt06/ops"
	"gt06/ops/backup"
	"gt06/ops/host"
	"gt06/server/control"
)

// quiet is a cloud in which every gate is open: what is tested here is the
// machine.
type quiet struct{ action ops.Action }

const instance = "i-0ae922662c241c912"

func (q quiet) Facts(_ context.Context, ask ops.Question) (ops.Facts, error) {
	now := time.Now()
	f := ops.Facts{
		LocalTime: now, CloudTime: now, Account: "123456789012", RecycleBinDays: 7,
		Instance: ops.Instance{ID: instance, Name: "quickport-prod", State: "running", Zone: "ap-south-1a", RootDevice: "/dev/sda1"},
		Root:     ops.Volume{ID: "vol-1", Type: "gp3", GiB: 30},
		Address:  ops.Address{Allocation: "eipalloc-1", Association: "eipassoc-1", IP: "3.109.42.82", Instance: instance},
	}
	if ask.Change != "" {
		zone, _ := time.LoadLocation("Asia/Kolkata")
		date := now.In(zone).Format(time.DateOnly)
		f.Snapshot = &ops.Snapshot{
			ID: "snap-" + ask.Change, Volume: "vol-1", State: "completed", Progress: 100, Owner: f.Account, Start: now,
			Name: "prod-root-" + date + "-before-" + string(q.action), Description: date + ": tests of the machine",
			Tags: map[string]string{ops.TagInstance: instance, ops.TagChange: ask.Change},
		}
	}
	return f, nil
}

// scene is a machine with a change that is open and a session to work in it.
type scene struct {
	*testing.T
	Machine
	session *ops.Session
	out     bytes.Buffer
	change  string
}

func newScene(t *testing.T, action ops.Action, keys string) *scene {
	t.Helper()
	dir := t.TempDir()
	c, err := ops.ParseConfig(fmt.Appendf(nil, "aws: {region: ap-south-1, instance_id: %s, eip_allocation_id: eipalloc-1}\nlock: {file: %q}\njournal: {dir: %q}\nlimits: {load_factor: 1000, load_rise: 1000}\n%s", instance, dir+"/lock", dir+"/journal", keys))
	if err != nil {
		t.Fatal(err)
	}
	c.Backup.Dir = filepath.Join(dir, "backups")
	s := &scene{T: t, Machine: NewMachine(c, filepath.Join(dir, "no.sock"))}
	s.Places = func(string) (backup.Place, error) { return backup.Dir(c.Backup.Dir), nil }
	s.PM2.User = ""
	s.Logs, s.Paths = filepath.Join(dir, "log"), []string{dir}
	s.operate(c, action)
	if err := os.Mkdir(s.Logs, 0o750); err != nil {
		t.Fatal(err)
	}
	change, err := s.session.Open(t.Context(), action, "tests of the machine")
	if err != nil {
		t.Fatal(err)
	}
	s.change = change.ID
	return s
}

// operate gives a scene gt06ctl as it starts: all it knows is in files.
func (s *scene) operate(c ops.Config, action ops.Action) {
	s.session = &ops.Session{
		Config: c, Out: &s.out, Backend: ops.Backend{Facts: quiet{action}},
		Journals: &ops.Journals{Dir: c.Journal.Dir, Actor: ops.Actor{User: "ravi", Host: "test"}, Now: time.Now},
		Gate:     &ops.SnapshotGate{Facts: quiet{action}, Config: c},
	}
}

// another is gt06ctl started again on the same machine, after it died.
func (s *scene) another() *scene {
	s.Helper()
	next := &scene{T: s.T, Machine: s.Machine, change: s.change}
	next.operate(s.session.Config, s.state().Action)
	return next
}

// state is what the journal on the disk says of the change.
func (s *scene) state() ops.Change {
	s.Helper()
	j, err := s.session.Look(s.Context(), s.change)
	if err != nil {
		s.Fatal(err)
	}
	return j.Change()
}

// apply plans a runbook and does it, as an operator with --yes --plan.
func (s *scene) apply(b ops.Runbook) error {
	s.Helper()
	p, err := s.session.Plan(s.Context(), "", b)
	if err != nil {
		return err
	}
	s.session.Confirm = ops.Confirm{Yes: true, Plan: p.Hash()}
	return s.session.Apply(s.Context(), "", b)
}

// said are the results of a change, by step.
func (s *scene) said() map[string]string {
	s.Helper()
	j, err := s.session.Look(s.Context(), s.change)
	if err != nil {
		s.Fatal(err)
	}
	out := map[string]string{}
	for _, r := range j.Records() {
		if r.Kind == ops.KindResult {
			out[r.Step] = r.Out["seen"] + r.Out["error"]
		}
	}
	return out
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// need skips a test whose tools are missing; under CI they have to be there.
func need(t *testing.T, ok bool, what string) {
	t.Helper()
	if !ok && os.Getenv("CI") != "" {
		t.Fatalf("under CI there must be %s", what)
	}
	if !ok {
		t.Skipf("no %s (make test installs it)", what)
	}
}

func has(program string) bool { _, err := exec.LookPath(program); return err == nil }

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // closed at once
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's own
	return l.Addr().(*net.TCPAddr).Port
}

func TestCleanupInAChange(t *testing.T) {
	t.Parallel()
	s := newScene(t, ops.DiskCleanup, "")
	var ran []string
	s.LookPath = func(name string) (string, error) {
		if name == "snap" {
			return "", exec.ErrNotFound
		}
		return name, nil
	}
	s.Exec = func(_ context.Context, c host.Command) (host.Result, error) {
		ran = append(ran, c.String())
		return host.Result{}, nil
	}
	write(t, s.Logs+"/syslog.1", strings.Repeat("x", 1<<20))
	write(t, s.Logs+"/syslog", "now")
	if err := s.apply(s.Cleanup(7, 2)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"apt-get clean", "journalctl --vacuum-time=7d"}; !slices.Equal(ran, want) {
		t.Errorf("ran %q", ran)
	}
	if files, _ := os.ReadDir(s.Logs); len(files) != 1 || files[0].Name() != "syslog" {
		t.Errorf("left: %v", files)
	}
	if said := s.said(); !strings.Contains(said["logs.clean"], "bytes freed") || said["snap.clean"] != "" {
		t.Errorf("%v", said)
	}
	if !strings.Contains(s.out.String(), "skipped snap: no snap on this machine") {
		t.Errorf("the plan does not say why snap is left out:\n%s", &s.out)
	}

	// Where data is nothing is deleted: neither by a setting that is wrong, nor
	// by a link. The exit code is that of a forbidden action.
	write(t, s.Config.Backup.Dir+"/dump.1", "data")
	s.Logs = s.Config.Backup.Dir
	if err := s.apply(s.Cleanup(7, 2)); ops.KindOf(err) != ops.Forbidden {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(s.Config.Backup.Dir + "/dump.1"); err != nil || string(b) != "data" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := s.Cleanup(0, 2).Discover(t.Context()); ops.KindOf(err) != ops.Usage {
		t.Errorf("no day of the journal is kept: %v", err)
	}
}

// TestFullAndLoadedMachinesAreRefused: with real file systems that are full of
// bytes and of inodes, where they can be made.
func TestFullAndLoadedMachinesAreRefused(t *testing.T) {
	t.Parallel()
	s := newScene(t, ops.OSUpdate, "")
	full, inodes := mount(t, "size=1m"), mount(t, "size=16m,nr_inodes=50")
	if err := os.WriteFile(full+"/x", make([]byte, 1000<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 49 {
		write(t, fmt.Sprintf("%s/%d", inodes, i), "")
	}
	for name, at := range map[string]Machine{
		"P2 disks have room: " + full: {Config: s.Config, System: s.System, Paths: []string{full}, Now: time.Now},
		"P2 disks have room: " + inodes: {
			Config: s.Config, System: s.System, Paths: []string{inodes}, Now: time.Now,
		},
	} {
		v, err := at.Resources()
		if err != nil {
			t.Fatal(err)
		}
		v.Load = host.Load{One: 1, Fifteen: 1, CPUs: 2, MemoryTotal: 100, MemoryAvailable: 50} // the machine of the test may be busy
		err = v.Vital(&at.Config, ops.OSUpdate)
		if ops.KindOf(err) != ops.Unsafe || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if err := v.Vital(&at.Config, ops.DiskCleanup); err != nil {
			t.Errorf("a cleanup on a full disk: %v", err)
		}
		// Nothing is begun: the session asks before the plan.
		s.session.Vet = func(context.Context, ops.Action) error { return v.Vital(&at.Config, ops.OSUpdate) }
		done := false
		book := ops.Runbook{Name: "x", Steps: func(ops.Params) []ops.Step {
			return []ops.Step{{ID: "x", Class: ops.Guest, Do: func(context.Context, *ops.Run) error { done = true; return nil }, Postcheck: func(context.Context, *ops.Run) (ops.State, error) { return ops.State{Done: true}, nil }}}
		}}
		if err := s.apply(book); ops.KindOf(err) != ops.Unsafe || done {
			t.Errorf("%s: %v, done %v", name, err, done)
		}
	}
	v, err := s.Resources()
	if err != nil {
		t.Fatal(err)
	}
	s.Config.Limits.LoadRise = 3
	v.Load = host.Load{One: 3, Fifteen: 0.5, CPUs: 2, MemoryTotal: 100, MemoryAvailable: 50}
	s.Config.Limits.LoadRise = 3
	if err := v.Vital(&s.Config, ops.OSUpdate); ops.KindOf(err) != ops.Unsafe || !strings.Contains(err.Error(), "P1 load") {
		t.Errorf("load six times that of 15 minutes: %v", err)
	}
	v.Load.Fifteen = 2.5
	if err := v.Vital(&s.Config, ops.OSUpdate); err != nil {
		t.Errorf("a load as always: %v", err)
	}
	s.Config.Limits.LoadFactor = 1
	if err := v.Vital(&s.Config, ops.OSUpdate); ops.KindOf(err) != ops.Unsafe {
		t.Errorf("load over the limit: %v", err)
	}
}

func mount(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	need(t, os.Geteuid() == 0, "root, to mount")
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
	return dir
}

// TestPreflightPastesEndAtSafe: each no has an id, what was seen, what is
// wanted and what to type; when the causes are gone it is safe.
func TestPreflightPastesEndAtSafe(t *testing.T) {
	t.Parallel()
	s := newScene(t, ops.OSUpdate, "services: {traccar: true, pm2_apps: [crm]}\n")
	facts, _ := quiet{}.Facts(t.Context(), ops.Question{})
	bad := Vitals{
		Load: host.Load{One: 9000, CPUs: 2, MemoryTotal: 100, MemoryAvailable: 5}, Disks: []host.Usage{{Path: "/", Used: 96, Available: 4, Bytes: 100}},
		Port:     Port{Number: 5023, Taken: true, Holders: []host.Process{{PID: 1, Name: "node"}, {PID: 2, Name: "node"}}},
		Services: map[string]string{"mariadb": "no answer", "nginx": "bad", "pm2": "", "pm2 crm": "restarted 9 times", "traccar": "failed"},
		GT06:     &control.Status{State: "degraded"},
	}
	lost := facts
	lost.Address.Instance, lost.RecycleBinDays, lost.Root.ID = "", 0, ""
	checks := Preflight(&bad, &lost, &s.Config, ops.OSUpdate)
	good := bad
	good.Load = host.Load{One: 1, Fifteen: 1, CPUs: 2, MemoryTotal: 100, MemoryAvailable: 50}
	good.Clock.Synchronised = true
	good.Disks = []host.Usage{{Path: "/", Used: 50, Available: 50, Bytes: 100}}
	good.Port = Port{Number: 5023, Taken: true, Ours: true}
	good.Services = map[string]string{"mariadb": "", "nginx": "", "pm2": "", "traccar": ""}
	good.GT06 = &control.Status{State: "ready"}
	ids := map[string]bool{}
	for _, c := range checks {
		if ids[c.ID] {
			t.Errorf("%s is there twice", c.ID)
		}
		ids[c.ID] = true
		if c.OK && c.Text != "pm2 is well" {
			t.Errorf("%s %s is ok: %s", c.ID, c.Text, c.Seen)
		}
		if !c.OK && (c.Seen == "" || c.Want == "" || c.Next == "") {
			t.Errorf("%+v", c)
		}
	}
	if left := Preflight(&good, &facts, &s.Config, ops.OSUpdate).Failed(); len(left) > 0 {
		t.Errorf("%+v", left)
	}
	// A full disk offers one thing only.
	for action, want := range map[ops.Action]string{"": "--action disk-cleanup", ops.DiskResize: "change open --action disk-cleanup"} {
		if c := bad.room(&s.Config, action); c.OK || !strings.Contains(c.Next, want) {
			t.Errorf("%q: %+v", action, c)
		}
	}
	if c := bad.room(&s.Config, ops.DiskCleanup); !c.OK {
		t.Errorf("%+v", c)
	}
}

// database is the test's MariaDB with schemas of its own.
func (s *scene) database(names ...string) *sql.DB {
	s.Helper()
	socket := os.Getenv("GT06_TEST_MARIADB")
	need(s.T, socket != "", "MariaDB in GT06_TEST_MARIADB")
	db, err := sql.Open("mysql", "root@unix("+socket+")/?multiStatements=true")
	if err != nil {
		s.Fatal(err)
	}
	s.T.Cleanup(func() { _ = db.Close() })
	for _, n := range names {
		if _, err := db.ExecContext(s.Context(), "CREATE DATABASE "+n); err != nil {
			s.Fatal(err)
		}
		s.T.Cleanup(func() { _, _ = db.ExecContext(context.Background(), "DROP DATABASE "+n) })
	}
	s.DB.Defaults = filepath.Join(s.TempDir(), "my.cnf")
	write(s.T, s.DB.Defaults, "[client]\nuser=root\nsocket="+socket+"\n")
	s.Config.Backup.DBs = names
	return db
}

const migration = `<?php
class %s extends Illuminate\Database\Migrations\Migration {
    public function up() { foreach ([%s] as $s) Illuminate\Support\Facades\DB::statement($s); }
}
`

// TestRestartBackendBehindADump: a migration that fails leaves what it did
// before, says so, names the dump; the way back ends where it began.
func TestRestartBackendBehindADump(t *testing.T) {
	t.Parallel()
	need(t, has("php"), "php")
	_, err := os.Stat("/usr/share/php/Illuminate/autoload.php")
	need(t, err == nil, "php-laravel-framework")
	s := newScene(t, ops.Restart, "")
	schema := fmt.Sprintf("restart_%d", os.Getpid())
	db := s.database(schema)
	dir := t.TempDir()
	if err := errors.Join(os.CopyFS(dir, os.DirFS("../host/testdata/laravel")), os.MkdirAll(dir+"/bootstrap/cache", 0o750)); err != nil {
		t.Fatal(err)
	}
	s.Laravel.Dir = dir
	write(t, dir+"/database.ini", fmt.Sprintf("unix_socket=%s\ndatabase=%s\nusername=root\npassword=\n", os.Getenv("GT06_TEST_MARIADB"), schema))
	write(t, dir+"/database/migrations/2026_01_01_000000_one.php", fmt.Sprintf(migration, "One", "'create table one (id int)', 'insert into one values (1), (2)'"))
	if err := s.apply(s.Restart("backend", "")); err != nil {
		t.Fatal(err)
	}
	if said := s.said(); !strings.Contains(said["db.dump"], "rows") || said["laravel.migrate"] != "nothing to migrate" {
		t.Errorf("%v", said)
	}
	p, err := s.session.Plan(t.Context(), "", s.Restart("backend", ""))
	if err != nil || len(p.Steps) != 0 {
		t.Errorf("nothing is pending, and the plan is %v, %v", p.Steps, err)
	}

	broken := dir + "/database/migrations/2026_01_02_000000_two.php"
	write(t, broken, fmt.Sprintf(migration, "Two", "'create table two (id int)', 'alter table nowhere add x int'"))
	s.Now = func() time.Time { return time.Now().Add(2 * time.Second) } // a dump of the same second has the same name
	err = s.apply(s.Restart("backend", ""))
	var told *ops.Error
	if !errors.As(err, &told) || told.Kind != ops.StepFailed || !strings.Contains(err.Error(), "nowhere") {
		t.Fatalf("%v", err)
	}
	hints := strings.Join(told.Hints, "\n")
	at := strings.Index(hints, "db-")
	if at < 0 || !strings.Contains(hints, "gt06ctl ops restore db db-") || !strings.Contains(hints, "change resume") {
		t.Fatalf("what to do: %q", hints)
	}
	dump, _, _ := strings.Cut(hints[at:], " ")
	if _, err := db.ExecContext(t.Context(), "SELECT * FROM "+schema+".two"); err != nil {
		t.Errorf("the half-applied table: %v", err)
	}
	// Mended, and what it left is gone: resumed at the step that failed.
	if _, err := db.ExecContext(t.Context(), "DROP TABLE "+schema+".two"); err != nil {
		t.Fatal(err)
	}
	write(t, broken, fmt.Sprintf(migration, "Two", "'create table two (id int)'"))
	s.Now = func() time.Time { return time.Now().Add(4 * time.Second) }
	if err := s.session.Resume(t.Context(), "", func(string) (ops.Runbook, bool) { return s.Restart("", ""), true }, ops.Undecided); err != nil {
		t.Fatal(err)
	}

	// The way back, of one schema.
	if _, err := db.ExecContext(t.Context(), "INSERT INTO "+schema+".one VALUES (3)"); err != nil {
		t.Fatal(err)
	}
	s.Now = func() time.Time { return time.Now().Add(6 * time.Second) }
	if err := s.apply(s.RestoreDB(dump, []string{schema}, "")); err != nil {
		t.Fatal(err)
	}
	var rows int
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+schema+".one").Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d rows, %v", rows, err)
	}
	list, err := backup.List(t.Context(), backup.Dir(s.Config.Backup.Dir))
	if err != nil || list[len(list)-1].Contents[schema].Tables["one"].Rows != 3 {
		t.Errorf("what was there is not dumped first: %v", err)
	}
	if _, err := s.RestoreDB("db-20200101T000000Z.sql.gz", nil, "").Discover(t.Context()); ops.KindOf(err) != ops.Refused {
		t.Errorf("a dump that is not there: %v", err)
	}
}

const nginxConfig = `daemon on; worker_processes 1; pid nginx.pid; error_log error.log;
events {}
http { access_log off; client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
server { listen 127.0.0.1:%d; location / { return 200 "%s"; } } }
`

func (s *scene) nginx() (conf string, port int) {
	s.Helper()
	need(s.T, has("nginx"), "nginx")
	dir := s.TempDir()
	conf, port = dir+"/nginx.conf", freePort(s.T)
	write(s.T, conf, fmt.Sprintf(nginxConfig, port, "one"))
	s.Nginx = host.Nginx{System: s.System, Args: []string{"-p", dir, "-c", conf}, PIDFile: dir + "/nginx.pid"}
	if out, err := exec.CommandContext(s.Context(), "nginx", s.Nginx.Args...).CombinedOutput(); err != nil {
		s.Fatalf("%v: %s", err, out)
	}
	s.T.Cleanup(func() {
		if pid, err := s.Nginx.Master(); err == nil {
			_ = syscall.Kill(pid, syscall.SIGQUIT)
		}
	})
	s.Page = fmt.Sprintf("http://127.0.0.1:%d/", port)
	return conf, port
}

// server is a gt06d that only speaks: each upgrade is a generation more.
func (s *scene) server(result string) (generation func() uint64) {
	s.Helper()
	var at atomic.Uint64
	at.Store(1)
	answer := func(v any) control.Handler {
		return func(context.Context, json.RawMessage, func(any) error) (any, error) { return v, nil }
	}
	path := filepath.Join(s.TempDir(), "s")
	srv, err := control.Serve(path, map[string]control.Handler{
		"status": func(context.Context, json.RawMessage, func(any) error) (any, error) {
			return control.Status{State: "ready", Generation: at.Load(), Connections: 95, Store: control.StoreInfo{State: "ok"}}, nil
		},
		"validate": answer(control.Validation{OK: true, Checks: []control.Check{{Name: "timestamps", OK: true}, {Name: "locations", OK: true}, {Name: "reconnects", OK: true}}}),
		"upgrade": func(_ context.Context, args json.RawMessage, _ func(any) error) (any, error) {
			var a control.UpgradeArgs
			if err := json.Unmarshal(args, &a); err != nil || a.Change == nil || a.Change.Check(time.Now()) != nil {
				return nil, &control.Error{Text: "no change", Code: 3}
			}
			if result == control.Upgraded {
				at.Add(1)
			}
			return control.UpgradeEvent{Result: &control.Upgrade{Result: result, Reason: "told to"}}, nil
		},
	})
	if err != nil {
		s.Fatal(err)
	}
	s.T.Cleanup(func() { _ = srv.Close() })
	s.Server.Path = path
	return at.Load
}

// TestRestartAll: the SOP's order, with a real MariaDB and a real nginx; the
// GT06 server gets the evidence of the gate.
func TestRestartAll(t *testing.T) {
	t.Parallel()
	s := newScene(t, ops.Restart, "services: {laravel_dir: \"\"}\n")
	s.database(fmt.Sprintf("all_%d", os.Getpid()))
	conf, port := s.nginx()
	s.server(control.Upgraded)
	if err := s.apply(s.Restart("all", "")); err != nil {
		t.Fatal(err)
	}
	p, err := s.session.Plan(t.Context(), "", s.Restart("all", ""))
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, st := range p.Steps {
		order = append(order, st.ID)
	}
	if want := []string{"mariadb.check", "nginx.reload", "gt06.upgrade"}; !slices.Equal(order, want) {
		t.Errorf("order %v", order)
	}
	if said := s.said(); !strings.Contains(said["gt06.upgrade"], "generation 2, before 1") {
		t.Errorf("%v", said)
	}
	facts, _ := quiet{}.Facts(t.Context(), ops.Question{})
	s.Config.GT06.Port = freePort(t)
	checks, _, err := s.Validate(t.Context(), &facts, Before{Connections: 100})
	if err != nil {
		t.Fatal(err)
	}
	if failed := checks.Failed(); len(failed) != 1 || !strings.Contains(failed[0].Text, "is gt06d's") { // nobody listens here
		t.Errorf("%+v", failed)
	}
	if checks, _, err = s.Validate(t.Context(), &facts, Before{Connections: 101}); err != nil || len(checks.Failed()) != 2 {
		t.Errorf("95 of 101 devices are connected: %+v, %v", checks.Failed(), err)
	}

	// A broken configuration: refused before anything is told to nginx.
	write(t, conf, strings.Replace(fmt.Sprintf(nginxConfig, port, "two"), "listen", "lissen", 1))
	if err := s.apply(s.Restart("nginx", "")); ops.KindOf(err) != ops.Refused || !strings.Contains(err.Error(), "lissen") {
		t.Errorf("%v", err)
	}
	if status, err := host.HTTPStatus(t.Context(), s.Page); err != nil || status != 200 {
		t.Errorf("%d, %v", status, err)
	}
	for _, what := range []string{"", "everything"} {
		if _, err := s.Restart(what, "").Discover(t.Context()); ops.KindOf(err) != ops.Usage {
			t.Errorf("%q: %v", what, err)
		}
	}
}

// TestLogins: more than three times as many as at the preflight is a storm; that
// each device comes back once is none.
func TestLogins(t *testing.T) {
	t.Parallel()
	s := newScene(t, ops.Restart, "")
	for _, c := range []struct {
		connections, logins int
		now                 float64
		ok                  bool
	}{{100, 50, 150, true}, {100, 50, 151, false}, {100, 2, 100, true}, {100, 2, 101, false}, {3, 0, 10, true}, {3, 0, 11, false}, {0, 0, 1000, true}} {
		v := Vitals{GT06: &control.Status{State: "ready", Connections: c.connections}, Checks: &control.Validation{OK: true, Checks: []control.Check{{Name: "reconnects", OK: true, Value: c.now}}}}
		failed := v.devices(&s.Config, Before{Connections: c.connections, Logins: c.logins}).Failed()
		if ok := len(failed) == 0; ok != c.ok || !ok && failed[0].Text != "logins are as usual" {
			t.Errorf("%+v: %+v", c, failed)
		}
		if b := v.Before(); b.Connections != c.connections || b.Logins != int(c.now) {
			t.Errorf("%+v", b)
		}
	}
}

func TestRestartGT06(t *testing.T) {
	t.Parallel()
	s := newScene(t, ops.Upgrade, "")
	if err := s.apply(s.Restart("gt06", "")); ops.KindOf(err) != ops.Refused {
		t.Errorf("without a server: %v", err)
	}
	s.server(control.RolledBack)
	if err := s.apply(s.Restart("gt06", "")); ops.KindOf(err) != ops.StepFailed || !strings.Contains(err.Error(), "told to") {
		t.Errorf("%v", err)
	}
}
