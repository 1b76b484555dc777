package runbook

import (
	"errors"
	"fmt"
	"testing"

	"gt06/ops"
)

// errKilled is thrown in place of the process's end.
var errKilled = errors.New("killed")

// deaths is a way of working on a machine that is the same each time, to be
// ended at every place.
type deaths struct {
	action  ops.Action
	config  string
	prepare func(s *scene, m *model)
	begin   func(s *scene) ops.Runbook // as its command makes it
	resume  func(s *scene) ops.Runbook // as a resume makes it: it is told nothing
	times   map[string]int             // effects of an undisturbed run, all of them
	again   bool                       // an effect may be repeated: it is the same thing twice
	fails   bool                       // it ends with a step that failed and was undone
}

// TestMachineKilledAndResumed ends gt06ctl after each record of each of the
// machine's runbooks, between each effect and its record, and after each single
// thing a step does; another process resumes. The machine ends as it does
// without, and nothing was done twice that harms when it is.
func TestMachineKilledAndResumed(t *testing.T) {
	t.Parallel()
	for name, d := range machineDeaths() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, passages := d.run(t, "", 0)
			t.Logf("places to die at: %v", passages)
			for point, n := range passages {
				for i := 1; i <= n; i++ {
					got, _ := d.run(t, point, i)
					if got != want {
						t.Errorf("death at %s %d of %d: the machine is\n%swanted\n%s", point, i, n, got, want)
					}
				}
			}
			for _, point := range []string{"record", "did"} {
				if passages[point] == 0 {
					t.Errorf("no %s was passed", point)
				}
			}
		})
	}
}

// run does it once, and again from the journal when it died; it returns the
// machine's end and how often each point was passed.
func (d *deaths) run(t *testing.T, point string, n int) (end string, passages map[string]int) {
	t.Helper()
	m := newModel(t)
	s := newScene(t, d.action, d.config)
	m.furnish(s)
	d.prepare(s, m)
	m.procfs()
	m.effects = map[string]int{}
	passages = map[string]int{}
	pass := func(at string) {
		if passages[at]++; at == point && passages[at] == n {
			panic(errKilled)
		}
	}
	s.session.Failpoint, s.session.Journals.Failpoint, m.happens = pass, pass, func() { pass("effect") }
	died, err := Dies(func() error { return s.apply(d.begin(s)) })
	where := fmt.Sprintf("death at %s %d", point, n)
	if died != (n > 0) || d.unwanted(err) && !died {
		t.Fatalf("%s: died %v, %v\n%s", where, died, err, &s.out)
	}
	m.happens = func() {}
	if died {
		s = s.another()
		if c := s.state(); c.Unfinished != "" {
			err = s.session.Resume(t.Context(), "", func(string) (ops.Runbook, bool) { return d.resume(s), true }, ops.Undecided)
		} else if c.LastEffect.IsZero() { // it died before its plan was written
			err = s.apply(d.begin(s))
		} else if d.fails { // it died behind its last record
			err = ops.Fail(ops.StepFailed, errKilled)
		}
		if d.unwanted(err) {
			t.Errorf("%s: %v\n%s", where, err, &s.out)
		}
	}
	if c := s.state(); c.Unfinished != "" && !d.fails {
		t.Errorf("%s: %s has not ended", where, c.Unfinished)
	}
	if _, err := s.session.Journals.Verify(t.Context()); err != nil {
		t.Errorf("%s: %v", where, err)
	}
	for effect, times := range d.times {
		// What fails is done and undone at each try.
		if n := m.effects[effect]; n != times && !d.fails && (!d.again || n < times) {
			t.Errorf("%s: %q happened %d times, want %d", where, effect, n, times)
		}
	}
	for effect := range m.effects {
		if _, ok := d.times[effect]; !ok {
			t.Errorf("%s: nobody asked for %q", where, effect)
		}
	}
	return m.state(), passages
}

func (d *deaths) unwanted(err error) bool {
	return d.fails != (err != nil) || d.fails && ops.KindOf(err) != ops.StepFailed
}

// DieAt is a failpoint that dies when a point is passed for the n-th time.
func DieAt(point string, n int) func(string) {
	passed := 0
	return func(at string) {
		if at != point {
			return
		}
		if passed++; passed == n {
			panic(errKilled)
		}
	}
}

// Dies says whether f died before its end.
func Dies(f func() error) (died bool, err error) {
	defer func() {
		if r := recover(); r != nil && r != errKilled { //nolint:errorlint // the same value
			panic(r)
		} else if r != nil {
			died, err = true, nil
		}
	}()
	return false, f()
}
