package sop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// row is one of the table in ops/DESIGN.md.
type row struct {
	doc          string
	from, to     int
	says, became string
	test         string
}

var rowForm = regexp.MustCompile(`^\| ([AB]):(\d+)(?:-(\d+))? \| (.*?) \| (.*?) \| (Test\w+) \|$`)

func rows(t *testing.T) []row {
	t.Helper()
	b, err := os.ReadFile("../DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "## Traceability")
	var out []row
	for line := range strings.Lines(table) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| A:") && !strings.HasPrefix(line, "| B:") {
			continue
		}
		m := rowForm.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("not a row of the table: %s", line)
			continue
		}
		from, _ := strconv.Atoi(m[2])
		to := from
		if m[3] != "" {
			to, _ = strconv.Atoi(m[3])
		}
		out = append(out, row{m[1], from, to, m[4], m[5], m[6]})
	}
	return out
}

// TestEveryLineIsTraced reads both documents: each line that says something is
// in exactly one row, each row quotes its lines, and each test is there.
func TestEveryLineIsTraced(t *testing.T) {
	t.Parallel()
	table := rows(t)
	if len(table) < 100 {
		t.Fatalf("only %d rows", len(table))
	}
	for doc, name := range map[string]string{"A": "zero-downtime-maintenance-sop.md", "B": "snapshot-and-backup-strategy.md"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "sop", name))
		if err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("under CI the documents must be there: %v", err)
			}
			t.Skipf("no documents: %v", err)
		}
		lines := strings.Split(string(b), "\n")
		times := make([]int, len(lines)+1)
		for _, r := range table {
			if r.doc != doc {
				continue
			}
			if r.from < 1 || r.to < r.from || r.to > len(lines) {
				t.Errorf("%s:%d-%d is not in the document", doc, r.from, r.to)
				continue
			}
			if text := strings.Join(lines[r.from-1:r.to], "\n"); !strings.Contains(text, r.says) {
				t.Errorf("%s:%d-%d does not say %q but %q", doc, r.from, r.to, r.says, text)
			}
			for n := r.from; n <= r.to; n++ {
				times[n]++
			}
		}
		for i, line := range lines {
			if said := strings.TrimSpace(line) != ""; said && times[i+1] != 1 || times[i+1] > 1 {
				t.Errorf("%s:%d is in %d rows: %q", doc, i+1, times[i+1], line)
			}
		}
	}
}

func TestTracedTestsExist(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "grep", "-rhoE", `^func Test\w+`, "--include=*_test.go", "../..").Output()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		there[strings.TrimPrefix(strings.TrimSpace(line), "func ")] = true
	}
	for _, r := range rows(t) {
		if !there[r.test] {
			t.Errorf("%s:%d: there is no %s", r.doc, r.from, r.test)
		}
	}
}

func TestSections(t *testing.T) {
	t.Parallel()
	ids := map[string]bool{}
	for _, s := range Sections() {
		ids[s.ID] = true
		if s.Title == "" || !strings.Contains(s.Text, s.Title) {
			t.Errorf("%s: %q", s.ID, s.Text)
		}
	}
	// Each numbered heading of the paper has its section here.
	for doc, last := range map[string]int{"A": 10, "B": 12} {
		for n := 1; n <= last; n++ {
			if !ids[fmt.Sprintf("%s%d", doc, n)] {
				t.Errorf("there is no section %s%d", doc, n)
			}
		}
	}
	if got := Find("a4.2"); len(got) != 1 || !strings.Contains(got[0].Text, "resize volume") || strings.Contains(got[0].Text, "A4.3") {
		t.Errorf("A4.2: %v", got)
	}
	if got := Find("restore"); len(got) == 0 {
		t.Error("no section about a restore")
	}
	// None of the paper's commands that would be a trap is left.
	for _, doc := range Documents() {
		for line := range strings.Lines(doc) {
			if strings.HasPrefix(line, "    ") && !strings.HasPrefix(strings.TrimSpace(line), "gt06ctl ops ") {
				t.Errorf("not a command of ours: %s", line)
			}
		}
	}
}
