package sqlstore_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jmoiron/sqlx"

	"gt06/protocol"
	"gt06/storage"
	"gt06/storage/logtest"
	"gt06/storage/sqlstore"
)

// mixed are the n-th to m-th records of a few devices.
func mixed(n, m int) (list []storage.Record) {
	for ; n < m; n++ {
		r := fix(n%5, n)
		if n%3 == 0 {
			r = beat(n%5, n)
		}
		list = append(list, r)
	}
	return list
}

// whole asks that the records of mixed(0, n) are rows, each once.
func whole(t *testing.T, db *sqlx.DB, n int) {
	t.Helper()
	beats := (n + 2) / 3
	for query, want := range map[string]int{
		"SELECT COUNT(*) FROM heartbeats": beats, "SELECT COUNT(*) FROM positions": n - beats, "SELECT COUNT(*) FROM devices": min(n, 5),
		"SELECT COUNT(*) FROM quarantined_frames": 0,
	} {
		if got := count(t, db, query); got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
}

// An older database is put in the place of the one a writer works on: its
// cursor went back with it, and the log fills the gap.
func TestOlderDatabaseIsFilled(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		s, log := openStore(t, opt), logtest.NewLog()
		w := s.Writer(sqlstore.WriterOptions{Log: log, Node: "node", Epoch: 1, Decoder: &protocol.Decoder{}})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		stored := func() {
			t.Helper()
			eventually(t, func() bool { return w.Status().Position == log.Durable() }, func() string { return fmt.Sprintf("%+v", w.Status()) })
		}
		log.Add(mixed(0, 700)...)
		stored()
		db := open()
		tables := []string{"devices", "positions", "latest_positions", "alarms", "heartbeats", "device_events", "device_commands", "quarantined_frames", "ingest_cursors"}
		do := func(form string) {
			t.Helper()
			for _, name := range tables {
				if _, err := db.ExecContext(ctx, fmt.Sprintf(form, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
		do("CREATE TABLE old_%[1]s AS SELECT * FROM %[1]s")
		log.Add(mixed(700, 2500)...)
		stored()
		do("DELETE FROM %[1]s")
		do("INSERT INTO %[1]s SELECT * FROM old_%[1]s")
		log.Add(mixed(2500, 2600)...)
		stored()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		whole(t, db, 2600)
	})
}
