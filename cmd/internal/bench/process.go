package bench

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"gt06/server/control"
)

// target is a server under load and what belongs to it.
type target struct {
	addr    netip.AddrPort
	main    *exec.Cmd
	all     []*exec.Cmd
	dir     string
	control control.Client
}

// spawn starts a program that ends with this one and returns the first line
// that line accepts.
func (t *target) spawn(cmd *exec.Cmd, line func(string) bool) (string, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := errors.Join(cmd.Start(), w.Close()); err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}
	t.main = cmd
	t.all = append(t.all, cmd)
	found, said := make(chan string, 1), []string{}
	go func() {
		scan := bufio.NewScanner(r)
		for scan.Scan() {
			if found != nil && line(scan.Text()) {
				found <- scan.Text()
				found = nil
			} else if found != nil {
				said = append(said, scan.Text())
			}
		}
		if found != nil {
			close(found)
		}
	}()
	s, ok := <-found
	if !ok {
		return "", fmt.Errorf("%s ended: %s", filepath.Base(cmd.Path), strings.Join(said, "\n"))
	}
	return s, nil
}

// stop ends all of it.
func (t *target) stop() {
	for _, c := range slices.Backward(t.all) {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		_ = c.Wait()
	}
	if t.dir != "" {
		_ = os.RemoveAll(t.dir)
	}
}

// cpu returns the seconds of processor time used so far, of all its processes.
func (t *target) cpu() (seconds float64) {
	for _, c := range t.all {
		seconds += used(c.Process.Pid)
	}
	return seconds
}

// used returns the seconds of processor time of a process.
func used(pid int) float64 {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0
	}
	st, err := p.Stat()
	if err != nil {
		return 0
	}
	return st.CPUTime()
}

// resident returns the bytes of memory of all its processes.
func (t *target) resident() (bytes float64) {
	for _, c := range t.all {
		if p, err := procfs.NewProc(c.Process.Pid); err == nil {
			if st, err := p.NewStatus(); err == nil {
				bytes += float64(st.VmRSS)
			}
		}
	}
	return bytes
}

//go:embed reference/epoll.c
var referenceSource []byte

// reference builds the C server; nil without an error: there is no compiler.
func (b *bench) reference() (func() (*target, error), error) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return nil, nil //nolint:nilerr // said in the table
	}
	source, program := filepath.Join(b.dir, "reference.c"), filepath.Join(b.dir, "reference")
	if err := os.WriteFile(source, referenceSource, 0o600); err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(b.ctx, cc, "-O2", "-o", program, source).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cc: %w\n%s", err, out)
	}
	return func() (*target, error) {
		t := &target{}
		port, err := t.spawn(exec.CommandContext(b.ctx, program), func(string) bool { return true })
		if err != nil {
			return nil, err
		}
		t.addr, err = netip.ParseAddrPort("127.0.0.1:" + port)
		return t, err
	}, nil
}

// bare starts this server's loops with a keeper, and without log and database.
func (b *bench) bare() (*target, error) {
	t, err := b.withKeeper(b.dir)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addr, err := t.spawn(exec.CommandContext(b.ctx, self, "bench", "--bare", "--data-dir", t.dir), isAddress)
	if err == nil {
		t.addr, err = netip.ParseAddrPort(addr)
	}
	return t, err
}

func isAddress(s string) bool {
	_, err := netip.ParseAddrPort(s)
	return err == nil
}

// withKeeper starts a keeper over a new data directory.
func (b *bench) withKeeper(parent string) (*target, error) {
	dir, err := os.MkdirTemp(parent, "data-")
	if err != nil {
		return nil, err
	}
	t := &target{dir: dir}
	path, err := control.RuntimeDir(dir)
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(path, "keeper.sock")
	cmd := exec.CommandContext(b.ctx, b.opt.Server, "keeper", "--data-dir", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	t.all = append(t.all, cmd)
	return t, b.until(5*time.Second, "the keeper listens", func() bool { _, err := os.Stat(socket); return err == nil })
}

// full starts gt06d as it is, but that no device is told to slow down: some
// groups have few of them, that send as fast as they can.
func (b *bench) full(dir string, args ...string) (*target, error) {
	t := &target{dir: dir}
	var err error
	if dir == "" {
		if t, err = b.withKeeper(b.dir); err != nil {
			return nil, err
		}
	}
	unpaced := filepath.Join(b.dir, "unpaced.yaml")
	if err := os.WriteFile(unpaced, []byte("limits: {frames: -1}\n"), 0o600); err != nil {
		return nil, err
	}
	args = append([]string{"--config", unpaced, "--data-dir", t.dir, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-level", "error"}, args...)
	addr := ""
	if _, err = t.spawn(exec.CommandContext(b.ctx, b.opt.Server, args...), func(s string) bool {
		if a, ok := strings.CutPrefix(s, "devices "); ok {
			addr = strings.TrimSpace(a)
		}
		return s == "ready"
	}); err != nil {
		return nil, err
	}
	if t.addr, err = netip.ParseAddrPort(addr); err != nil {
		return nil, err
	}
	t.control.Path, err = control.Path(t.dir)
	return t, err
}

// lag returns how many records are not in the database yet.
func (t *target) lag(ctx context.Context) (int64, error) {
	var st control.Status
	if err := t.control.Call(ctx, "status", nil, &st); err != nil {
		return 0, err
	}
	if st.Store.LastError != "" && st.Store.State != "ok" {
		return 0, fmt.Errorf("the database: %s", st.Store.LastError)
	}
	return st.Store.Lag, nil
}

// until waits for a condition. It asks seldom enough that asking costs the
// server nothing that can be measured.
func (b *bench) until(most time.Duration, what string, ok func() bool) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(most)
	for !ok() {
		select {
		case <-b.ctx.Done():
			return b.ctx.Err()
		case <-limit:
			return fmt.Errorf("did not happen within %v: %s", most, what)
		case <-tick.C:
		}
	}
	return nil
}
