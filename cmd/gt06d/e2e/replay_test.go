package e2e

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"gt06/protocol"
	"gt06/protocol/device/fleet"
	"gt06/server/control"
	"gt06/storage/sqlstore/mariadbtest"
)

func (d *daemon) replay(args ...string) (r control.Replayed) {
	d.t.Helper()
	out, errs, code := d.ctl(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		d.t.Fatalf("%v: exit code %d, %s%s", args, code, out, errs)
	}
	return r
}

// Everything that was received is stored again: nothing is doubled, what was
// deleted comes back.
func TestReplay(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"sqlite": nil, "mariadb": {"--store", "mariadb"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if args != nil {
				args = append(args, "--dsn", mariadbtest.Schema(t))
			}
			d := newDaemon(t, args...)
			d.start()
			begin := time.Now().Add(-time.Second).UTC().Format(time.RFC3339)
			f := fleet.New(fleet.Options{Addr: d.addr, Devices: 20, Rate: 10, Duration: 2 * time.Second})
			res := f.Run(t.Context())
			d.check(f, res)
			end := time.Now().Add(time.Second).UTC().Format(time.RFC3339)
			for range 2 {
				if r := d.replay("replay", "--from", begin, "--to", end); int64(r.Frames) < res.Sent || r.Refused != 0 {
					t.Errorf("%+v of %d frames", r, res.Sent)
				}
				d.check(f, res)
			}
			if r := d.replay("replay", "--from", "2020-01-01", "--to", "2020-01-02 03:04"); r.Frames != 0 {
				t.Errorf("%+v of a time without frames", r)
			}
			if args == nil {
				db := openRows(t, d)
				for _, table := range []string{"positions", "alarms", "heartbeats", "device_events"} {
					if _, err := db.ExecContext(t.Context(), "DELETE FROM "+table); err != nil { //nolint:gosec // names of this test
						t.Fatal(err)
					}
				}
				d.replay("replay", "--from", begin, "--to", end)
				d.check(f, res)
			}
		})
	}
}

// A frame that an older decoder put into quarantine leaves it; one that nobody
// knows stays.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	r := d.replier(1, nil)
	unknown := protocol.AppendFrame(nil, 0xd7, []byte("what is this"), 9)
	if _, err := r.c.Write(unknown); err != nil {
		t.Fatal(err)
	}
	pause(200 * time.Millisecond)
	d.drained()
	db := openRows(t, d)
	for _, q := range []string{
		`INSERT INTO quarantined_frames (imei, received_at, spool_position, frame, reason) SELECT d.imei, h.received_at, h.spool_position, x'787800', 'an older decoder' FROM heartbeats h JOIN devices d ON d.id = h.device_id`,
		`DELETE FROM heartbeats`,
	} {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	list := func() (frames []control.Quarantined) {
		t.Helper()
		out, errs, code := d.ctl("quarantine", "list", "--json")
		if err := json.Unmarshal([]byte(out), &frames); err != nil || code != 0 {
			t.Fatalf("exit code %d, %s%s", code, out, errs)
		}
		return frames
	}
	before := list()
	if len(before) != 2 || before[0].Reason != "an older decoder" || before[1].Reason != "unknown frame" || before[1].IMEI != r.imei {
		t.Fatalf("%+v", before)
	}
	out, errs, code := d.ctl("quarantine", "show", strconv.FormatInt(before[1].ID, 10))
	if code != 0 || !strings.Contains(out, "unknown frame") || !strings.Contains(out, "type") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	if _, errs, code := d.ctl("quarantine", "replay", "999"); code != 2 || !strings.Contains(errs, "999") {
		t.Errorf("exit code %d, %s", code, errs)
	}
	if got := d.replay("quarantine", "replay"); got.Frames != 2 || got.Left != 1 || got.Remained != 1 || got.Gone != 0 {
		t.Errorf("%+v", got)
	}
	after := list()
	if len(after) != 1 || after[0].ID != before[1].ID || after[0].Hex != before[1].Hex {
		t.Errorf("%+v", after)
	}
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM heartbeats").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d heartbeats, %v", n, err)
	}
}
