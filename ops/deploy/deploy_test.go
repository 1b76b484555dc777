// Package deploy holds what is installed as it is: units, alerts, a dashboard.
// Its tests ask the programs that will read them.
package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// promtool runs Prometheus' tool and returns what it said.
func promtool(t *testing.T, args ...string) (out string, ok bool) {
	t.Helper()
	if _, err := exec.LookPath("promtool"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("under CI promtool must be installed")
		}
		t.Skip("promtool is not installed")
	}
	b, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput()
	return string(b), err == nil
}

func read(t *testing.T, path string, into any, unmarshal func([]byte, any) error) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

type rules struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr         string
			Labels, Annotations map[string]string
		}
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"check", "rules", "prometheus/rules.yml"},
		{"test", "rules", "prometheus/rules_test.yml"},
	} {
		if out, ok := promtool(t, args...); !ok {
			t.Errorf("promtool %v:\n%s", args, out)
		}
	}
	// A file beside it that says otherwise must fail: the tool is awake.
	b, err := os.ReadFile("prometheus/rules_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	wrong := strings.Replace(string(b), "does not answer Prometheus", "answers", 1)
	rulesAt, err := filepath.Abs("prometheus/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	wrong = strings.Replace(wrong, "[rules.yml]", "["+rulesAt+"]", 1)
	if err := os.WriteFile(filepath.Join(dir, "wrong.yml"), []byte(wrong), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, ok := promtool(t, "test", "rules", filepath.Join(dir, "wrong.yml")); ok {
		t.Errorf("a test that is wrong passes:\n%s", out)
	}
}

func TestScrapeConfiguration(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("prometheus/scrape.yml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "prometheus.yml")
	rulesAt, err := filepath.Abs("prometheus/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(b), "/etc/prometheus/rules/gt06.yml", rulesAt, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, ok := promtool(t, "check", "config", path); !ok {
		t.Error(out)
	}
}

// Each alert is shown to fire and to be quiet, says how urgent it is, and has
// its section of the runbook; no section is left over.
func TestEachAlertHasATestAndARunbook(t *testing.T) {
	t.Parallel()
	var r rules
	read(t, "prometheus/rules.yml", &r, yaml.Unmarshal)
	var tests struct {
		Tests []struct {
			Cases []struct {
				Alert string `yaml:"alertname"`
				Want  []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	read(t, "prometheus/rules_test.yml", &tests, yaml.Unmarshal)
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, test := range tests.Tests {
		for _, c := range test.Cases {
			if len(c.Want) > 0 {
				fires[c.Alert] = true
			} else {
				quiet[c.Alert] = true
			}
		}
	}
	b, err := os.ReadFile("prometheus/RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			sections[strings.TrimSpace(name)] = true
		}
	}
	n := 0
	for _, g := range r.Groups {
		for _, a := range g.Rules {
			n++
			if !fires[a.Alert] || !quiet[a.Alert] {
				t.Errorf("%s is not shown to fire (%v) and to be quiet (%v)", a.Alert, fires[a.Alert], quiet[a.Alert])
			}
			if !sections[a.Alert] || a.Annotations["runbook"] != "RUNBOOK.md#"+strings.ToLower(a.Alert) {
				t.Errorf("%s has no section in the runbook, or does not name it: %q", a.Alert, a.Annotations["runbook"])
			}
			if s := a.Labels["severity"]; s != "page" && s != "warning" {
				t.Errorf("%s has the severity %q", a.Alert, s)
			}
			if a.Annotations["summary"] == "" || a.Annotations["description"] == "" {
				t.Errorf("%s says nothing", a.Alert)
			}
			delete(sections, a.Alert)
		}
	}
	if len(sections) > 0 || n == 0 {
		t.Errorf("%d alerts; sections of none: %v", n, sections)
	}
}

type dashboard struct {
	UID        string
	Templating struct {
		List []struct{ Name, Type, Query any }
	}
	Annotations struct{ List []struct{ Expr string } }
	Panels      []panel
}

type panel struct {
	ID          int
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	Datasource  struct{ UID string }
	Targets     []struct {
		RefID      string
		Expr       string
		Datasource struct{ UID string }
	}
}

func TestDashboard(t *testing.T) {
	t.Parallel()
	var d dashboard
	read(t, "grafana/gt06.json", &d, json.Unmarshal)
	if d.UID != "gt06" || len(d.Templating.List) == 0 || d.Templating.List[0].Name != "datasource" || d.Templating.List[0].Type != "datasource" {
		t.Errorf("uid %q; the first variable must be the data source: %+v", d.UID, d.Templating.List)
	}
	ids, titles := map[int]bool{}, map[string]bool{}
	taken := map[[2]int]string{}
	exprs := []string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 || titles[p.Title] || p.Title == "" {
			t.Errorf("panel %d %q: id and title must be its own", p.ID, p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		if g := p.GridPos; g.X < 0 || g.W < 1 || g.H < 1 || g.X+g.W > 24 {
			t.Errorf("panel %q does not fit the grid: %+v", p.Title, g)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := taken[at]; other != "" {
					t.Fatalf("panels %q and %q overlap", other, p.Title)
				}
				taken[at] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("panel %q: data source %q, %d targets", p.Title, p.Datasource.UID, len(p.Targets))
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.RefID == "" || target.Datasource.UID != "${datasource}" || target.Expr == "" {
				t.Errorf("panel %q: target %+v", p.Title, target)
			}
			refs[target.RefID] = true
			exprs = append(exprs, target.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		exprs = append(exprs, a.Expr)
	}
	// Prometheus reads every expression, with Grafana's variables filled in.
	var b strings.Builder
	b.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, e := range exprs {
		e = strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*").Replace(e)
		if strings.Contains(e, "$") {
			t.Errorf("a variable of nobody in %q", e)
		}
		quoted, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "  - {record: 'panel:expr%d', expr: %s}\n", i, quoted)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, ok := promtool(t, "check", "rules", path); !ok || !strings.Contains(out, fmt.Sprintf("%d rules found", len(exprs))) {
		t.Error(out)
	}
}
