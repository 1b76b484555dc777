package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"gt06/cmd/internal/cli"
	"gt06/cmd/internal/config"
	"gt06/protocol"
	"gt06/server"
	"gt06/server/admin"
	"gt06/server/control"
	"gt06/server/handover"
	"gt06/storage/spool"
	"gt06/storage/sqlstore"
)

// app is a whole server: what main starts, and end-to-end tests with it.
type app struct {
	cfg     config.Config
	stderr  io.Writer
	log     *zap.Logger
	reg     *prometheus.Registry
	began   time.Time
	owner   *handover.Owner
	spool   *spool.Writer
	server  *server.Server
	devices *server.Listener
	admin   *http.Server
	adminLn net.Listener
	control *control.Server
	tails   tails
	fleet   directory
	store   storeState
	backlog backlog
	accepts accepts
	node    string
	decoder protocol.Decoder
	fail    func(string)
	closing atomic.Bool
}

// reserve are descriptors kept for everything but devices.
const reserve = 256

// open takes what can be refused: the directory, the lock, the log, the ports.
// It does not touch the database, which may be away.
func open(ctx context.Context, cfg config.Config, stderr io.Writer, env func(string) string) (_ *app, err error) {
	a := &app{cfg: cfg, stderr: stderr, began: time.Now(), reg: prometheus.NewRegistry(), fail: failpoint(env("GT06_FAILPOINT"))}
	if a.log, err = logger(stderr, cfg.Log.Level); err != nil {
		return nil, cli.Fail(cli.Usage, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	for _, w := range cfg.Warnings {
		a.log.Warn("configuration", zap.String("warning", w))
	}
	if err := sqlstore.Check(a.storeOptions()); err != nil {
		return nil, cli.Fail(cli.Usage, err, "the form is user:password@tcp(host:port)/database, better in the file that GT06_DSN_FILE names")
	}
	a.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, notWritable(cfg.DataDir, err)
	}
	if err := a.takeOver(ctx); err != nil {
		return nil, err
	}
	if a.node, err = nodeName(cfg.DataDir); err != nil {
		return nil, notWritable(cfg.DataDir, err)
	}
	if err := a.openSpool(); err != nil {
		return nil, err
	}
	if err := a.listen(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

func notWritable(dir string, err error) error {
	return cli.Fail(cli.NotWritable, fmt.Errorf("data directory %s: %w", dir, err),
		"give a directory that this user may write: --data-dir DIR or GT06_DATA_DIR")
}

// takeOver becomes the owner of the data directory.
func (a *app) takeOver(ctx context.Context) error {
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
	name := randomName()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(name + "\n")
	return name, errors.Join(err, f.Sync(), f.Close())
}

func (a *app) openSpool() error {
	w, err := spool.Open(spool.Options{
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

// listen opens the three addresses and builds what serves them.
func (a *app) listen(ctx context.Context) error {
	var err error
	if a.devices, err = server.Listen(a.cfg.Listen); err != nil {
		return inUse("listen", a.cfg.Listen, err)
	}
	var lc net.ListenConfig
	if a.adminLn, err = lc.Listen(ctx, "tcp", a.cfg.Admin); err != nil {
		return inUse("admin", a.cfg.Admin, err)
	}
	limits := a.limits()
	a.server, err = server.New(server.Config{
		Listener: a.devices, Generation: a.spool.Generation(), Limits: limits, Decoder: &a.decoder,
		NewAppender: func() server.Appender { return &appender{log: a.spool} },
		Directory:   &a.fleet, Observe: a.tails.observe, Failpoint: a.fail, Logger: a.log, Registerer: a.reg,
	})
	if err != nil {
		return err
	}
	a.tails.watch = a.server.Watch
	path, err := control.Path(a.cfg.DataDir)
	if err != nil {
		return err
	}
	if a.control, err = control.Serve(path, a.handlers()); err != nil {
		return notWritable(filepath.Dir(path), err)
	}
	a.admin = admin.New(a, a.reg)
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

// limits raises the descriptor limit and keeps connections below it.
func (a *app) limits() server.Limits {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err == nil && lim.Cur < lim.Max {
		lim.Cur = lim.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
	}
	most := 1024
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err == nil {
		most = int(min(lim.Cur, 1<<20))
	}
	most = max(most-reserve, most/2)
	c := a.cfg.Limits
	if c.Connections > 0 {
		most = min(most, c.Connections)
	}
	return server.Limits{
		Connections: most, UnknownDevices: c.UnknownDevices, Login: time.Duration(c.Login),
		Frame: time.Duration(c.Frame), Idle: time.Duration(c.Idle), Write: time.Duration(c.Write),
	}
}

// run serves until the context ends or the log breaks.
func (a *app) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	fatal := make(chan error, 1)
	wg.Go(func() { _ = a.admin.Serve(a.adminLn) })
	wg.Go(func() {
		if err := a.storeRows(ctx); err != nil {
			select {
			case fatal <- err:
			default:
			}
		}
	})
	wg.Go(func() { a.settle(ctx) })
	served := make(chan error, 1)
	serving, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() { served <- a.server.Serve(serving) })
	if err := a.owner.Serving(); err != nil {
		return err
	}
	a.greet()
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		a.log.Warn("tell systemd", zap.Error(err))
	}
	var err error
	select {
	case <-ctx.Done():
		a.log.Info("stop: a signal came")
	case err = <-served:
		err = cli.Fail(cli.Internal, err, "look at the disk; the log says what failed")
		served <- nil
	case err = <-fatal:
	}
	a.closing.Store(true)
	stop()
	if end := <-served; err == nil {
		err = end
	}
	return errors.Join(err, a.admin.Close())
}

// greet names every address and path in use, what to try next, and that the
// server is ready.
func (a *app) greet() {
	where := filepath.Join(a.cfg.DataDir, "gt06.db")
	if a.cfg.Store.Kind == "mariadb" {
		where = "mariadb (the password is not shown)"
	}
	path, _ := control.Path(a.cfg.DataDir)
	dir := ""
	if a.cfg.DataDir != control.DefaultDataDir() {
		dir = " --data-dir " + a.cfg.DataDir
	}
	_, _ = fmt.Fprintf(a.stderr, `gt06d %s, generation %d
devices   %s
admin     http://%s/ (metrics, healthz, readyz, api)
data      %s
log       %s
store     %s
control   %s
next      gt06ctl simulate --devices 20 --duration 10s%s
          gt06ctl status%s
ready
`, cli.Version(), a.spool.Generation(), a.devices.Addr(), a.adminLn.Addr(), a.cfg.DataDir, filepath.Join(a.cfg.DataDir, "spool"), where, path, dir, dir)
}

// settle moves the settled mark once a second, and notes each minute how many
// connections came.
func (a *app) settle(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; n++ {
		if n%60 == 0 {
			a.accepts.note(a.server.Accepted(), time.Now())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.spool.SetSettled(position(a.server.Settled()))
		}
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
	if a.spool != nil {
		errs = append(errs, a.spool.Close())
	}
	if a.owner != nil {
		errs = append(errs, a.owner.Close())
	}
	return errors.Join(errs...)
}

func logger(w io.Writer, level string) (*zap.Logger, error) {
	lv, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("log level %q: it can be debug, info, warn or error", level)
	}
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	core := zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(zapcore.AddSync(w)), lv)
	return zap.New(zapcore.NewSamplerWithOptions(core, time.Second, 20, 1000)), nil
}
