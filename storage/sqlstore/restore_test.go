package sqlstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"gt06/protocol"
	"gt06/storage"
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
		s, log := openStore(t, opt), newLog()
		w := s.Writer(sqlstore.WriterOptions{Log: log, Node: "node", Epoch: 1, Decoder: &protocol.Decoder{}})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		stored := func() {
			t.Helper()
			eventually(t, func() bool { return w.Status().Position == log.Durable() }, func() string { return fmt.Sprintf("%+v", w.Status()) })
		}
		log.add(mixed(0, 700)...)
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
		log.add(mixed(700, 2500)...)
		stored()
		do("DELETE FROM %[1]s")
		do("INSERT INTO %[1]s SELECT * FROM old_%[1]s")
		log.add(mixed(2500, 2600)...)
		stored()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		whole(t, db, 2600)
	})
}

// What a power cut leaves of SQLite is its file and a part of its log of
// changes, whose last transactions may be missing or torn: the database opens,
// says where the log stands, and the gap is filled.
func TestPowerLossOfSQLite(t *testing.T) {
	t.Parallel()
	cuts := 40
	if os.Getenv("GT06_SOAK") != "" {
		cuts = 1000
	}
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test's
	t.Logf("seed %d", seed)
	now := func() time.Time { return base.Add(time.Hour) }
	dir := t.TempDir()
	log, lost := newLog(), 0
	for n := range cuts {
		s, err := sqlstore.Open(context.Background(), sqlstore.Options{Kind: sqlstore.SQLite, Dir: dir, Now: now})
		if err != nil {
			t.Fatalf("cut %d: %v, seed %d", n, err, seed)
		}
		_, position, err := s.Cursor(context.Background(), "node")
		if err != nil {
			t.Fatal(err)
		}
		if position < log.Durable() {
			lost++
		}
		for range 1 + r.IntN(4) {
			have := int(log.Durable())
			log.add(mixed(have, have+1+r.IntN(40))...)
			drain(t, s, log, int64(n+1))
		}
		after := t.TempDir()
		for _, name := range []string{"gt06.db", "gt06.db-wal"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if name == "gt06.db-wal" && len(b) > 0 {
				b = b[:r.IntN(len(b)+1)]
				if len(b) > 0 && r.IntN(2) == 0 {
					b[len(b)-1-r.IntN(min(len(b), 4096))] ^= 0x10 // its last page is torn
				}
			}
			if err := os.WriteFile(filepath.Join(after, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_ = s.Close()
		dir = after
	}
	s := openStore(t, sqlstore.Options{Kind: sqlstore.SQLite, Dir: dir, Now: now})
	drain(t, s, log, int64(cuts+1))
	db, err := sqlx.Open("sqlite", "file:"+dir+"/gt06.db")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // read only
	whole(t, db, int(log.Durable()))
	t.Logf("%d cuts, %d of them lost transactions, %d records", cuts, lost, log.Durable())
	if lost == 0 {
		t.Error("no cut lost anything: the test shows nothing")
	}
}
