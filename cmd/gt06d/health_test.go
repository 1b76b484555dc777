package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTrend(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lags []int64 // minute by minute
		want int64
	}{
		"nothing yet":            {nil, 0},
		"grows":                  {[]int64{10_000, 20_000, 30_000, 40_000}, 10_000},
		"grows, and is small":    {[]int64{1000, 2000, 3000, 4000}, 0},
		"a minute without":       {[]int64{10_000, 30_000, 30_000, 40_000}, 0},
		"drains again":           {[]int64{10_000, 20_000, 30_000, 40_000, 30_000}, 0},
		"less than four minutes": {[]int64{20_000}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var tr trend
			for _, lag := range c.lags {
				tr.note(lag)
			}
			if got := tr.growing(); got != c.want {
				t.Errorf("%d records a minute, want %d", got, c.want)
			}
		})
	}
}

func TestClockThatGoesBack(t *testing.T) {
	t.Parallel()
	var c clock
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	if d := c.back(now); d != 0 {
		t.Errorf("a new clock is %v behind", d)
	}
	c.note(now)
	for back, want := range map[time.Duration]time.Duration{-time.Hour: 0, time.Second: 0, 2 * time.Hour: 2 * time.Hour} {
		if d := c.back(now.Add(-back)); d != want {
			t.Errorf("%v back: %v, want %v", back, d, want)
		}
	}
}

func TestCgroupLimit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		self  string
		files map[string]string
		want  int64
	}{
		"version 2":             {"0::/system.slice/gt06d.service\n", map[string]string{"system.slice/gt06d.service/memory.max": "134217728\n"}, 128 << 20},
		"the parent is smaller": {"0::/a/b\n", map[string]string{"a/memory.max": "1048576\n", "a/b/memory.max": "max\n"}, 1 << 20},
		"version 1":             {"5:devices:/x\n4:memory:/a\n0::/\n", map[string]string{"memory/a/memory.limit_in_bytes": "2097152\n", "memory/memory.limit_in_bytes": "9223372036854771712\n"}, 2 << 20},
		"no limit in version 1": {"4:memory:/\n", map[string]string{"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		"no limit in version 2": {"0::/a\n", map[string]string{"a/memory.max": "max\n"}, 0},
		"no cgroup":             {"", nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			self := filepath.Join(root, "self")
			if err := os.WriteFile(self, []byte(c.self), 0o600); err != nil {
				t.Fatal(err)
			}
			for path, text := range c.files {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := cgroupLimit(self, root); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}
