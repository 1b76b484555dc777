package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"gt06/cmd/internal/cli"
	"gt06/cmd/internal/config"
	"gt06/cmd/internal/logging"
	"gt06/protocol"
	"gt06/server"
	"gt06/server/admin"
	"gt06/server/board"
	"gt06/server/control"
	"gt06/server/handover"
	"gt06/storage"
	"gt06/storage/sink"
	"gt06/storage/spool"
	"gt06/storage/sqlstore"
)

// app is a whole server: what main starts, and end-to-end tests with it.
type app struct {
	cfg      config.Config
	stderr   io.Writer
	log      *zap.Logger
	traceLog *zap.Logger
	reg      *prometheus.Registry
	began    time.Time
	fail     func(string)
	decoder  protocol.Decoder
	node     string

	// Who serves, and what is handed over.
	up      *handover.Upgrader
	succ    *handover.Successor // nil: not started by an upgrade
	owner   *handover.Owner
	keep    keeping
	spool   *spool.Writer
	server  *server.Server
	devices *server.Listener
	resumed server.Resumed
	pidFile string // written, not yet renamed

	// What operators see.
	admin    *admin.Server
	adminLn  *net.TCPListener
	control  *control.Server
	watchers watchers
	traces   traces
	waits    waits
	queue    queue
	board    *board.Board
	trend    trend
	clock    clock
	cores    int // loops
	memory   control.Memory
	most     int // connections

	// The database behind it.
	fleet   directory
	store   storeState
	backlog backlog
	sinks   []*sink.Sink

	sinkLines string // what the greeting says of them

	proved   chan struct{} // closed when no probation is going on any more
	requests chan upgradeRequest
	stops    chan struct{}
	phase    atomic.Int32
}

// The phases of a server, as status says them.
const (
	phaseServing int32 = iota
	phaseDraining
)

// reserve are descriptors kept for everything but devices.
const reserve = 256

// open does all that can be refused, and ends as the owner, with every
// connection taken over and nothing read yet. Crash, restart, rescue and
// upgrade are this one path; they differ in who held the lock before. The
// database is not touched: it may be away.
func open(ctx context.Context, cfg config.Config, stderr io.Writer, env func(string) string) (_ *app, err error) {
	a := &app{
		cfg: cfg, stderr: stderr, began: time.Now(), reg: prometheus.NewRegistry(), fail: failpoint(env("GT06_FAILPOINT")),
		proved: make(chan struct{}), requests: make(chan upgradeRequest), stops: make(chan struct{}, 1),
	}
	defer func() {
		if err != nil {
			if a.succ != nil {
				a.succ.Refuse(err.Error())
			}
			err = errors.Join(err, a.close())
		}
	}()
	a.memory = limitMemory(cfg.Memory, env)
	a.cores = shareCores(env)
	if a.up, err = handover.NewUpgrader(a.fail); err != nil {
		return nil, err
	}
	if a.succ, err = a.up.Successor(); err != nil {
		return nil, err
	}
	a.fail("new.begin")
	logs, err := logging.New(stderr, cfg.Log.Level, env)
	if err != nil {
		return nil, cli.Fail(cli.Usage, err)
	}
	a.log, a.traceLog = logs.Main, logs.Trace
	for _, w := range cfg.Warnings {
		a.log.Warn("configuration", zap.String("warning", w))
	}
	if err := checkSinks(&cfg); err != nil {
		return nil, cli.Fail(cli.Usage, err)
	}
	if err := sqlstore.Check(a.storeOptions()); err != nil {
		return nil, cli.Fail(cli.Usage, err, "the form is user:password@tcp(host:port)/database, better in the file that GT06_DSN_FILE names")
	}
	a.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, notWritable(cfg.DataDir, err)
	}
	if a.succ == nil {
		if err := a.own(ctx); err != nil {
			return nil, err
		}
	}
	if a.node, err = nodeName(cfg.DataDir); err != nil {
		return nil, notWritable(cfg.DataDir, err)
	}
	if err := a.claim(); err != nil {
		return nil, err
	}
	if err := a.makeSinks(); err != nil {
		return nil, err
	}
	if err := a.gather(); err != nil {
		return nil, err
	}
	if a.succ != nil {
		if err := a.await(ctx); err != nil {
			return nil, err
		}
	}
	return a, a.takeOver()
}

func notWritable(dir string, err error) error {
	return cli.Fail(cli.NotWritable, fmt.Errorf("data directory %s: %w", dir, err),
		"give a directory that this user may write: --data-dir DIR or GT06_DATA_DIR")
}

// own becomes the owner of the data directory.
func (a *app) own(ctx context.Context) error {
	owner, err := handover.Acquire(ctx, a.cfg.DataDir, 2*time.Second)
	var owned *handover.OwnedError
	switch {
	case errors.As(err, &owned):
		return cli.Fail(cli.Busy, err, fmt.Sprintf("stop pid %d, or give this server a directory of its own: --data-dir DIR", owned.PID))
	case err != nil:
		return notWritable(a.cfg.DataDir, err)
	}
	a.owner = owner
	return nil
}

// nodeName returns the name of this data directory in the database: made once,
// random, because two directories must never share a cursor.
func nodeName(dir string) (string, error) {
	path := filepath.Join(dir, "node")
	b, err := os.ReadFile(path)
	if err == nil && len(b) >= 16 {
		return string(b[:16]), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return newNode(dir)
}

// newNode gives the data directory a name that no other has.
func newNode(dir string) (string, error) {
	name := randomName()
	f, err := os.OpenFile(filepath.Join(dir, "node"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(name + "\n")
	return name, errors.Join(err, f.Sync(), f.Close())
}

// claim makes this server's segment of the log.
func (a *app) claim() error {
	w, err := spool.Claim(spool.Options{
		Dir: filepath.Join(a.cfg.DataDir, "spool"), MaxBytes: int64(a.cfg.Spool.MaxBytes), MinFree: int64(a.cfg.Disk.MinFree),
		Retention: time.Duration(a.cfg.Spool.Retention), Logger: a.log, Registerer: a.reg,
	})
	switch {
	case errors.Is(err, spool.ErrVersion):
		return cli.Fail(cli.Newer, err, "start the version that wrote it, or a newer one; nothing was changed")
	case err != nil:
		return notWritable(a.cfg.DataDir, err)
	}
	a.spool = w
	return nil
}

// gather collects all descriptors: from the keeper the connections, from it or
// from the old server the listeners. Nothing is read, written or accepted.
func (a *app) gather() error {
	path, err := runtimeFile(a.cfg.DataDir, "gt06d.pid")
	if err != nil {
		return notWritable(a.cfg.DataDir, err)
	}
	a.pidFile = fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(a.pidFile, []byte(fmt.Sprintln(os.Getpid())), 0o644); err != nil { //nolint:gosec // others may read it
		return notWritable(filepath.Dir(path), err)
	}
	if err := a.connectKeeper(); err != nil {
		return err
	}
	answers, err := a.cfg.Answers.Rules()
	if err != nil {
		return cli.Fail(cli.Usage, err)
	}
	balancers, err := a.cfg.Balancers()
	if err != nil {
		return cli.Fail(cli.Usage, err)
	}
	a.server, err = server.New(server.Config{
		Loops:      a.cores,
		Answers:    answers,
		Proxies:    balancers,
		CheckDigit: a.cfg.Devices.CheckDigit,
		Generation: a.spool.Generation(), Limits: a.limits(), Decoder: &a.decoder, Keeper: a.keep.loops(),
		NewAppender: func() server.Appender { return &appender{log: a.spool} },
		Directory:   &a.fleet, Observe: a.observe, Failpoint: a.fail, Logger: a.log, Registerer: a.reg,
		Reopened: a.reopened,
	})
	if err != nil {
		return err
	}
	a.watchers.watch = a.server.Watch
	a.makeBoard()
	if err := a.fetch(); err != nil {
		return err
	}
	a.fail("new.fetched")
	return a.listen()
}

// listen finds the listeners or opens them.
func (a *app) listen() error {
	inherited, err := a.up.Inherited(handover.Devices)
	if err != nil {
		return err
	}
	if inherited != nil {
		a.keep.offerListener(inherited)
	}
	if a.devices = a.keep.listener(a.cfg.Listen, a.log); a.devices == nil {
		if a.devices, err = server.Listen(a.cfg.Listen); err != nil {
			return inUse("listen", a.cfg.Listen, err)
		}
	}
	if a.adminLn, err = a.up.Inherited(handover.Admin); err != nil {
		return err
	}
	if a.adminLn != nil && !sameAddress(a.adminLn.Addr(), a.cfg.Admin) {
		_ = a.adminLn.Close()
		a.adminLn = nil
	}
	if a.adminLn == nil {
		addr, err := net.ResolveTCPAddr("tcp", a.cfg.Admin)
		if err != nil {
			return cli.Fail(cli.Usage, err, "give another address: --admin HOST:PORT")
		}
		if a.adminLn, err = net.ListenTCP("tcp", addr); err != nil {
			return inUse("admin", a.cfg.Admin, err)
		}
		if err := a.up.Pass(handover.Admin, a.adminLn); err != nil {
			return err
		}
	}
	return nil
}

func sameAddress(have net.Addr, want string) bool {
	addr, err := net.ResolveTCPAddr("tcp", want)
	tcp, ok := have.(*net.TCPAddr)
	return err == nil && ok && (addr.Port == 0 || addr.Port == tcp.Port) && (addr.IP == nil && tcp.IP.IsUnspecified() || addr.IP.Equal(tcp.IP))
}

// await lets the old server know that this one can begin, and waits until it
// may.
func (a *app) await(ctx context.Context) error {
	if err := sqlstore.Compatible(a.succ.Schema); err != nil {
		return cli.Fail(cli.Refused, err, "upgrade to a version in between first")
	}
	if err := a.succ.Warm(cli.Version(), a.spool.Generation()); err != nil {
		return err
	}
	a.fail("new.warm")
	orphan, err := a.succ.WaitFree(a.keep.link.FD(), func() error { return a.keep.link.Follow(a.apply) })
	if err != nil {
		return err
	}
	a.fail("new.free")
	if orphan {
		a.log.Warn("the old server ended before it handed over: going on as after a crash")
		err = a.own(ctx)
	} else {
		a.owner, err = handover.AcquireFreed(ctx, a.cfg.DataDir, time.Second)
	}
	if err != nil {
		return err
	}
	a.fail("new.locked")
	if a.keep.mark, err = a.keep.link.Sync(a.apply); err != nil {
		return fmt.Errorf("the keeper: %w", err)
	}
	a.fail("new.synced")
	return nil
}

// takeOver goes on where the owner before ended.
func (a *app) takeOver() error {
	if err := a.spool.Own(); err != nil {
		return notWritable(a.cfg.DataDir, err)
	}
	if err := a.fleet.read(a.fleetPath(), a.cfg.Devices.Policy); err != nil {
		a.log.Error("what was known of devices cannot be read: nobody is refused until the database was", zap.Error(err))
	}
	var err error
	a.resumed, err = a.server.Resume(a.spool.Generation(), func(each func(*server.Record)) error {
		r := spool.NewReader(filepath.Join(a.cfg.DataDir, "spool"), position(a.keep.mark))
		defer r.Close() //nolint:errcheck // read only
		var rec storage.Record
		for {
			_, err := r.Next(a.first(), &rec)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			each((*server.Record)(&rec))
		}
	})
	if err != nil {
		return err
	}
	a.fail("new.resumed")
	if r := a.resumed; r.Connections > 0 {
		a.log.Info("connections taken over", zap.Int("connections", r.Connections), zap.Int("placed", r.Placed), zap.Uint64("input_discarded", r.Discarded),
			zap.Uint64("answers_sent", r.Resent), zap.Int("dropped", r.Dropped), zap.Duration("took", r.Took))
	}
	return nil
}

func inUse(flag, addr string, err error) error {
	if !errors.Is(err, server.ErrInUse) && !errors.Is(err, unix.EADDRINUSE) {
		return cli.Fail(cli.Usage, err, fmt.Sprintf("give another address: --%s HOST:PORT", flag))
	}
	holder := holderOf(addr)
	if holder == "" {
		holder = "a process that this user cannot see"
	}
	return cli.Fail(cli.InUse, fmt.Errorf("%s is held by %s", addr, holder), fmt.Sprintf("stop it, or give another address: --%s HOST:PORT", flag))
}

// raiseDescriptors takes as many as this process may have, and says how many
// that is.
func raiseDescriptors() int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 1024
	}
	if lim.Cur < lim.Max {
		lim.Cur = lim.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
		_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	}
	return int(min(lim.Cur, 1<<20))
}

// limits keeps connections below the descriptor limit.
func (a *app) limits() server.Limits {
	most := raiseDescriptors()
	most = max(most-reserve, most/2)
	c := a.cfg.Limits
	if c.Connections > 0 {
		most = min(most, c.Connections)
	}
	a.most = most
	return server.Limits{
		Connections: most, UnknownDevices: c.UnknownDevices, Login: time.Duration(c.Login),
		Frame: time.Duration(c.Frame), Idle: time.Duration(c.Idle), Write: time.Duration(c.Write),
		Accepts: c.Accepts, NetworkAccepts: c.NetworkAccepts, FailedLogins: c.FailedLogins, NetworkFailedLogins: c.NetworkFailedLogins,
		AddressDevices: c.AddressDevices, DeviceLogins: c.DeviceLogins, Frames: c.Frames,
	}
}

// close gives everything back; it can be called on a half-open app.
func (a *app) close() error {
	var errs []error
	if a.control != nil {
		errs = append(errs, a.control.Close())
	}
	if a.adminLn != nil {
		_ = a.adminLn.Close() // the server may have closed it
	}
	if a.devices != nil {
		errs = append(errs, a.devices.Close())
	}
	if a.up != nil {
		a.up.Stop()
	}
	errs = append(errs, a.keep.close())
	if a.spool != nil {
		errs = append(errs, a.spool.Close())
	}
	if a.owner != nil {
		errs = append(errs, a.owner.Close())
	}
	if a.pidFile != "" {
		_ = os.Remove(a.pidFile)
	}
	if a.log != nil {
		_ = a.log.Sync() // says what was left out; stderr itself cannot be synced
	}
	return errors.Join(errs...)
}
