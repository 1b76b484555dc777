package e2e

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gt06/protocol/device"
	"gt06/protocol/device/fleet"
	"gt06/storage/sqlstore/mariadbtest"
)

// crm is a Laravel that reads: testdata/crm, served by PHP itself.
type crm struct {
	t   *testing.T
	url string
}

// crmConfig says what it reads, and as whom. The user may read the schemas and
// nothing else, as `gt06ctl store init` grants it.
type crmConfig struct{ zone, own, gt06 string }

func startCRM(t *testing.T, c crmConfig) *crm {
	t.Helper()
	for _, path := range []string{"/usr/share/php/Illuminate/autoload.php", "/usr/bin/php"} {
		if _, err := os.Stat(path); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("under CI php-laravel-framework must be installed: %v", err)
			}
			t.Skipf("no Laravel: %v (make test installs it)", err)
		}
	}
	dir := t.TempDir()
	laravel, err := filepath.Abs("../../../ops/deploy/laravel")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "bootstrap/cache"), 0o750); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the child has it
	user := fmt.Sprintf("crm_%d_%d", os.Getpid(), host.next.Add(1))
	asRoot(t, fmt.Sprintf("CREATE USER %s@localhost", user))
	t.Cleanup(func() { asRoot(t, fmt.Sprintf("DROP USER %s@localhost", user)) })
	for _, schema := range []string{c.own, c.gt06} {
		asRoot(t, fmt.Sprintf("GRANT SELECT ON %s.* TO %s@localhost", schema, user))
	}
	at := freeHost() + ":8080"
	cmd := exec.CommandContext(context.Background(), "php", "-S", at, "testdata/crm/index.php")
	cmd.Env = append(
		os.Environ(), "APP_TIMEZONE="+c.zone, "CRM_DIR="+dir, "CRM_LARAVEL="+laravel, "CRM_DATABASE="+c.own,
		"GT06_DB_DATABASE="+c.gt06, "GT06_DB_SOCKET="+os.Getenv("GT06_TEST_MARIADB"), "DB_USERNAME="+user, "DB_PASSWORD=",
	)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("the CRM said:\n%s", b[max(0, len(b)-4000):])
		}
	})
	return &crm{t: t, url: "http://" + at}
}

// asRoot runs a statement on the MariaDB of the tests.
func asRoot(t *testing.T, statement string) {
	t.Helper()
	db, err := sql.Open("mysql", "root@unix("+os.Getenv("GT06_TEST_MARIADB")+")/")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test's own
	if _, err := db.ExecContext(context.Background(), statement); err != nil {
		t.Fatal(err)
	}
}

// get asks for a page.
func (c *crm) get(path string, out any) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d: %.400s", path, resp.StatusCode, b)
	}
	return json.Unmarshal(b, out)
}

// ready waits until it serves a page.
func (c *crm) ready(path string, out any) {
	c.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for {
		err := c.get(path, out)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			c.t.Fatal(err)
		}
	}
}

// TestLaravel: the shipped models under a real Eloquent. What the simulator
// sent is shown in the application's zone, at the very second, by
// $device->latestPosition and a track; a Carbon in a condition means what it
// means in PHP; rows of tables without an id can be told apart; nothing can be
// written.
func TestLaravel(t *testing.T) {
	t.Parallel()
	dsn := mariadbtest.Schema(t)
	schema := dsn[strings.LastIndexByte(dsn, '/')+1:]
	d := newDaemon(t, "--store", "mariadb", "--dsn", dsn)
	d.start()
	f := fleet.New(fleet.Options{Addr: d.addr, Devices: 1, Rate: 20, Duration: 2 * time.Second})
	d.check(f, f.Run(t.Context()))
	imei := f.IMEIs()[0]
	var fixes []device.Place
	for _, e := range f.Ledgers()[0].Entries {
		if e.Kind.Fix() && !e.Answered.IsZero() {
			fixes = append(fixes, e.Place)
		}
	}
	last := slices.MaxFunc(fixes, func(a, b device.Place) int { return a.Time.Compare(b.Time) }).Time
	for _, zone := range []string{"Asia/Kolkata", "UTC"} {
		t.Run(zone, func(t *testing.T) {
			t.Parallel()
			c := startCRM(t, crmConfig{zone: zone, own: schema, gt06: schema})
			var got struct {
				Zone, Shown string
				Unix        int64
				Latest      struct {
					FixTime time.Time `json:"fix_time"`
					Valid   bool
					Extras  map[string]any
				}
				Track      [][3]float64
				Identities int
				Recent     int
				Future     int `json:"in_the_future"`
				Seen       int
				Eager      map[string]any
				Kinds      []string
				ByID       bool `json:"by_id"`
				Alarm      struct {
					Time  time.Time `json:"fix_time"`
					Alarm string
				}
				Extras map[string]any
			}
			c.ready("/gt06/"+imei, &got)
			here, err := time.LoadLocation(zone)
			if err != nil {
				t.Fatal(err)
			}
			if got.Zone != zone || got.Shown != last.In(here).Format(time.DateTime) || got.Unix != last.Unix() || !got.Latest.FixTime.Equal(last) {
				t.Errorf("shown %s %s, %d, as JSON %s; sent %s", got.Shown, got.Zone, got.Unix, got.Latest.FixTime, last)
			}
			if len(got.Track) != len(fixes) || got.Identities != len(fixes) || got.Recent < len(fixes) || got.Future != 0 || got.Seen != 0 {
				t.Errorf("track of %d, %d different, %d recent, %d to come, %d silent, of %d fixes", len(got.Track), got.Identities, got.Recent, got.Future, got.Seen, len(fixes))
			}
			for i, p := range got.Track {
				if !slices.ContainsFunc(fixes, func(f device.Place) bool {
					return f.Time.Unix() == int64(p[0]) && near(f.Latitude, p[1]) && near(f.Longitude, p[2])
				}) || i > 0 && p[0] < got.Track[i-1][0] {
					t.Errorf("place %d of the track was not sent, or is out of order: %v", i, p)
				}
			}
			if want := []string{imei, imei, `App\Models\Gt06\Alarm`, `App\Models\Gt06\Heartbeat`}; !slices.Equal(got.Kinds, want) {
				t.Errorf("relations: %q", got.Kinds)
			}
			if !got.ByID || got.Alarm.Alarm == "" || got.Alarm.Time.IsZero() || got.Extras["batteryLevel"] == nil || got.Eager["latest_position"] == nil || got.Eager["alarms"] == nil {
				t.Errorf("%+v", got)
			}
			refused := map[string]string{}
			c.ready("/writes/"+imei, &refused)
			for name, want := range map[string]string{"save": "by gt06d alone", "delete": "No primary key", "route": "has no id", "find": "has no id", "sql": "denied"} {
				if !strings.Contains(refused[name], want) {
					t.Errorf("%s: %q", name, refused[name])
				}
			}
		})
	}
}

func near(a, b float64) bool { return a-b < 1e-6 && b-a < 1e-6 }
