package table_test

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"gt06/protocol/device"
	"gt06/storage"
	"gt06/storage/logtest"
	"gt06/storage/sink"
	"gt06/storage/sink/table"
	"gt06/storage/sqlstore/mariadbtest"
)

var base = time.Date(2026, 11, 24, 20, 0, 0, 0, time.UTC) // the next day in Kolkata

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../../ops/deploy/node", file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// node returns the mapping that is shipped, changed by pairs of old and new.
func node(t *testing.T, change ...string) string {
	t.Helper()
	text := strings.Replace(read(t, "mapping.yaml"), "crm.gps_positions", "gps_positions", 1)
	for i := 0; i < len(change); i += 2 {
		if !strings.Contains(text, change[i]) {
			t.Fatalf("the mapping has no %q", change[i])
		}
		text = strings.Replace(text, change[i], change[i+1], 1)
	}
	return text
}

// target is a database with the table of the Node service.
type target struct {
	*testing.T
	dsn string
	db  *sql.DB
	dir string // data directory
	gen uint64
	at  storage.Position // where this owner's log begins
}

func newTarget(t *testing.T, schema string) *target {
	t.Helper()
	g := &target{T: t, dsn: mariadbtest.Schema(t), dir: t.TempDir(), gen: 1}
	var err error
	if g.db, err = sql.Open("mysql", g.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.db.Close() })
	g.exec(schema)
	return g
}

func (g *target) exec(query string) {
	g.Helper()
	if _, err := g.db.ExecContext(context.Background(), query); err != nil {
		g.Fatalf("%s: %v", query, err)
	}
}

// ask returns what a query says, the columns with | between them, a row a line.
func (g *target) ask(query string) string {
	g.Helper()
	rows, err := g.db.QueryContext(context.Background(), query)
	if err != nil {
		g.Fatalf("%s: %v", query, err)
	}
	defer rows.Close() //nolint:errcheck // Err is asked
	columns, err := rows.Columns()
	if err != nil {
		g.Fatal(err)
	}
	var lines []string
	for rows.Next() {
		values, places := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range values {
			places[i] = &values[i]
		}
		if err := rows.Scan(places...); err != nil {
			g.Fatal(err)
		}
		line := make([]string, len(columns))
		for i, v := range values {
			line[i] = v.String
			if !v.Valid {
				line[i] = "NULL"
			}
		}
		lines = append(lines, strings.Join(line, "|"))
	}
	if err := rows.Err(); err != nil {
		g.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func (g *target) table(mapping string) *table.Table {
	g.Helper()
	m, err := table.Parse([]byte(mapping))
	if err != nil {
		g.Fatal(err)
	}
	t, err := table.New(table.Options{
		Name: "crm", DSN: g.dsn, Mapping: m, File: filepath.Join(g.dir, "crm.table"), Generation: func() uint64 { return g.gen },
		First: func() storage.Position { return g.at }, Events: sink.NewEncoder("node", m.Events), Logger: zap.NewNop(), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { _ = t.Close() })
	return t
}

// open prepares a table to be sent to, from position 0 when it is new.
func (g *target) open(mapping string) (*table.Table, sink.Mark) {
	g.Helper()
	t := g.table(mapping)
	m, err := t.Load(g.Context())
	if errors.Is(err, sink.ErrNew) {
		err = t.Save(g.Context(), m, true)
	}
	if err != nil {
		g.Fatal(err)
	}
	return t, m
}

func record(kind device.Kind, dev, n int) storage.Record {
	at := base.Add(time.Duration(n) * time.Second)
	return storage.Record{Device: device.IMEI(dev), ReceivedAt: at.Add(1500 * time.Millisecond).UnixMicro(), Model: "GT06N", Input: device.Build(kind, dev, n, at).Bytes}
}

func batch(from storage.Position, recs ...storage.Record) *sink.Batch {
	b := &sink.Batch{From: from, To: from}
	for i := range recs {
		b.To++
		b.Items = append(b.Items, sink.Item{Record: recs[i], End: b.To})
	}
	return b
}

func TestShippedMapping(t *testing.T) {
	t.Parallel()
	g := newTarget(t, read(t, "schema.sql"))
	s, _ := g.open(node(t))
	recs := []storage.Record{record(device.Location, 1, 0), record(device.Heartbeat, 1, 1), record(device.Alarm, 1, 2), record(device.Cells, 1, 3), record(device.Login, 1, 4)}
	b := batch(0, recs...)
	for range 2 { // as if the reply to the commit had been lost
		if err := s.Send(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	f, a := device.Build(device.Location, 1, 0, base).Place, device.Build(device.Alarm, 1, 2, base).Place
	line := func(p device.Place, fix, received string, r storage.Record) string {
		return fmt.Sprintf("%s|%.6f|%.6f|%.0f|%.0f|2026-11-25 01:30:%s|2026-11-25 01:30:%s|%s", device.IMEI(1), p.Latitude, p.Longitude, p.SpeedKMH, p.Course, fix, received, hex.EncodeToString(r.Input))
	}
	want := line(f, "00", "01", recs[0]) + "\n" + line(a, "02", "03", recs[2])
	if got := g.ask("SELECT imei, latitude, longitude, speed, course, fix_time, created_at, raw FROM gps_positions ORDER BY id"); got != want {
		t.Errorf("rows\n%s\nwant\n%s", got, want)
	}
	if got := fmt.Sprint(s.Counts()); got != "map[already_there:0 left_out:1 refused:0 written:2]" {
		t.Errorf("counts %s", got)
	}
	if got := g.ask("SELECT position, written, refused FROM gt06_sink_cursors"); got != "5|2|0" {
		t.Errorf("cursor %s", got)
	}
}

// What a sink wrote is read as it was.
func TestSource(t *testing.T) {
	t.Parallel()
	g := newTarget(t, read(t, "schema.sql"))
	s, _ := g.open(node(t))
	if err := s.Send(t.Context(), batch(0, record(device.Location, 1, 0), record(device.Location, 2, 1))); err != nil {
		t.Fatal(err)
	}
	g.exec("INSERT INTO gps_positions (imei, latitude, longitude, fix_time) VALUES ('0012345678901', 1, 2, '2026-01-01 00:00:00'), ('x', 1, 2, '2026-01-01'), ('1', 91, 2, '2026-01-01')")
	m, err := table.Parse([]byte(node(t)))
	if err != nil {
		t.Fatal(err)
	}
	src, err := table.Open(t.Context(), g.dsn, m)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close() //nolint:errcheck // read only
	rows, err := src.Read(t.Context(), 1, 100)
	if err != nil || len(rows) != 4 {
		t.Fatalf("%d rows behind the first, %v", len(rows), err)
	}
	p := device.Build(device.Location, 2, 1, base.Add(time.Second)).Place
	f := rows[0].Fix
	got := fmt.Sprintf("%d %s %d %d %.6f %.6f %.0f %.0f %v", rows[0].Key, f.Device, f.FixTime, f.ReceivedAt, f.Latitude, f.Longitude, f.SpeedKMH, f.Course, f.Valid)
	if want := fmt.Sprintf("2 %s %d %d000000 %.6f %.6f %.0f %.0f true", device.IMEI(2), p.Time.Unix(), base.Unix()+2, p.Latitude, p.Longitude, p.SpeedKMH, p.Course); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if id := rows[1].Fix.Device.String(); id != "000012345678901" || rows[1].Refused != "" {
		t.Errorf("zeros that a number has lost: %s, %q", id, rows[1].Refused)
	}
	if rows[2].Refused != "no IMEI" || rows[3].Refused != "no place" {
		t.Errorf("refused: %q, %q", rows[2].Refused, rows[3].Refused)
	}
	if n, err := src.Count(t.Context(), 3); n != 2 || err != nil {
		t.Errorf("%d behind the third, %v", n, err)
	}
	g.exec("ALTER TABLE gps_positions DROP PRIMARY KEY, MODIFY id BIGINT NOT NULL, ADD PRIMARY KEY (id, imei)")
	if _, err := table.Open(t.Context(), g.dsn, m); !errors.Is(err, table.ErrMapping) {
		t.Errorf("a primary key of two columns: %v", err)
	}
}

// What the table is made of must hold what the mapping gives it.
func TestTypesOfColumns(t *testing.T) {
	t.Parallel()
	g := newTarget(t, `CREATE TABLE gps_positions (
		imei BIGINT NOT NULL, lat DOUBLE, at TIMESTAMP(3) NULL, unix INT, as_text VARCHAR(19), day DATE, ign TINYINT(1), attrs LONGTEXT, knots DECIMAL(6,2), src ENUM('a','gt06') NOT NULL,
		model VARCHAR(64) NULL, sat INT NULL, who VARCHAR(10) NOT NULL DEFAULT 'x', twice INT AS (unix * 2) VIRTUAL, speed SMALLINT NOT NULL) ENGINE=InnoDB`)
	s, _ := g.open(`
version: 1
table: gps_positions
events: [position]
zone: America/New_York
columns: {imei: imei, lat: latitude, at: received_at, unix: fix_time, as_text: fix_time, day: fix_time, ign: valid, attrs: attributes, knots: speed_knots, model: model, sat: attributes.sat, speed: {field: speed_kmh, default: -1}}
constants: {src: gt06}
`)
	g.exec("SET GLOBAL time_zone = @@global.time_zone") // rights of the test's user: it must not matter
	if err := s.Send(t.Context(), batch(0, record(device.Location, 1, 0), record(device.Cells, 1, 1))); err != nil {
		t.Fatal(err)
	}
	p := device.Build(device.Location, 1, 0, base).Place
	got := strings.Split(g.ask("SELECT imei, CAST(lat AS DECIMAL(10,6)), UNIX_TIMESTAMP(at), unix, as_text, day, ign, ROUND(knots, 1), src, model, who, speed, JSON_VALID(attrs) FROM gps_positions ORDER BY unix"), "\n")
	want := []string{
		fmt.Sprintf("%s|%.6f|%d.500|%d|2026-11-24 15:00:00|2026-11-24|1|%.1f|gt06|GT06N|x|%.0f|1", device.IMEI(1), p.Latitude, base.Unix()+1, base.Unix(), p.SpeedKMH/1.852, p.SpeedKMH),
	}
	if len(got) != 2 || got[0] != want[0] || !strings.Contains(got[1], "|NULL|gt06|") || !strings.Contains(got[1], "|-1|1") {
		t.Errorf("rows\n%s\nwant\n%s and one without a place", strings.Join(got, "\n"), want[0])
	}
}

// A mapping that does not fit says so before the first row, with all there is
// to say.
func TestMappingIsCompared(t *testing.T) {
	t.Parallel()
	g := newTarget(t, read(t, "schema.sql"))
	for name, c := range map[string]struct {
		alter   string
		mapping []string
		want    []string
	}{
		"no such table":        {"", []string{"table: gps_positions", "table: elsewhere"}, []string{"there is no table elsewhere", "GRANT"}},
		"no such column":       {"", []string{"speed: speed_kmh", "velocity: speed_kmh"}, []string{"there is no column velocity: it has id, imei"}},
		"two at a time":        {"", []string{"speed: speed_kmh", "velocity: speed_kmh", "course: course", "bearing: course"}, []string{"no column velocity", "no column bearing"}},
		"must have":            {"ADD COLUMN tenant INT NOT NULL", nil, []string{"tenant is NOT NULL and has no default"}},
		"may be absent":        {"MODIFY speed INT NOT NULL", nil, []string{"speed is NOT NULL and an event can be without speed_kmh: add it to require"}},
		"too short":            {"MODIFY imei VARCHAR(12) NOT NULL", nil, []string{"imei varchar(12) cannot be imei: it is too short: values have up to 15"}},
		"too small":            {"MODIFY course TINYINT UNSIGNED", nil, []string{"course tinyint(3) unsigned cannot be course: it holds 0 to 255, and values go from 0 to 360"}},
		"narrow decimal":       {"MODIFY longitude DECIMAL(8,6)", nil, []string{"it holds values below 100"}},
		"coarse decimal":       {"MODIFY latitude DECIMAL(6,2)", nil, []string{"it keeps 2 digits of a degree"}},
		"whole degrees":        {"MODIFY latitude INT", nil, []string{"it would be whole degrees"}},
		"of another kind":      {"", []string{"fix_time: fix_time", "fix_time: imei"}, []string{"fix_time datetime cannot be imei: it is digits"}},
		"computed":             {"ADD COLUMN fast INT AS (speed * 2) VIRTUAL", []string{"speed: speed_kmh", "fast: speed_kmh"}, []string{"fast is computed by the table"}},
		"not in a transaction": {"ENGINE=Aria", nil, []string{"is Aria, which knows no transactions", "ENGINE=InnoDB"}},
	} {
		g.exec("DROP TABLE gps_positions")
		g.exec(read(t, "schema.sql"))
		if c.alter != "" {
			g.exec("ALTER TABLE gps_positions " + c.alter)
		}
		s := g.table(node(t, c.mapping...))
		_, err := s.Load(t.Context())
		_ = s.Close()
		if !errors.Is(err, table.ErrMapping) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q in it", name, err, w)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for want, change := range map[string][]string{
		"version is 2":                   {"version: 1", "version: 2"},
		"field colums not found":         {"columns:", "colums:"},
		"it is TABLE or SCHEMA.TABLE":    {"table: gps_positions", "table: a.b.c"},
		"events has \"positions\"":       {"[position]", "[positions]"},
		"\"lat\" is no field of":         {"latitude: latitude", "latitude: lat"},
		"require: \"lat\" is no field":   {"require: [latitude", "require: [lat"},
		"zone is \"Asia/Bombay City\"":   {"Asia/Kolkata", "Asia/Bombay City"},
		"on_duplicate is \"skip\"":       {"on_duplicate: ignore", "on_duplicate: skip"},
		"columns: \"a`b\" is no name":    {"speed: speed_kmh", "'a`b': speed_kmh"},
		"is no name, or in columns, too": {"columns:", "constants: {raw: x}\ncolumns:"},
	} {
		if _, err := table.Parse([]byte(node(t, change...))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", change, err, want)
		}
	}
}

// A row that the table refuses is kept elsewhere, with the reason; all others
// are written.
func TestRefusedRows(t *testing.T) {
	t.Parallel()
	g := newTarget(t, read(t, "schema.sql"))
	g.exec("ALTER TABLE gps_positions ADD CHECK (MOD(SECOND(fix_time), 10) <> 7), MODIFY raw VARCHAR(100) NULL")
	s, _ := g.open(node(t))
	var recs []storage.Record
	for n := range 40 {
		recs = append(recs, record(device.Location, 1, n))
	}
	recs[20].Input = append([]byte(nil), record(device.Location, 1, 20).Input...)
	if err := s.Send(t.Context(), batch(0, recs...)); err != nil {
		t.Fatal(err)
	}
	if got := g.ask("SELECT COUNT(*), COUNT(DISTINCT fix_time), SUM(MOD(SECOND(fix_time), 10) = 7) FROM gps_positions"); got != "36|36|0" {
		t.Errorf("rows %s, want all 36 that are not refused", got)
	}
	if got := g.ask("SELECT event_id, reason LIKE '%CONSTRAINT%', JSON_VALUE(event, '$.imei'), JSON_VALUE(event, '$.fix_time') FROM gt06_sink_refused ORDER BY id LIMIT 1"); got != "node-8-0|1|"+device.IMEI(1).String()+"|2026-11-24T20:00:07Z" {
		t.Errorf("refused %s", got)
	}
	if got := g.ask("SELECT position, written, refused FROM gt06_sink_cursors"); got != "40|36|4" || s.Counts()["refused"] != 4 {
		t.Errorf("cursor %s, counts %v", got, s.Counts())
	}
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	g := newTarget(t, read(t, "schema.sql"))
	first, second := record(device.Location, 1, 0), record(device.Location, 1, 0)
	second.ReceivedAt += 60e6
	for mode, want := range map[string]string{
		"ignore": "2026-11-25 01:30:01|written 1 already_there 1 refused 0",
		"update": "2026-11-25 01:31:01|written 2 already_there 0 refused 0",
		"error":  "2026-11-25 01:30:01|written 1 already_there 0 refused 1",
	} {
		g.exec("DROP TABLE gps_positions")
		g.exec(read(t, "schema.sql"))
		g.exec("ALTER TABLE gps_positions ADD UNIQUE (imei, fix_time)")
		g.dir = t.TempDir()
		s, _ := g.open(node(t, "on_duplicate: ignore", "on_duplicate: "+mode))
		if err := s.Send(t.Context(), batch(0, first, second)); err != nil {
			t.Fatal(err)
		}
		c := s.Counts()
		if got := fmt.Sprintf("%s|written %d already_there %d refused %d", g.ask("SELECT created_at FROM gps_positions"), c["written"], c["already_there"], c["refused"]); got != want {
			t.Errorf("%s: %s, want %s", mode, got, want)
		}
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick, limit := time.NewTicker(20*time.Millisecond), time.After(90*time.Second)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("never: " + what)
		}
	}
}

// A table that is locked, altered, dropped, and made again: the sink says what
// is wrong, waits, and no row is lost or doubled.
func TestTableInTheWay(t *testing.T) {
	t.Parallel()
	g := newTarget(t, read(t, "schema.sql"))
	log := logtest.NewLog()
	target := g.table(node(t))
	s, err := sink.New(sink.Options{Name: "crm", Kind: "table", Node: "node", Log: log, Cursor: target, Receiver: target, Logger: zap.NewNop(), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	n, dropped := 0, 0
	add := func() {
		for range 10 {
			log.Add(record(device.Location, 1, n))
			n++
		}
	}
	rows := func() string { return g.ask("SELECT COUNT(*) FROM gps_positions") }
	written := func() {
		eventually(t, fmt.Sprintf("%d rows", n-dropped), func() bool { return rows() == fmt.Sprint(n-dropped) })
	}
	add()
	written()
	for _, c := range []struct{ begin, end, says string }{
		{"ALTER TABLE gps_positions CHANGE speed velocity INT", "ALTER TABLE gps_positions CHANGE velocity speed INT", "there is no column speed"},
		{"ALTER TABLE gps_positions ADD tenant INT NOT NULL", "ALTER TABLE gps_positions DROP tenant", "tenant is NOT NULL"},
		{"RENAME TABLE gps_positions TO away", "RENAME TABLE away TO gps_positions", "there is no table gps_positions"},
	} {
		g.exec(c.begin)
		add()
		eventually(t, c.says, func() bool { return strings.Contains(s.Status().LastError, c.says) })
		g.exec(c.end)
		written()
	}
	conn, err := g.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), "LOCK TABLES gps_positions WRITE"); err != nil {
		t.Fatal(err)
	}
	add()
	eventually(t, "the lock is said", func() bool { return strings.Contains(s.Status().LastError, "Lock wait") })
	if _, err := conn.ExecContext(t.Context(), "UNLOCK TABLES"); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	written()
	// An older copy of the database is restored: rows and cursor go back together.
	g.exec("UPDATE gt06_sink_cursors SET position = position - 5")
	g.exec("DELETE FROM gps_positions ORDER BY id DESC LIMIT 5")
	add()
	written()
	dropped = n
	g.exec("DROP TABLE gps_positions")
	add()
	eventually(t, "it is gone", func() bool { return strings.Contains(s.Status().LastError, "there is no table") })
	g.exec(read(t, "schema.sql"))
	written()
	if got := g.ask("SELECT COUNT(DISTINCT fix_time) FROM gps_positions"); got != rows() {
		t.Errorf("%s different rows of %s", got, rows())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Who sends goes on where the cursor is, however it came there.
func TestWhereItGoesOn(t *testing.T) {
	t.Parallel()
	g := newTarget(t, read(t, "schema.sql"))
	s, _ := g.open(node(t))
	send := func(s *table.Table, from storage.Position, n ...int) error {
		var recs []storage.Record
		for _, i := range n {
			recs = append(recs, record(device.Location, 1, i))
		}
		return s.Send(t.Context(), batch(from, recs...))
	}
	if err := errors.Join(send(s, 0, 0, 1, 2), send(s, 3, 3)); err != nil {
		t.Fatal(err)
	}
	// An older copy of the database is restored under it.
	g.exec("UPDATE gt06_sink_cursors SET position = 2")
	g.exec("DELETE FROM gps_positions ORDER BY id DESC LIMIT 2")
	if err := send(s, 4, 4); !errors.Is(err, sink.ErrMoved) {
		t.Errorf("after the cursor moved back: %v", err)
	}
	if m, err := s.Load(t.Context()); err != nil || m.Sent != 2 {
		t.Errorf("it goes on at %d, %v", m.Sent, err)
	}
	if err := send(s, 2, 2, 3, 4); err != nil {
		t.Error(err)
	}
	// An ordinary start: the next generation's part of the log begins behind it.
	_ = s.Close()
	g.gen, g.at = 2, 10
	s, m := g.open(node(t))
	if m.Sent != 5 {
		t.Errorf("after a start it goes on at %d, want 5", m.Sent)
	}
	if err := send(s, 5, 5, 6, 7, 8, 9, 10); err != nil {
		t.Error(err)
	}
	_ = s.Close()
	// The data directory is restored to a time when only 6 records were there: what
	// the cursor says is about the log that is gone.
	g.gen, g.at = 2, 7
	s, m = g.open(node(t))
	if m.Sent != 7 {
		t.Errorf("after the directory was restored it goes on at %d, want 7", m.Sent)
	}
	if err := send(s, 7, 11); err != nil {
		t.Error(err)
	}
	_ = s.Close()
	g.gen, g.at = 3, 9
	if _, m = g.open(node(t)); m.Sent != 8 {
		t.Errorf("and after the next start at %d, want 8", m.Sent)
	}
	if got := g.ask("SELECT COUNT(*), COUNT(DISTINCT fix_time) FROM gps_positions"); got != "12|12" {
		t.Errorf("rows %s", got)
	}
}
