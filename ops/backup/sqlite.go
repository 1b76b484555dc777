package backup

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite" // the driver
)

// CopySQLite writes a SQLite database as it is at one moment into a place,
// while others write to it. The copy is read whole and checked before it
// counts.
func CopySQLite(ctx context.Context, path string, p Place, o Options) (Manifest, error) {
	m := Manifest{Format: format, Kind: SQLite, Begun: o.Now().UTC(), Source: path}
	m.Name = nameOf(m.Begun, SQLite, filepath.Base(path))
	if !nameForm.MatchString(m.Name) {
		return m, fmt.Errorf("%s: a database of SQLite is named something.db, of letters, digits, dots and dashes", path)
	}
	if _, err := os.Stat(path); err != nil {
		return m, err // SQLite would make an empty one
	}
	dir, err := os.MkdirTemp("", "gt06-backup-")
	if err != nil {
		return m, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a copy of ours
	copied := filepath.Join(dir, "copy.db")
	if err := vacuumInto(ctx, path, copied); err != nil {
		return m, fmt.Errorf("%s: %w", path, err)
	}
	if m.Contents, err = sqliteContents(ctx, copied); err != nil {
		return m, err
	}
	f, err := os.Open(copied)
	if err != nil {
		return m, err
	}
	defer f.Close() //nolint:errcheck // only read
	w, err := begin(ctx, p, &m, true, o.Progress)
	if err != nil {
		return m, err
	}
	defer w.object.Abort()
	if _, err := io.Copy(w, f); err != nil {
		return m, err
	}
	if err := w.finish(&m); err != nil {
		return m, err
	}
	if err := shrunk(ctx, p, &m, o); err != nil {
		return m, err
	}
	m.Ended = o.Now().UTC()
	return m, commit(ctx, p, w, &m)
}

// openSQLite opens a database that is only read.
func openSQLite(path string) (*sql.DB, error) {
	return sql.Open("sqlite", (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: "mode=ro&_pragma=busy_timeout(10000)"}).String())
}

func vacuumInto(ctx context.Context, path, into string) error {
	db, err := openSQLite(path)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", into)
	return errors.Join(err, db.Close())
}

// sqliteContents checks a database and counts what is in it.
func sqliteContents(ctx context.Context, path string) (Contents, error) {
	db, err := openSQLite(path)
	if err != nil {
		return nil, err
	}
	defer db.Close() //nolint:errcheck // only read
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&verdict); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if verdict != "ok" {
		return nil, fmt.Errorf("%w: SQLite says %s", ErrDamaged, verdict)
	}
	rows, err := db.QueryContext(ctx, "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name")
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err is looked at
	s := &Schema{Tables: map[string]*Table{}, Objects: map[string]string{}}
	for rows.Next() {
		var kind, name, text string
		if err := rows.Scan(&kind, &name, &text); err != nil {
			return nil, err
		}
		sum := sha256.Sum256([]byte(text))
		if kind != "table" {
			s.Objects[kind+" "+name] = hex.EncodeToString(sum[:])
			continue
		}
		s.Tables[name] = &Table{Definition: hex.EncodeToString(sum[:])}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for name, t := range s.Tables {
		quoted := `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
		if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+quoted).Scan(&t.Rows); err != nil { // a name cannot be a parameter
			return nil, err
		}
	}
	return Contents{"main": s}, nil
}
