// Package sqlstore keeps the rows in MariaDB or SQLite: the schema, the writer
// that moves the log into it exactly once, and the questions others ask of it.
//
// A batch is one transaction: its rows and the cursor that says how far the
// log is in the database. The cursor lives in the database, so restoring an
// older one rewinds it and the log fills the gap. Nothing here is on the path
// of an answer.
package sqlstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"gt06/storage/mariadb"

	_ "modernc.org/sqlite" // the driver
)

//go:embed migrations
var embedded embed.FS

// migrations is where they are read from; a build for tests adds to it.
//
//nolint:gochecknoglobals // what is embedded is global
var migrations fs.FS = embedded

// Kind is the database.
type Kind string

// The databases.
const (
	SQLite  Kind = "sqlite"
	MariaDB Kind = "mariadb"
)

// Errors that callers test for. None of them holds a password.
var (
	ErrLogin        = errors.New("gt06/sqlstore: the database refuses the login")
	ErrUnreachable  = errors.New("gt06/sqlstore: the database does not answer")
	ErrSchema       = errors.New("gt06/sqlstore: the schema is not this program's")
	ErrForeignTable = errors.New("gt06/sqlstore: a table of the same name belongs to somebody else")
	ErrFenced       = errors.New("gt06/sqlstore: another server writes this log's rows")
)

// Options of a Store.
type Options struct {
	Kind       Kind
	DSN        string        // MariaDB, in go-sql-driver's form
	Dir        string        // SQLite: gt06.db is made in it
	Retention  time.Duration // of partitions and rows [90 days]
	Now        func() time.Time
	Logger     *zap.Logger
	Registerer prometheus.Registerer
}

// Store is an open database with a current schema.
type Store struct {
	opt Options
	db  *sqlx.DB
	d   dialect
	log *zap.Logger

	version int64 // of the schema
}

const timeout = mariadb.Timeout

// Check reads the settings without connecting: a DSN that cannot be parsed is
// said before anything starts.
func Check(opt Options) error {
	if opt.Kind != MariaDB {
		return nil
	}
	return mariadb.Check(opt.DSN)
}

// Open connects, checks and migrates. It does not wait for a database that is
// away: ErrUnreachable can be tried again, ErrLogin, ErrSchema and
// ErrForeignTable cannot.
func Open(ctx context.Context, opt Options) (*Store, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Logger == nil {
		opt.Logger = zap.NewNop()
	}
	if opt.Retention == 0 {
		opt.Retention = 90 * 24 * time.Hour
	}
	s := &Store{opt: opt, log: opt.Logger}
	var err error
	switch opt.Kind {
	case SQLite:
		s.d = sqliteDialect{}
		s.db, err = openSQLite(opt)
	case MariaDB:
		s.d = mariaDialect{}
		s.db, err = openMariaDB(opt)
	default:
		return nil, fmt.Errorf("store %q is neither sqlite nor mariadb", opt.Kind)
	}
	if err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		_ = s.db.Close()
		return nil, err
	}
	return s, nil
}

// Try says what Open would say of a MariaDB, and changes nothing in it.
func Try(ctx context.Context, opt Options) error {
	db, err := openMariaDB(opt)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // only asked
	s := &Store{opt: opt, db: db, d: mariaDialect{}}
	if err := s.asked(ctx); err != nil {
		return s.classify(err)
	}
	tables, err := s.d.tables(ctx, db)
	if err != nil || !slices.Contains(tables, versionTable) {
		return s.classify(errors.Join(err, s.refuseForeign(ctx)))
	}
	var version int64
	if err := db.GetContext(ctx, &version, "SELECT COALESCE(MAX(version_id), 0) FROM "+versionTable); err != nil {
		return s.classify(err)
	}
	return Compatible(version)
}

// versionTable is where goose keeps the version of the schema: who has it has
// our tables.
const versionTable = "goose_db_version"

// asked is whether the database answers and stores what it is given.
func (s *Store) asked(ctx context.Context) error {
	if err := s.db.PingContext(ctx); err != nil {
		return err
	}
	return s.d.assert(ctx, s.db)
}

// openSQLite gives each connection 256 KiB of page cache instead of 2 MiB: the
// kernel has the pages, too. Over a million rows of 5,000 devices the writer is
// 5 % faster with it (server/DESIGN.md, "What a connection costs in memory").
func openSQLite(opt Options) (*sqlx.DB, error) {
	dsn := "file:" + filepath.Join(opt.Dir, "gt06.db") +
		"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=cache_size(-256)&_pragma=busy_timeout(10000)&_pragma=foreign_keys(0)&_txlock=immediate"
	return sqlx.Open("sqlite", dsn)
}

func openMariaDB(opt Options) (*sqlx.DB, error) {
	pool, err := mariadb.Open(opt.DSN, map[string]string{"time_zone": "'+00:00'"})
	if err != nil {
		return nil, err
	}
	db := sqlx.NewDb(pool, "mysql")
	db.SetMaxOpenConns(8)
	db.SetConnMaxLifetime(time.Hour)
	return db, nil
}

// Close ends all connections.
func (s *Store) Close() error { return s.db.Close() }

// Kind returns the database.
func (s *Store) Kind() Kind { return s.opt.Kind }

func (s *Store) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 4*timeout)
	defer cancel()
	if err := s.asked(ctx); err != nil {
		return s.classify(err)
	}
	if err := s.migrate(ctx); err != nil {
		return s.classify(err)
	}
	return s.classify(s.Maintain(ctx))
}

func (s *Store) migrate(ctx context.Context) error {
	if err := s.refuseForeign(ctx); err != nil {
		return err
	}
	files, err := fs.Sub(migrations, "migrations/"+string(s.opt.Kind))
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(s.d.goose(), s.db.DB, files, goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	sources := p.ListSources()
	known := sources[len(sources)-1].Version
	if known != Schema() {
		return fmt.Errorf("migrations: the last is %d of %d", known, Schema())
	}
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("read the schema version: %w", err)
	}
	if err := Compatible(have); err != nil {
		return err
	}
	if have < known {
		if _, err := p.Up(ctx); err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		have = known
	}
	s.version = have
	return nil
}

// Schema returns the version that this program's migrations lead to.
func Schema() int64 {
	files, err := fs.Glob(migrations, "migrations/"+string(SQLite)+"/*.sql")
	if err != nil {
		return 0
	}
	return int64(len(files)) // numbered from 1 without a gap; a test asks it
}

// Compatible says whether this program can live with a schema of a version.
// Migrations only ever expand within one step, because two versions share a
// schema during an upgrade, a rescue and a downgrade: one step ahead is good.
func Compatible(version int64) error {
	if known := Schema(); version > known+1 {
		return fmt.Errorf("%w: it has version %d, this program lives with up to %d", ErrSchema, version, known+1)
	}
	return nil
}

// Version returns the version of the schema that was found or made.
func (s *Store) Version() int64 { return s.version }

// refuseForeign looks for tables of our names in a schema we never made.
func (s *Store) refuseForeign(ctx context.Context) error {
	tables, err := s.d.tables(ctx, s.db)
	if err != nil {
		return err
	}
	if slices.Contains(tables, versionTable) {
		return nil
	}
	for _, name := range []string{"devices", "positions", "latest_positions", "alarms", "heartbeats", "device_events", "device_commands", "quarantined_frames", "ingest_cursors", "history_imports"} {
		if !slices.Contains(tables, name) {
			continue
		}
		columns, err := s.columns(ctx, name)
		if err != nil {
			return err
		}
		return fmt.Errorf("%w: %s with the columns %s; give gt06 a schema of its own", ErrForeignTable, name, strings.Join(columns, ", "))
	}
	return nil
}

func (s *Store) columns(ctx context.Context, table string) ([]string, error) {
	rows, err := s.db.QueryxContext(ctx, "SELECT * FROM "+table+" WHERE 1 = 0")
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err is asked
	columns, err := rows.Columns()
	return columns, errors.Join(err, rows.Err())
}

// classify turns a driver's error into one of ours, without what may hold a
// password.
func (s *Store) classify(err error) error {
	var my *mysql.MySQLError
	var ne net.Error
	switch {
	case err == nil, errors.Is(err, ErrSchema), errors.Is(err, ErrForeignTable):
		return err
	case errors.As(err, &my):
		switch my.Number {
		case 1044, 1045, 1049, 1698:
			return fmt.Errorf("%w: %s", ErrLogin, my.Message)
		case 1040, 1053, 1203:
			return fmt.Errorf("%w: %s", ErrUnreachable, my.Message)
		}
		return err
	case errors.As(err, &ne), errors.Is(err, mysql.ErrInvalidConn), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return err
}
