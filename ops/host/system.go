// Package host reads and changes the machine itself: disks, load, clock, ports
// and who holds them, MariaDB, nginx, pm2, Laravel, logs. It knows no change
// and no gate: package ops asks it, through the runbooks.
//
// Whatever has an effect goes through System, so that a test may put itself in
// the place of a program; what only reads takes the root of procfs and sysfs
// from it. Every program is started without a shell, with an environment of
// its own, and its exit status is looked at.
package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// System is the machine as this package reaches it.
type System struct {
	Exec     func(ctx context.Context, c Command) (Result, error)
	LookPath func(name string) (string, error)
	Proc     string // where procfs is mounted
	Sys      string // where sysfs is mounted
}

// New returns the machine this process runs on.
func New() System {
	return System{Exec: Exec, LookPath: lookPath, Proc: "/proc", Sys: "/sys"}
}

// Command is a program to run to its end.
type Command struct {
	Name   string
	Args   []string
	Dir    string
	Env    []string // name=value, besides PATH, HOME, USER and the C locale: nothing else is inherited
	User   string   // whose rights it has; "" or the own name: those of this process
	Stdin  io.Reader
	Stdout io.Writer // nil: kept in Result.Stdout, up to its last MiB
	Ours   bool      // killed when this process dies, however that happens
}

// String returns the command as a person would type it.
func (c Command) String() string { return strings.Join(append([]string{c.Name}, c.Args...), " ") }

// Result is what came of a program that ran to its end.
type Result struct {
	Code   int
	Stdout string
	Stderr string // its last MiB
}

// ExitError is a program that ended with a status nobody wanted.
type ExitError struct {
	Command string
	Result  Result
}

// Error names the program, the status and what it said last, in one line.
func (e *ExitError) Error() string {
	said := e.Result.Stderr
	if strings.TrimSpace(said) == "" {
		said = e.Result.Stdout
	}
	var lines []string
	for line := range strings.Lines(said) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return fmt.Sprintf("%s: status %d: %s", e.Command, e.Result.Code, strings.Join(lines[max(0, len(lines)-4):], "; "))
}

// run is Exec for programs of which any status but 0 is an error.
func (s System) run(ctx context.Context, c Command) (Result, error) {
	r, err := s.Exec(ctx, c)
	if err == nil && r.Code != 0 {
		err = &ExitError{Command: c.String(), Result: r}
	}
	return r, err
}

// has says whether a program is installed.
func (s System) has(name string) bool {
	_, err := s.LookPath(name)
	return err == nil
}

// sbin is where root's programs are; it is missing from the PATH of many a
// user and of cron.
const sbin = "/usr/local/sbin:/usr/sbin:/sbin"

func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil || strings.Contains(name, "/") {
		return path, err
	}
	for dir := range strings.SplitSeq(sbin, ":") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", err
}

// kept is how much of a program's output is kept.
const kept = 1 << 20

// Exec runs a program. An error means that it could not be started or was
// ended by a signal or the context; every other end is a Result.
func Exec(ctx context.Context, c Command) (Result, error) {
	path, err := lookPath(c.Name)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", c.Name, err)
	}
	// A program that does not end when it is asked to is killed.
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Dir = c.Dir
	cmd.Stdin = c.Stdin
	stdout, stderr := &tail{}, &tail{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	if c.Ours {
		// The kernel watches the thread that started the child, not the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	home, name := os.Getenv("HOME"), os.Getenv("USER")
	var as *credential
	if c.User != "" {
		u, cred, err := identity(c.User)
		if err != nil {
			return Result{}, fmt.Errorf("%s as %s: %w", c.Name, c.User, err)
		}
		home, name, as = u.HomeDir, u.Username, cred
	}
	if err := attributes(cmd, as, c.Ours); err != nil {
		return Result{}, fmt.Errorf("%s: %w", c.Name, err)
	}
	cmd.Env = append([]string{"PATH=" + searchPath(), "HOME=" + home, "USER=" + name, "LC_ALL=C.UTF-8"}, c.Env...)
	err = cmd.Run()
	r := Result{Stdout: stdout.String(), Stderr: stderr.String()}
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.Exited() {
		r.Code, err = e.ExitCode(), nil
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return r, fmt.Errorf("%s: %w", c, err)
	}
	return r, nil
}

func searchPath() string {
	path := os.Getenv("PATH")
	if path == "" {
		return "/usr/local/bin:/usr/bin:/bin:" + sbin
	}
	return path + ":" + sbin
}

// credential is what a process of a user runs as.
type credential struct {
	Uid, Gid uint32 //nolint:revive // as syscall.Credential has them
	Groups   []uint32
}

func identity(name string) (*user.User, *credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, nil, err
	}
	cred := &credential{Uid: uint32(uid), Gid: uint32(gid)}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			cred.Groups = append(cred.Groups, uint32(n))
		}
	}
	return u, cred, nil
}

// owner returns the name of the user who owns a path; "" when it has none.
func owner(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	st, ok := inodeOf(info)
	if !ok {
		return ""
	}
	u, err := user.LookupId(strconv.Itoa(int(st.uid)))
	if err != nil {
		return ""
	}
	return u.Username
}

// tail keeps the last of what is written.
type tail struct{ b bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if n > kept {
		p = p[n-kept:]
	}
	if over := t.b.Len() + len(p) - kept; over > 0 {
		t.b.Next(over)
	}
	t.b.Write(p)
	return n, nil
}

func (t *tail) String() string { return t.b.String() }

// poll asks until the answer is yes, at most for a time; then it returns what
// was seen last as an error.
func poll(ctx context.Context, most, every time.Duration, ask func() (yes bool, seen string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		yes, seen, err := ask()
		if err != nil || yes {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("after %s: %s: %w", most, seen, ctx.Err())
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
