package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"gt06/protocol"
	"gt06/storage"
	"gt06/storage/event"
	"gt06/storage/logtest"
	"gt06/storage/sqlstore"
	"gt06/storage/sqlstore/mariadbtest"
)

var base = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)

func imei(n int) protocol.IMEI {
	id, err := protocol.ParseIMEI(fmt.Sprintf("35999900000%04d", n))
	if err != nil {
		panic(err)
	}
	return id
}

// frame makes the n-th record of a device: a fix of its own second.
func frame(device, n int, typ byte, content []byte) storage.Record {
	at := base.Add(time.Duration(n) * time.Second)
	return storage.Record{
		Conn: 1<<40 | uint64(device), ReceivedAt: at.UnixMicro(), Device: imei(device),
		Input: protocol.AppendFrame(nil, typ, content, uint16(n)),
	}
}

func fix(device, n int) storage.Record {
	return frame(device, n, 0x22, append(gps(n, uint32(40_000_000+n)), 0x01, 0xcc, 0x00, 0x28, 0x7d, 0x00, 0x1f, 0x71, 1, 0, 0))
}

// gps is the part of a frame that says when and where.
func gps(n int, latitude uint32) []byte {
	at := base.Add(time.Duration(n) * time.Second)
	c := []byte{byte(at.Year() - 2000), byte(at.Month()), byte(at.Day()), byte(at.Hour()), byte(at.Minute()), byte(at.Second()), 0xc9}
	return append(c, byte(latitude>>24), byte(latitude>>16), byte(latitude>>8), byte(latitude), 0x0c, 0x46, 0x58, 0x60, 50, 0x14, 0x20)
}

func beat(device, n int) storage.Record { return frame(device, n, 0x13, []byte{0x46, 4, 4, 0, 1}) }

// databases runs a test on both.
func databases(t *testing.T, test func(t *testing.T, opt sqlstore.Options, db func() *sqlx.DB)) {
	t.Helper()
	now := func() time.Time { return base.Add(time.Hour) }
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		test(t, sqlstore.Options{Kind: sqlstore.SQLite, Dir: dir, Now: now}, func() *sqlx.DB {
			db, err := sqlx.Open("sqlite", "file:"+dir+"/gt06.db?_pragma=busy_timeout(10000)")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			return db
		})
	})
	t.Run("mariadb", func(t *testing.T) {
		t.Parallel()
		dsn := mariadbtest.Schema(t)
		test(t, sqlstore.Options{Kind: sqlstore.MariaDB, DSN: dsn, Now: now}, func() *sqlx.DB {
			db, err := sqlx.Open("mysql", dsn+"?parseTime=true")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			return db
		})
	})
}

func openStore(t *testing.T, opt sqlstore.Options) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.Open(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// drain runs a writer until everything in the log is stored.
func drain(t *testing.T, s *sqlstore.Store, log *logtest.Log, epoch int64) *sqlstore.Writer {
	t.Helper()
	return drainAs(t, s, log, sqlstore.WriterOptions{Epoch: epoch})
}

func eventually(t *testing.T, ok func() bool, say func() string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("did not happen: %s", say())
		}
	}
}

func count(t *testing.T, db *sqlx.DB, query string) (n int) {
	t.Helper()
	if err := db.Get(&n, query); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func TestFramesGoToTheirTables(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		log := logtest.NewLog()
		const devices, each = 5, 500
		for n := range each {
			for d := range devices {
				log.Add(fix(d, n), beat(d, n))
			}
		}
		log.Add(frame(0, 0, 0x01, []byte{0x03, 0x59, 0x99, 0x90, 0, 0, 0, 0x00})) // a login
		log.Add(frame(0, 1, 0x77, []byte{1, 2, 3}))                               // unknown
		log.Add(storage.Record{Conn: 9, ReceivedAt: base.UnixMicro(), Input: []byte("xx"), Flags: storage.Junk})
		log.Add(storage.Record{Conn: 9, ReceivedAt: base.UnixMicro(), Input: fix(0, 0).Input}) // no login
		s := openStore(t, opt)
		drain(t, s, log, 1)
		db := open()
		for table, want := range map[string]int{"positions": devices * each, "heartbeats": devices * each, "device_events": 1, "quarantined_frames": 2, "devices": devices, "latest_positions": devices} {
			if n := count(t, db, "SELECT COUNT(*) FROM "+table); n != want {
				t.Errorf("%s has %d rows, want %d", table, n, want)
			}
		}
		rows, err := s.Rows(context.Background(), []string{imei(3).String()}, base.Add(-time.Hour))
		if err != nil || len(rows) != 2*each {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		for i := range each {
			r := rows[i]
			if r.Table != "positions" || r.Latitude == 0 || r.SpeedKMH != 50 || r.Course != 32 || r.Kind != "location" || r.Protocol != 0x22 {
				t.Fatalf("row %+v", r)
			}
		}
		list, err := everyDevice(t, s)
		if err != nil || len(list) != devices || !list[0].FixTime.Equal(base.Add((each-1)*time.Second)) || list[0].LastSeen.IsZero() {
			t.Errorf("devices %+v, %v", list, err)
		}
	})
}

func TestReSentFixesMerge(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		log := logtest.NewLog()
		for n := range 50 {
			again := fix(1, n)
			again.ReceivedAt += 5_000_000
			again.Input = protocol.AppendFrame(nil, 0x22, again.Input[4:len(again.Input)-6], 999) // another serial
			log.Add(fix(1, n), again, fix(1, n))
		}
		drain(t, openStore(t, opt), log, 1)
		db := open()
		if n := count(t, db, "SELECT COUNT(*) FROM positions"); n != 50 {
			t.Errorf("%d rows, want 50", n)
		}
		if n := count(t, db, "SELECT merged FROM ingest_cursors"); n != 100 {
			t.Errorf("%d merged, want 100", n)
		}
	})
}

// The cursor is in the database: with an older copy of it the log fills the gap
// and what is there stays once.
func TestRewoundCursorFillsTheGap(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		log := logtest.NewLog()
		for n := range 100 {
			log.Add(fix(1, n), beat(1, n))
		}
		s := openStore(t, opt)
		drain(t, s, log, 1)
		db := open()
		db.MustExec("UPDATE ingest_cursors SET position = 60")
		db.MustExec("DELETE FROM positions WHERE serial >= 40")
		drain(t, s, log, 2)
		for _, table := range []string{"positions", "heartbeats"} {
			if n := count(t, db, "SELECT COUNT(*) FROM "+table); n != 100 {
				t.Errorf("%s has %d rows, want 100", table, n)
			}
		}
	})
}

func TestOlderEpochIsFenced(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, _ func() *sqlx.DB) {
		log := logtest.NewLog()
		log.Add(fix(1, 1))
		s := openStore(t, opt)
		drain(t, s, log, 5)
		log.Add(fix(1, 2))
		w := s.Writer(sqlstore.WriterOptions{Log: log, Node: "node", Epoch: 4, Decoder: &protocol.Decoder{}})
		if err := w.Run(context.Background()); !errors.Is(err, sqlstore.ErrFenced) {
			t.Errorf("got %v", err)
		}
	})
}

// A row that the database refuses goes to quarantine alone.
func TestRefusedRowIsFoundAndQuarantined(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		s := openStore(t, opt)
		db := open()
		if opt.Kind == sqlstore.MariaDB {
			db.MustExec("ALTER TABLE positions ADD CONSTRAINT c CHECK (serial <> 77)")
		} else {
			db.MustExec("CREATE TRIGGER c BEFORE INSERT ON positions WHEN NEW.serial = 77 BEGIN SELECT RAISE(ABORT, 'no 77'); END")
		}
		log := logtest.NewLog()
		for n := range 200 {
			log.Add(fix(1, n))
		}
		drain(t, s, log, 1)
		if n := count(t, db, "SELECT COUNT(*) FROM positions"); n != 199 {
			t.Errorf("%d positions, want 199", n)
		}
		var reason string
		if err := db.Get(&reason, "SELECT reason FROM quarantined_frames"); err != nil || !strings.HasPrefix(reason, "refused: ") {
			t.Errorf("quarantine: %q, %v", reason, err)
		}
	})
}

// A missing table stops storing and says so; nothing goes to quarantine.
func TestSchemaErrorStopsStoring(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		s := openStore(t, opt)
		db := open()
		db.MustExec("ALTER TABLE heartbeats RENAME TO elsewhere")
		log := logtest.NewLog()
		log.Add(beat(1, 1))
		w := s.Writer(sqlstore.WriterOptions{Log: log, Node: "node", Epoch: 1, Decoder: &protocol.Decoder{}})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		eventually(t, func() bool { return w.Status().State == sqlstore.StateSchema }, func() string { return fmt.Sprintf("%+v", w.Status()) })
		if n := count(t, db, "SELECT COUNT(*) FROM quarantined_frames"); n != 0 {
			t.Errorf("%d frames in quarantine", n)
		}
		db.MustExec("ALTER TABLE elsewhere RENAME TO heartbeats")
		eventually(t, func() bool { return w.Status().Position == 1 }, func() string { return fmt.Sprintf("%+v", w.Status()) })
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestForeignTableIsRefused(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		open().MustExec("CREATE TABLE devices (number INTEGER, owner TEXT)")
		_, err := sqlstore.Open(context.Background(), opt)
		if !errors.Is(err, sqlstore.ErrForeignTable) || !strings.Contains(err.Error(), "number, owner") {
			t.Errorf("got %v", err)
		}
	})
}

func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		s := openStore(t, opt)
		_ = s.Close()
		open().MustExec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)")
		if _, err := sqlstore.Open(context.Background(), opt); !errors.Is(err, sqlstore.ErrSchema) {
			t.Errorf("got %v", err)
		}
	})
}

func TestWrongPasswordIsSaidWithoutIt(t *testing.T) {
	t.Parallel()
	dsn := mariadbtest.Schema(t)
	_, address, _ := strings.Cut(dsn, "@")
	_, err := sqlstore.Open(context.Background(), sqlstore.Options{Kind: sqlstore.MariaDB, DSN: "nobody:s3cretpw@" + address})
	if !errors.Is(err, sqlstore.ErrLogin) || strings.Contains(err.Error(), "s3cretpw") {
		t.Errorf("got %v", err)
	}
	err = sqlstore.Check(sqlstore.Options{Kind: sqlstore.MariaDB, DSN: "user:s3cretpw@nonsense"})
	if err == nil || strings.Contains(err.Error(), "s3cretpw") {
		t.Errorf("got %v", err)
	}
}

func TestPartitionsAreMadeAheadAndDropped(t *testing.T) {
	t.Parallel()
	dsn := mariadbtest.Schema(t)
	now := base
	opt := sqlstore.Options{Kind: sqlstore.MariaDB, DSN: dsn, Now: func() time.Time { return now }, Retention: 10 * 24 * time.Hour}
	s := openStore(t, opt)
	db, err := sqlx.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test's own
	const list = "SELECT COUNT(*) FROM information_schema.partitions WHERE table_schema = DATABASE() AND table_name = 'positions'"
	if n := count(t, db, list); n != 16 {
		t.Errorf("%d partitions at first, want 15 days and the rest", n)
	}
	now = now.AddDate(0, 0, 30)
	if err := s.Maintain(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db, list+" AND partition_name = 'p20261117'"); n != 0 {
		t.Error("an old partition is still there")
	}
	if n := count(t, db, list+" AND partition_name = 'p20261231'"); n != 1 {
		t.Error("no partition a week ahead")
	}
}

func TestEveryFrameIsOneRowOrMerged(t *testing.T) {
	t.Parallel()
	var rows event.Rows
	rows.Reset()
	var m protocol.Message
	var d protocol.Decoder
	for typ := range 256 {
		rec := frame(1, typ%60, byte(typ), make([]byte, 40))
		d.Decode(&m, rec.Input, protocol.Session{IMEI: rec.Device})
		before := len(rows.Positions) + len(rows.Heartbeats) + len(rows.Events) + len(rows.Quarantined)
		event.Build(&rows, &rec, storage.Position(typ), &m)
		if after := len(rows.Positions) + len(rows.Heartbeats) + len(rows.Events) + len(rows.Quarantined); after != before+1 {
			t.Errorf("type %02x: %d rows", typ, after-before)
		}
	}
	_ = os.Stdout
}

// at makes a fix of a device whose clock is ahead.
func at(device, n int, ahead time.Duration, latitude uint32) storage.Record {
	then := base.Add(time.Duration(n)*time.Second + ahead)
	c := []byte{byte(then.Year() - 2000), byte(then.Month()), byte(then.Day()), byte(then.Hour()), byte(then.Minute()), byte(then.Second()), 0xc9}
	c = append(c, byte(latitude>>24), byte(latitude>>16), byte(latitude>>8), byte(latitude), 0x0c, 0x46, 0x58, 0x60, 50, 0x14, 0x20)
	return frame(device, n, 0x22, append(c, 0x01, 0xcc, 0x00, 0x28, 0x7d, 0x00, 0x1f, 0x71, 1, 0, 0))
}

// What cannot be is a row of positions and not the latest one.
func TestTheLatestPositionIsAPlausibleOne(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		log := logtest.NewLog()
		const here, china = 40_000_000, 72_000_000
		latest := func() (latitude float64) {
			if err := open().Get(&latitude, "SELECT latitude FROM latest_positions"); err != nil {
				t.Fatal(err)
			}
			return latitude * 1_800_000
		}
		same := func(what string, want float64) {
			t.Helper()
			if got := latest(); got < want-1 || got > want+1 {
				t.Errorf("%s: latest latitude %.0f, want %.0f", what, got, want)
			}
		}
		s := openStore(t, opt)
		log.Add(at(1, 0, 0, here), at(1, 30, 0, china))
		drain(t, s, log, 1)
		same("a jump in one batch", here)
		log.Add(at(1, 60, 0, china))
		w := drain(t, s, log, 2) // another writer knows the place from the table
		same("a jump after a start", here)
		if p := w.Problems()[imei(1)]; len(p) != 1 || p[0].Kind != event.ProblemJump || p[0].Count != 1 {
			t.Errorf("problems %+v", p)
		}
		log.Add(at(1, 90, 0, china+9), at(1, 120, 0, china+10), at(1, 150, 0, china+11))
		drain(t, s, log, 3)
		same("fixes that agree with each other", china+11)
		log.Add(at(1, 200, 330*time.Minute, china+20))
		drain(t, s, log, 4)
		same("a clock that is ahead", china+20)
		log.Add(at(1, 260, 0, china+30))
		drain(t, s, log, 5)
		same("the clock is right again", china+30)
		if n := count(t, open(), "SELECT COUNT(*) FROM positions"); n != 8 {
			t.Errorf("%d positions, want all 8", n)
		}
	})
}
