package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"gt06/cmd/internal/cli"
	"gt06/server"
	"gt06/server/admin"
	"gt06/server/control"
	"gt06/server/handover"
	"gt06/storage/sink"
	"gt06/storage/sqlstore"
)

// running is what goes on while the server serves.
type running struct {
	*app
	signals <-chan os.Signal
	pending os.Signal // came during an upgrade
	served  chan error
	fatal   chan error
	freeze  context.CancelFunc // ends the loops
	quit    context.CancelFunc // ends everything else
	wg      sync.WaitGroup
}

// run serves until a signal, a stop, an upgrade, or until the log breaks.
func (a *app) run(signals <-chan os.Signal) error {
	r := &running{app: a, signals: signals, served: make(chan error, 1), fatal: make(chan error, 1)}
	ctx, quit := context.WithCancel(context.Background())
	serving, freeze := context.WithCancel(ctx)
	r.freeze, r.quit = freeze, quit
	defer quit()
	go func() { r.served <- a.server.Serve(serving, a.devices) }()
	if err := r.announce(ctx); err != nil {
		return errors.Join(err, r.end(server.CloseShutdown))
	}
	for {
		select {
		case sig := <-signals:
			return r.stop(sig == syscall.SIGINT || sig == syscall.SIGTERM && stopJob(ctx, a.log), sig.String())
		case <-a.stops:
			return r.stop(true, "gt06ctl stop")
		case req := <-a.requests:
			if done, err := r.upgrade(ctx, req); done {
				return err
			}
			if r.pending != nil {
				return r.stop(r.pending == syscall.SIGINT || stopJob(ctx, a.log), r.pending.String())
			}
		case err := <-r.served:
			r.served <- nil
			return errors.Join(cli.Fail(cli.Internal, err, "look at the disk; the log says what failed"), r.end(server.CloseShutdown))
		case err := <-r.fatal:
			return errors.Join(err, r.end(server.CloseShutdown))
		}
	}
}

// announce says that this server serves, to everybody who must know, in the
// order in which they need it.
func (r *running) announce(ctx context.Context) error {
	a := r.app
	a.fail("new.serving")
	if err := a.keep.serve(uint64(a.spool.First())<<32, a.devices); err != nil {
		if a.succ != nil { // the old one still knows a keeper that works
			return err
		}
		a.log.Error("no keeper: connections end with this process", zap.Error(err))
	}
	if err := a.owner.Serving(); err != nil {
		return err
	}
	if a.succ != nil {
		if err := a.succ.Serving(a.resumed.Connections-a.resumed.Dropped, a.resumed.Dropped, a.spool.Generation()); err != nil {
			a.log.Warn("the old server ended while it handed over: going on without it", zap.Error(err))
		}
	}
	if a.succ != nil {
		r.wg.Go(func() { a.succ.Beat(ctx, a.server.Alive) })
	}
	a.fail("new.served")
	if err := os.Rename(a.pidFile, a.pidFile[:len(a.pidFile)-len(filepath.Ext(a.pidFile))]); err != nil {
		a.log.Warn("the PID file", zap.Error(err))
	}
	if err := a.up.PassFD(handover.Devices, a.devices.FD()); err != nil {
		return err
	}
	if err := a.up.Ready(); err != nil {
		a.log.Warn("tell tableflip", zap.Error(err))
	}
	a.fail("new.ready")
	if err := a.traces.load(a.tracesPath()); err != nil {
		a.log.Error("traces do not go on", zap.Error(err))
	}
	if err := a.openBoard(); err != nil {
		return err
	}
	if err := a.openControl(); err != nil {
		return err
	}
	if err := a.reg.Register(newFigures(a)); err != nil {
		return err
	}
	a.admin = admin.New(admin.Options{Source: looks{a}, Registry: a.reg, Board: a.board.Handler(), Token: a.cfg.Board.Token})
	r.wg.Go(func() { a.board.Run(ctx) })
	r.wg.Go(func() { _ = a.admin.Serve(a.adminLn) })
	r.wg.Go(func() {
		if err := a.storeRows(ctx); err != nil && ctx.Err() == nil {
			r.fatal <- err
		}
	})
	r.wg.Go(func() { a.runSinks(ctx) })
	r.wg.Go(func() { a.settle(ctx) })
	r.wg.Go(func() { a.proven(ctx) })
	if err := a.queue.load(a.queuePath()); err != nil {
		a.log.Error("queued commands are not sent", zap.Error(err))
	} else {
		r.wg.Go(func() { a.sendQueued(ctx) })
	}
	r.wg.Go(func() { a.runTraces(ctx) })
	if every := watchdog(); every > 0 {
		r.wg.Go(func() { a.feed(ctx, every) })
	}
	a.greet()
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		a.log.Warn("tell systemd", zap.Error(err))
	}
	if a.succ != nil {
		time.AfterFunc(200*time.Millisecond, func() { a.fail("probation") })
	}
	return nil
}

// watchdog returns how often systemd wants to hear that this process lives, 0:
// it does not ask. WATCHDOG_PID is not looked at: after an upgrade it names the
// process before.
func watchdog() time.Duration {
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || !systemd() {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 3
}

// feed tells systemd that the loops turn.
func (a *app) feed(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if a.server.Alive() {
			_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// proven tells the keeper how to start this program again, once it is past its
// probation: before that the last good one is what must come back.
func (a *app) proven(ctx context.Context) {
	if a.succ != nil {
		select {
		case <-a.succ.Gone():
		case <-ctx.Done():
			return
		}
		a.fail("new.proven")
	}
	close(a.proved)
	a.keep.command(a.up.Program())
}

func (a *app) openControl() error {
	path, err := control.Path(a.cfg.DataDir)
	if err != nil {
		return err
	}
	if a.control, err = control.Serve(path, a.handlers()); err != nil {
		return notWritable(filepath.Dir(path), err)
	}
	return nil
}

// reopened gives the new socket of the device port to those who hold the old.
func (a *app) reopened() {
	if err := a.up.PassFD(handover.Devices, a.devices.FD()); err != nil {
		a.log.Error("the device port cannot be passed to the next program", zap.Error(err))
	}
	a.keep.register(a.devices)
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
admin     http://%s/ (board, metrics, healthz, readyz, api)
data      %s
log       %s
store     %s
%scontrol   %s
keeper    %s
next      %[12]s simulate --devices 20 --duration 10s%[11]s
          %[12]s status%[11]s
ready
`, cli.Version(), a.spool.Generation(), a.devices.Addr(), a.adminLn.Addr(), a.cfg.DataDir, filepath.Join(a.cfg.DataDir, "spool"), where, a.sinkLines, path, a.keep.line(), dir, tool())
}

// tool is how gt06ctl is called: by its path where the shell would not find it.
func tool() string {
	const name = "gt06ctl"
	if _, err := exec.LookPath(name); err == nil {
		return name
	}
	if self, err := os.Executable(); err == nil {
		if path := filepath.Join(filepath.Dir(self), name); exists(path) {
			return path
		}
	}
	return name
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// settle moves the settled mark once a second.
func (a *app) settle(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.mark()
			a.clock.note(time.Now())
		}
	}
}

// mark moves the settled mark.
func (a *app) mark() {
	pos := a.server.Settled()
	a.spool.SetSettled(position(pos))
	a.keep.settled(pos)
}

// still ends the loops behind a batch and lets the keeper know where that is.
// Connections stay open. What it returns is the loops' error.
func (r *running) still() error {
	r.phase.Store(phaseDraining)
	r.freeze()
	err := <-r.served
	r.served <- nil
	r.mark()
	return err
}

// halt is still, and the end of everything that works on the log.
func (r *running) halt() error {
	err := r.still()
	r.leaveLog()
	return err
}

func (r *running) leaveLog() {
	r.quit() // a commit under way is fenced by the next owner's epoch
	// Everything is durable: what is left of the log's goroutines need not be
	// waited for.
	r.wg.Go(func() { _ = r.spool.Close() })
}

// stop ends the server. Unless released, the keeper holds the connections for
// the next one. Behind a release there may be no next one for long: port and
// connections are free at once, and what they brought goes where it belongs
// before the process ends.
func (r *running) stop(release bool, why string) error {
	r.log.Info("stop", zap.String("because", why), zap.Bool("release", release))
	if !release {
		err := r.halt()
		r.keep.leave()
		return errors.Join(err, r.end(server.CloseShutdown))
	}
	err := r.still()
	r.keep.release()
	r.server.Close(server.CloseReleased)
	r.drain()
	r.leaveLog()
	return errors.Join(err, r.end(server.CloseReleased))
}

// drainFor is how long a stop waits for the database and the sinks: less than
// systemd waits for the stop.
const drainFor = 10 * time.Second

// drain waits until the log is in the database and with the sinks. It does not
// wait for those that take nothing: the log keeps what they have not got.
func (r *running) drain() {
	limit := time.After(drainFor)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		st := r.Status(context.Background())
		left := map[string]int64{}
		if st.Store.State == string(sqlstore.StateOK) && st.Store.Lag > 0 {
			left["store"] = st.Store.Lag
		}
		for _, s := range r.sinks {
			if is := s.Status(); is.State == sink.StateOK || is.State == sink.StateFailing {
				if n := s.Left(); n > 0 {
					left[is.Name] = n
				}
			}
		}
		if len(left) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			r.log.Warn("stop: records stay in the log for the next start", zap.Any("left", left))
			return
		}
	}
}

// end closes what this process alone holds. Connections that the keeper holds
// are left open.
func (r *running) end(why server.CloseReason) error {
	r.freeze()
	r.quit()
	err := <-r.served
	if why == server.CloseReleased || !r.keep.holds() {
		r.server.Close(why)
	}
	errs := []error{err}
	if r.admin != nil {
		errs = append(errs, r.admin.Close())
	}
	if r.control != nil {
		errs = append(errs, r.control.Remove())
	}
	r.wg.Wait()
	return errors.Join(errs...)
}

// upgradeRequest is one `gt06ctl upgrade`.
type upgradeRequest struct {
	control.UpgradeArgs
	progress func(string)
	serving  func(control.Upgrade)
	done     chan control.Upgrade
	told     chan struct{} // closed when whoever asked has the result
}

// upgrade runs one. done: this process' part is over.
func (r *running) upgrade(ctx context.Context, req upgradeRequest) (done bool, err error) {
	if why := r.cannotUpgrade(req.Change); why != "" {
		out := control.Upgrade{Result: control.Refused, Reason: why, From: r.self(), At: time.Now().UTC().Format(time.RFC3339), Change: req.Change}
		r.record(out)
		req.done <- out
		<-req.told
		return false, nil
	}
	var schema int64
	if store, _, _ := r.store.get(); store != nil {
		schema = store.Version()
	}
	out := r.up.Run(ctx, req.Binary, &handover.Old{
		Owner: r.owner, From: r.self(), Schema: schema, Probation: time.Duration(r.cfg.Upgrade.Probation),
		Freeze: func() error {
			err := r.halt()
			r.control.Stop()
			r.wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				defer cancel()
				r.admin.Drain(ctx, r.adminLn)
			})
			return err
		},
		Serving: req.serving,
		Abandon: func(ctx context.Context) {
			_ = r.devices.Close()
			_ = r.keep.close()
			r.server.Abandon(ctx)
		},
		Progress: func(step string) {
			r.log.Info("upgrade", zap.String("step", step))
			req.progress(step)
		},
		Signals: r.signals, Interrupts: func(sig os.Signal) { r.pending = sig },
	})
	out.Change = req.Change
	r.record(out)
	req.done <- out
	<-req.told
	level := zapcore.InfoLevel
	if out.Result != control.Upgraded {
		level = zapcore.WarnLevel
	}
	r.log.Log(level, "upgrade", zap.String("result", out.Result), zap.String("reason", out.Reason), zap.Float64("stall_ms", out.StallMS), zap.Any("change", out.Change))
	switch out.Result {
	case control.Refused:
		return false, nil
	case control.RolledBack:
		_ = r.control.Close() // whoever asked has the answer
		return true, r.up.Again(r.owner)
	}
	r.wg.Wait()
	return true, r.control.Close()
}

// cannotUpgrade says why the connections could not be handed over, or may not.
func (r *running) cannotUpgrade(change *control.Change) string {
	if !r.keep.holds() {
		return "no keeper holds the connections: they would be dropped; see gt06ctl status"
	}
	if !r.cfg.Upgrade.RequireChange {
		return ""
	}
	if change == nil {
		return "upgrade.require_change is set and no change is named: gt06ctl ops change open, then gt06ctl upgrade --change ID"
	}
	if err := change.Check(time.Now()); err != nil {
		return "upgrade.require_change is set: " + err.Error()
	}
	return ""
}

func (a *app) self() control.Program {
	return control.Program{PID: os.Getpid(), Version: cli.Version(), Generation: a.spool.Generation()}
}
