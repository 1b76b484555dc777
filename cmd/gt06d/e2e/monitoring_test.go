package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"gt06/ops/cloud/fake"
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

// A database that is away is seen in the figures that the alerts look at.
func TestScrapeWithoutADatabase(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "--store", "mariadb", "--dsn", "user@tcp("+freeHost()+":3306)/gt06")
	d.start()
	res := fleet.New(fleet.Options{Addr: d.addr, Devices: 10, Rate: 10, Duration: time.Second}).Run(t.Context())
	if res.Lost != 0 {
		t.Errorf("%+v", res)
	}
	number := func(name string) float64 {
		_, text := d.get("/metrics")
		v, err := strconv.ParseFloat(samples(t, text)[name], 64)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return v
	}
	d.eventually("the oldest record is seconds old", func() bool { return number("gt06_store_oldest_unacked_seconds") > 2 })
	if n := number("gt06_store_queue_rows"); int64(n) < res.Answered {
		t.Errorf("%v records wait, %d frames were answered", n, res.Answered)
	}
	if number("gt06_degraded") != 1 || number("gt06_spool_unstored_bytes") == 0 || number("gt06_spool_max_bytes") == 0 || number("gt06_disk_free_bytes") == 0 {
		t.Error("the scrape tells less than status")
	}
}

// selector is a metric with its matchers in an expression.
var selector = regexp.MustCompile(`\b((?:gt06|process|go)_[a-z0-9_]+|up)\b(?:\{([^}]*)\})?`)

var matcher = regexp.MustCompile(`([a-z]+)(=~|!=|!~|=)"([^"]*)"`)

// audited returns what an audit of an account leaves for the node exporter.
func audited(t *testing.T, d *daemon) string {
	t.Helper()
	a := fake.New()
	t.Cleanup(a.Close)
	o := maintainer(t, a.Production(), d)
	path := filepath.Join(t.TempDir(), "gt06.prom")
	if _, err := o.run("audit", "--textfile", path); err != nil && !strings.Contains(err.Error(), "answers are no") {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, string(b), "check", "metrics")
	return string(b)
}

// Every metric in the alerts and on the dashboard is in the scrape of a real
// server, with the labels and the values it is asked for.
func TestEveryExpressionNamesAMetricThatExists(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, settings(t, fmt.Sprintf("  - name: crm\n    webhook: {url: 'http://%[1]s:8080/'}\n  - name: old-table\n    table: {mapping: ../../../ops/deploy/node/mapping.yaml, dsn_file: %[2]s}\n  - name: traccar\n    mirror: {address: '%[1]s:5023'}\n", freeHost(), secretFile(t, "gt06@tcp(127.0.0.1:1)/gt06")))...)
	d.start()
	d.drained()
	_, scrape := d.get("/metrics")
	scrape += audited(t, d)
	values := map[string]map[string]map[string]bool{} // of labels, by metric
	for s := range samples(t, scrape) {
		name, labels, _ := strings.Cut(s, "{")
		if values[name] == nil {
			values[name] = map[string]map[string]bool{}
		}
		for _, m := range matcher.FindAllStringSubmatch(labels, -1) {
			if values[name][m[1]] == nil {
				values[name][m[1]] = map[string]bool{}
			}
			values[name][m[1]][m[3]] = true
		}
	}
	deploy := filepath.Join("..", "..", "..", "ops", "deploy")
	exprs := map[string]string{} // where it is
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	b, err := os.ReadFile(filepath.Join(deploy, "prometheus", "rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			exprs[r.Expr] = r.Alert
		}
	}
	if b, err = os.ReadFile(filepath.Join(deploy, "grafana", "gt06.json")); err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Annotations struct{ List []struct{ Expr string } }
		Panels      []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			exprs[target.Expr] = p.Title
		}
	}
	for _, a := range dashboard.Annotations.List {
		exprs[a.Expr] = "annotations"
	}
	seen := 0
	for expr, where := range exprs {
		for _, m := range selector.FindAllStringSubmatch(expr, -1) {
			name := m[1]
			if name == "up" {
				continue // Prometheus' own
			}
			if seen++; values[name] == nil {
				t.Errorf("%s: no server has %s", where, name)
				continue
			}
			for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
				label := l[1]
				if label == "job" || label == "instance" {
					continue
				}
				for value := range strings.SplitSeq(l[3], "|") {
					if !values[name][label][value] {
						t.Errorf("%s: %s has no %s=%q", where, name, label, value)
					}
				}
			}
		}
	}
	t.Logf("%d selectors in %d expressions", seen, len(exprs))
	if seen < len(exprs) {
		t.Error("expressions without a metric: the test reads too little")
	}
}
