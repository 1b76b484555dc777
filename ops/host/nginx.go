package host

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// Nginx is a web server that runs.
type Nginx struct {
	System
	Args    []string // where its configuration is, -p and -c; none: the program's own
	PIDFile string   // of its master
}

// Test asks nginx whether its configuration is good.
func (n Nginx) Test(ctx context.Context) error {
	_, err := n.run(ctx, Command{Name: "nginx", Args: append([]string{"-t", "-q"}, n.Args...)})
	return err
}

// Master returns the process of the master.
func (n Nginx) Master() (int, error) {
	b, err := os.ReadFile(n.PIDFile)
	if err != nil {
		return 0, fmt.Errorf("nginx does not run: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("%s holds no process: %w", n.PIDFile, err)
	}
	if err := signal(pid, syscall.Signal(0)); err != nil {
		return 0, fmt.Errorf("nginx does not run: process %d of %s: %w", pid, n.PIDFile, err)
	}
	return pid, nil
}

func signal(pid int, sig syscall.Signal) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Signal(sig)
}

// Workers returns the processes that serve; those that only finish what they
// have are not among them.
func (n Nginx) Workers() ([]int, error) {
	master, err := n.Master()
	if err != nil {
		return nil, err
	}
	root, err := procfs.NewFS(n.Proc)
	if err != nil {
		return nil, err
	}
	procs, err := root.AllProcs()
	if err != nil {
		return nil, err
	}
	var out []int
	for _, p := range procs {
		stat, err := p.Stat()
		if err != nil || stat.PPID != master {
			continue
		}
		// A process that is ending has no title any more.
		title, err := p.CmdLine()
		if err != nil || len(title) == 0 || strings.Contains(strings.Join(title, " "), "shutting down") {
			continue
		}
		out = append(out, p.PID)
	}
	slices.Sort(out)
	return out, nil
}

// Reload tests the configuration, tells the master, and waits until other
// workers serve than those of before: a master that is told of a bad
// configuration keeps the old workers and says nothing.
func (n Nginx) Reload(ctx context.Context) error {
	if err := n.Test(ctx); err != nil {
		return err
	}
	master, err := n.Master()
	if err != nil {
		return err
	}
	before, err := n.Workers()
	if err != nil {
		return err
	}
	if err := signal(master, syscall.SIGHUP); err != nil {
		return fmt.Errorf("nginx: tell process %d to reload: %w", master, err)
	}
	return poll(ctx, 15*time.Second, 50*time.Millisecond, func() (bool, string, error) {
		now, err := n.Workers()
		return n.renewed(before, now), fmt.Sprintf("workers %v serve, as before; the reason is in nginx's error log", now), err
	})
}

// renewed says whether all workers that serve are new.
func (n Nginx) renewed(before, now []int) bool {
	return len(now) > 0 && !slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(before, pid) })
}
