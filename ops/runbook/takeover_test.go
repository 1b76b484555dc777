package runbook

import (
	"context"
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
)

// unit stands for systemd: it starts and stops a real process named gt06d.
type unit struct {
	program string
	port    int
	cmd     *exec.Cmd
	in      io.Closer
	broken  bool
}

func (u *unit) Exec(ctx context.Context, c host.Command) (host.Result, error) {
	if c.Name != "systemctl" {
		return host.Exec(ctx, c)
	}
	switch c.Args[0] {
	case "show":
		if u.cmd == nil {
			return host.Result{Stdout: "LoadState=loaded\nActiveState=inactive\nMainPID=0\n"}, nil
		}
		return host.Result{Stdout: fmt.Sprintf("LoadState=loaded\nActiveState=active\nMainPID=%d\n", u.cmd.Process.Pid)}, nil
	case "stop":
		if u.cmd != nil {
			_ = u.in.Close()
			_ = u.cmd.Wait()
			u.cmd = nil
		}
		return host.Result{}, nil
	case "start":
		if u.broken {
			return host.Result{Code: 1, Stderr: "Job for gt06d.service failed"}, nil
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
	}
	return host.Result{}, nil
}

// TestTakeover: a real pm2 with a real Node service on the port. A unit that
// does not start is undone: Node serves again. After it nothing starts Node at
// the next boot, which the paper's `pm2 save` does not manage.
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
	program, err := filepath.Abs("../../.cache/pm2/node_modules/.bin/pm2")
	if err != nil {
		t.Fatal(err)
	}
	_, err = os.Stat(program)
	need(t, err == nil && has("node"), "pm2 in .cache/pm2")
	s := newScene(t, ops.Refactor, "")
	port := freePort(t)
	s.Config.GT06.Port = port
	home, err := os.MkdirTemp("/tmp", "pm2-") // its sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	u := &unit{program: filepath.Join(t.TempDir(), "gt06d"), port: port}
	if err := copyFile(self, u.program); err != nil {
		t.Fatal(err)
	}
	s.Exec = u.Exec
	s.LookPath = func(name string) (string, error) { return name, nil }
	s.PM2 = host.PM2{System: s.System, Home: home, Program: program}
	t.Cleanup(func() {
		_, _ = u.Exec(context.Background(), host.Command{Name: "systemctl", Args: []string{"stop"}})
		_, _ = host.Exec(context.Background(), host.Command{Name: program, Args: []string{"kill"}, Env: []string{"PM2_HOME=" + home}})
		_ = os.RemoveAll(home)
	})
	dir := t.TempDir()
	write(t, dir+"/index.js", fmt.Sprintf(`require("net").createServer().listen(%d, "127.0.0.1")`, port))
	if err := s.PM2.Start(t.Context(), dir, "index.js", oldService); err != nil {
		t.Fatal(err)
	}
	if err := s.PM2.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.held(func(p Port) bool { return p.PM2 == oldService })

	u.broken = true
	if err := s.apply(s.Takeover(false, oldService, "", "")); ops.KindOf(err) != ops.StepFailed {
		t.Fatalf("%v", err)
	}
	s.held(func(p Port) bool { return p.PM2 == oldService })
	u.broken = false
	if err := s.session.Resume(t.Context(), "", func(string) (ops.Runbook, bool) { return s.Takeover(false, "", "", ""), true }, ops.Undecided); err != nil {
		t.Logf("%s", &s.out)
		t.Fatal(err)
	}
	s.held(func(p Port) bool { return p.Ours })
	if saved, err := s.PM2.Saved(); err != nil || len(saved) > 0 {
		t.Errorf("started at boot: %q, %v", saved, err)
	}

	// And back.
	if err := s.apply(s.Takeover(true, oldService, dir, "index.js")); err != nil {
		t.Fatal(err)
	}
	s.held(func(p Port) bool { return p.PM2 == oldService })
	if saved, err := s.PM2.Saved(); err != nil || !slices.Equal(saved, []string{oldService}) {
		t.Errorf("started at boot: %q, %v", saved, err)
	}
	if _, err := s.Takeover(true, oldService, "", "").Discover(t.Context()); ops.KindOf(err) != ops.Usage {
		t.Errorf("%v", err)
	}
	// Somebody else on the port is not stopped.
	if err := s.PM2.Stop(t.Context(), oldService); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port)) //nolint:noctx // closed below
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's own
	if err := s.apply(s.Takeover(false, oldService, "", "")); ops.KindOf(err) != ops.Refused || !strings.Contains(err.Error(), "held by") {
		t.Errorf("%v", err)
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
