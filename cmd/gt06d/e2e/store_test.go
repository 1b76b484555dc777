package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"gt06/protocol/device/fleet"
	"gt06/server/control"
	"gt06/storage/sqlstore/mariadbtest"
)

// What the disk needs, and whether every frame of the log is a row: rows that
// somebody deleted are found, nothing is stored by asking, and a replay brings
// them back.
func TestStoreBudgetAndVerify(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"sqlite": nil, "mariadb": {"--store", "mariadb"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if args != nil {
				args = append(args, "--dsn", mariadbtest.Schema(t))
			}
			d := newDaemon(t, args...)
			d.start()
			f := fleet.New(fleet.Options{Addr: d.addr, Devices: 20, Rate: 20, Duration: 2 * time.Second})
			res := f.Run(t.Context())
			d.check(f, res)

			var b control.Budget
			out, errs, code := d.ctl("store", "budget", "--json")
			if err := json.Unmarshal([]byte(out), &b); err != nil || code != 0 {
				t.Fatalf("exit code %d, %s%s", code, out, errs)
			}
			perSecond := float64(b.RowsPerDay) / 86400
			if b.WindowS < 1 || b.WindowS > 120 || b.Log.BytesPerD <= 0 || b.Database.Bytes <= 0 || b.Free <= 0 || b.Total < b.Free || perSecond*b.WindowS < float64(res.Sent)*0.9 || perSecond*b.WindowS > float64(res.Sent)*2 {
				t.Errorf("%+v of %d frames", b, res.Sent)
			}
			if args == nil && !b.OnThisDisk {
				t.Error("SQLite is not on this disk")
			}

			verify := func(wantCode int) (v control.Verified) {
				t.Helper()
				out, errs, code := d.ctl("store", "verify", "--from", "1h", "--json")
				if err := json.Unmarshal([]byte(out), &v); err != nil || code != wantCode {
					t.Fatalf("exit code %d, want %d: %s%s", code, wantCode, out, errs)
				}
				return v
			}
			if v := verify(0); v.Records < res.Sent || v.Rows < res.Sent || v.Missing != 0 {
				t.Errorf("%+v of %d frames", v, res.Sent)
			}
			db := openRows(t, d)
			gone := int64(0)
			for _, q := range []string{"DELETE FROM heartbeats", "DELETE FROM alarms"} {
				r, err := db.ExecContext(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				n, _ := r.RowsAffected()
				gone += n
			}
			for range 2 { // asking stores nothing
				if v := verify(7); v.Missing != gone || len(v.Places) == 0 {
					t.Errorf("%+v, %d rows were deleted", v, gone)
				}
			}
			d.replay("replay", "--from", "1h", "--to", time.Now().Add(time.Second).UTC().Format(time.RFC3339))
			if v := verify(0); v.Missing != 0 {
				t.Errorf("after a replay: %+v", v)
			}
			if out, errs, code := d.ctl("store", "migrate", "--plan"); code != 0 || !strings.Contains(out, "nothing to do") {
				t.Errorf("exit code %d, %s%s", code, out, errs)
			}
		})
	}
}
