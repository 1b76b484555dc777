package sqlstore

import (
	"context"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// fault is what an error means for a batch.
type fault uint8

const (
	faultNone   fault = iota
	faultAway         // the database is away or busy: again later
	faultRetry        // deadlock, lock time-out: again at once
	faultData         // a row is refused: find it
	faultSchema       // tables or rights are not ours: stop, tell, never quarantine
)

// dialect is what differs between the databases.
type dialect interface {
	goose() goose.Dialect
	assert(ctx context.Context, db *sqlx.DB) error
	tables(ctx context.Context, db *sqlx.DB) ([]string, error)
	fault(err error) fault
	// text appends a string literal, blob one of bytes.
	text(dst []byte, s string) []byte
	blob(dst, b []byte) []byte
	// merge ends an INSERT whose rows may be there already: they stay as they
	// are and do not count as affected.
	merge(dst []byte, key, column string) []byte
	// replace ends an INSERT whose rows replace those that are there already.
	replace(dst []byte, key string, columns []string) []byte
	// newest ends an INSERT that replaces a row when its fix_time is not older, or
	// the row's is one from the future.
	newest(dst []byte, key string, columns []string) []byte
	// touch ends the INSERT that registers devices and writes when they were seen.
	touch(dst []byte) []byte
	forUpdate() string
	// batch is how many records one transaction takes at most: a writer that is
	// behind writes devices and latest_positions once for several rows of a
	// device. Two batches of 24,000 are 21 MiB.
	batch() int
	limits(ctx context.Context, db *sqlx.DB, now time.Time, keep time.Duration) error
	size(ctx context.Context, db *sqlx.DB) (Size, error)
}

type mariaDialect struct{}

func (mariaDialect) goose() goose.Dialect { return goose.DialectMySQL }

// assert refuses a server that would store damaged values: strict mode and UTC
// are asked for with every connection, and must have been given.
func (mariaDialect) assert(ctx context.Context, db *sqlx.DB) error {
	var mode, zone string
	if err := db.QueryRowxContext(ctx, "SELECT @@sql_mode, @@time_zone").Scan(&mode, &zone); err != nil {
		return err
	}
	if !strings.Contains(mode, "STRICT_ALL_TABLES") || zone != "+00:00" {
		return fmt.Errorf("%w: sql_mode is %q and time_zone %q", ErrSchema, mode, zone)
	}
	return nil
}

func (mariaDialect) tables(ctx context.Context, db *sqlx.DB) (names []string, err error) {
	err = db.SelectContext(ctx, &names, "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()")
	return names, err
}

func (mariaDialect) fault(err error) fault {
	var my *mysql.MySQLError
	var ne net.Error
	switch {
	case err == nil:
		return faultNone
	case errors.Is(err, mysql.ErrPktTooLarge):
		return faultData // smaller halves may pass
	case errors.As(err, &my):
		switch my.Number {
		case 1205, 1213:
			return faultRetry
		case 1044, 1045, 1049, 1054, 1142, 1143, 1146, 1364, 1698:
			return faultSchema
		case 1040, 1053, 1203, 1290, 1792, 1836, 1927, 1021, 1114, 2006, 2013:
			return faultAway // busy, ending, read-only, full
		}
		return faultData
	case errors.As(err, &ne), errors.Is(err, mysql.ErrInvalidConn), errors.Is(err, driver.ErrBadConn), errors.Is(err, io.EOF):
		return faultAway
	}
	return faultAway
}

func (mariaDialect) text(dst []byte, s string) []byte {
	dst = append(dst, '\'')
	for i := range len(s) {
		switch c := s[i]; c {
		case '\'', '\\':
			dst = append(dst, '\\', c)
		case 0:
			dst = append(dst, '\\', '0')
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '\'')
}

func (mariaDialect) blob(dst, b []byte) []byte { return hexLiteral(dst, b) }

func hexLiteral(dst, b []byte) []byte {
	dst = append(dst, "x'"...)
	dst = hex.AppendEncode(dst, b)
	return append(dst, '\'')
}

func (mariaDialect) merge(dst []byte, _, column string) []byte {
	dst = append(dst, " ON DUPLICATE KEY UPDATE "...)
	dst = append(dst, column...)
	return append(append(dst, " = "...), column...)
}

// newer says whether a row is newer than the latest one: by its time, or because
// the latest one has a time that had not come yet when this row was received.
const newer = "VALUES(fix_time) >= fix_time OR fix_time > VALUES(received_at) AND NOT VALUES(archived)"

func (mariaDialect) newest(dst []byte, _ string, columns []string) []byte {
	dst = append(dst, " ON DUPLICATE KEY UPDATE "...)
	for i, c := range columns {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = fmt.Appendf(dst, "%s = IF("+newer+", VALUES(%s), %s)", c, c, c)
	}
	// The time itself last: the others are compared with the old one.
	return append(dst, ", fix_time = IF("+newer+", VALUES(fix_time), fix_time)"...)
}

func (mariaDialect) replace(dst []byte, _ string, columns []string) []byte {
	dst = append(dst, " ON DUPLICATE KEY UPDATE "...)
	for i, c := range columns {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = fmt.Appendf(dst, "%s = VALUES(%s)", c, c)
	}
	return dst
}

func (mariaDialect) touch(dst []byte) []byte {
	return append(dst, " ON DUPLICATE KEY UPDATE last_seen_at = GREATEST(COALESCE(last_seen_at, VALUES(last_seen_at)), VALUES(last_seen_at)), first_seen_at = COALESCE(first_seen_at, VALUES(first_seen_at)), updated_at = VALUES(updated_at)"...)
}

func (mariaDialect) batch() int { return 24_000 }

func (mariaDialect) forUpdate() string { return " FOR UPDATE" }

type sqliteDialect struct{}

func (sqliteDialect) goose() goose.Dialect { return goose.DialectSQLite3 }

func (sqliteDialect) assert(context.Context, *sqlx.DB) error { return nil }

func (sqliteDialect) tables(ctx context.Context, db *sqlx.DB) (names []string, err error) {
	err = db.SelectContext(ctx, &names, "SELECT name FROM sqlite_master WHERE type = 'table'")
	return names, err
}

func (sqliteDialect) fault(err error) fault {
	var se *sqlite.Error
	switch {
	case err == nil:
		return faultNone
	case errors.As(err, &se):
		switch se.Code() & 0xff {
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
			return faultRetry
		case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG:
			return faultData
		case sqlite3.SQLITE_ERROR:
			return faultSchema
		}
	}
	return faultAway // full, read-only, I/O error: again later
}

func (sqliteDialect) text(dst []byte, s string) []byte {
	if strings.IndexByte(s, 0) >= 0 {
		dst = append(dst, "CAST("...)
		return append(hexLiteral(dst, []byte(s)), " AS TEXT)"...)
	}
	dst = append(dst, '\'')
	for i := range len(s) {
		if s[i] == '\'' {
			dst = append(dst, '\'')
		}
		dst = append(dst, s[i])
	}
	return append(dst, '\'')
}

func (sqliteDialect) blob(dst, b []byte) []byte { return hexLiteral(dst, b) }

func (sqliteDialect) merge(dst []byte, key, _ string) []byte {
	return append(append(append(dst, " ON CONFLICT ("...), key...), ") DO NOTHING"...)
}

func (sqliteDialect) newest(dst []byte, key string, columns []string) []byte {
	dst = append(append(append(dst, " ON CONFLICT ("...), key...), ") DO UPDATE SET fix_time = excluded.fix_time"...)
	for _, c := range columns {
		dst = fmt.Appendf(dst, ", %s = excluded.%s", c, c)
	}
	return append(dst, " WHERE excluded.fix_time >= latest_positions.fix_time OR latest_positions.fix_time > excluded.received_at AND NOT excluded.archived"...)
}

func (sqliteDialect) replace(dst []byte, key string, columns []string) []byte {
	dst = append(append(append(dst, " ON CONFLICT ("...), key...), ") DO UPDATE SET "...)
	for i, c := range columns {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = fmt.Appendf(dst, "%s = excluded.%s", c, c)
	}
	return dst
}

func (sqliteDialect) touch(dst []byte) []byte {
	return append(dst, " ON CONFLICT DO UPDATE SET last_seen_at = MAX(COALESCE(last_seen_at, excluded.last_seen_at), excluded.last_seen_at), first_seen_at = COALESCE(first_seen_at, excluded.first_seen_at), updated_at = excluded.updated_at"...)
}

// batch is smaller than MariaDB's: an upsert costs SQLite what an insert does.
func (sqliteDialect) batch() int { return 8000 }

func (sqliteDialect) forUpdate() string { return "" }
