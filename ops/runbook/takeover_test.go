package runbook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gt06/ops"
	"gt06/ops/host"
	"gt06/server/control"
)

// unit stands for systemd: it starts and stops a real process named gt06d.
type unit struct {
	program string
	port    int
	cmd     *exec.Cmd
	in      io.Closer
	broken  bool
	boot    bool // it starts with the machine
}

func (u *unit) Exec(ctx context.Context, c host.Command) (host.Result, error) {
	if c.Name != "systemctl" {
		return host.Exec(ctx, c)
	}
	switch c.Args[0] {
	case "show":
		boot := map[bool]string{true: "enabled", false: "disabled"}[u.boot]
		if u.cmd == nil {
			return host.Result{Stdout: "LoadState=loaded\nActiveState=inactive\nMainPID=0\nUnitFileState=" + boot + "\n"}, nil
		}
		return host.Result{Stdout: fmt.Sprintf("LoadState=loaded\nActiveState=active\nMainPID=%d\nUnitFileState=%s\n", u.cmd.Process.Pid, boot)}, nil
	case "enable", "disable":
		u.boot = c.Args[0] == "enable"
	case "stop":
		if u.cmd != nil {
			_ = u.in.Close()
			_ = u.cmd.Wait()
			u.cmd = nil
		}
	case "start":
		return u.start()
	}
	return host.Result{}, nil
}

func (u *unit) start() (host.Result, error) {
	if u.broken {
		return host.Result{Code: 1, Stderr: "Job for gt06d.service failed"}, nil
	}
	if u.cmd != nil {
		return host.Result{}, nil
	}
	cmd := exec.CommandContext(context.Background(), u.program, "-test.run=^TestTakeover$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("GT06_TEST_LISTEN=127.0.0.1:%d", u.port))
	in, err := cmd.StdinPipe()
	if err != nil {
		return host.Result{}, err
	}
	out, err := cmd.StderrPipe()
	if err != nil {
		return host.Result{}, err
	}
	if err := cmd.Start(); err != nil {
		return host.Result{}, err
	}
	if _, err := fmt.Fscanln(out, new(string)); err != nil {
		_ = cmd.Wait()
		return host.Result{Code: 1, Stderr: "it ended"}, nil //nolint:nilerr // as systemd says it
	}
	u.cmd, u.in = cmd, in
	return host.Result{}, nil
}

// answering is a gt06d as gt06ctl asks it.
type answering struct {
	status   control.Status
	validate control.Validation
}

func (g *answering) listen(t *testing.T, path string) {
	t.Helper()
	s, err := control.Serve(path, map[string]control.Handler{
		"status":   func(context.Context, json.RawMessage, func(any) error) (any, error) { return g.status, nil },
		"validate": func(context.Context, json.RawMessage, func(any) error) (any, error) { return g.validate, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
}

// old is a real pm2 with a real Node service on the port, and a machine to take
// it over on.
type old struct {
	*scene
	unit *unit
	gt06 *answering
	pm2  host.PM2
}

// pm2Program is where make test installs it. Another user gets a copy that he
// can read.
func pm2Program(t *testing.T, user string) string {
	t.Helper()
	dir, err := filepath.Abs("../../.cache/pm2")
	if err != nil {
		t.Fatal(err)
	}
	_, err = os.Stat(dir + "/node_modules/.bin/pm2")
	need(t, err == nil && has("node"), "pm2 in .cache/pm2")
	if user == "" {
		return dir + "/node_modules/.bin/pm2"
	}
	need(t, os.Geteuid() == 0, "root, to be another user")
	to := short(t, user)
	if out, err := exec.CommandContext(t.Context(), "cp", "-r", dir+"/node_modules", to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return to + "/node_modules/.bin/pm2"
}

// short is a directory whose path leaves room for the names of sockets.
func short(t *testing.T, owner string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pm2-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if owner != "" {
		if out, err := exec.CommandContext(t.Context(), "chown", owner, dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return dir
}

func newOld(t *testing.T, user string) *old {
	t.Helper()
	program := pm2Program(t, user)
	o := &old{scene: newScene(t, ops.Refactor, ""), gt06: &answering{}}
	port := freePort(t)
	o.Config.GT06.Port, o.Watch = port, time.Second
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o.unit = &unit{program: filepath.Join(t.TempDir(), "gt06d"), port: port}
	if err := copyFile(self, o.unit.program); err != nil {
		t.Fatal(err)
	}
	o.Exec = o.unit.Exec
	o.LookPath = func(name string) (string, error) { return name, nil }
	o.pm2 = host.PM2{System: o.System, User: user, Home: short(t, user), Program: program}
	// What the machine is told of is another pm2: the right one is found by the
	// socket.
	o.PM2 = host.PM2{System: o.System, Home: short(t, ""), Program: program}
	o.Server.Path = short(t, "") + "/gt06d.sock"
	o.gt06.listen(t, o.Server.Path)
	t.Cleanup(func() {
		_, _ = o.unit.Exec(context.Background(), host.Command{Name: "systemctl", Args: []string{"stop"}})
		for _, p := range []host.PM2{o.pm2, o.PM2} {
			if _, err := os.Stat(p.Home + "/pm2.pid"); err == nil {
				_, _ = host.Exec(context.Background(), host.Command{Name: program, Args: []string{"kill"}, User: p.User, Env: []string{"PM2_HOME=" + p.Home}})
			}
		}
	})
	return o
}

// start runs a program of pm2 that was started with all that can be given, and tells
// of it when it is asked.
func (o *old) start(name string, listens bool, flags ...string) {
	o.Helper()
	dir := o.pm2.Home + "/" + name
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // others read it
		o.Fatal(err)
	}
	script := "setInterval(() => {}, 1000)\n"
	if listens {
		script = fmt.Sprintf(`require("net").createServer((c) => c.end(JSON.stringify([process.argv.slice(2), process.cwd(), process.env.DB_PASSWORD, process.execArgv]))).listen(%d, "127.0.0.1")`, o.unit.port)
	}
	if err := os.WriteFile(dir+"/index.js", []byte(script), 0o644); err != nil { //nolint:gosec // others read it
		o.Fatal(err)
	}
	args := append([]string{"start", "index.js", "--name", name}, flags...)
	r, err := host.Exec(o.Context(), host.Command{Name: o.pm2.Program, Args: append(args, "--", "--answer", "42"), Dir: dir, User: o.pm2.User, Env: []string{"PM2_HOME=" + o.pm2.Home, "DB_PASSWORD=hush-hush"}})
	if err != nil || r.Code != 0 {
		o.Fatalf("%v, %+v", err, r)
	}
}

// says is what the service answers: how it was started.
func (o *old) says() string {
	o.Helper()
	d := net.Dialer{Timeout: 10 * time.Second}
	c, err := d.DialContext(o.Context(), "tcp4", fmt.Sprintf("127.0.0.1:%d", o.unit.port))
	if err != nil {
		o.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a test's own
	b, err := io.ReadAll(c)
	if err != nil {
		o.Fatal(err)
	}
	return string(b)
}

// boots is what starts with the machine: of pm2, and gt06d.
func (o *old) boots(names []string, gt06d bool) {
	o.Helper()
	slices.Sort(names)
	if saved, err := o.pm2.Saved(); err != nil || !slices.Equal(saved, names) {
		o.Errorf("pm2 starts at boot: %q, want %q, %v", saved, names, err)
	}
	if o.unit.boot != gt06d {
		o.Errorf("gt06d starts at boot: %v", o.unit.boot)
	}
}

// TestTakeover: a real pm2 with a real Node service on the port, found by its
// socket. A unit that does not start, and one that is not well, are undone: Node
// serves again. After it nothing starts Node at the next boot, which the paper's
// `pm2 save` does not manage; and the way back starts it as it was.
func TestTakeover(t *testing.T) {
	if at := os.Getenv("GT06_TEST_LISTEN"); at != "" { // the child that is gt06d
		if _, err := net.Listen("tcp4", at); err != nil { //nolint:noctx // until stdin ends
			t.Fatal(err)
		}
		fmt.Fprintln(os.Stderr, "ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	t.Parallel()
	for name, c := range map[string]struct {
		user    string
		flags   []string
		workers int
		others  []string
	}{
		"the last program of pm2":              {},
		"in cluster mode, beside another":      {flags: []string{"-i", "2"}, workers: 2, others: []string{"crm-queue"}},
		"of another user, with flags for Node": {user: "nobody", flags: []string{"--node-args", "--max-old-space-size=200"}, others: []string{"crm-queue"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOld(t, c.user)
			for _, other := range c.others {
				o.start(other, false)
			}
			o.start("gps", true, c.flags...)
			if err := o.pm2.Save(t.Context()); err != nil {
				t.Fatal(err)
			}
			before := slices.Concat(c.others, slices.Repeat([]string{"gps"}, max(1, c.workers)))
			o.held(func(p Port) bool { return p.PM2 == "gps" })
			as := o.says()
			if !strings.Contains(as, `["--answer","42"]`) || !strings.Contains(as, "hush-hush") || !strings.Contains(as, o.pm2.Home+"/gps") {
				t.Fatalf("the service was started otherwise: %s", as)
			}
			back := func() {
				t.Helper()
				o.held(func(p Port) bool { return p.PM2 == "gps" })
				if now := o.says(); now != as {
					t.Errorf("it was started as %s, now as %s", as, now)
				}
				o.boots(before, false)
			}

			switch {
			case c.workers > 0: // the unit does not start
				o.unit.broken = true
				if err := o.apply(o.Takeover(Taking{})); ops.KindOf(err) != ops.StepFailed {
					t.Fatalf("%v", err)
				}
				back()
				o.unit.broken = false
			case c.user == "": // it starts, and is not well
				o.gt06.validate.Checks = []control.Check{{Name: "locations", Text: "no device moves"}}
				if err := o.apply(o.Takeover(Taking{Watch: time.Second})); ops.KindOf(err) != ops.StepFailed || !strings.Contains(err.Error(), "no device moves") {
					t.Fatalf("%v", err)
				}
				back()
			}

			o.gt06.validate.Checks, o.gt06.status.UptimeS = []control.Check{{Name: "locations", OK: true}}, 60
			if err := o.apply(o.Takeover(Taking{Watch: time.Second})); err != nil {
				t.Fatalf("%v\n%s", err, &o.out)
			}
			o.held(func(p Port) bool { return p.Ours })
			o.boots(c.others, true)
			info, err := os.Stat(o.Before)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the description, with its secrets: %v, %v", info.Mode(), err)
			}
			if strings.Contains(o.out.String(), "hush-hush") || strings.Contains(o.journal(), "hush-hush") {
				t.Error("a secret is shown")
			}
			// The list before this one, which pm2 takes when it cannot read it.
			if b, err := os.ReadFile(o.pm2.Home + "/dump.pm2.bak"); err != nil || strings.Contains(string(b), `"gps"`) {
				t.Errorf("it could come back: %v", err)
			}
			// The next boot.
			o.reboot()
			if p, err := o.Port(t.Context()); err != nil || !p.Ours {
				t.Errorf("after a reboot the port is held by %s, %v", p, err)
			}

			if err := o.apply(o.Takeover(Taking{Back: true})); err != nil {
				t.Fatalf("%v\n%s", err, &o.out)
			}
			back()
		})
	}
}

// reboot starts what pm2 starts with the machine, as its unit does.
func (o *old) reboot() {
	o.Helper()
	env := []string{"PM2_HOME=" + o.pm2.Home}
	for _, verb := range []string{"kill", "resurrect"} {
		r, err := host.Exec(o.Context(), host.Command{Name: o.pm2.Program, Args: []string{verb}, User: o.pm2.User, Env: env})
		if err != nil || r.Code != 0 {
			o.Fatalf("%s: %v, %+v", verb, err, r)
		}
	}
}

// journal is all that was written of the change.
func (s *scene) journal() string {
	s.Helper()
	b, err := os.ReadFile(filepath.Join(s.Config.Journal.Dir, s.change+".jsonl"))
	if err != nil {
		s.Fatal(err)
	}
	return string(b)
}

// TestTakeoverRefuses: whom stopping a program of pm2 does not move from the
// port is named and left alone.
func TestTakeoverRefuses(t *testing.T) {
	t.Parallel()
	s := newScene(t, ops.Refactor, "")
	port := freePort(t)
	s.Config.GT06.Port = port
	s.PM2.Home = t.TempDir()
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port)) //nolint:noctx // closed below
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's own
	err = s.apply(s.Takeover(Taking{}))
	if told, ok := errors.AsType[*ops.Error](err); !ok || told.Kind != ops.Refused || !strings.Contains(err.Error(), "held by") || !strings.Contains(strings.Join(told.Hints, " "), fmt.Sprint(os.Getpid())) {
		t.Errorf("%v", err)
	}
	// The way back needs to be told where to.
	if err := s.apply(s.Takeover(Taking{Back: true})); ops.KindOf(err) != ops.Usage {
		t.Errorf("%v", err)
	}
	// What a later version wrote is not guessed at.
	if err := os.WriteFile(s.Before, []byte(`{"version":2,"app":"gps"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.apply(s.Takeover(Taking{Back: true})); ops.KindOf(err) != ops.Refused || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("%v", err)
	}
}

// TestTwoProgramsInClusterMode: pm2's daemon holds their sockets, and nobody
// can say which is whose.
func TestTwoProgramsInClusterMode(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	s := newScene(t, ops.Refactor, "")
	m.furnish(s)
	m.cluster = true
	m.apps = []modelApp{{name: "web", pid: m.fork()}, {name: oldService, pid: m.fork()}}
	m.procfs()
	err := s.apply(s.Takeover(Taking{}))
	if ops.KindOf(err) != ops.Refused || !strings.Contains(err.Error(), "web, "+oldService) {
		t.Fatalf("%v", err)
	}
	if p, err := s.session.Plan(t.Context(), "", s.Takeover(Taking{App: oldService})); err != nil || p.Params["app"] != oldService {
		t.Errorf("%+v, %v", p.Params, err)
	}
}

// held waits until the port is held as wanted.
func (s *scene) held(want func(Port) bool) {
	s.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(time.Minute); ; {
		p, err := s.Port(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		if want(p) {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			s.Fatalf("port: %s", p)
		}
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o700)
}
