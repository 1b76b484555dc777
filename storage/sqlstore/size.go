package sqlstore

import (
	"context"
	"fmt"
	"os"

	"github.com/jmoiron/sqlx"

	"gt06/protocol"
)

// Size is how much the tables of events take. Of MariaDB both numbers are its
// estimates.
type Size struct {
	Rows, Bytes int64
	// Dir is where the database keeps its files on this machine, "" when it is
	// on another or cannot be seen.
	Dir string
}

// Size returns what the tables take now.
func (s *Store) Size(ctx context.Context) (Size, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	size, err := s.d.size(ctx, s.db)
	if s.opt.Kind == SQLite {
		size.Dir = s.opt.Dir
	}
	return size, s.classify(err)
}

func (mariaDialect) size(ctx context.Context, db *sqlx.DB) (size Size, err error) {
	for _, t := range partitioned {
		var rows, bytes int64
		err := db.QueryRowxContext(ctx, "SELECT table_rows, data_length + index_length FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?", t.table).Scan(&rows, &bytes)
		if err != nil {
			return size, fmt.Errorf("size of %s: %w", t.table, err)
		}
		size.Rows += rows
		size.Bytes += bytes
	}
	var host, dir string
	if err := db.QueryRowxContext(ctx, "SELECT @@hostname, @@datadir").Scan(&host, &dir); err != nil {
		return size, err
	}
	if here, err := os.Hostname(); err == nil && here == host && there(dir) {
		size.Dir = dir
	}
	return size, nil
}

// there says whether a path is.
func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (sqliteDialect) size(ctx context.Context, db *sqlx.DB) (size Size, err error) {
	if err := db.QueryRowxContext(ctx, "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()").Scan(&size.Bytes); err != nil {
		return size, err
	}
	for _, t := range partitioned {
		var rows int64
		if err := db.GetContext(ctx, &rows, "SELECT COUNT(*) FROM "+t.table); err != nil {
			return size, fmt.Errorf("rows of %s: %w", t.table, err)
		}
		size.Rows += rows
	}
	return size, nil
}

// Missing says how many rows the records stand for, and how many of these are
// not in the database. It asks by storing them, in a transaction that is taken
// back.
func (s *Store) Missing(ctx context.Context, decoder *protocol.Decoder, items []Item) (rows, missing int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	w := &Writer{s: s, decoder: decoder, known: map[protocol.IMEI]device{}, touched: map[protocol.IMEI]int64{}}
	var b batch
	w.build(&b, items)
	tx, err := s.db.BeginTxx(ctx, nil)
	if err != nil {
		return 0, 0, s.classify(err)
	}
	defer tx.Rollback() //nolint:errcheck // that is the point
	_, merged, err := w.apply(ctx, tx, &b.rows)
	if err != nil {
		return 0, 0, s.classify(err)
	}
	rows = int64(b.rows.Len())
	return rows, rows - merged, nil
}
