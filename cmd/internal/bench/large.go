package bench

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"gt06/protocol/device"
)

// large fills the table as the server does, through its own log, and asks what
// an operator asks, of the full and of an all but empty table.
func (b *bench) large() error {
	if b.opt.Rows == 0 || b.opt.Socket == "" {
		return nil
	}
	db, name, drop, err := b.schema()
	if err != nil {
		return err
	}
	defer drop()
	const devices = 10_000
	portion := min(b.opt.Rows, 1_000_000)
	portions := (b.opt.Rows + portion - 1) / portion
	perDevice := max(1, portion/devices)
	// Two months, all of it within the retention.
	apart := 60 * 24 * time.Hour / time.Duration(portions*perDevice)
	from := time.Now().Add(-60 * 24 * time.Hour).Truncate(time.Second)
	rate := series{name: "rows a second"}
	var small, full asked
	for p := range portions {
		dir, err := os.MkdirTemp(b.dir, "large-")
		if err != nil {
			return err
		}
		if err := fillFixes(filepath.Join(dir, "spool"), portion, devices, from.Add(time.Duration(p*perDevice)*apart), apart); err != nil {
			return err
		}
		took, err := b.drain(dir, name)
		if err != nil {
			return err
		}
		_ = os.RemoveAll(dir)
		rate.add(float64(p+1), float64(portion)/took.Seconds())
		b.say("%d of %d million rows, %.0f a second", p+1, portions, float64(portion)/took.Seconds())
		if p == 0 {
			if small, err = b.ask(db, name); err != nil {
				return err
			}
		}
	}
	if full, err = b.ask(db, name); err != nil {
		return err
	}
	rows := fmt.Sprintf("%d million rows", portions*portion/1_000_000)
	one := "one million rows"
	b.note(Figure{Name: "insert rate, last million of " + rows, Value: rate.ys[len(rate.ys)-1], Unit: "/s", Reference: one, Beside: rate.ys[0]})
	b.note(Figure{Name: "track of a device, a day, " + rows, Value: full.track, Unit: "ms", Reference: one, Beside: small.track})
	b.note(Figure{Name: "last position of all, " + rows, Value: full.last, Unit: "ms", Reference: one, Beside: small.last})
	begin := time.Now()
	if _, err := db.ExecContext(b.ctx, "ALTER TABLE "+name+".positions DROP PARTITION "+full.oldest); err != nil {
		return fmt.Errorf("drop a day: %w", err)
	}
	b.note(Figure{Name: "retention drops a day, " + rows, Value: float64(time.Since(begin).Microseconds()) / 1000, Unit: "ms"})
	b.plots = append(b.plots, plot{file: "large", title: "Rows a second into MariaDB as the table grows", x: "million rows", y: "/s", lines: []series{rate}})
	return nil
}

// asked are the times of questions, in ms, and the oldest partition with rows.
type asked struct {
	track, last float64
	oldest      string
}

func (b *bench) ask(db *sql.DB, name string) (a asked, err error) {
	timed := func(query string, args ...any) (ms float64, err error) {
		var all []float64
		for range 9 {
			begin := time.Now()
			if err := b.readAll(db, query, args...); err != nil {
				return 0, err
			}
			all = append(all, float64(time.Since(begin).Microseconds())/1000)
		}
		return median(all), nil
	}
	var id int64
	if err := db.QueryRowContext(b.ctx, "SELECT id FROM "+name+".devices WHERE imei = ?", device.IMEI(77).String()).Scan(&id); err != nil {
		return a, err
	}
	var from string
	if err := db.QueryRowContext(b.ctx, "SELECT MIN(fix_time) FROM "+name+".positions WHERE device_id = ?", id).Scan(&from); err != nil {
		return a, err
	}
	if a.track, err = timed("SELECT * FROM "+name+".positions WHERE device_id = ? AND fix_time BETWEEN ? AND ? + INTERVAL 1 DAY ORDER BY fix_time", id, from, from); err != nil {
		return a, err
	}
	if a.last, err = timed("SELECT * FROM " + name + ".latest_positions"); err != nil {
		return a, err
	}
	err = db.QueryRowContext(b.ctx, "SELECT partition_name FROM information_schema.partitions WHERE table_schema = ? AND table_name = 'positions' AND table_rows > 0 ORDER BY partition_ordinal_position LIMIT 1", name).Scan(&a.oldest)
	return a, err
}

func (b *bench) readAll(db *sql.DB, query string, args ...any) error {
	rows, err := db.QueryContext(b.ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err is asked
	for rows.Next() {
	}
	return rows.Err()
}
