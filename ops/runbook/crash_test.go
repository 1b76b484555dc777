package runbook

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gt06/ops"
	"gt06/ops/host"
)

// errKilled is thrown in place of the process's end.
var errKilled = errors.New("killed")

// deaths is a way of working on a machine that is the same each time, to be
// ended at every place.
type deaths struct {
	action  ops.Action
	config  string
	prepare func(t *testing.T, s *scene, m *model)
	begin   func(s *scene) ops.Runbook // as its command makes it
	resume  func(s *scene) ops.Runbook // as a resume makes it: it is told nothing
	times   map[string]int             // effects of an undisturbed run, all of them
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
	d.prepare(t, s, m)
	m.effects = map[string]int{}
	passages = map[string]int{}
	pass := func(at string) {
		if passages[at]++; at == point && passages[at] == n {
			panic(errKilled)
		}
	}
	s.session.Failpoint, s.session.Journals.Failpoint, m.happens = pass, pass, func() { pass("effect") }
	died, err := dies(func() error { return s.apply(d.begin(s)) })
	where := fmt.Sprintf("death at %s %d", point, n)
	if died != (n > 0) || d.unwanted(err) && !died {
		t.Fatalf("%s: died %v, %v\n%s", where, died, err, &s.out)
	}
	m.happens = func() {}
	if died {
		s = s.another()
		m.furnish(s)
		if c := s.state(); c.Unfinished != "" {
			err = s.session.Resume(t.Context(), "", func(string) (ops.Runbook, bool) { return d.resume(s), true }, ops.Undecided)
		} else if c.LastEffect.IsZero() { // it died before its plan was written
			err = s.apply(d.begin(s))
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
		if d.fails {
			break // each try does it and undoes it
		}
		if m.effects[effect] != times {
			t.Errorf("%s: %q happened %d times, want %d", where, effect, m.effects[effect], times)
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

// dies says whether f died before its end.
func dies(f func() error) (died bool, err error) {
	defer func() {
		if r := recover(); r != nil && r != errKilled { //nolint:errorlint // the same value
			panic(r)
		} else if r != nil {
			died, err = true, nil
		}
	}()
	return false, f()
}

// furnish gives a scene the model as its machine.
func (m *model) furnish(s *scene) {
	s.System, s.PM2.System, s.PM2.Home, s.PM2.Program = m.system, m.system, m.home, "pm2"
	s.Config.GT06.Port, s.Watch = m.port, time.Millisecond
}

func machineDeaths() map[string]*deaths {
	const at = "/home/ubuntu/gt06-server"
	node := func(m *model) {
		m.units["gt06d.service"] = 0
		m.apps = []modelApp{{name: "crm", pid: m.fork()}, {name: oldService, dir: at, script: "index.js", pid: m.fork(), listens: true}}
		if _, err := m.pm2(host.Command{Args: []string{"save"}}); err != nil {
			m.Fatal(err)
		}
	}
	served := func(m *model) {
		node(m)
		m.apps, m.units["gt06d.service"] = m.apps[:1], m.fork()
		if _, err := m.pm2(host.Command{Args: []string{"save"}}); err != nil {
			m.Fatal(err)
		}
	}
	return map[string]*deaths{
		"takeover": {
			action: ops.Refactor, prepare: func(_ *testing.T, _ *scene, m *model) { node(m) },
			begin:  func(s *scene) ops.Runbook { return s.Takeover(false, oldService, "", "") },
			resume: func(s *scene) ops.Runbook { return s.Takeover(false, "", "", "") },
			times:  map[string]int{"pm2 stop " + oldService: 1, "start gt06d.service": 1, "pm2 delete " + oldService: 1, "pm2 save save": 1},
		},
		"takeover --back": {
			action: ops.Refactor, prepare: func(_ *testing.T, _ *scene, m *model) { served(m) },
			begin:  func(s *scene) ops.Runbook { return s.Takeover(true, oldService, at, "index.js") },
			resume: func(s *scene) ops.Runbook { return s.Takeover(false, "", "", "") },
			times:  map[string]int{"stop gt06d.service": 1, "pm2 start " + oldService: 1, "pm2 save save": 1},
		},
		"takeover, and gt06d does not start": {
			action: ops.Refactor, prepare: func(_ *testing.T, _ *scene, m *model) { node(m); m.broken["gt06d.service"] = true },
			begin:  func(s *scene) ops.Runbook { return s.Takeover(false, oldService, "", "") },
			resume: func(s *scene) ops.Runbook { return s.Takeover(false, "", "", "") }, fails: true,
			times: map[string]int{"pm2 stop " + oldService: 1, "pm2 start " + oldService: 1},
		},
		"takeover --back, and the program does not start": {
			action: ops.Refactor, prepare: func(_ *testing.T, _ *scene, m *model) { served(m); m.broken[oldService] = true },
			begin:  func(s *scene) ops.Runbook { return s.Takeover(true, oldService, at, "index.js") },
			resume: func(s *scene) ops.Runbook { return s.Takeover(false, "", "", "") }, fails: true,
			times: map[string]int{"stop gt06d.service": 1, "pm2 start " + oldService: 1, "pm2 delete " + oldService: 1, "pm2 save save": 2, "start gt06d.service": 1},
		},
	}
}
