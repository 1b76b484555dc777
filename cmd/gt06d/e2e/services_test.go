package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gt06/storage/sqlstore/mariadbtest"
)

// services are what runs beside the server on the machine of the manual, all
// real: MariaDB with the schema of a Laravel that has a migration to run, nginx
// with a configuration it was not told of, and a program pm2 saved and does not
// run, as after a boot.
type services struct {
	t                   *testing.T
	dir, schema, page   string
	backups, app, nginx string
}

const webConfig = `daemon on; worker_processes 1; pid nginx.pid; error_log error.log;
events {}
http { access_log off; client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
server { listen %s; location / { return 200 "%s"; } } }
`

const migration = `<?php
class Trips extends Illuminate\Database\Migrations\Migration {
    public function up() { Illuminate\Support\Facades\DB::statement('create table trips (id int primary key)'); }
}
`

// withServices gives an operator's machine its services.
func withServices(t *testing.T, o *operated) *services {
	t.Helper()
	pm2, err := filepath.Abs("../../../.cache/pm2/node_modules/.bin/pm2")
	if err != nil {
		t.Fatal(err)
	}
	_, noPM2 := os.Stat(pm2)
	_, noLaravel := os.Stat("/usr/share/php/Illuminate/autoload.php")
	_, noPHP := exec.LookPath("php")
	server, noNginx := exec.LookPath("nginx")
	if missing := errors.Join(noPM2, noLaravel, noPHP, noNginx); missing != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(missing)
		}
		t.Skipf("make test installs it: %v", missing)
	}
	// Sockets of pm2 need a short path.
	dir, err := os.MkdirTemp("/tmp", "gt06-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	dsn := mariadbtest.Schema(t)
	schema := dsn[strings.LastIndexByte(dsn, '/')+1:]
	x := &services{t: t, dir: dir, schema: schema, page: freeHost() + ":8080", backups: dir + "/backups", app: dir + "/app", nginx: dir + "/nginx"}
	x.write("bin/nginx", fmt.Sprintf("#!/bin/sh\nexec %s -p %s -c nginx.conf \"$@\"\n", server, x.nginx))
	x.write("bin/pm2", fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", pm2))
	o.env = []string{"PATH=" + dir + "/bin:" + os.Getenv("PATH"), "HOME=" + dir}

	x.write("nginx/nginx.conf", fmt.Sprintf(webConfig, x.page, "old"))
	x.sh(o, "nginx")
	t.Cleanup(func() { x.sh(o, "nginx -s stop") })
	x.write("nginx/nginx.conf", fmt.Sprintf(webConfig, x.page, "new"))

	x.write("crm/index.js", "setInterval(() => {}, 1000)")
	t.Cleanup(func() { x.sh(o, "pm2 kill") })
	x.sh(o, "cd crm; pm2 start index.js --name crm; pm2 save; pm2 kill")

	if err := os.CopyFS(x.app, os.DirFS("../../../ops/host/testdata/laravel")); err != nil {
		t.Fatal(err)
	}
	socket := os.Getenv("GT06_TEST_MARIADB")
	x.write("app/bootstrap/cache/.keep", "")
	x.write("app/database.ini", fmt.Sprintf("unix_socket=%s\ndatabase=%s\nusername=root\npassword=\n", socket, x.schema))
	x.write("app/database/migrations/2026_01_01_000000_trips.php", migration)
	x.write("my.cnf", "[client]\nuser = root\nsocket = "+socket+"\n")

	o.keys(fmt.Sprintf("services: {pm2_user: \"\", pm2_apps: [crm], nginx_pid: %s/nginx.pid, page: \"http://%s/\", laravel_dir: %s}\n"+
		"backup: {defaults_file: %s/my.cnf, dbs: [%s], dir: %s}\n", x.nginx, x.page, x.app, dir, x.schema, x.backups))
	return x
}

func (x *services) write(name, text string) {
	x.t.Helper()
	path := filepath.Join(x.dir, name)
	mode := os.FileMode(0o600)
	if filepath.Dir(name) == "bin" {
		mode = 0o700
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, []byte(text), mode)); err != nil {
		x.t.Fatal(err)
	}
}

// sh runs commands as the operator of the machine.
func (x *services) sh(o *operated, script string) string {
	x.t.Helper()
	cmd := exec.CommandContext(context.Background(), "sh", "-ec", script)
	cmd.Dir, cmd.Env = x.dir, append(os.Environ(), o.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		x.t.Errorf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// restarted says that each of them is as `restart all` should leave it.
func (x *services) restarted(o *operated) {
	x.t.Helper()
	resp, err := http.Get("http://" + x.page) //nolint:noctx // local
	if err != nil {
		x.t.Error(err)
		return
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	text := make([]byte, 3)
	if _, err := resp.Body.Read(text); string(text) != "new" {
		x.t.Errorf("nginx serves %q, %v", text, err)
	}
	if list := x.sh(o, "pm2 jlist"); !strings.Contains(list, `"status":"online"`) {
		x.t.Errorf("pm2 has %s", list)
	}
	asRoot(x.t, "INSERT INTO "+x.schema+".trips VALUES (1)")
	if dumps, err := filepath.Glob(x.backups + "/db-*.sql.gz"); err != nil || len(dumps) != 1 {
		x.t.Errorf("before the migration: %q, %v", dumps, err)
	}
}
