package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
	"gt06/storage"
	"gt06/storage/photo"
	"gt06/storage/spool"
	"gt06/storage/sqlstore"
)

// stream returns the name under which the log is in the database. A data
// directory that was restored is older than what the database knows of it: its
// log goes on under numbers that are taken, and rows would be left out as
// stored already. It gets a new name and is stored from its beginning; what is
// there is merged.
func (a *app) stream(ctx context.Context, store *sqlstore.Store) (string, error) {
	for {
		epoch, pos, err := store.Cursor(ctx, a.node)
		switch {
		case err == nil && epoch < int64(a.spool.Generation()) && pos <= a.first():
			return a.node, nil
		case err == nil:
			a.log.Warn("this data directory is older than the database: its log is stored anew, under another name",
				zap.Int64("generation", int64(a.spool.Generation())), zap.Int64("stored_generation", epoch), zap.Uint64("pos", uint64(pos)))
			return newNode(a.cfg.DataDir)
		case !pause(ctx, 200*time.Millisecond):
			return "", ctx.Err()
		}
	}
}

// handleImport stores what the log of another data directory holds: of the
// volume that was in use before an older one was restored.
func (a *app) handleImport(ctx context.Context, args json.RawMessage, send func(any) error) (any, error) {
	var q control.ImportArgs
	if err := arguments(args, &q); err != nil {
		return nil, err
	}
	s, err := a.openSalvage(q.Dir)
	if err != nil {
		return nil, coded(err)
	}
	defer s.close()
	store, err := a.database(ctx)
	if err != nil {
		return nil, err
	}
	said := time.Now()
	say := func(step string, n int64) {
		if time.Since(said) > time.Second {
			said = time.Now()
			_ = send(control.Event[control.ImportProgress, control.Imported]{Progress: &control.ImportProgress{Step: step, Records: n}})
		}
	}
	report, err := spool.Verify(ctx, s.dir, s.end, func(r *spool.Report) { say("verified", r.Records) })
	if err != nil {
		return nil, err
	}
	w := store.Writer(sqlstore.WriterOptions{
		Log: s, Node: s.name, Epoch: 1, Decoder: &a.decoder, Failpoint: a.fail, Photos: photo.New(a.photoDir()),
	})
	s.stored = func() { say("stored", w.Status().Stored) }
	if err := w.Drain(ctx); err != nil {
		return nil, &control.Error{Text: err.Error(), Hints: []string{"run it again: it goes on where it ended"}}
	}
	a.reread(ctx)
	st := w.Status()
	out := control.Imported{
		Stream: s.name, Records: report.Records, First: report.First, Last: report.Last,
		Stored: st.Stored, Recovered: st.Rows - st.Merged, Merged: st.Merged,
		Damaged: report.Damaged, SkippedBytes: report.Skipped, Gaps: report.Gaps, MissingBytes: report.Missing,
	}
	if out.Next, err = a.firstAfter(ctx, report.Last); err != nil {
		return nil, err
	}
	a.log.Info("another log is in the database", zap.String("dir", q.Dir), zap.Int64("recovered", out.Recovered), zap.Int64("merged", out.Merged),
		zap.Int("damaged", out.Damaged), zap.Int64("missing_bytes", out.MissingBytes))
	return control.Event[control.ImportProgress, control.Imported]{Result: &out}, nil
}

// firstAfter returns when this server's log goes on after a time; zero: it does
// not.
func (a *app) firstAfter(ctx context.Context, t time.Time) (time.Time, error) {
	r := spool.NewReader(filepath.Join(a.cfg.DataDir, "spool"), 0)
	defer r.Close() //nolint:errcheck // read only
	var rec storage.Record
	for ctx.Err() == nil {
		_, err := r.Next(a.spool.Durable(), &rec)
		if errors.Is(err, io.EOF) {
			return time.Time{}, nil
		}
		if err != nil {
			return time.Time{}, err
		}
		if at := time.UnixMicro(rec.ReceivedAt).UTC(); at.After(t) {
			return at, nil
		}
	}
	return time.Time{}, ctx.Err()
}

// salvage is the log of another data directory, which nobody writes. It is a
// stream of its own in the database: its cursor makes an import go on where one
// before it ended.
type salvage struct {
	dir    string
	name   string
	end    storage.Position
	owner  *os.File // its lock, so that no server starts on it meanwhile
	stored func()
}

// openSalvage finds the log and makes sure that no server lives on it.
func (a *app) openSalvage(dir string) (s *salvage, err error) {
	s = &salvage{dir: filepath.Join(dir, "spool")}
	if _, err := os.Stat(s.dir); errors.Is(err, os.ErrNotExist) {
		s.dir = dir // the log itself
	}
	own, err := os.Stat(filepath.Join(a.cfg.DataDir, "spool"))
	if err != nil {
		return nil, err
	}
	other, err := os.Stat(s.dir)
	if err != nil {
		return nil, cli.Fail(cli.Usage, err, "name a data directory, or the spool in it, that this server may read: below /mnt, say; the shipped unit hides /home and /tmp")
	}
	if os.SameFile(own, other) {
		return nil, cli.Fail(cli.Usage, fmt.Errorf("%s is this server's own log", dir), "what it holds is stored anyway; gt06ctl replay decodes it again")
	}
	segments, err := spool.Segments(s.dir)
	if errors.Is(err, spool.ErrVersion) {
		return nil, cli.Fail(cli.Newer, err, "import it with the version that wrote it, or a newer one")
	}
	if err != nil {
		return nil, err
	}
	if len(segments) == 0 {
		return nil, cli.Fail(cli.Usage, fmt.Errorf("%s has no segments of a log", s.dir), "name a data directory, or the spool in it")
	}
	s.end, s.name = spool.End(segments), streamName(segments)
	s.owner, err = os.Open(filepath.Join(dir, "owner"))
	if errors.Is(err, os.ErrNotExist) {
		return s, nil // a copy
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(s.owner.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		s.close()
		return nil, cli.Fail(cli.Refused, fmt.Errorf("%s: a server lives on it (%w)", dir, err), "stop that server first: gt06ctl stop --data-dir "+dir)
	}
	return s, nil
}

// streamName tells one dead log from another: by what it consists of, because
// the name in its data directory is that of the restored one, too.
func streamName(segments []spool.Segment) string {
	h := sha256.New()
	for i := range segments {
		_, _ = fmt.Fprintf(h, "%d %d %d %d\n", segments[i].Number, segments[i].Generation, segments[i].Bytes, segments[i].Written.Unix())
	}
	return "import-" + hex.EncodeToString(h.Sum(nil)[:12])
}

func (s *salvage) close() {
	if s.owner != nil {
		_ = s.owner.Close()
	}
}

// Durable implements sqlstore.Log.
func (s *salvage) Durable() storage.Position { return s.end }

// Notify implements sqlstore.Log: nothing comes any more.
func (s *salvage) Notify() <-chan struct{} { return nil }

// Read implements sqlstore.Log.
func (s *salvage) Read(from storage.Position) sqlstore.Reader { return spool.NewReader(s.dir, from) }

// Release implements sqlstore.Log. Nothing of a salvaged log is removed.
func (s *salvage) Release(storage.Position) { s.stored() }
