package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"gt06/cmd/internal/cli"
	"gt06/cmd/internal/config"
	"gt06/cmd/internal/logging"
	"gt06/server"
	"gt06/server/control"
	"gt06/server/handover"
	"gt06/server/keeper"
)

// runtimeFile returns the path of a runtime file and makes its directory.
func runtimeFile(dataDir, name string) (string, error) {
	dir, err := control.RuntimeDir(dataDir)
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, name), os.MkdirAll(dir, 0o750)
}

// keeperCommand is `gt06d keeper`.
func keeperCommand(flags *config.Flags, env func(string) string) *cobra.Command {
	var spawned bool
	cmd := &cobra.Command{
		Use:   "keeper",
		Short: "Hold the device port and connections while no server runs",
		Long: `keeper holds a duplicate of the device port and of every connection, so that a
crash, a restart or an upgrade of the server ends none of them. It reads,
writes and accepts nothing.

Under systemd it is a unit of its own; elsewhere the server starts it.`,
		Example: "  gt06d keeper --data-dir /var/lib/gt06",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.Load(env)
			if err != nil {
				return cli.Fail(cli.Usage, err)
			}
			return runKeeper(cmd.Context(), cfg, spawned, env)
		},
	}
	cmd.Flags().BoolVar(&spawned, "spawned", false, "start the server again when it dies, and end with it")
	_ = cmd.Flags().MarkHidden("spawned")
	return cmd
}

func runKeeper(ctx context.Context, cfg config.Config, spawned bool, env func(string) string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	signal.Ignore(syscall.SIGHUP) // the terminal may go
	collectEach(25, env)          // it does next to nothing, and never much at once
	logs, err := logging.New(os.Stderr, cfg.Log.Level, env)
	if err != nil {
		return cli.Fail(cli.Usage, err)
	}
	log := logs.Main.Named("keeper")
	path, err := runtimeFile(cfg.DataDir, "keeper.sock")
	if err != nil {
		return notWritable(cfg.DataDir, err)
	}
	raiseDescriptors()
	var fed time.Time
	every := watchdog()
	err = keeper.Run(ctx, keeper.Options{
		Path: path, Supervise: spawned,
		Log:   func(format string, args ...any) { log.Info(fmt.Sprintf(format, args...)) },
		Ready: func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyReady) },
		Beat: func() {
			if every > 0 && time.Since(fed) > every {
				fed = time.Now()
				_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
			}
		},
	})
	if errors.Is(err, keeper.ErrRunning) {
		return cli.Fail(cli.Busy, err, "one keeper is enough for a data directory")
	}
	return err
}

// keeping is this server's side of the keeper. With no link, connections end
// with the process.
type keeping struct {
	link     *keeper.Link
	mark     uint64
	fd       int // of the listener that was held, -1: none
	missing  bool
	unproven error // why the kernel's counters are not trusted
}

// systemd says whether systemd starts and stops this process: then the keeper
// is a unit, too.
func systemd() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// connectKeeper finds the keeper, or starts it where no systemd does.
func (a *app) connectKeeper() error {
	a.keep.fd = -1
	if a.cfg.Keeper == "off" {
		if a.succ != nil {
			return cli.Fail(cli.Refused, errors.New("the configuration says keeper: off, so nothing can be handed over"))
		}
		return nil
	}
	if a.keep.unproven = a.selfTest(); a.keep.unproven != nil {
		if a.succ != nil {
			return a.keep.unproven
		}
		a.log.Error("connections cannot be taken over on this kernel: they end with this process", zap.Error(a.keep.unproven))
	}
	path, err := runtimeFile(a.cfg.DataDir, "keeper.sock")
	if err != nil {
		return notWritable(a.cfg.DataDir, err)
	}
	say := func(format string, args ...any) { a.log.Warn("keeper: " + fmt.Sprintf(format, args...)) }
	a.keep.link = keeper.New(path, say)
	err = a.keep.link.Connect()
	if err != nil && a.succ == nil && !systemd() {
		if err = spawnKeeper(a.up.Program(), a.cfg.DataDir); err == nil {
			err = a.keep.reach(2 * time.Second)
		}
	}
	switch {
	case err == nil:
	case a.succ != nil:
		return fmt.Errorf("the keeper: %w", err)
	default:
		a.keep.missing = true
		a.log.Error("no keeper: connections end with this process", zap.Error(err))
	}
	return nil
}

// selfTest proves the kernel's counters. Tests can make it fail.
func (a *app) selfTest() error {
	if err := server.SelfTest(); err != nil || os.Getenv("GT06_FAILPOINT") != "selftest" {
		return err
	}
	return fmt.Errorf("%w: GT06_FAILPOINT=selftest", server.ErrCounters)
}

// line is what the greeting says.
func (k *keeping) line() string {
	st, why := k.state()
	switch {
	case st != nil:
		return fmt.Sprintf("pid %d holds the port and %d connections", st.PID, max(0, st.Held-1))
	case why != "":
		return why
	}
	return "off: connections end with this process"
}

func (k *keeping) reach(within time.Duration) (err error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(within); time.Now().Before(end); <-tick.C {
		if err = k.link.Connect(); err == nil {
			return nil
		}
	}
	return err
}

// spawnKeeper starts a keeper in a session of its own. It is this very program,
// whatever lies at its path by now.
func spawnKeeper(program, dataDir string) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()                                                                  //nolint:errcheck // read only
	cmd := exec.Command("/proc/self/exe", "keeper", "--data-dir", dataDir, "--spawned") //nolint:noctx // it outlives us
	cmd.Args[0] = program
	cmd.Env = handover.Environment()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

// loops returns what the loops tell of connections.
func (k *keeping) loops() server.Keeper {
	if k.link == nil || k.unproven != nil {
		return nil
	}
	return k.link
}

// fetch adopts what the keeper holds.
func (a *app) fetch() (err error) {
	if a.keep.link == nil || a.keep.missing {
		return nil
	}
	if a.keep.mark, err = a.keep.link.Fetch(a.apply); err != nil {
		return fmt.Errorf("the keeper: %w", err)
	}
	return nil
}

// apply follows one event of the keeper.
func (a *app) apply(e keeper.Event) {
	var err error
	switch {
	case e.ID == keeper.Listener && e.Kind == keeper.Held:
		a.keep.offer(e.FD)
	case e.ID == keeper.Listener:
	case e.Kind == keeper.Held:
		if a.keep.unproven != nil {
			err = a.keep.unproven
		} else {
			err = a.server.Adopt(e.ID, e.FD, e.Blob)
		}
		if err != nil {
			a.keep.link.Drop(e.ID)
			_ = unix.Shutdown(e.FD, unix.SHUT_RDWR)
			_ = unix.Close(e.FD)
		}
	case e.Kind == keeper.Updated:
		err = a.server.Amend(e.ID, e.Blob)
	case e.Kind == keeper.Dropped:
		a.server.Forget(e.ID)
	}
	if err != nil {
		a.log.Error("a connection cannot be taken over", zap.Error(err))
	}
}

// offer keeps the listener that was handed over, for listener.
func (k *keeping) offer(fd int) {
	if k.fd >= 0 {
		_ = unix.Close(k.fd)
	}
	k.fd = fd
}

// offerListener prefers the one that tableflip passed.
func (k *keeping) offerListener(ln *net.TCPListener) {
	raw, err := ln.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) {
			if dup, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
				k.offer(dup)
			}
		})
	}
	_ = ln.Close()
}

// listener returns the one that was handed over when it is the one that is
// asked for, else nil: then the old one is closed for all.
func (k *keeping) listener(addr string, log *zap.Logger) *server.Listener {
	if k.fd < 0 {
		return nil
	}
	ln, err := server.Inherit(k.fd, addr)
	if err != nil {
		log.Warn("another listener is opened", zap.Error(err))
		_ = unix.Shutdown(k.fd, unix.SHUT_RDWR)
		_ = unix.Close(k.fd)
	}
	k.fd = -1
	return ln
}

// serve says that this server serves.
func (k *keeping) serve(mark uint64, ln *server.Listener) error {
	if k.link == nil {
		return nil
	}
	k.register(ln)
	return k.link.Serve(mark)
}

func (k *keeping) register(ln *server.Listener) {
	if k.link != nil {
		k.link.Register(keeper.Listener, ln.FD(), nil)
	}
}

func (k *keeping) command(program string) {
	if k.link != nil {
		k.link.Command(append([]string{program}, os.Args[1:]...), handover.Environment())
	}
}

func (k *keeping) settled(pos uint64) {
	if k.link != nil {
		k.link.Mark(pos)
	}
}

func (k *keeping) leave() {
	if k.link != nil {
		k.link.Leave()
	}
}

func (k *keeping) release() {
	if k.link != nil {
		k.link.Release()
	}
}

// holds says whether connections survive this process.
func (k *keeping) holds() bool {
	return k.link != nil && k.unproven == nil && !k.link.State().Lost
}

// state is what status says.
func (k *keeping) state() (st *control.Keeper, reason string) {
	switch {
	case k.link == nil:
		return nil, ""
	case k.unproven != nil:
		return nil, k.unproven.Error()
	}
	s := k.link.State()
	if s.Lost {
		return nil, "no keeper: connections end with this process"
	}
	return &control.Keeper{PID: s.PID, Held: s.Held}, ""
}

func (k *keeping) close() error {
	if k.link == nil {
		return nil
	}
	link := k.link
	return link.Close()
}

// stopJob says whether systemd is stopping our unit, and not restarting it.
func stopJob(ctx context.Context, log *zap.Logger) bool {
	if !systemd() {
		return false
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return false
	}
	_, path, _ := strings.Cut(strings.TrimSpace(string(b)), "::")
	unit := filepath.Base(path)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	args := []string{"list-jobs", "--no-legend", unit}
	if strings.Contains(path, "/user.slice/") {
		args = append([]string{"--user"}, args...)
	}
	for {
		out, err := exec.CommandContext(ctx, "systemctl", args...).Output()
		// "123 gt06d.service stop running"; a signal that no job sent has none.
		if fields := strings.Fields(string(out)); err == nil {
			return len(fields) > 2 && fields[2] == "stop"
		}
		// A message bus that is busy says no at first.
		if !pause(ctx, 50*time.Millisecond) {
			log.Warn("systemd does not say whether this is a stop or a restart: the keeper holds the connections for its grace", zap.Error(err))
			return false
		}
	}
}
