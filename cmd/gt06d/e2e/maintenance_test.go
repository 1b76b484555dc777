package e2e

import (
	"testing"
	"time"

	"gt06/ops/cloud/fake"
	"gt06/ops/cloud/mototest"
	"gt06/protocol/device/fleet"
	"gt06/server/control"
)

// TestWholeMaintenance is a planned maintenance as an operator does it, over a
// real server with devices: open, snapshot, resize from another machine, then
// on the machine restart of all there is (MariaDB, Laravel behind a dump, pm2,
// nginx, the server), validation, close. No device notices. The cloud is the
// fake, and moto.
func TestWholeMaintenance(t *testing.T) {
	t.Parallel()
	for name, cloud := range map[string]func(*testing.T) (fake.Site, func(fake.Site)){
		"fake": func(t *testing.T) (fake.Site, func(fake.Site)) {
			t.Helper()
			a := fake.New()
			t.Cleanup(a.Close)
			return a.Production(), func(s fake.Site) { a.On = s.Instance }
		},
		"moto": func(t *testing.T) (fake.Site, func(fake.Site)) {
			t.Helper()
			return mototest.Start(t), func(fake.Site) {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			site, enter := cloud(t)
			d := newDaemon(t, probation(t, time.Second)...)
			o := maintainer(t, site, d)
			beside := withServices(t, o)
			d.start()
			f, wait := least(fleet.Options{Addr: d.addr, Devices: 20, Rate: 2})
			began := time.Now()
			o.ops("change", "open", "--action", "disk-resize", "--reason", "the disk is at 91 percent")
			o.apply("snapshot", "create")
			o.ops("snapshot", "verify")
			o.apply("resize", "volume", "--size", "40")
			enter(site)
			generation := func() uint64 {
				var st control.Status
				d.eventually("the server says its generation", func() bool { return d.status(&st) == nil })
				return st.Generation
			}
			was := generation()
			o.apply("restart", "all")
			if now := generation(); now <= was {
				t.Errorf("generation %d after %d", now, was)
			}
			beside.restarted(o)
			o.ops("validate")
			o.ops("change", "close")
			o.ops("verify-journal")
			t.Logf("maintenance with %s in %s", name, time.Since(began).Round(time.Millisecond))
			res := wait()
			nobodyNoticed(t, &res, 20)
			d.check(f, res)
		})
	}
}
