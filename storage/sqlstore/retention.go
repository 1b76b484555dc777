package sqlstore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
)

// daysAhead is how many daily partitions are made before they are needed: a
// server that is off for less than that finds its partitions when it is back.
const daysAhead = 7

// partitioned are the tables that are dropped by age, and the column of that.
//
//nolint:gochecknoglobals // read-only table
var partitioned = []struct{ table, column string }{
	{"positions", "fix_time"}, {"alarms", "fix_time"}, {"heartbeats", "received_at"}, {"device_events", "received_at"},
}

// Maintain makes partitions ahead and drops what is older than the retention.
// It is cheap when there is nothing to do.
func (s *Store) Maintain(ctx context.Context) error {
	now := s.opt.Now().UTC()
	// Frames that nobody could place have no partitions: they are few.
	if _, err := s.db.ExecContext(ctx, "DELETE FROM quarantined_frames WHERE received_at < ?", now.Add(-s.opt.Retention).Format(time.DateTime)); err != nil {
		return fmt.Errorf("drop old rows of quarantined_frames: %w", err)
	}
	return s.d.limits(ctx, s.db, now, s.opt.Retention)
}

func (mariaDialect) limits(ctx context.Context, db *sqlx.DB, now time.Time, keep time.Duration) error {
	today := now.Truncate(24 * time.Hour)
	oldest := "p" + today.Add(-keep).Format("20060102")
	for _, t := range partitioned {
		var names []string
		if err := db.SelectContext(ctx, &names, "SELECT partition_name FROM information_schema.partitions WHERE table_schema = DATABASE() AND table_name = ? AND partition_name IS NOT NULL ORDER BY partition_ordinal_position", t.table); err != nil {
			return fmt.Errorf("list partitions of %s: %w", t.table, err)
		}
		if err := makePartitions(ctx, db, t.table, names, today, oldest); err != nil {
			return err
		}
		for _, n := range names {
			// The first one takes all that is older; it goes when its day does.
			if n != "pmax" && n < oldest {
				if _, err := db.ExecContext(ctx, "ALTER TABLE "+t.table+" DROP PARTITION "+n); err != nil {
					return fmt.Errorf("drop partition %s of %s: %w", n, t.table, err)
				}
			}
		}
	}
	return nil
}

// makePartitions splits the catch-all so that each day up to daysAhead has a
// partition of its own. The first time it begins a week back.
func makePartitions(ctx context.Context, db *sqlx.DB, table string, names []string, today time.Time, oldest string) error {
	last := max(oldest, "p"+today.AddDate(0, 0, -daysAhead-1).Format("20060102"))
	for _, n := range names {
		if n != "pmax" && n > last {
			last = n
		}
	}
	var parts []string
	for day := today.AddDate(0, 0, -daysAhead); !day.After(today.AddDate(0, 0, daysAhead)); day = day.AddDate(0, 0, 1) {
		name := "p" + day.Format("20060102")
		if name > last {
			parts = append(parts, fmt.Sprintf("PARTITION %s VALUES LESS THAN ('%s')", name, day.AddDate(0, 0, 1).Format("2006-01-02")))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	parts = append(parts, "PARTITION pmax VALUES LESS THAN (MAXVALUE)")
	if _, err := db.ExecContext(ctx, "ALTER TABLE "+table+" REORGANIZE PARTITION pmax INTO ("+strings.Join(parts, ", ")+")"); err != nil {
		return fmt.Errorf("make partitions of %s: %w", table, err)
	}
	return nil
}

func (sqliteDialect) limits(ctx context.Context, db *sqlx.DB, now time.Time, keep time.Duration) error {
	before := now.Add(-keep).Format(time.DateTime)
	for _, t := range partitioned {
		if _, err := db.ExecContext(ctx, "DELETE FROM "+t.table+" WHERE "+t.column+" < ?", before); err != nil {
			return fmt.Errorf("drop old rows of %s: %w", t.table, err)
		}
	}
	return nil
}
