package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"

	"gt06/server/control"
)

const (
	// flipVariable is tableflip's mark in the environment of a child. It stays
	// there, and would make a fresh start believe that it has a parent.
	flipVariable = "TABLEFLIP_HAS_PARENT_7DIU3"
	// readyTimeout is from the start of the new program until it serves.
	readyTimeout = 10 * time.Second
	// servingTimeout is from FREE until the new one serves: devices wait.
	servingTimeout = time.Second
	// beatEvery is how often a program on probation says that its loops turn,
	// and beatTimeout how long the old one believes it without a word.
	beatEvery   = 100 * time.Millisecond
	beatTimeout = time.Second
	// parentTimeout is how long an upgrade waits for the probation of the one
	// before it.
	parentTimeout = time.Minute
)

// Upgrader starts the next program through tableflip and hands over to it
// (HANDOVER.md section 3). There is one in a process.
type Upgrader struct {
	flip    *tableflip.Upgrader
	program string // what was started, absolute
	failAt  func(string)
}

// NewUpgrader prepares this process for upgrades. It comes before any file is
// opened: descriptors of a parent are taken over here.
func NewUpgrader(failAt func(string)) (*Upgrader, error) {
	if failAt == nil {
		failAt = func(string) {}
	}
	reap()
	child := os.Getenv(flipVariable) != ""
	// Without tableflip's PID file: an error of it would come before the byte
	// that says ready, and a serving child would be killed.
	flip, err := tableflip.New(tableflip.Options{UpgradeTimeout: readyTimeout})
	if err != nil {
		return nil, fmt.Errorf("prepare upgrades: %w", err)
	}
	if child {
		// tableflip leaves its two pipes open over exec.
		unix.CloseOnExec(3)
		unix.CloseOnExec(4)
	}
	u := &Upgrader{flip: flip, failAt: failAt, program: os.Args[0]}
	if path, err := exec.LookPath(os.Args[0]); err == nil {
		if u.program, err = filepath.Abs(path); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// reap waits for children of the image before an exec: nobody else will.
func reap() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
	}
}

// Program returns the path of the running program as it was started.
func (u *Upgrader) Program() string { return u.program }

// Environment returns the environment without what only this process may see.
func Environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, flipVariable+"=") && !strings.HasPrefix(v, gateVariable+"=") {
			env = append(env, v)
		}
	}
	return env
}

// The names under which listeners are passed on. They are not the addresses: a
// new configuration may ask for another one.
const (
	network = "gt06"
	Devices = "devices"
	Admin   = "admin"
)

// Pass adds a listener to what the next program is given; the caller keeps its
// own.
func (u *Upgrader) Pass(name string, ln tableflip.Listener) error {
	return u.flip.AddListener(network, name, ln)
}

// PassFD does it with a descriptor.
func (u *Upgrader) PassFD(name string, fd int) error {
	ln, err := ListenerOf(fd)
	if err != nil {
		return err
	}
	defer ln.Close() //nolint:errcheck // a duplicate
	return u.Pass(name, ln)
}

// ListenerOf makes a Go listener of a duplicate of a descriptor.
func ListenerOf(fd int) (*net.TCPListener, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	f := os.NewFile(uintptr(dup), "listener")
	defer f.Close() //nolint:errcheck // FileListener has a duplicate
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		_ = ln.Close()
		return nil, fmt.Errorf("a listener of type %T", ln)
	}
	return tcp, nil
}

// Inherited returns a listener the old server passed on, or nil.
func (u *Upgrader) Inherited(name string) (*net.TCPListener, error) {
	ln, err := u.flip.Listener(network, name)
	if err != nil || ln == nil {
		return nil, err
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		_ = ln.Close()
		return nil, fmt.Errorf("the %s listener that was handed over is a %T", name, ln)
	}
	return tcp, nil
}

// Stop closes what would have been passed on: the ports are free before the
// owner lock is.
func (u *Upgrader) Stop() {
	u.flip.Stop()
	<-u.flip.Exit()
}

// Ready tells tableflip that this program serves.
func (u *Upgrader) Ready() error { return u.flip.Ready() }

// Old is what an upgrade asks of the running server.
type Old struct {
	Owner      *Owner
	From       control.Program
	Schema     int64         // of the database, as far as known; 0: unknown
	Probation  time.Duration // how long the new one is watched
	Freeze     func() error  // stop behind a batch, all durable, the mark with the keeper
	Serving    func(control.Upgrade)
	Abandon    func(context.Context)
	Progress   func(step string)
	Signals    <-chan os.Signal
	Interrupts func(os.Signal) // a signal that came before FREE: the caller handles it behind Run
}

// attempt is one upgrade under way.
type attempt struct {
	u       *Upgrader
	old     *Old
	out     control.Upgrade
	begin   time.Time
	ch      channel
	ended   chan error   // what tableflip says of the new process
	words   chan message // what the new process says
	pidfd   int
	frozen  time.Time
	freed   time.Time
	decided bool
}

// Run starts a program and hands over to it. The result says what to do next:
// refused, go on serving; upgraded, end; rolled back, call Again. It never
// returns an upgrade that is half done.
func (u *Upgrader) Run(ctx context.Context, program string, old *Old) control.Upgrade {
	a := &attempt{u: u, old: old, begin: time.Now(), ended: make(chan error, 1), words: make(chan message, 4), pidfd: -1}
	a.out = control.Upgrade{From: old.From, At: a.begin.UTC().Format(time.RFC3339)}
	defer func() {
		if a.pidfd >= 0 {
			_ = unix.Close(a.pidfd)
		}
	}()
	if program == "" {
		program = u.program
	}
	if err := executable(program); err != nil {
		return a.refuse(err)
	}
	if err := a.gate(ctx); err != nil {
		return a.refuse(err)
	}
	os.Args[0] = program // what tableflip starts
	out := a.run(program)
	os.Args[0] = u.program
	if out.Result == control.Refused {
		if err := old.Owner.Serving(); err != nil {
			out.Reason += "; let the gate go: " + err.Error()
		}
	}
	return out
}

// gate takes the gate. While this server is on its own probation the one before
// it holds it.
func (a *attempt) gate(ctx context.Context) error {
	within := 2 * time.Second
	if a.u.flip.HasParent() {
		within = parentTimeout
	}
	for end, said := time.Now().Add(within), false; ; said = true {
		err := a.old.Owner.TakeGate(ctx, 50*time.Millisecond)
		if err == nil || time.Now().After(end) {
			return err
		}
		if !said {
			a.old.Progress("waiting for the end of another start or upgrade")
		}
		if a.pause(50 * time.Millisecond) {
			return errors.New("a signal came")
		}
	}
}

// executable says early and plainly what exec would say late.
func executable(program string) error {
	st, err := os.Stat(program)
	switch {
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is not a file", program)
	case st.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not executable", program)
	}
	return nil
}

func (a *attempt) refuse(err error) control.Upgrade {
	a.out.Result, a.out.Reason = control.Refused, err.Error()
	a.out.TotalMS = ms(time.Since(a.begin))
	return a.out
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (a *attempt) run(program string) control.Upgrade {
	a.old.Progress("starting " + program)
	if err := a.start(); err != nil {
		return a.refuse(err)
	}
	defer a.ch.close()
	if err := a.warm(); err != nil {
		return a.refuse(err)
	}
	a.old.Progress(fmt.Sprintf("the new program (%s, pid %d) is warm", a.out.To.Version, a.out.To.PID))
	a.u.failAt("old.warm")

	// From here on there is no way back but through a resume.
	a.frozen = time.Now()
	if err := a.old.Freeze(); err != nil {
		return a.rollBack(fmt.Errorf("stop serving: %w", err))
	}
	a.u.failAt("old.frozen")
	if err := a.old.Owner.Free(); err != nil {
		return a.rollBack(fmt.Errorf("let the owner lock go: %w", err))
	}
	a.u.failAt("old.unlocked")
	a.freed = time.Now()
	if err := a.ch.send(message{Type: typeFree}); err != nil {
		return a.rollBack(fmt.Errorf("tell the new program: %w", err))
	}
	a.u.failAt("old.free")
	if err := a.serving(); err != nil {
		return a.rollBack(err)
	}
	a.u.failAt("old.served")
	a.old.Progress(fmt.Sprintf("it serves %d connections after %.1f ms; probation of %v", a.out.Moved, a.out.StallMS, a.old.Probation))
	a.out.Result = control.Upgraded
	a.out.TotalMS = ms(time.Since(a.begin))
	a.old.Serving(a.out)
	if err := a.probation(); err != nil {
		return a.rollBack(err)
	}
	a.u.failAt("old.end")
	a.out.TotalMS = ms(time.Since(a.begin))
	return a.out
}

// start lets tableflip run the program with our descriptors and its end of the
// channel.
func (a *attempt) start() error {
	for end := time.Now().Add(parentTimeout); ; {
		own, theirs, err := newChannel()
		if err != nil {
			return err
		}
		err = errors.Join(a.u.flip.AddFile("handover", theirs), theirs.Close(), own.send(message{Type: typeHello, Schema: a.old.Schema}))
		if err != nil {
			own.close()
			return err
		}
		done := make(chan error, 1)
		go func() { done <- a.u.flip.Upgrade() }()
		t := time.NewTimer(10 * time.Millisecond)
		select {
		case err := <-done:
			t.Stop()
			m, silent := own.take()
			own.close()
			if silent == nil && m.said() {
				return errors.New(m.Reason)
			}
			if err.Error() == "parent hasn't exited" && time.Now().Before(end) { // it is on its own probation
				a.old.Progress("waiting for the probation of the last upgrade")
				if stop := a.pause(100 * time.Millisecond); stop {
					return errors.New("a signal came")
				}
				continue
			}
			return err
		case <-t.C:
		}
		a.ch = own
		go func() { a.ended <- <-done }()
		return nil
	}
}

// pause waits and reports whether a signal came.
func (a *attempt) pause(d time.Duration) (stop bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case sig := <-a.old.Signals:
		a.old.Interrupts(sig)
		return true
	case <-t.C:
		return false
	}
}

// listen passes on what the new program says.
func (a *attempt) listen(within time.Duration) {
	m, err := a.ch.receive(within)
	if err != nil {
		m = message{Type: typeRefuse, Reason: err.Error()}
	}
	a.words <- m
}

// beats passes on that the new program lives, until the end of ctx.
func (a *attempt) beats(ctx context.Context) <-chan struct{} {
	ch := make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			m, err := a.ch.receive(beatEvery)
			if err != nil && !errors.Is(err, errSilent) {
				return
			}
			if err == nil && m.Type == typeBeat {
				select {
				case ch <- struct{}{}:
				default:
				}
			}
		}
	}()
	return ch
}

// said says whether the new program itself gave a reason.
func (m message) said() bool {
	return m.Type == typeRefuse && m.Reason != errGone.Error() && m.Reason != errSilent.Error()
}

// warm waits until the new program has proved itself.
func (a *attempt) warm() error {
	go a.listen(readyTimeout)
	for {
		select {
		case sig := <-a.old.Signals:
			a.u.flip.Stop() // kills the new one; there will be no other upgrade
			a.old.Interrupts(sig)
			return fmt.Errorf("%v came before the new program was ready", sig)
		case err := <-a.ended:
			t := time.NewTimer(100 * time.Millisecond) // it may have said why before it ended
			defer t.Stop()
			select {
			case m := <-a.words:
				if m.said() {
					return errors.New(m.Reason)
				}
			case <-t.C:
			}
			return fmt.Errorf("the new program ended before it was ready: %w", err)
		case m := <-a.words:
			if m.Type != typeWarm {
				err := <-a.ended // tableflip kills it after its time-out
				if m.said() {
					return errors.New(m.Reason)
				}
				return fmt.Errorf("the new program was never ready: %w", err)
			}
			fd, err := unix.PidfdOpen(m.PID, 0)
			if err != nil {
				return fmt.Errorf("watch the new program: %w", err)
			}
			a.pidfd = fd
			a.out.To = control.Program{PID: m.PID, Version: m.Program, Generation: m.Generation}
			return nil
		}
	}
}

// serving waits until the new program serves. tableflip's word for ready may
// come first: it decides nothing. Its error always means dead.
func (a *attempt) serving() error {
	go a.listen(servingTimeout)
	for {
		select {
		case m := <-a.words:
			if m.Type != typeServing {
				return fmt.Errorf("the new program does not serve: %s", m.Reason)
			}
			a.out.Moved, a.out.Dropped, a.out.To.Generation = m.Moved, m.Dropped, m.Generation
			a.out.StallMS, a.out.FreeMS = ms(time.Since(a.frozen)), ms(time.Since(a.freed))
			return nil
		case err := <-a.ended:
			if err != nil {
				return fmt.Errorf("the new program ended before it served: %w", err)
			}
			a.decided = true
		}
	}
}

// probation watches the new program. A signal is meant for the one that
// serves: systemd signals only the main process, which is still this one.
func (a *attempt) probation() error {
	ctx, cancel := context.WithCancel(context.Background())
	abandoned := make(chan struct{})
	go func() {
		defer close(abandoned)
		a.old.Abandon(ctx)
	}()
	defer func() { cancel(); <-abandoned }()
	died := make(chan struct{})
	go func() {
		poll := []unix.PollFd{{Fd: int32(a.pidfd), Events: unix.POLLIN}}
		for ctx.Err() == nil {
			if n, _ := unix.Poll(poll, 50); n > 0 {
				close(died)
				return
			}
		}
	}()
	beats := a.beats(ctx)
	silent := time.NewTimer(beatTimeout)
	defer silent.Stop()
	t := time.NewTimer(a.old.Probation)
	defer t.Stop()
	over := t.C
	// The last word is the new program's: a beat behind the end of the time.
	for lives := false; over != nil || !a.decided || !lives; {
		select {
		case <-beats:
			silent.Reset(beatTimeout)
			lives = over == nil
		case <-silent.C:
			return fmt.Errorf("the new program hangs: no word for %v", beatTimeout)
		case <-died:
			return errors.New("the new program died in its probation")
		case err := <-a.ended:
			if err != nil {
				return fmt.Errorf("the new program ended in its probation: %w", err)
			}
			a.decided = true
		case <-over:
			over = nil
		case sig := <-a.old.Signals:
			a.out.Reason = fmt.Sprintf("%v in the probation was passed on", sig)
			if s, ok := sig.(syscall.Signal); ok {
				_ = unix.PidfdSendSignal(a.pidfd, s, nil, 0)
			}
			<-died
			return nil
		}
	}
	return nil
}

// rollBack makes sure that the new program is gone.
func (a *attempt) rollBack(why error) control.Upgrade {
	a.out.Result, a.out.Reason = control.RolledBack, why.Error()
	if a.pidfd >= 0 {
		_ = unix.PidfdSendSignal(a.pidfd, unix.SIGKILL, nil, 0)
		poll := []unix.PollFd{{Fd: int32(a.pidfd), Events: unix.POLLIN}}
		for {
			if _, err := unix.Poll(poll, 2000); !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
	a.out.TotalMS = ms(time.Since(a.begin))
	return a.out
}

// Again starts this program anew in this process: the same pid, the gate held,
// everything else resumed as after any end. It returns only when that fails.
func (u *Upgrader) Again(o *Owner) error {
	env := Environment()
	if o.gate != nil {
		fd := o.gate.Fd()
		if _, err := unix.FcntlInt(fd, unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		env = append(env, fmt.Sprintf("%s=%d", gateVariable, fd))
	}
	args := append([]string{u.program}, os.Args[1:]...)
	return fmt.Errorf("start this program again: %w", unix.Exec("/proc/self/exe", args, env))
}
