package sqlstore_test

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/jmoiron/sqlx"

	"gt06/storage"
	"gt06/storage/logtest"
	"gt06/storage/sqlstore"
)

// text is an information frame whose text comes from the device, with all that
// separates rows and columns in it.
func text(device, n int) storage.Record {
	const text = "a\tb\nc\\N 'q' \"z\" \x00 \\ \xff\xfe ü; -- #\r\n"
	return frame(device, n, 0x15, append(append([]byte{4 + byte(len(text)), 0, 0, 0, 1}, text...), 0, 2))
}

// A batch that is large goes to MariaDB as text, a small one as literals: the
// rows are the same.
func TestLoadedRowsEqualInsertedOnes(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		var all []storage.Record
		for n := range 700 {
			all = append(all, fix(1+n%3, n), beat(1+n%3, n), text(1+n%3, n))
		}
		rows := func() (list []string) {
			db := open()
			for _, table := range []string{"positions", "heartbeats", "device_events", "latest_positions"} {
				list = append(list, content(t, db, table)...)
			}
			return list
		}
		s := openStore(t, opt)
		log := logtest.NewLog()
		for len(all) > 0 { // small
			log.Add(all[:300]...)
			all = all[300:]
			drain(t, s, log, 1)
		}
		inserted := rows()
		db := open()
		for _, table := range []string{"positions", "heartbeats", "device_events", "latest_positions"} {
			db.MustExec("DELETE FROM " + table)
		}
		db.MustExec("UPDATE ingest_cursors SET position = 0")
		drain(t, s, log, 2) // all at once
		loaded := rows()
		if len(loaded) != 2103 || !sameSet(inserted, loaded) {
			t.Errorf("%d rows inserted, %d loaded, or they differ", len(inserted), len(loaded))
		}
	})
}

// content returns the rows of a table, with the device's IMEI for its id.
func content(t *testing.T, db *sqlx.DB, table string) (list []string) {
	t.Helper()
	found, err := db.QueryxContext(t.Context(), "SELECT d.imei, t.* FROM "+table+" t JOIN devices d ON d.id = t.device_id") //nolint:sqlclosecheck // the deferred Close is not seen behind MapScan
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close() //nolint:errcheck // Err is asked
	for found.Next() {
		row := map[string]any{}
		if err := found.MapScan(row); err != nil {
			t.Fatal(err)
		}
		delete(row, "device_id")
		list = append(list, fmt.Sprintf("%s %q", table, fmt.Sprint(row)))
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

func sameSet(a, b []string) bool {
	count := func(list []string) map[string]int {
		m := map[string]int{}
		for _, s := range list {
			m[s]++
		}
		return m
	}
	return reflect.DeepEqual(count(a), count(b))
}

// LOAD DATA LOCAL leaves out what is there and what is refused, with a warning:
// the batch must go the strict way then.
func TestLoadedRowsAreNeverLeftOut(t *testing.T) {
	t.Parallel()
	for _, batch := range []int{0, 64, 600} {
		t.Run(fmt.Sprint("batch=", batch), func(t *testing.T) { neverLeftOut(t, batch) })
	}
}

func neverLeftOut(t *testing.T, batch int) {
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		s := openStore(t, opt)
		db := open()
		if opt.Kind == sqlstore.MariaDB {
			db.MustExec("ALTER TABLE positions ADD CONSTRAINT c CHECK (serial <> 77)")
		} else {
			db.MustExec("CREATE TRIGGER c BEFORE INSERT ON positions WHEN NEW.serial = 77 BEGIN SELECT RAISE(ABORT, 'no 77'); END")
		}
		log := logtest.NewLog()
		for n := range 1000 {
			log.Add(fix(1, n))
			if n%10 == 0 {
				log.Add(fix(1, n)) // sent again
			}
		}
		drainAs(t, s, log, sqlstore.WriterOptions{Epoch: 1, Batch: batch})
		got := [3]int{count(t, db, "SELECT COUNT(*) FROM positions"), count(t, db, "SELECT COUNT(*) FROM quarantined_frames"), count(t, db, "SELECT merged FROM ingest_cursors")}
		if want := [3]int{999, 1, 100}; got != want {
			t.Errorf("rows, in quarantine, merged: %v, want %v", got, want)
		}
	})
}
