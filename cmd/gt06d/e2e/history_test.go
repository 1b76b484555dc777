package e2e

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gt06/server/control"
	"gt06/storage/sqlstore/mariadbtest"
)

// oldTable fills the table of the Node service with n rows of 200 devices. Of
// each 1,000 rows 5 have no place, 5 no IMEI, 5 are too old, and 10 are there
// twice.
func oldTable(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	schema, err := os.ReadFile("../../../ops/deploy/node/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{
		string(schema),
		fmt.Sprintf(`INSERT INTO gps_positions (imei, latitude, longitude, speed, course, fix_time, created_at)
			SELECT IF(MOD(seq, 1000) BETWEEN 10 AND 14, 'unknown', CONCAT('8640000000', LPAD(MOD(seq, 200), 5, '0'))), IF(MOD(seq, 1000) BETWEEN 20 AND 24, NULL, 22.5 + seq / 1e6), 88.3, MOD(seq, 90), MOD(seq, 360),
			CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', '+05:30') - INTERVAL IF(MOD(seq, 1000) BETWEEN 30 AND 34, 200, 30) DAY + INTERVAL seq SECOND, CONVERT_TZ(UTC_TIMESTAMP(), '+00:00', '+05:30') - INTERVAL 20 DAY + INTERVAL seq SECOND
			FROM seq_1_to_%d`, n),
		"INSERT INTO gps_positions (imei, latitude, longitude, speed, course, fix_time, created_at) SELECT imei, latitude, longitude, speed, course, fix_time, created_at FROM gps_positions WHERE MOD(id, 1000) BETWEEN 40 AND 49",
	} {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
}

// A table's history comes over exactly once, whoever is killed meanwhile: the
// tool, the server, the database.
func TestImportOfHistory(t *testing.T) {
	t.Parallel()
	n, kills := 20_000, 6
	if soak() {
		n, kills = 1_000_000, 40
	}
	m := mariadbtest.Start(t)
	dsn, crm := m.Schema(t), m.Schema(t)
	db, err := sql.Open("mysql", crm)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test's own
	oldTable(t, db, n)
	text, err := os.ReadFile("../../../ops/deploy/node/mapping.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// In another schema of the same server, as a CRM's is.
	mapping := filepath.Join(t.TempDir(), "mapping.yaml")
	if err := os.WriteFile(mapping, []byte(strings.Replace(string(text), "crm.", crm[strings.LastIndex(crm, "/")+1:]+".", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, "--store", "mariadb", "--dsn", dsn)
	d.start()
	d.drained()
	var plan, done control.History
	run := func(out any, args ...string) (code int) {
		text, stderr, code := d.ctl(append([]string{"import", "--json", "--mapping", mapping}, args...)...)
		if code != 0 {
			t.Log(text, stderr)
		}
		if err := json.Unmarshal([]byte(text), out); code == 0 && err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return code
	}
	total := int64(n + n/100)
	if code := run(&plan, "--plan"); code != 0 || plan.Waiting != total || plan.Read != 0 {
		t.Fatalf("plan: exit code %d, %+v", code, plan)
	}
	interrupted := 0
	for i := range kills {
		cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "gt06ctl"), "--data-dir", d.dir, "import", "--mapping", mapping)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pause(time.Duration(50+rand.IntN(250)) * time.Millisecond)
		switch i % 3 {
		case 0:
			_ = cmd.Process.Kill()
		case 1:
			d.kill()
			d.start()
		case 2:
			m.Kill()
			m.Restart(t)
		}
		if cmd.Wait() != nil {
			interrupted++
		}
	}
	if interrupted == 0 {
		t.Error("no run was interrupted: the test shows nothing")
	}
	d.eventually("the import ends", func() bool { return run(&done) == 0 })
	each := int64(n / 1000)
	if done.Read != total || done.There != 10*each || done.Written != total-25*each || done.Waiting != 0 {
		t.Errorf("%+v of %d rows", done, total)
	}
	if got := fmt.Sprint(done.Refused); got != fmt.Sprintf("map[no IMEI:%d no place:%d older than retention.rows:%d]", 5*each, 5*each, 5*each) {
		t.Errorf("refused %s", got)
	}
	t.Logf("%d rows, %d runs interrupted: %+v", total, interrupted, done)
	store, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close() //nolint:errcheck // a test's own
	// Each row of the old table that can be a position is one, with its values.
	var rows, devices, differ int64
	if err := store.QueryRowContext(t.Context(), "SELECT (SELECT COUNT(*) FROM positions), (SELECT COUNT(*) FROM devices)").Scan(&rows, &devices); err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRowContext(t.Context(), fmt.Sprintf(`SELECT COUNT(*) FROM gps_positions g LEFT JOIN (%[1]s.positions p JOIN %[1]s.devices d ON d.id = p.device_id)
		ON d.imei = g.imei AND p.fix_time = g.fix_time - INTERVAL 330 MINUTE AND ABS(p.latitude - g.latitude) < 1e-9 AND p.longitude = g.longitude AND p.speed_kmh = g.speed AND p.course = g.course
		AND p.received_at = g.created_at - INTERVAL 330 MINUTE
		WHERE p.device_id IS NULL AND g.imei <> 'unknown' AND g.latitude IS NOT NULL AND g.fix_time > UTC_TIMESTAMP() - INTERVAL 60 DAY`, dsn[strings.LastIndex(dsn, "/")+1:])).Scan(&differ); err != nil {
		t.Fatal(err)
	}
	if rows != done.Written || devices != 200 || differ != 0 {
		t.Errorf("%d rows of positions, %d devices, %d of the old rows are not there", rows, devices, differ)
	}
	// From the beginning: nothing is doubled.
	var again control.History
	if code := run(&again, "--again"); code != 0 || again.Written != 0 || again.There != done.Written+done.There {
		t.Errorf("again: exit code %d, %+v", code, again)
	}
}
