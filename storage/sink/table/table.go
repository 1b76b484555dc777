package table

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"gt06/storage"
	"gt06/storage/mariadb"
	"gt06/storage/sink"
)

// Our tables in the database of the DSN. They are made when they are not there.
const (
	cursorsTable = `CREATE TABLE IF NOT EXISTS gt06_sink_cursors (
  stream CHAR(16) CHARACTER SET ascii NOT NULL, sink VARCHAR(32) CHARACTER SET ascii NOT NULL,
  generation BIGINT UNSIGNED NOT NULL, position BIGINT UNSIGNED NOT NULL, missed BIGINT UNSIGNED NOT NULL DEFAULT 0,
  written BIGINT UNSIGNED NOT NULL DEFAULT 0, refused BIGINT UNSIGNED NOT NULL DEFAULT 0,
  PRIMARY KEY (stream, sink)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`
	refusedTable = `CREATE TABLE IF NOT EXISTS gt06_sink_refused (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  stream CHAR(16) CHARACTER SET ascii NOT NULL, sink VARCHAR(32) CHARACTER SET ascii NOT NULL,
  event_id VARCHAR(64) CHARACTER SET ascii NOT NULL, refused_at DATETIME(6) NOT NULL, reason VARCHAR(255) NOT NULL, event LONGTEXT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4`
)

// What the counts are called.
const (
	Written = "written"
	There   = "already_there" // a unique key had it, and on_duplicate is ignore
	Refused = "refused"       // in gt06_sink_refused
	LeftOut = "left_out"      // without a field that the mapping requires
)

// Options of a Table.
type Options struct {
	Name       string // of the sink
	DSN        string // MariaDB
	Mapping    *Mapping
	File       string                  // keeps which stream of rows this data directory's is
	Generation func() uint64           // of the log's owner
	First      func() storage.Position // where this owner's part of the log begins
	Events     *sink.Encoder           // of the mapping's types
	Failpoint  func(name string)       // tests
	Logger     *zap.Logger
	Registerer prometheus.Registerer
}

// Table is a sink.Receiver and the sink.Cursor of the same sink.
type Table struct {
	opt     Options
	db      *sql.DB
	lock    *os.File
	stream  string
	columns []bound // nil: not compared with the table yet
	missed  uint64
	loaded  bool
	pos     storage.Position         // as this process left the cursor, once it is loaded
	counts  map[string]*atomic.Int64 // never changes
	rows    *prometheus.CounterVec
}

// Check says what is wrong with a DSN, nil: nothing.
func Check(o Options) error { return mariadb.Check(o.DSN) }

// New prepares a table; nothing is dialed yet.
func New(o Options) (*Table, error) {
	if o.Failpoint == nil {
		o.Failpoint = func(string) {}
	}
	// A lock that another session holds is waited for in turns, not for a day.
	db, err := mariadb.Open(o.DSN, map[string]string{"lock_wait_timeout": "5", "innodb_lock_wait_timeout": "5"})
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	db.SetConnMaxLifetime(time.Hour)
	t := &Table{opt: o, db: db, counts: map[string]*atomic.Int64{}}
	t.rows = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gt06_sink_table_rows_total", Help: "Events a table was given, by what became of them.",
	}, []string{"sink", "result"})
	err = sink.Register(o.Registerer, &t.rows)
	for _, result := range []string{Written, There, Refused, LeftOut} {
		t.counts[result] = &atomic.Int64{}
		t.rows.WithLabelValues(o.Name, result)
	}
	return t, err
}

// Counts implements sink.Counter.
func (t *Table) Counts() map[string]int64 {
	m := map[string]int64{}
	for k, v := range t.counts {
		m[k] = v.Load()
	}
	return m
}

func (t *Table) count(result string, n int64) {
	t.counts[result].Add(n)
	t.rows.WithLabelValues(t.opt.Name, result).Add(float64(n))
}

// Load implements sink.Cursor: who has the file's lock sends. It compares the
// mapping with the table before anything else.
func (t *Table) Load(ctx context.Context) (sink.Mark, error) {
	m, err := t.load(ctx)
	return m, classify(err)
}

func (t *Table) load(ctx context.Context) (m sink.Mark, err error) {
	if t.lock == nil {
		if t.lock, err = sink.Lock(ctx, t.opt.File); err != nil {
			return m, err
		}
		if err := t.identify(); err != nil {
			return m, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, mariadb.Timeout)
	defer cancel()
	if t.columns, err = t.opt.Mapping.bind(ctx, t.db); err != nil {
		return m, err
	}
	var generation, pos uint64
	err = t.db.QueryRowContext(ctx, "SELECT generation, position, missed FROM gt06_sink_cursors WHERE stream = ? AND sink = ?", t.stream, t.opt.Name).Scan(&generation, &pos, &t.missed)
	if my, ok := errors.AsType[*mysql.MySQLError](err); ok && my.Number == noSuchTable {
		for _, q := range []string{cursorsTable, refusedTable} {
			if _, err := t.db.ExecContext(ctx, q); err != nil {
				return m, fmt.Errorf("make our tables: %w", err)
			}
		}
		err = sql.ErrNoRows
	}
	if errors.Is(err, sql.ErrNoRows) {
		return m, sink.ErrNew
	}
	if err != nil {
		return m, fmt.Errorf("read the cursor: %w", err)
	}
	own, begin := t.opt.Generation(), t.opt.First()
	m = sink.Mark{Sent: storage.Position(pos), Sending: storage.Position(pos), Missed: t.missed}
	switch {
	case generation > own, generation == own && !t.loaded, generation < own && m.Sent > begin:
		// This data directory was restored: it is older than the cursor. What it held
		// then is written; what came since has the same numbers and is another log.
		t.opt.Logger.Warn("this data directory is older than the cursor: rows go on from what this server receives, under another name",
			zap.String("sink", t.opt.Name), zap.Uint64("pos", pos), zap.Uint64("generation", generation))
		if t.loaded { // it is a copy of this directory that runs elsewhere
			begin = t.pos
		}
		m.Sent, m.Sending = begin, begin
		err = t.rename(ctx, m)
	case generation < own:
		_, err = t.db.ExecContext(ctx, "UPDATE gt06_sink_cursors SET generation = ? WHERE stream = ? AND sink = ?", own, t.stream, t.opt.Name)
	}
	t.pos, t.loaded = m.Sent, err == nil
	return m, err
}

// identify reads the name of this data directory's stream of rows, or makes it.
func (t *Table) identify() error {
	b := make([]byte, 16)
	n, err := t.lock.ReadAt(b, 0)
	if n == len(b) {
		t.stream = string(b)
		return nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return t.name(newStream())
}

func newStream() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func (t *Table) name(stream string) error {
	if _, err := t.lock.WriteAt([]byte(stream+"\n"), 0); err != nil {
		return err
	}
	t.stream = stream
	return t.lock.Sync()
}

// rename goes on as another stream: the cursor first, so that a kill between
// leaves one that begins where this one would.
func (t *Table) rename(ctx context.Context, m sink.Mark) error {
	stream := newStream()
	if err := t.create(ctx, stream, m); err != nil {
		return err
	}
	return t.name(stream)
}

func (t *Table) create(ctx context.Context, stream string, m sink.Mark) error {
	_, err := t.db.ExecContext(ctx, "INSERT INTO gt06_sink_cursors (stream, sink, generation, position, missed) VALUES (?, ?, ?, ?, ?)",
		stream, t.opt.Name, t.opt.Generation(), uint64(m.Sent), m.Missed)
	return err
}

// Save implements sink.Cursor. How far it is moves with the rows; only what was
// missed, and a cursor that is new, are written here.
func (t *Table) Save(ctx context.Context, m sink.Mark, sync bool) error {
	ctx, cancel := context.WithTimeout(ctx, mariadb.Timeout)
	defer cancel()
	if sync && m.Sent == m.Sending { // a new one
		err := t.create(ctx, t.stream, m)
		t.pos, t.loaded = m.Sent, err == nil
		return classify(err)
	}
	if m.Missed == t.missed {
		return nil
	}
	_, err := t.db.ExecContext(ctx, "UPDATE gt06_sink_cursors SET missed = ? WHERE stream = ? AND sink = ?", m.Missed, t.stream, t.opt.Name)
	if err == nil {
		t.missed = m.Missed
	}
	return classify(err)
}

// Send implements sink.Receiver: the rows of a batch and the cursor behind it in
// one transaction.
func (t *Table) Send(ctx context.Context, b *sink.Batch) error {
	ctx, cancel := context.WithTimeout(ctx, 4*mariadb.Timeout)
	defer cancel()
	err := t.send(ctx, b)
	if err != nil && !errors.Is(err, sink.ErrMoved) {
		t.columns = nil // the table may have been altered: what is wrong is said better by a comparison
	}
	return classify(err)
}

func (t *Table) send(ctx context.Context, b *sink.Batch) (err error) {
	if t.columns == nil {
		if t.columns, err = t.opt.Mapping.bind(ctx, t.db); err != nil {
			return err
		}
	}
	events, err := t.opt.Events.Events(b.Items)
	if err != nil {
		return err
	}
	rows, left, err := t.opt.Mapping.rows(events, t.columns)
	if err != nil {
		return err
	}
	tx, err := t.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it says so
	var generation, pos uint64
	err = tx.QueryRowContext(ctx, "SELECT generation, position FROM gt06_sink_cursors WHERE stream = ? AND sink = ? FOR UPDATE", t.stream, t.opt.Name).Scan(&generation, &pos)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return errors.New("the cursor is gone: somebody removed its row of gt06_sink_cursors; put it back, or restart gt06d to begin anew")
	case err != nil:
		return fmt.Errorf("read the cursor: %w", err)
	case storage.Position(pos) == b.To && b.To != b.From:
		return nil // a commit whose reply was lost
	case storage.Position(pos) != b.From || generation != t.opt.Generation():
		return sink.ErrMoved
	}
	w := writer{t: t, tx: tx}
	if err := w.write(ctx, rows); err != nil {
		return err
	}
	t.opt.Failpoint("table.inserted")
	if _, err := tx.ExecContext(ctx, "UPDATE gt06_sink_cursors SET position = ?, written = written + ?, refused = refused + ? WHERE stream = ? AND sink = ?",
		uint64(b.To), w.written, w.refused, t.stream, t.opt.Name); err != nil {
		return fmt.Errorf("move the cursor: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	t.opt.Failpoint("table.committed")
	t.pos = b.To
	t.count(Written, w.written)
	t.count(There, int64(len(rows))-w.written-w.refused)
	t.count(Refused, w.refused)
	t.count(LeftOut, int64(left))
	return nil
}

// writer writes the rows of one transaction.
type writer struct {
	t                *Table
	tx               *sql.Tx
	written, refused int64
}

// write inserts rows, and those that the table refuses elsewhere: they are found
// by halving. A statement that fails leaves nothing, its transaction goes on.
func (w *writer) write(ctx context.Context, rows []row) error {
	if len(rows) == 0 {
		return nil
	}
	args := make([]any, 0, len(rows)*len(rows[0].args))
	for i := range rows {
		args = append(args, rows[i].args...)
	}
	res, err := w.tx.ExecContext(ctx, w.t.opt.Mapping.insert(w.t.columns, len(rows)), args...)
	if err == nil {
		n, err := res.RowsAffected()
		if w.t.opt.Mapping.OnDuplicate == duplicateUpdate {
			n = int64(len(rows)) // a row that is replaced counts as two, an equal one as none
		}
		w.written += n
		return err
	}
	if !refusal(err) {
		return fmt.Errorf("insert into %s: %w", w.t.opt.Mapping.Table, err)
	}
	if len(rows) > 1 {
		if err := w.write(ctx, rows[:len(rows)/2]); err != nil {
			return err
		}
		return w.write(ctx, rows[len(rows)/2:])
	}
	const most = 255
	reason := []rune(err.Error())
	_, err = w.tx.ExecContext(ctx, "INSERT INTO gt06_sink_refused (stream, sink, event_id, refused_at, reason, event) VALUES (?, ?, ?, UTC_TIMESTAMP(6), ?, ?)",
		w.t.stream, w.t.opt.Name, rows[0].event.ID, string(reason[:min(len(reason), most)]), string(rows[0].event.JSON))
	if err != nil {
		return fmt.Errorf("keep a refused row: %w", err)
	}
	w.refused++
	return nil
}

// Close implements sink.Receiver and sink.Cursor: another process may send.
func (t *Table) Close() error {
	if t.lock == nil {
		return t.db.Close()
	}
	f := t.lock
	t.lock = nil
	return errors.Join(t.db.Close(), f.Close())
}

// noSuchTable is MariaDB's error of a table that is not there.
const noSuchTable = 1146

// refusal says whether an error is about a row: a value that does not fit, a
// constraint, or a trigger that says no. All else is about the table or the
// server.
func refusal(err error) bool {
	my, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		return errors.Is(err, mysql.ErrPktTooLarge)
	}
	const noPartition, wrongValue, truncated = 1526, 1366, 1265
	class := string(my.SQLState[:2]) // of the standard: data, integrity, raised
	return slices.Contains([]string{"22", "23", "44", "45"}, class) || slices.Contains([]uint16{noPartition, wrongValue, truncated}, my.Number)
}

// classify says what an error means for the sink.
func classify(err error) error {
	if err == nil || errors.Is(err, sink.ErrMoved) || errors.Is(err, sink.ErrNew) {
		return err
	}
	kind := sink.KindConnect
	my, ok := errors.AsType[*mysql.MySQLError](err)
	switch {
	case errors.Is(err, ErrMapping):
		kind = sink.KindRejected
	case errors.Is(err, context.DeadlineExceeded):
		kind = sink.KindTimeout
	case ok && slices.Contains([]uint16{1205, 1213, 1040, 1203, 1053, 1927}, my.Number):
		kind = sink.KindBusy // locks, too many connections, ending
	case ok && strings.HasPrefix(string(my.SQLState[:]), "08"), ok && slices.Contains([]uint16{1021, 1114, 1290, 1836}, my.Number):
		kind = sink.KindServer // full, read-only
	case ok:
		kind = sink.KindRejected
	}
	return &sink.Error{Kind: kind, Err: err}
}
