package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gt06/protocol/device/fleet"
	"gt06/server/control"
	"gt06/storage/spool"
	"gt06/storage/sqlstore/mariadbtest"
)

// run sends from devices of their own and lets the server end.
func (d *daemon) run(first int) (*fleet.Fleet, fleet.Result) {
	d.t.Helper()
	f := fleet.New(fleet.Options{Addr: d.addr, Devices: 20, First: first, Rate: 20, Duration: 1500 * time.Millisecond, Torn: 0.3})
	res := f.Run(d.t.Context())
	d.check(f, res)
	return f, res
}

func (d *daemon) salvage(args ...string) (r control.Imported) {
	d.t.Helper()
	out, errs, code := d.ctl(append([]string{"spool", "import", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		d.t.Fatalf("exit code %d, %s%s", code, out, errs)
	}
	return r
}

// A data directory is restored from a copy; the one that was in use since is
// kept. Its log fills the gap, whether the database went back with the
// directory (SQLite is in it) or did not.
func TestSalvage(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"sqlite": nil, "mariadb": {"--store", "mariadb"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if args != nil {
				args = append(args, "--dsn", mariadbtest.Schema(t))
			}
			d := newDaemon(t, args...)
			d.start()
			before, res0 := d.run(0)
			d.stop()
			snapshot := filepath.Join(t.TempDir(), "snapshot")
			if err := os.CopyFS(snapshot, os.DirFS(d.dir)); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the kept one lives on for several generations
				d.start()
				d.stop()
			}
			d.start()
			since, res1 := d.run(100)
			d.kill()
			d.start() // a kill, too: its segments end where they end
			if out, _, code := d.ctl("spool", "verify", "--json"); code != 0 {
				t.Errorf("verify: exit code %d, %s", code, out)
			}

			r := newDaemon(t, args...)
			r.dir = snapshot
			r.start()
			_, errs, code := r.ctl("spool", "import", d.dir)
			if code != 3 || !strings.Contains(errs, "lives on it") {
				t.Errorf("a live directory: exit code %d, %s", code, errs)
			}
			d.stop()
			_, errs, code = r.ctl("spool", "import", r.dir)
			if code != 2 || !strings.Contains(errs, "own log") {
				t.Errorf("its own directory: exit code %d, %s", code, errs)
			}
			if _, errs, code = r.ctl("spool", "import", t.TempDir()); code != 2 {
				t.Errorf("an empty directory: exit code %d, %s", code, errs)
			}
			after, res2 := r.run(200)
			first := r.salvage(d.dir)
			if args == nil && first.Recovered < res1.Sent || args != nil && first.Recovered != 0 || first.Merged == 0 || first.Damaged+first.Gaps != 0 {
				t.Errorf("%+v; %d frames were sent since the copy", first, res1.Sent)
			}
			if first.Next.IsZero() || !first.Next.After(first.Last) {
				t.Errorf("%+v: this log goes on after it", first)
			}
			if again := r.salvage(d.dir); again.Stored != 0 || again.Recovered != 0 || again.Records != first.Records {
				t.Errorf("once more: %+v", again)
			}
			r.check(before, res0)
			r.check(since, res1)
			r.check(after, res2)
			out, errs, code := r.ctl("spool", "import", d.dir)
			if code != 0 || !strings.Contains(out, "missing    nothing") {
				t.Errorf("exit code %d, %s%s", code, out, errs)
			}
			r.kill()
			r.start()
			r.check(since, res1)
			r.check(after, res2)
		})
	}
}

// A kept log that is damaged, and an import that is cut short: what can be read
// is recovered, and said.
func TestSalvageOfADamagedLog(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	_, res := d.run(0)
	d.stop()
	segments, err := spool.Segments(filepath.Join(d.dir, "spool"))
	if err != nil {
		t.Fatal(err)
	}
	damage(t, filepath.Join(d.dir, "spool"), segments)
	r := newDaemon(t)
	r.start("GT06_FAILPOINT=store.inserted:1")
	if _, errs, code := r.ctl("spool", "import", d.dir); code == 0 {
		t.Errorf("the server died, and the import succeeded: %s", errs)
	}
	r.start()
	got := r.salvage(d.dir)
	if got.Damaged != 1 || got.SkippedBytes == 0 || got.Gaps == 0 || got.MissingBytes == 0 || got.Records < res.Sent-5 || got.Records >= res.Sent || got.Recovered < got.Records {
		t.Errorf("%+v of %d frames", got, res.Sent)
	}
	out, errs, code := r.ctl("spool", "verify", d.dir)
	if code != 7 || !strings.Contains(out, "1 places damaged") || !strings.Contains(out, "is damaged at byte") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	if out, errs, code = r.ctl("spool", "list", d.dir); code != 0 || !strings.Contains(out, "1 segments") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}

// damage flips a byte in the middle of the records.
func damage(t *testing.T, dir string, segments []spool.Segment) {
	t.Helper()
	for _, s := range segments {
		path := filepath.Join(dir, fmt.Sprintf("%010d.seg", s.Number))
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		used := len(strings.TrimRight(string(b), "\x00"))
		if used < 4096 {
			continue
		}
		b[used/2] ^= 0x40
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("no segment has records")
}
