package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"gt06/cmd/internal/bench"
)

// The short form of `make bench`: every group gives figures, beside references
// where it has any. What they are says nothing here: the machine is busy.
func TestBenchMeasures(t *testing.T) {
	t.Parallel()
	out := t.TempDir()
	args := []string{"bench", "--quick", "--json", "--out", out, "--only", "^(start|memory|cpu|storm|latency|rows)$"}
	if socket := os.Getenv("GT06_TEST_MARIADB"); socket != "" {
		args = append(args, "--mariadb", socket)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "gt06ctl"), args...)
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var figures []bench.Figure
	if err := json.Unmarshal(text, &figures); err != nil {
		t.Fatal(err)
	}
	beside := 0
	for _, f := range figures {
		if f.Value <= 0 || f.Unit == "" {
			t.Errorf("%+v", f)
		}
		if f.Beside > 0 {
			beside++
		}
	}
	if len(figures) < 8 || beside < 4 {
		t.Errorf("%d figures, %d of them beside a reference", len(figures), beside)
	}
	for _, name := range []string{"bench.md", "results.json", "memory.svg", "cpu.svg"} {
		if st, err := os.Stat(filepath.Join(out, name)); err != nil || st.Size() < 100 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !slices.ContainsFunc(figures, func(f bench.Figure) bool { return f.Goal != "" && f.Met != nil }) {
		t.Error("no figure has a goal")
	}
}
