package board

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gt06/server"
)

const testStep = 5 * time.Second

func totals(accepted uint64) server.Totals {
	return server.Totals{Accepted: accepted, Frames: 10 * accepted, Closed: make([]uint64, len(server.CloseReasons()))}
}

func open(t *testing.T, path string) *Rates {
	t.Helper()
	r := newRates(testStep)
	if err := r.open(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestRatesOutliveTheProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rates")
	at := time.Unix(1_800_000_000, 0)
	old := open(t, path)
	const steps = 500 // more than there are slots
	for n := range steps {
		old.note(totals(uint64(n+1)), Gauges{Connections: n, Lag: 3}, at.Add(time.Duration(n)*testStep))
	}
	end := at.Add((steps - 1) * testStep)
	was := old.since(0, end)
	if len(was) != int(span/testStep) || was[len(was)-1].Values[colConnections] != steps-1 || was[0].Values[colAccepted] != 1 || was[0].Values[colFrames] != 10 {
		t.Fatalf("%d samples, last %v", len(was), was[len(was)-1])
	}
	// An upgrade: the next process goes on, and counts from nothing.
	now := end.Add(7 * time.Second)
	r := open(t, path)
	if is := r.since(0, end); len(is) != len(was) || is[0].At != was[0].At {
		t.Fatalf("%d samples of %d are left", len(is), len(was))
	}
	if n, known := r.accepted(10*time.Minute, 4, now); n != 120+4-1 && n != 120+4 || known != 10*time.Minute {
		t.Errorf("%v connections, known for %v", n, known)
	}
	r.note(totals(4), Gauges{}, now)
	if n, _ := r.accepted(time.Second, 2, now); n != 4 { // counted before the step ended
		t.Errorf("%v connections, 4 came", n)
	}
	if is := r.since(end.UnixMilli(), now); len(is) != 1 || is[0].Values[colAccepted] != 4 {
		t.Errorf("behind the upgrade: %v", is)
	}
	// A server that was away for long knows nothing of the time in between.
	late := now.Add(time.Hour)
	if n, known := r.accepted(10*time.Minute, 4, late); n != 0 || known != 0 {
		t.Errorf("after an hour: %v connections, known for %v", n, known)
	}
	if len(r.since(0, late)) != 0 {
		t.Error("samples of an hour ago are shown")
	}
}

// A ticker is early and late: no step takes the place of another.
func TestRatesOfAnUnevenTicker(t *testing.T) {
	t.Parallel()
	r := open(t, filepath.Join(t.TempDir(), "rates"))
	at := time.Unix(1_800_000_000, 0)
	const steps = 100
	for n := range steps {
		uneven := time.Duration(n%3-1) * testStep / 3
		r.note(totals(uint64(7*(n+1))), Gauges{}, at.Add(time.Duration(n)*testStep+uneven))
	}
	sum := float32(0)
	list := r.since(0, at.Add(steps*testStep))
	for _, s := range list {
		sum += s.Values[colAccepted]
	}
	if len(list) != steps || sum != 7*steps {
		t.Errorf("%d samples of %d, %v connections of %d", len(list), steps, sum, 7*steps)
	}
}

func TestRatesOfAnotherForm(t *testing.T) {
	t.Parallel()
	good := filepath.Join(t.TempDir(), "rates")
	r := open(t, good)
	at := time.Now()
	r.note(totals(5), Gauges{}, at)
	b, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func([]byte) []byte{
		"empty":           func([]byte) []byte { return nil },
		"half a header":   func(b []byte) []byte { return b[:20] },
		"another magic":   func(b []byte) []byte { b[0]++; return b },
		"another version": func(b []byte) []byte { b[8]++; return b },
		"other columns":   func(b []byte) []byte { b[20]++; return b },
	} {
		path := filepath.Join(t.TempDir(), "rates")
		if err := os.WriteFile(path, change(append([]byte(nil), b...)), 0o600); err != nil {
			t.Fatal(err)
		}
		r := open(t, path)
		if n := len(r.since(0, at)); n != 0 {
			t.Errorf("%s: %d samples are taken", what, n)
		}
		r.note(totals(1), Gauges{}, at)
		if n := len(open(t, path).since(0, at)); n != 1 {
			t.Errorf("%s: not begun anew: %d samples", what, n)
		}
	}
	// A file cut in the middle of a slot keeps the others.
	path := filepath.Join(t.TempDir(), "rates")
	if err := os.WriteFile(path, b[:len(b)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	if n := len(open(t, path).since(0, at)); n != 0 {
		t.Errorf("a torn slot: %d samples", n)
	}
	// Without a file the rates are kept in memory.
	r = newRates(testStep)
	if r.open(filepath.Join(path, "no")) == nil {
		t.Error("no error where no file can be")
	} else if r.note(totals(1), Gauges{}, at); len(r.since(0, at)) != 1 {
		t.Error("not even in memory")
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	before := []server.Bucket{{Seconds: .001, Count: 10}, {Seconds: .01, Count: 20}, {Seconds: .1, Count: 20}, {Seconds: math.Inf(1), Count: 20}}
	after := []server.Bucket{{Seconds: .001, Count: 60}, {Seconds: .01, Count: 118}, {Seconds: .1, Count: 120}, {Seconds: math.Inf(1), Count: 121}}
	for p, want := range map[float64]float64{.25: .505, .5: 1.0918, .99: 99.55, 1: 100} {
		if got := float64(quantile(before, after, p)); math.Abs(got-want) > .01*want {
			t.Errorf("%v: %v ms, want %v", p, got, want)
		}
	}
	if got := quantile(after, after, .5); !math.IsNaN(float64(got)) {
		t.Errorf("of nothing: %v", got)
	}
	if got := quantile(nil, nil, .5); !math.IsNaN(float64(got)) {
		t.Errorf("without buckets: %v", got)
	}
}
