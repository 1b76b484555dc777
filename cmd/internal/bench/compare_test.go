package bench

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "results.json")
	if err := os.WriteFile(file, []byte(`[{"name":"a","ratio":1},{"name":"b","ratio":2},{"name":"no reference"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := earlier(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		a, b  float64
		says  string
		apart string
	}{
		"the same":       {1, 2, "2 of 2 ratios", ""},
		"close":          {1.14, 1.72, "2 of 2 ratios", ""},
		"one is higher":  {1.16, 2, "1 of 2 ratios", "a"},
		"one is lower":   {1, 1.68, "1 of 2 ratios", "b"},
		"nothing shared": {0, 0, "", "no ratio in common"},
	} {
		var out strings.Builder
		err := compare(&out, before, []Figure{{Name: "a", Ratio: c.a}, {Name: "b", Ratio: c.b}, {Name: "new", Ratio: 1}, {Name: "no reference"}})
		if !strings.Contains(out.String(), c.says) || errors.Is(err, ErrApart) != (c.apart != "") || c.apart != "" && !strings.HasSuffix(err.Error(), c.apart) {
			t.Errorf("%s: %v\n%s", name, err, out.String())
		}
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "none"), t.TempDir()} {
		if _, err := earlier(path); err == nil {
			t.Errorf("%s is read", path)
		}
	}
}
