package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gt06/protocol/device"
	"gt06/protocol/device/fleet"
	"gt06/server/control"
	"gt06/storage/sqlstore/mariadbtest"
)

const crmMapping = `
version: 1
table: crm_positions
events: [position]
zone: Asia/Kolkata
columns: {imei: imei, kind: kind, lat: latitude, lon: longitude, speed: speed_kmh, course: course, fix_time: fix_time}
constants: {source: gt06}
`

// A table of somebody else while both sides are killed and the server is
// upgraded: each position of the fleet is one row. Nothing in the table merges
// rows, so a double would be seen.
func TestTableExactlyOnce(t *testing.T) {
	t.Parallel()
	m := mariadbtest.Start(t)
	dsn := m.Schema(t)
	db, err := sql.Open("mysql", dsn+"?parseTime=true")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test's own
	if _, err := db.ExecContext(t.Context(), `CREATE TABLE crm_positions (id BIGINT AUTO_INCREMENT PRIMARY KEY, imei VARCHAR(20) NOT NULL, kind VARCHAR(16) NOT NULL,
		lat DOUBLE, lon DOUBLE, speed DOUBLE, course DOUBLE, fix_time DATETIME NOT NULL, source VARCHAR(8) NOT NULL) ENGINE=InnoDB`); err != nil {
		t.Fatal(err)
	}
	mapping := filepath.Join(t.TempDir(), "mapping.yaml")
	if err := os.WriteFile(mapping, []byte(crmMapping), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, settings(t, fmt.Sprintf("  - name: crm\n    table: {mapping: %s, dsn_file: %s}\n", mapping, secretFile(t, dsn)))...)
	d.start()
	rounds := 4
	if soak() {
		rounds = 40
	}
	f, wait := least(fleet.Options{Addr: d.addr, Devices: 50, Rate: 10, Duration: time.Duration(rounds) * 2 * time.Second, Torn: 0.2, Redial: 50 * time.Millisecond, Settle: 30 * time.Second})
	for i := range rounds {
		pause(time.Duration(200+rand.IntN(300)) * time.Millisecond)
		m.Kill()
		pause(time.Duration(50+rand.IntN(300)) * time.Millisecond)
		m.Restart(t)
		pause(time.Duration(100+rand.IntN(300)) * time.Millisecond)
		d.kill()
		d.start()
		if i%2 == 1 {
			if u, code := d.upgrade(); code != 0 || u.Result != control.Upgraded {
				t.Errorf("exit code %d, %+v", code, u)
			}
		}
	}
	res := wait()
	d.check(f, res)
	want := d.positions(f)
	d.eventually("the table has all positions", func() bool { return len(tableRows(t, db)) >= want })
	d.caughtUp()
	rows := tableRows(t, db)
	rep := device.Compare(f.Ledgers(), rows)
	t.Logf("%d rows, %d fixes answered", len(rows), rep.Expected)
	if !rep.OK() || rep.Expected == 0 {
		t.Errorf("ledger and table differ: %+v", rep)
	}
	var st control.Status
	if err := d.status(&st); err != nil || st.Sinks[0].Kind != "table" || st.Sinks[0].Counts["refused"] != 0 {
		t.Errorf("status %+v, %v", st.Sinks, err)
	}
	if out := d.out.String(); strings.Contains(out, mariadbtest.Password) || !strings.Contains(out, "sink      crm: crm_positions\n") {
		t.Error("the password is in the log, or where the sink writes is not")
	}
}

func tableRows(t *testing.T, db *sql.DB) (list []device.Row) {
	t.Helper()
	kolkata, err := time.LoadLocation("Asia/Kolkata")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := db.QueryContext(context.Background(), "SELECT imei, kind, lat, lon, speed, course, CAST(fix_time AS CHAR) FROM crm_positions")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // Err is asked
	for rows.Next() {
		var r device.Row
		var lat, lon, speed, course sql.NullFloat64
		var at string
		if err := rows.Scan(&r.IMEI, &r.Kind, &lat, &lon, &speed, &course, &at); err != nil {
			t.Fatal(err)
		}
		r.Has = lat.Valid
		r.Place = device.Place{Latitude: lat.Float64, Longitude: lon.Float64, SpeedKMH: speed.Float64, Course: course.Float64}
		if r.Place.Time, err = time.ParseInLocation(time.DateTime, at, kolkata); err != nil {
			t.Fatal(err)
		}
		r.Place.Time = r.Place.Time.UTC()
		list = append(list, r)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}
