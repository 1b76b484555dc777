package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"gt06/protocol/device/fleet"
	"gt06/server/control"
	"gt06/storage/sqlstore"
)

// positions counts what is stored of a fleet's positions.
func (d *daemon) positions(f *fleet.Fleet) (n int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var stored []sqlstore.Stored
	if err := d.client().Call(ctx, "rows", control.RowsArgs{IMEIs: f.IMEIs()}, &stored); err != nil {
		d.t.Fatal(err)
	}
	for i := range stored {
		if stored[i].Table == "positions" {
			n++
		}
	}
	return n
}

// Another server, here a second gt06d, gets every frame of the fleet over kills
// of both sides and an upgrade: its own rows are those of the ledger, and it
// answers as the first one does. The devices are never reconnected.
func TestMirrorToAnotherServer(t *testing.T) {
	t.Parallel()
	if os.Getenv("TRACCAR_HOME") == "" {
		t.Log("the target is a second gt06d: TRACCAR_HOME is not set")
	} else {
		t.Log("the target is a second gt06d; this test knows no Traccar")
	}
	other := newDaemon(t)
	other.start()
	d := newDaemon(t, settings(t, fmt.Sprintf("  - name: other\n    mirror: {address: '%s', timeout: 60s}\n", other.addr))...)
	d.start()
	f, wait := least(fleet.Options{Addr: d.addr, Devices: 40, Rate: 5, Duration: 8 * time.Second, Torn: 0.2, Redial: 50 * time.Millisecond, Settle: 30 * time.Second})
	pause(time.Second)
	other.kill()
	pause(500 * time.Millisecond)
	other.start()
	pause(time.Second)
	d.kill()
	d.start()
	pause(time.Second)
	if u, code := d.upgrade(); code != 0 || u.Result != control.Upgraded {
		t.Errorf("exit code %d, %+v", code, u)
	}
	res := wait()
	d.check(f, res)
	if res.Reconnects != 0 {
		t.Errorf("%d reconnects", res.Reconnects)
	}
	want := d.positions(f)
	d.eventually("the other server has all fixes", func() bool { return other.positions(f) >= want })
	d.caughtUp()
	other.check(f, res)
	var st control.Status
	if err := d.status(&st); err != nil {
		t.Fatal(err)
	}
	c := st.Sinks[0].Counts
	t.Logf("%v", c)
	if c["same"] == 0 || c["different"]+c["missing"]+c["hung_up"]+c["undelivered"]+c["unsolicited"] != 0 || c["connections"] != 40 {
		t.Errorf("counts %v", c)
	}
}
