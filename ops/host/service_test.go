package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nginxConfig is a server of one page on a free port of the loopback.
const nginxConfig = `daemon on; worker_processes 2; pid nginx.pid; error_log error.log;
events {}
http { access_log off; client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
server { listen 127.0.0.1:%d; location / { return 200 "%s"; } } }
`

// TestWorkersThatServe: a worker that ends is none, whether it says so in its
// title or has no title left.
func TestWorkersThatServe(t *testing.T) {
	t.Parallel()
	n := Nginx{System: System{Proc: t.TempDir()}, PIDFile: filepath.Join(t.TempDir(), "pid")}
	write(t, n.PIDFile, fmt.Sprint(os.Getpid()))
	for pid, p := range map[int]struct {
		parent int
		title  string
	}{
		101: {os.Getpid(), "nginx: worker process"}, 102: {os.Getpid(), "nginx: worker process is shutting down"}, 103: {os.Getpid(), ""}, 104: {1, "nginx: worker process"},
	} {
		dir := filepath.Join(n.Proc, fmt.Sprint(pid))
		if err := os.Mkdir(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		write(t, dir+"/stat", fmt.Sprintf("%d (nginx) S %d%s\n", pid, p.parent, strings.Repeat(" 0", 48)))
		write(t, dir+"/cmdline", p.title)
	}
	if got, err := n.Workers(); err != nil || !slices.Equal(got, []int{101}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestNginxReload(t *testing.T) {
	t.Parallel()
	s := need(t, "nginx")
	dir := t.TempDir()
	port := freePort(t)
	conf := filepath.Join(dir, "nginx.conf")
	write(t, conf, fmt.Sprintf(nginxConfig, port, "one"))
	n := Nginx{System: s, Args: []string{"-p", dir, "-c", conf}, PIDFile: filepath.Join(dir, "nginx.pid")}
	if _, err := n.Workers(); err == nil {
		t.Error("workers before it runs")
	}
	if _, err := s.run(t.Context(), Command{Name: "nginx", Args: n.Args}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if pid, err := n.Master(); err == nil {
			_ = syscall.Kill(pid, syscall.SIGQUIT)
		}
	})
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	if status, err := HTTPStatus(t.Context(), url); err != nil || status != http.StatusOK {
		t.Fatalf("%d, %v", status, err)
	}
	var before []int
	err := poll(t.Context(), 90*time.Second, 20*time.Millisecond, func() (bool, string, error) {
		var err error
		before, err = n.Workers()
		return len(before) == 2, fmt.Sprint(before), err
	})
	if err != nil {
		t.Fatal(err)
	}

	write(t, conf, fmt.Sprintf(nginxConfig, port, "two"))
	if err := n.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := n.Workers()
	if err != nil || !n.renewed(before, after) {
		t.Fatalf("workers %v became %v, %v", before, after, err)
	}

	// A bad configuration: refused with nginx's own words, nothing told to the
	// master, the same workers serve.
	write(t, conf, strings.Replace(fmt.Sprintf(nginxConfig, port, "three"), "listen", "lissen", 1))
	if err := n.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "lissen") {
		t.Errorf("%v", err)
	}
	if now, err := n.Workers(); err != nil || !slices.Equal(now, after) {
		t.Errorf("workers %v became %v, %v", after, now, err)
	}
	if status, err := HTTPStatus(t.Context(), url); err != nil || status != http.StatusOK {
		t.Errorf("%d, %v", status, err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // closed below
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's own
	return l.Addr().(*net.TCPAddr).Port
}

// pm2 returns a pm2 of a test's own: its daemon ends with the test.
func pm2(t *testing.T) PM2 {
	t.Helper()
	s := need(t, "node")
	program, err := filepath.Abs("../../.cache/pm2/node_modules/.bin/pm2")
	if err != nil {
		t.Fatal(err)
	}
	if !exists(program) {
		if os.Getenv("CI") != "" {
			t.Fatal("under CI pm2 must be in .cache/pm2")
		}
		t.Skip("no pm2 in .cache/pm2 (make test installs it)")
	}
	home, err := os.MkdirTemp("/tmp", "pm2-") // its sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	p := PM2{System: s, Home: home, Program: program}
	t.Cleanup(func() {
		if err := p.run(context.Background(), "kill"); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(home)
	})
	return p
}

const listener = `require("net").createServer().listen(%d, "127.0.0.1")`

func TestPM2(t *testing.T) {
	t.Parallel()
	p := pm2(t)
	dir := t.TempDir()
	port := freePort(t)
	write(t, dir+"/index.js", fmt.Sprintf(listener, port))
	if err := p.Start(t.Context(), dir, "index.js", "gt06-gps-service"); err != nil {
		t.Fatal(err)
	}
	if err := p.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	if saved, err := p.Saved(); err != nil || !slices.Equal(saved, []string{"gt06-gps-service"}) {
		t.Fatalf("saved %q, %v", saved, err)
	}
	if path, exposed := p.Exposed(); !exposed {
		t.Errorf("%s is not seen to be readable by everybody", path)
	}
	var holders []Process
	err := poll(t.Context(), 90*time.Second, 100*time.Millisecond, func() (bool, string, error) {
		list, err := p.Listeners()
		// The port is seen before the descriptor that holds it.
		holders, _ = HoldersOf(list, uint16(port))
		return len(holders) > 0, "nobody listens", err
	})
	if err != nil {
		t.Fatal(err)
	}
	apps, err := p.List(t.Context())
	if err != nil || len(apps) != 1 {
		t.Fatalf("%v, %v", apps, err)
	}
	if app, ok := Of(apps, holders[0].PID); !ok || app.Name != "gt06-gps-service" || app.Dir != dir {
		t.Errorf("port %d is held by %v, which is %+v", port, holders, app)
	}

	// A program that cannot have its port is "online", 23 restarts in 9 s.
	write(t, dir+"/second.js", fmt.Sprintf(listener, port))
	if err := p.Start(t.Context(), dir, "second.js", "second"); err != nil {
		t.Fatal(err)
	}
	// A busy machine may not get round to a restart in three seconds.
	var sick map[string]string
	for range 20 {
		if sick, err = p.Sick(t.Context(), []string{"gt06-gps-service", "second", "third"}, 3*time.Second); err != nil || sick["second"] != "" {
			break
		}
	}
	if err != nil || sick["gt06-gps-service"] != "" || sick["second"] == "" || sick["third"] == "" {
		t.Errorf("%v, %v", sick, err)
	}
	if err := p.Delete(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}

	// The trap of the SOP: deleted, saved, and back after the next boot.
	if err := p.Stop(t.Context(), "gt06-gps-service"); err != nil {
		t.Fatal(err)
	}
	if err := p.Delete(t.Context(), "gt06-gps-service"); err != nil {
		t.Fatal(err)
	}
	if err := p.run(t.Context(), "save"); err != nil {
		t.Fatal(err)
	}
	if saved, err := p.Saved(); err != nil || len(saved) != 1 {
		t.Errorf("pm2 has no such trap any more: %q, %v", saved, err)
	}
	if err := p.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	if saved, err := p.Saved(); err != nil || len(saved) != 0 {
		t.Errorf("saved %q, %v", saved, err)
	}
	if err := p.Resurrect(t.Context()); err != nil {
		t.Logf("nothing to resurrect: %v", err)
	}
	if apps, err := p.List(t.Context()); err != nil || len(apps) != 0 {
		t.Errorf("%v, %v", apps, err)
	}
	if err := p.Stop(t.Context(), "unknown"); err == nil {
		t.Error("an unknown program was stopped")
	}
}

// mariadb returns a client of the test's MariaDB and an empty schema.
func mariadb(t *testing.T, schema string) MariaDB {
	t.Helper()
	socket := os.Getenv("GT06_TEST_MARIADB")
	if socket == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("under CI a MariaDB must run: GT06_TEST_MARIADB is not set")
		}
		t.Skip("no MariaDB: GT06_TEST_MARIADB is not set (make test starts one)")
	}
	defaults := filepath.Join(t.TempDir(), "my.cnf")
	write(t, defaults, "[client]\nuser=root\nsocket="+socket+"\n")
	m := MariaDB{System: need(t, "mariadb"), Defaults: defaults}
	if _, err := m.Query(t.Context(), "CREATE DATABASE "+schema); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = m.Query(context.Background(), "DROP DATABASE "+schema) })
	return m
}

func TestMariaDB(t *testing.T) {
	t.Parallel()
	schema := fmt.Sprintf("host_%d", os.Getpid())
	m := mariadb(t, schema)
	if err := m.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	dirs, err := m.DataDirs(t.Context())
	if err != nil || len(dirs) == 0 || !exists(filepath.Join(dirs[0], "ibdata1")) {
		t.Fatalf("%q, %v", dirs, err)
	}
	c := Cleanup{System: m.System, Logs: filepath.Join(dirs[0], schema), Guard: NewGuard(dirs...)}
	if _, err := c.RotatedLogs(); !errors.Is(err, ErrProtected) {
		t.Errorf("in MariaDB's directory: %v", err)
	}
	if _, err := m.Query(t.Context(), "CREATE TABLE "+schema+".safe (id int) ENGINE=InnoDB; CREATE TABLE "+schema+".loose (id int) ENGINE=MyISAM"); err != nil {
		t.Fatal(err)
	}
	if loose, err := m.Unprotected(t.Context(), []string{schema}); err != nil || !slices.Equal(loose, []string{schema + ".loose (MyISAM)"}) {
		t.Errorf("%q, %v", loose, err)
	}
	if _, err := m.Unprotected(t.Context(), []string{"a' OR '1"}); err == nil {
		t.Error("a name that closes the string was taken")
	}
	gone := MariaDB{System: m.System, Defaults: filepath.Join(t.TempDir(), "my.cnf")}
	write(t, gone.Defaults, "[client]\nsocket=/nowhere\n")
	if err := gone.Ping(t.Context()); err == nil {
		t.Error("a MariaDB that is not there answers")
	}
}

const migration = `<?php
class %s extends Illuminate\Database\Migrations\Migration {
    public function up() { foreach ([%s] as $s) Illuminate\Support\Facades\DB::statement($s); }
}
`

func TestLaravelMigrations(t *testing.T) {
	t.Parallel()
	schema := fmt.Sprintf("laravel_%d", os.Getpid())
	m := mariadb(t, schema)
	need(t, "php")
	if !exists("/usr/share/php/Illuminate/autoload.php") {
		if os.Getenv("CI") != "" {
			t.Fatal("under CI php-laravel-framework must be installed")
		}
		t.Skip("php-laravel-framework is not installed")
	}
	dir := t.TempDir()
	if err := errors.Join(os.CopyFS(dir, os.DirFS("testdata/laravel")), os.MkdirAll(dir+"/database/migrations", 0o750), os.MkdirAll(dir+"/bootstrap/cache", 0o750)); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/database.ini", fmt.Sprintf("unix_socket=%s\ndatabase=%s\nusername=root\npassword=\n", os.Getenv("GT06_TEST_MARIADB"), schema))
	l := Laravel{System: m.System, Dir: dir}
	write(t, dir+"/database/migrations/2026_01_01_000000_one.php", fmt.Sprintf(migration, "One", "'create table one (id int)'"))
	if pending, err := l.Pending(t.Context()); err != nil || !strings.Contains(pending, "create table one") {
		t.Fatalf("pending %q, %v", pending, err)
	}
	if err := l.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if pending, err := l.Pending(t.Context()); err != nil || pending != "" {
		t.Errorf("pending %q, %v", pending, err)
	}
	if err := l.Migrate(t.Context()); err != nil {
		t.Errorf("nothing to migrate: %v", err)
	}

	// One that fails leaves what it did before, and fails otherwise the second
	// time: why a dump comes before it.
	write(t, dir+"/database/migrations/2026_01_02_000000_two.php", fmt.Sprintf(migration, "Two", "'create table two (id int)', 'alter table nowhere add x int'"))
	if err := l.Migrate(t.Context()); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("%v", err)
	}
	if rows, err := m.Query(t.Context(), "SELECT COUNT(*) FROM "+schema+".two"); err != nil || rows[0][0] != "0" {
		t.Errorf("the half-applied table: %q, %v", rows, err)
	}
	if err := l.Migrate(t.Context()); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("%v", err)
	}
	if err := (Laravel{System: m.System, Dir: t.TempDir()}).Migrate(t.Context()); err == nil {
		t.Error("migrated without an artisan")
	}
}
