package runbook

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"gt06/ops/host"
)

// model is a machine as systemd and pm2 tell of it and as its procfs shows it:
// state that commands change, not answers that were written down before. It
// counts what happened, and may die after any of it.
type model struct {
	*testing.T
	system  host.System
	home    string // PM2_HOME
	port    int    // of the devices: what every program of pm2 and gt06d want
	apps    []modelApp
	units   map[string]int  // main process by unit, 0: it does not run
	boot    map[string]bool // units that start with the machine
	pids    int
	cluster bool            // the programs of pm2 are in cluster mode: its daemon holds the port
	broken  map[string]bool // units and programs of pm2 that do not come up
	pending []string        // migrations of Laravel
	freed   map[string]bool // programs of a cleanup that have been there
	disk    int64           // bytes of the disk; its partition is a file, 0: there is none
	more    func() string   // what the model does not hold of the machine's state
	effects map[string]int
	happens func() // after each effect
}

type modelApp struct {
	name, dir, script string
	pid, restarts     int // pid 0: stopped
	listens           bool
}

func newModel(t *testing.T) *model {
	t.Helper()
	m := &model{T: t, port: 5023, home: t.TempDir(), pids: 1000, units: map[string]int{}, boot: map[string]bool{}, broken: map[string]bool{}, freed: map[string]bool{}, effects: map[string]int{}, happens: func() {}, more: func() string { return "" }}
	m.system = host.System{Exec: m.exec, LookPath: func(name string) (string, error) { return name, nil }, Proc: t.TempDir(), Sys: t.TempDir()}
	m.procfs()
	return m
}

// did counts an effect, shows it in procfs, and may end the program.
func (m *model) did(format string, args ...any) {
	m.effects[fmt.Sprintf(format, args...)]++
	m.procfs()
	m.happens()
}

// procfs shows the processes that are there and who listens.
func (m *model) procfs() {
	m.Helper()
	root := m.system.Proc
	old, err := os.ReadDir(root)
	if err != nil {
		m.Fatal(err)
	}
	for _, e := range old {
		if err := os.RemoveAll(filepath.Join(root, e.Name())); err != nil {
			m.Fatal(err)
		}
	}
	table := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	process := func(pid, parent int, name string, listens bool) {
		dir := filepath.Join(root, strconv.Itoa(pid))
		write(m.T, dir+"/comm", name+"\n")
		write(m.T, dir+"/stat", fmt.Sprintf("%d (%s) S %d%s\n", pid, name, parent, strings.Repeat(" 0", 48)))
		m.link("net:[1]", dir+"/ns/net")
		if listens {
			m.link(fmt.Sprintf("socket:[%d]", pid), dir+"/fd/3")
			table += fmt.Sprintf("   0: 0100007F:%04X 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 %d 1 0000000000000000 100 0 0 10 0\n", m.port, pid)
		}
	}
	process(1, 0, "systemd", false)
	const daemon = 900
	process(daemon, 1, "PM2 v7.0.4: God", m.cluster)
	write(m.T, fmt.Sprintf("%s/%d/cmdline", root, daemon), "PM2 v7.0.4: God Daemon ("+m.home+")\x00")
	write(m.T, fmt.Sprintf("%s/%d/environ", root, daemon), "PM2_HOME="+m.home+"\x00")
	m.link("1", root+"/self")
	for name, pid := range m.units {
		if pid != 0 {
			process(pid, 1, map[string]string{"gt06d.service": "gt06d"}[name], name == "gt06d.service")
		}
	}
	for _, a := range m.apps {
		if a.pid != 0 {
			process(a.pid, daemon, "node", a.listens)
		}
	}
	write(m.T, root+"/1/net/tcp", table)
}

func (m *model) link(target, path string) {
	m.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		m.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		m.Fatal(err)
	}
}

func (m *model) fork() int { m.pids++; return m.pids }

func no(format string, args ...any) (host.Result, error) {
	return host.Result{Code: 1, Stderr: fmt.Sprintf(format, args...)}, nil
}

func (m *model) exec(ctx context.Context, c host.Command) (host.Result, error) {
	switch c.Name {
	case "systemctl":
		return m.systemctl(c.Args[0], c.Args[len(c.Args)-1])
	case "pm2":
		return m.pm2(c)
	case "php":
		return m.artisan(c.Args[1:])
	case "mariadb", "mariadb-dump":
		return m.mariadb(ctx, c)
	case "growpart":
		return m.growpart(c.Args)
	case "xfs_growfs":
		return m.growfs(c.Args[0])
	case "apt-get", "journalctl", "snap":
		m.freed[c.Name] = true
		m.did("%s", c)
		return host.Result{}, nil
	}
	return host.Exec(ctx, c)
}

// mariadb is the real one where there is one, while its unit runs.
func (m *model) mariadb(ctx context.Context, c host.Command) (host.Result, error) {
	if m.units["mariadb.service"] == 0 {
		return no("ERROR 2002 (HY000): Can't connect to local server through socket")
	}
	if c.Args[len(c.Args)-1] == "--execute=SELECT 1" {
		return host.Result{Stdout: "1\n"}, nil
	}
	r, err := host.Exec(ctx, c)
	if err == nil && r.Code == 0 && slices.Contains(c.Args, "--binary-mode") {
		m.did("a dump is loaded")
	}
	return r, err
}

// artisan runs migrations one by one; each is there for good.
func (m *model) artisan(args []string) (host.Result, error) {
	if slices.Contains(args, "--pretend") {
		if len(m.pending) == 0 {
			return host.Result{Stdout: "Nothing to migrate.\n"}, nil
		}
		return host.Result{Stdout: strings.Join(m.pending, "\n")}, nil
	}
	for len(m.pending) > 0 {
		done := m.pending[0]
		m.pending = m.pending[1:]
		m.did("migration %s", done)
	}
	return host.Result{}, nil
}

// growpart works on a partition that is a file, PARTITION of DISK is its name.
func (m *model) growpart(args []string) (host.Result, error) {
	partition := args[len(args)-2] + "p" + args[len(args)-1]
	size, err := host.BlockSize(partition)
	switch {
	case err != nil:
		return no("FAILED: %v", err)
	case int64(size) == m.disk:
		return host.Result{Code: 1, Stdout: "NOCHANGE: partition 1 could only be grown by 0\n"}, nil
	case args[0] == "--dry-run":
		return host.Result{Stdout: "CHANGE: partition=1"}, nil
	}
	if err := os.Truncate(partition, m.disk); err != nil {
		return no("FAILED: %v", err)
	}
	m.did("growpart")
	return host.Result{Stdout: "CHANGED: partition=1"}, nil
}

// growfs grows a file system in memory to the size of the partition.
func (m *model) growfs(mount string) (host.Result, error) {
	if err := syscall.Mount("tmpfs", mount, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", m.disk)); err != nil {
		return no("xfs_growfs: %v", err)
	}
	m.did("xfs_growfs")
	return host.Result{}, nil
}

func (m *model) systemctl(verb, name string) (host.Result, error) {
	pid, loaded := m.units[name]
	switch {
	case !loaded && verb == "show":
		return host.Result{Stdout: "LoadState=not-found\nActiveState=inactive\nMainPID=0\n"}, nil
	case !loaded:
		return no("Unit %s not found.", name)
	case verb == "show":
		state := map[bool]string{true: "active", false: "inactive"}[pid != 0]
		return host.Result{Stdout: fmt.Sprintf("LoadState=loaded\nActiveState=%s\nMainPID=%d\nUnitFileState=%s\n", state, pid, map[bool]string{true: "enabled", false: "disabled"}[m.boot[name]])}, nil
	case verb == "enable", verb == "disable":
		if m.boot[name] == (verb == "enable") {
			return host.Result{}, nil
		}
		m.boot[name] = verb == "enable"
	case verb == "start" && pid != 0, verb == "stop" && pid == 0:
		return host.Result{}, nil
	case verb == "stop":
		m.units[name] = 0
	case m.broken[name]:
		return no("Job for %s failed.", name)
	default: // start, restart
		m.units[name] = m.fork()
	}
	m.did("%s %s", verb, name)
	return host.Result{}, nil
}

func (m *model) pm2(c host.Command) (host.Result, error) {
	verb, name := c.Args[0], c.Args[len(c.Args)-1]
	i := slices.IndexFunc(m.apps, func(a modelApp) bool { return a.name == name })
	switch {
	case verb == "jlist":
		return host.Result{}, json.NewEncoder(c.Stdout).Encode(m.listed())
	case verb == "save":
		if at := list(c); at != "" {
			return host.Result{}, os.WriteFile(at, m.saved(), 0o600)
		}
		if len(m.apps) == 0 && name != "--force" {
			return host.Result{Stdout: "[PM2][WARN] PM2 is not managing any process, skipping save..."}, nil
		}
		write(m.T, m.home+"/dump.pm2", string(m.saved()))
	case verb == "resurrect":
		at := list(c)
		if at == "" {
			at = m.home + "/dump.pm2"
		}
		return m.resurrect(at)
	case verb == "start" && len(c.Args) > 2: // a script
		if i >= 0 && m.apps[i].pid != 0 {
			return no("[PM2][ERROR] Script already launched, add -f option to force re-execution")
		}
		if i < 0 {
			m.apps, i = append(m.apps, modelApp{name: name, dir: c.Dir, script: c.Args[1], listens: name == oldService}), len(m.apps)
		}
		m.run(i)
	case i < 0:
		return no("[PM2][ERROR] Process or Namespace %s not found", name)
	case verb == "start":
		m.run(i)
	case verb == "stop" && m.apps[i].pid == 0:
		return host.Result{}, nil
	case verb == "stop":
		m.apps[i].pid = 0
	case verb == "delete":
		m.apps = slices.Delete(m.apps, i, i+1)
	default:
		m.Errorf("pm2 %v", c.Args)
	}
	m.did("pm2 %s %s", verb, name)
	return host.Result{}, nil
}

// list is the file that takes the place of pm2's own, "" for that.
func list(c host.Command) string {
	for _, e := range c.Env {
		if at, ok := strings.CutPrefix(e, "PM2_DUMP_FILE_PATH="); ok {
			return at
		}
	}
	return ""
}

// saved is the list of now as pm2 saves it.
func (m *model) saved() []byte {
	m.Helper()
	out := make([]modelSaved, 0, len(m.apps))
	for _, a := range m.apps {
		out = append(out, modelSaved{Name: a.name, Script: a.script, Dir: a.dir})
	}
	b, err := json.Marshal(out)
	if err != nil {
		m.Fatal(err)
	}
	return b
}

// run starts a program of pm2. A broken one dies and is started again: pm2 says
// "online" of it.
func (m *model) run(i int) {
	if m.apps[i].pid == 0 {
		m.apps[i].pid = m.fork()
	}
	m.apps[i].listens = m.apps[i].name == oldService && !m.broken[m.apps[i].name]
}

// resurrect starts what the saved list names and the list of now does not hold.
func (m *model) resurrect(list string) (host.Result, error) {
	var saved []modelSaved
	b, err := os.ReadFile(list)
	if err == nil {
		err = json.Unmarshal(b, &saved)
	}
	if err != nil {
		return no("[PM2][ERROR] No processes saved; DUMP file doesn't exist")
	}
	for _, s := range saved {
		if slices.ContainsFunc(m.apps, func(a modelApp) bool { return a.name == s.Name }) {
			continue
		}
		m.apps = append(m.apps, modelApp{name: s.Name, dir: s.Dir, script: s.Script})
		m.run(len(m.apps) - 1)
		m.did("pm2 resurrect %s", s.Name)
	}
	return host.Result{}, nil
}

// modelSaved is a program in dump.pm2.
type modelSaved struct {
	Name   string `json:"name"`
	Script string `json:"pm_exec_path"`
	Dir    string `json:"pm_cwd"`
}

// modelDump is a program in `pm2 jlist`.
type modelDump struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	Env  struct {
		Status   string `json:"status"`
		Restarts int    `json:"restart_time"`
		Script   string `json:"pm_exec_path"`
		Dir      string `json:"pm_cwd"`
		Mode     string `json:"exec_mode"`
	} `json:"pm2_env"`
}

func (m *model) listed() []modelDump {
	out := []modelDump{}
	for i := range m.apps {
		a := &m.apps[i]
		d := modelDump{Name: a.name, PID: a.pid}
		if m.broken[a.name] && a.pid != 0 {
			a.restarts++
		}
		d.Env.Status = map[bool]string{true: "online", false: "stopped"}[a.pid != 0]
		d.Env.Mode = map[bool]string{true: "cluster_mode", false: "fork_mode"}[m.cluster]
		d.Env.Restarts, d.Env.Script, d.Env.Dir = a.restarts, a.script, a.dir
		out = append(out, d)
	}
	return out
}

// state is all that lasts of it, without what differs from run to run.
func (m *model) state() string {
	m.Helper()
	var text string
	for _, name := range slices.Sorted(maps.Keys(m.units)) {
		text += fmt.Sprintf("%s runs: %v, at boot: %v\n", name, m.units[name] != 0, m.boot[name])
	}
	for _, a := range m.apps {
		text += fmt.Sprintf("pm2 %s %s/%s runs: %v\n", a.name, a.dir, a.script, a.pid != 0)
	}
	saved, err := host.PM2{System: m.system, Home: m.home}.Saved()
	if err != nil {
		m.Fatal(err)
	}
	return text + fmt.Sprintf("at boot: %q\npending: %q\ncleaned: %v\n%s", saved, m.pending, m.freed, m.more())
}
