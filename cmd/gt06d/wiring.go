package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"gt06/cmd/internal/cli"
	"gt06/cmd/internal/config"
	"gt06/server"
	"gt06/storage"
	"gt06/storage/photo"
	"gt06/storage/spool"
	"gt06/storage/sqlstore"
)

func position(p uint64) storage.Position { return storage.Position(p) }

func randomName() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// appender lets a loop of the server write the log. The two packages know each
// other's records only here: the fields are the same, so the pointer converts.
type appender struct {
	log   *spool.Writer
	links []*storage.Record
}

// Append implements server.Appender.
func (a *appender) Append(recs []*server.Record) (uint64, error) {
	a.links = a.links[:0]
	for _, r := range recs {
		a.links = append(a.links, (*storage.Record)(r))
	}
	end, err := a.log.Append(a.links)
	return uint64(end), broken(err)
}

// Sync implements server.Appender.
func (a *appender) Sync(pos uint64, within time.Duration) error {
	return broken(a.log.Sync(position(pos), within))
}

// Room implements server.Appender.
func (a *appender) Room() error { return a.log.Room() }

// End implements server.Appender.
func (a *appender) End() uint64 { return uint64(a.log.End()) }

// broken tells the server which errors are for good.
func broken(err error) error {
	if errors.Is(err, spool.ErrBroken) {
		return errors.Join(server.ErrBroken, err)
	}
	return err
}

// storeState is the database as status shows it: it may not be open yet.
type storeState struct {
	mu     sync.Mutex
	store  *sqlstore.Store
	writer *sqlstore.Writer
	err    string
}

func (s *storeState) get() (*sqlstore.Store, *sqlstore.Writer, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store, s.writer, s.err
}

func (s *storeState) set(store *sqlstore.Store, writer *sqlstore.Writer, err string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store, s.writer, s.err = store, writer, err
}

// backlog are the records that were in the log before this process began and
// were not stored then.
type backlog struct {
	before  atomic.Int64
	counted atomic.Bool
}

func (a *app) storeOptions() sqlstore.Options {
	return sqlstore.Options{
		Kind: sqlstore.Kind(a.cfg.Store.Kind), DSN: a.cfg.Store.DSN, Dir: a.cfg.DataDir, Retention: time.Duration(a.cfg.Retention.Rows),
		Logger: a.log, Registerer: a.reg,
	}
}

func (a *app) photoDir() string { return filepath.Join(a.cfg.DataDir, "photos") }

// storeRows opens the database behind the devices' back and moves the log into
// it. A database that is away is tried for ever; one that refuses us for good
// ends the server at its first start only: later it may be an operator's hand.
func (a *app) storeRows(ctx context.Context) error {
	store, err := a.openStore(ctx)
	if err != nil || store == nil {
		return err
	}
	defer store.Close() //nolint:errcheck // the process ends
	node, err := a.stream(ctx, store)
	if err != nil {
		return err
	}
	begin := a.first()
	w := store.Writer(sqlstore.WriterOptions{
		Log:  a.rowLog(),
		Node: node, Epoch: int64(a.spool.Generation()),
		Decoder: &a.decoder, Failpoint: a.fail, Photos: photo.New(a.photoDir()), Stored: a.stored,
		Confirm: func() bool { return a.fleet.effective() != config.PolicyOpen }, Caps: sqlstore.Caps{Quarantined: a.cfg.Devices.QuarantineRows},
	})
	a.store.set(store, w, "")
	a.reread(ctx)
	a.remember(ctx, store)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { a.look(ctx, w, begin) })
	return w.Run(ctx)
}

func (a *app) openStore(ctx context.Context) (*sqlstore.Store, error) {
	// A migration waits for the end of the probation: a program that does not
	// survive it must leave the schema as the last one knows it.
	if a.succ != nil && a.succ.Schema != sqlstore.Schema() {
		select {
		case <-a.proved:
		case <-ctx.Done():
			return nil, nil
		}
	}
	wait := 100 * time.Millisecond
	for ctx.Err() == nil {
		store, err := sqlstore.Open(ctx, a.storeOptions())
		switch {
		case err == nil:
			return store, nil
		case ctx.Err() != nil:
			return nil, nil //nolint:nilerr // the server ends: nobody asks any more
		case errors.Is(err, sqlstore.ErrLogin):
			return nil, cli.Fail(cli.Login, err, "check user, password and database of the dsn; what devices sent meanwhile is in the log")
		case errors.Is(err, sqlstore.ErrForeignTable), errors.Is(err, sqlstore.ErrSchema):
			return nil, cli.Fail(cli.Refused, err, "what devices sent meanwhile is in the log")
		}
		if _, _, said := a.store.get(); said == "" {
			a.log.Error("the database cannot be opened: the log keeps what comes, trying on", zap.Error(err))
		}
		a.store.set(nil, nil, err.Error())
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
		wait = min(2*wait, 5*time.Second)
	}
	return nil, nil
}

// look reads the devices again each minute, and once counts what was not
// stored when this process began.
func (a *app) look(ctx context.Context, w *sqlstore.Writer, begin storage.Position) {
	dir := filepath.Join(a.cfg.DataDir, "spool")
	for !w.Status().Begun {
		if !pause(ctx, 20*time.Millisecond) {
			return
		}
	}
	n, err := spool.Count(ctx, dir, w.Status().Begin, begin)
	if err != nil && ctx.Err() == nil {
		a.log.Warn("count what is not stored yet", zap.Error(err))
	}
	a.backlog.before.Store(n)
	a.backlog.counted.Store(true)
	for pause(ctx, time.Minute) {
		a.reread(ctx)
		a.trend.note(a.Status(ctx).Store.Lag)
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// failpoint ends this process at the n-th passage of a named place:
// GT06_FAILPOINT=name[:n][=kill|hang|exit|stop]. Tests use it; it is off when
// unset.
func failpoint(spec string) func(string) {
	if spec == "" {
		return func(string) {}
	}
	spec, action, _ := strings.Cut(spec, "=")
	name, count, _ := strings.Cut(spec, ":")
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		n = 1
	}
	var passed atomic.Int64
	return func(at string) {
		if at != name || passed.Add(1) != n {
			return
		}
		switch action {
		case "exit":
			syscall.Exit(7)
		case "stop":
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			return
		case "hang":
		default:
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		select {}
	}
}
