package main

import (
	"math"
	"testing"

	"gt06/server/control"
)

func TestDaysUntilFull(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	// 30 GiB, of which 1.5 stay free at 95 %.
	for name, c := range map[string]struct {
		free         int64
		log, rows    int64 // a day
		logHas       int64
		rowsHas      int64
		elsewhere    bool
		want         float64 // negative: never
		keep, limits float64
	}{
		"full already":                              {free: gib, log: 1, want: 0},
		"nothing grows":                             {free: 10 * gib, want: -1},
		"rows alone":                                {free: 11.5 * gib, rows: gib / 4, want: 40},
		"rows whose retention ends it before":       {free: 11.5 * gib, rows: gib / 10, want: -1},
		"rows at their retention":                   {free: 3 * gib, rows: gib / 10, rowsHas: 9 * gib, want: -1},
		"the log alone, to its limit":               {free: 11.5 * gib, log: gib, want: -1},
		"the log first, then rows go on":            {free: 11.5 * gib, log: gib, rows: gib / 4, want: 24},
		"a log that its limit does not end in time": {free: 3.5 * gib, log: gib, want: 2},
		"rows on another machine":                   {free: 3.5 * gib, rows: gib, elsewhere: true, want: -1},
	} {
		b := control.Budget{
			Total: 30 * gib, Free: c.free, OnThisDisk: !c.elsewhere,
			Log:      control.BudgetPart{Bytes: c.logHas, BytesPerD: c.log, KeepDays: 7, LimitBytes: 4 * gib},
			Database: control.BudgetPart{Bytes: c.rowsHas, BytesPerD: c.rows, KeepDays: 90},
		}
		got := daysUntilFull(&b)
		switch {
		case c.want < 0 && got != nil:
			t.Errorf("%s: full in %v days", name, *got)
		case c.want >= 0 && (got == nil || math.Abs(*got-c.want) > 0.01):
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
