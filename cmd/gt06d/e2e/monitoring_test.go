package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"gt06/protocol/device/fleet"
)

// promtool runs Prometheus' tool on what it is given.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("promtool"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("under CI promtool must be installed")
		}
		t.Skip("promtool is not installed")
	}
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

// samples returns the values of a scrape by series.
func samples(t *testing.T, scrape string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for line := range strings.Lines(scrape) {
		if at := strings.LastIndexByte(line, ' '); at > 0 && line[0] != '#' {
			all[line[:at]] = strings.TrimSpace(line[at+1:])
		}
	}
	return all
}

// A scrape of a server that has served and was upgraded is as Prometheus wants
// it, and what outlives a process is told by the next one.
func TestScrape(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, probation(t, 200*time.Millisecond)...)
	d.start()
	f := fleet.New(fleet.Options{Addr: d.addr, Devices: 10, Rate: 10, Duration: time.Second})
	res := f.Run(t.Context())
	d.drained()
	_, text := d.get("/metrics")
	promtool(t, text, "check", "metrics")
	got := samples(t, text)
	for name, want := range map[string]string{
		`gt06_frames_total{dir="in",proto="0x01"}`: "10",
		"gt06_store_queue_rows":                    "0",
		"gt06_store_oldest_unacked_seconds":        "0",
		"gt06_keeper_lost":                         "0",
		"gt06_degraded":                            "0",
		`gt06_upgrade_total{result="upgraded"}`:    "0",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if u, code := d.upgrade(); code != 0 {
		t.Errorf("%+v", u)
	}
	_, text = d.get("/metrics")
	if n := samples(t, text)[`gt06_upgrade_total{result="upgraded"}`]; n != "1" {
		t.Errorf("the new program knows of %q upgrades", n)
	}
	d.check(f, res)
}
