package runbook

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/backup"
	"gt06/ops/host"
	"gt06/server/control"
)

// furnish gives a scene the model as its machine.
func (m *model) furnish(s *scene) {
	s.System, s.PM2.System, s.PM2.Home, s.PM2.Program = m.system, m.system, m.home, "pm2"
	s.DB.System, s.Laravel.System = m.system, m.system
	s.Config.GT06.Port, s.Watch = m.port, time.Millisecond
	began, calls := time.Now(), 0
	s.Now = func() time.Time { calls++; return began.Add(time.Duration(calls) * time.Second) } // no two dumps of one second
}

// node is the machine before the takeover: Node under pm2 has the devices.
func node(m *model) {
	m.units["gt06d.service"] = 0
	m.apps = []modelApp{{name: "crm", pid: m.fork()}, {name: oldService, dir: nodeDir, script: "index.js", pid: m.fork(), listens: true}}
	m.save()
}

const nodeDir = "/home/ubuntu/gt06-server"

// served is the machine after it.
func served(m *model) {
	node(m)
	m.apps, m.units["gt06d.service"], m.boot["gt06d.service"] = m.apps[:1], m.fork(), true
	m.save()
}

// described is what a takeover wrote down.
func described(s *scene, m *model) {
	entry := fmt.Appendf(nil, `{"name":%q,"pm_exec_path":"index.js","pm_cwd":%q}`, oldService, nodeDir)
	if err := writeBefore(s.Before, before{Version: beforeVersion, App: oldService, Home: m.home, Processes: host.Description{entry}}); err != nil {
		m.Fatal(err)
	}
}

func (m *model) save() {
	m.Helper()
	if _, err := m.pm2(host.Command{Args: []string{"save"}}); err != nil {
		m.Fatal(err)
	}
}

// shared is what all deaths of one runbook use, because it takes its time: a
// real nginx, and a real MariaDB with a schema and a dump of it.
type shared struct {
	web      host.Nginx
	page     string
	db       *sql.DB
	defaults string
	schema   string
	dump     string // in place
	place    string
}

func (x *shared) nginx(s *scene) {
	s.Helper()
	if x.page == "" {
		s.nginx()
		s.Nginx.System = host.New() // its processes are real
		x.web, x.page = s.Nginx, s.Page
	}
	s.Nginx, s.Page = x.web, x.page
}

func (x *shared) mariadb(s *scene, name string) {
	s.Helper()
	if x.db == nil {
		x.schema = fmt.Sprintf("%s_%d", name, os.Getpid())
		x.db = s.database(x.schema)
		x.defaults = s.DB.Defaults
		x.run(s, "create table %s.t (id int primary key); insert into %[1]s.t values (1), (2)")
	}
	s.DB.Defaults, s.Config.Backup.DBs = x.defaults, []string{x.schema}
}

// run does statements in which %s is the schema.
func (x *shared) run(s *scene, statements string) {
	s.Helper()
	if _, err := x.db.ExecContext(s.Context(), fmt.Sprintf(statements, x.schema)); err != nil {
		s.Fatal(err)
	}
}

// dumps says how many backups there are: one made twice is one too many.
func dumps(s *scene) string {
	s.Helper()
	list, err := backup.List(s.Context(), backup.Dir(s.Config.Backup.Dir))
	if err != nil {
		s.Fatal(err)
	}
	return fmt.Sprintf("%d dumps\n", len(list))
}

// restarts are the effects of restarting each service, on a machine where each
// has something to do.
func restarts() map[string]map[string]int {
	out := map[string]map[string]int{
		restartDB:      {"start mariadb.service": 1},
		restartBackend: {"migration create table two (id int)": 1, "migration create table three (id int)": 1},
		restartPM2:     {"pm2 resurrect crm": 1},
		restartNginx:   {},
		restartTraccar: {"restart traccar.service": 1},
		restartGT06:    {}, // seen by the generation
	}
	all := map[string]int{}
	for _, effects := range out {
		maps.Copy(all, effects)
	}
	out[restartAll] = all
	return out
}

func restartDeaths(what string, times map[string]int) *deaths {
	x := &shared{}
	is := func(service string) bool { return what == service || what == restartAll }
	return &deaths{
		action: ops.Restart, config: "services: {traccar: true, pm2_apps: [crm]}\n", times: times,
		begin:  func(s *scene) ops.Runbook { return s.Restart(what, "") },
		resume: func(s *scene) ops.Runbook { return s.Restart("", "") },
		prepare: func(s *scene, m *model) {
			served(m)
			m.apps = nil // the machine has booted, and nobody told pm2
			m.units["mariadb.service"], m.units["traccar.service"] = m.fork(), m.fork()
			if is(restartDB) {
				m.units["mariadb.service"] = 0
			}
			if is(restartBackend) {
				x.mariadb(s, "restart_"+what)
				m.pending = []string{"create table two (id int)", "create table three (id int)"}
				s.Laravel.Dir = s.TempDir()
				write(s.T, s.Laravel.Dir+"/artisan", "")
			}
			if is(restartNginx) {
				x.nginx(s)
			}
			generation := s.server(control.Upgraded)
			m.more = func() string { return fmt.Sprintf("generation %d\n%s", generation(), dumps(s)) }
		},
	}
}

func machineDeaths() map[string]*deaths {
	take := func(t Taking) func(s *scene) ops.Runbook {
		return func(s *scene) ops.Runbook { return s.Takeover(t) }
	}
	resume := take(Taking{}) // it is told nothing
	x := &shared{}
	out := map[string]*deaths{
		"takeover": {
			action: ops.Refactor, begin: take(Taking{}), resume: resume, prepare: func(_ *scene, m *model) { node(m) },
			times: map[string]int{"enable gt06d.service": 1, "pm2 stop " + oldService: 1, "start gt06d.service": 1, "pm2 delete " + oldService: 1, "pm2 save save": 1},
		},
		"takeover fails": {
			action: ops.Refactor, begin: take(Taking{}), resume: resume, fails: true, prepare: func(_ *scene, m *model) { node(m); m.broken["gt06d.service"] = true },
			times: map[string]int{"enable gt06d.service": 1, "pm2 stop " + oldService: 1, "disable gt06d.service": 1, "pm2 start " + oldService: 1, "pm2 save save": 1},
		},
		"takeover is not well": { // no gt06d answers
			action: ops.Refactor, begin: take(Taking{Watch: 20 * time.Millisecond}), resume: resume, fails: true, prepare: func(_ *scene, m *model) { node(m) },
			times: map[string]int{
				"enable gt06d.service": 1, "pm2 stop " + oldService: 1, "start gt06d.service": 1, "pm2 delete " + oldService: 1, "pm2 save save": 2,
				"disable gt06d.service": 1, "stop gt06d.service": 1, "pm2 resurrect " + oldService: 1,
			},
		},
		"takeover --back": {
			action: ops.Refactor, begin: take(Taking{Back: true}), resume: resume, prepare: func(s *scene, m *model) { served(m); described(s, m) },
			times: map[string]int{"disable gt06d.service": 1, "stop gt06d.service": 1, "pm2 resurrect " + oldService: 1, "pm2 save save": 1},
		},
		"takeover --back to a script": {
			action: ops.Refactor, begin: take(Taking{Back: true, Dir: nodeDir, Script: "index.js"}), resume: resume, prepare: func(_ *scene, m *model) { served(m) },
			times: map[string]int{"disable gt06d.service": 1, "stop gt06d.service": 1, "pm2 start " + oldService: 1, "pm2 save save": 1},
		},
		"takeover --back fails": {
			action: ops.Refactor, begin: take(Taking{Back: true}), resume: resume, fails: true, prepare: func(s *scene, m *model) { served(m); described(s, m); m.broken[oldService] = true },
			times: map[string]int{
				"disable gt06d.service": 1, "stop gt06d.service": 1, "pm2 resurrect " + oldService: 1, "pm2 delete " + oldService: 1, "pm2 save save": 2,
				"enable gt06d.service": 1, "start gt06d.service": 1,
			},
		},
		"cleanup disk": {
			action: ops.DiskCleanup, again: true, // what is deleted already cannot be deleted again
			begin:  func(s *scene) ops.Runbook { return s.Cleanup(7, 2) },
			resume: func(s *scene) ops.Runbook { return s.Cleanup(0, 0) },
			times:  map[string]int{"apt-get clean": 1, "journalctl --vacuum-time=7d": 1, "snap set system refresh.retain=2": 1},
			prepare: func(s *scene, m *model) {
				for _, name := range []string{"syslog", "syslog.1", "syslog.2.gz"} {
					write(s.T, filepath.Join(s.Logs, name), name)
				}
				m.more = func() string {
					left, err := os.ReadDir(s.Logs)
					return fmt.Sprintf("logs %v, %v\n", left, err)
				}
			},
		},
		"resize guest": {
			action: ops.DiskResize, times: map[string]int{"growpart": 1, "xfs_growfs": 1},
			begin: func(s *scene) ops.Runbook {
				b := s.ResizeGuest("")
				b.Discover = func(context.Context) (ops.Params, error) {
					disk := filepath.Join(s.Logs, "disk") // what sysfs says on a machine with a real one
					return ops.Params{"mount": s.Page, "device": disk + "p1", "disk": disk, "number": "1", "type": "xfs"}, nil
				}
				return b
			},
			resume: func(s *scene) ops.Runbook { return s.ResizeGuest("") },
			prepare: func(s *scene, m *model) {
				const before, after = 1 << 20, 4 << 20
				m.disk, s.Page = after, mount(s.T, fmt.Sprintf("size=%d", before))
				partition := filepath.Join(s.Logs, "diskp1")
				write(s.T, partition, strings.Repeat("x", before))
				m.more = func() string {
					size, err := host.BlockSize(partition)
					u, err2 := host.DiskUsage(s.Page)
					return fmt.Sprintf("partition %d, file system %d, %v\n", size, u.Bytes, errors.Join(err, err2))
				}
			},
		},
		"restore db": {
			action: ops.Other, times: map[string]int{"a dump is loaded": 1},
			begin:  func(s *scene) ops.Runbook { return s.RestoreDB(x.dump, nil, "") },
			resume: func(s *scene) ops.Runbook { return s.RestoreDB("", nil, "") },
			prepare: func(s *scene, m *model) {
				m.units["mariadb.service"] = m.fork()
				x.mariadb(s, "load")
				if x.dump == "" {
					x.place = s.TempDir()
					b, err := backup.Dump(s.Context(), s.DB, s.Config.Backup.DBs, backup.Dir(x.place), backup.Options{Now: func() time.Time { return time.Now().Add(-time.Hour) }})
					if err != nil {
						s.Fatal(err)
					}
					x.dump = b.Name
				}
				if err := os.CopyFS(s.Config.Backup.Dir, os.DirFS(x.place)); err != nil {
					s.Fatal(err)
				}
				// Another machine, as it were: the change before has the same name.
				x.run(s, "alter database %s comment = ''; replace into %[1]s.t values (3)")
				m.more = func() string {
					var rows int
					err := x.db.QueryRowContext(context.Background(), "select count(*) from "+x.schema+".t").Scan(&rows)
					return fmt.Sprintf("%d rows, %v\n%s", rows, err, dumps(s))
				}
			},
		},
	}
	for what, times := range restarts() {
		out["restart "+what] = restartDeaths(what, times)
	}
	return out
}
