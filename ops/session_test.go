package ops

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestTwoHostsOneWins races two hosts for the lock, a hundred times.
func TestTwoHostsOneWins(t *testing.T) {
	t.Parallel()
	for round := range 100 {
		m := newMemory()
		hosts := []*Session{host(t, m, "a"), host(t, m, "b")}
		errs := make([]error, len(hosts))
		var wg sync.WaitGroup
		for i, s := range hosts {
			wg.Go(func() { _, errs[i] = s.Open(t.Context(), Restart, "weekly restart of all") })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else if KindOf(err) != Busy {
				t.Errorf("round %d: %v", round, err)
			}
		}
		if won != 1 {
			t.Fatalf("round %d: %d hosts opened a change: %v", round, won, errs)
		}
	}
}

// world is what the test runbook changes: counters that its postchecks read.
type world struct {
	effects map[string]int
	fails   map[string]error // of Do, without effect
	lies    map[string]error // of Do, after the effect
}

func newWorld() *world {
	return &world{effects: map[string]int{}, fails: map[string]error{}, lies: map[string]error{}}
}

func (w *world) step(id string, class Class) Step {
	return Step{
		ID: id, Class: class, Title: "do " + id,
		Do: func(context.Context, *Run) error {
			if err := w.fails[id]; err != nil {
				return err
			}
			w.effects[id]++
			return w.lies[id]
		},
		Postcheck: func(context.Context, *Run) (State, error) {
			return State{Done: w.effects[id] > 0, Seen: fmt.Sprint(w.effects[id]), Out: map[string]string{"made": id + "-1"}}, nil
		},
	}
}

func (w *world) book() Runbook {
	return Runbook{
		Name: "test", Discover: func(context.Context) (Params, error) { return Params{"size": "40"}, nil },
		Steps: func(Params) []Step { return []Step{w.step("one", Guest), w.step("two", Cloud), w.step("three", Read)} },
	}
}

func TestAPlanIsRunAndJournalled(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := host(t, m, "ops1")
	c := opened(t, s, m)
	w := newWorld()
	w.lies["two"] = errTest // the reply is lost after the effect
	if err := apply(t, s, "", w.book()); err != nil {
		t.Fatal(err)
	}
	j, err := s.Look(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, r := range j.Records() {
		kinds = append(kinds, r.Kind+" "+r.Step)
	}
	want := "change.open |plan |gate one|step.intent one|step.result one|gate two|step.intent two|step.result two|step.intent three|step.result three|plan.end "
	if got := strings.Join(kinds, "|"); got != want {
		t.Errorf("records are %s", got)
	}
	if w.effects["one"] != 1 || w.effects["two"] != 1 {
		t.Errorf("effects %v", w.effects)
	}
	if err := s.Close(t.Context(), c.ID); KindOf(err) != Refused {
		t.Errorf("closed without a validation: %v", err)
	}
	m.now = func() time.Time { return time.Date(2026, 11, 22, 12, 1, 0, 0, time.UTC) }
	if err := s.Note(t.Context(), c.ID, KindCheck, 0, map[string]string{"name": CheckValidate}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context(), c.ID); err != nil {
		t.Error(err)
	}
	if report := j.Report(s.Config.Zone()); !strings.Contains(report, "17:30:00 IST (12:00:00 UTC)") || !strings.Contains(report, "| step.result | two |") {
		t.Errorf("report: %s", report)
	}
}

// TestWhatAStepIsTold: what it kept, what others put out, and tokens that
// repeat for the same step of the same run only.
func TestWhatAStepIsTold(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := host(t, m, "ops1")
	c := opened(t, s, m)
	var out strings.Builder
	s.Out = &out
	w := newWorld()
	tokens := map[string]int{}
	book := Runbook{Name: "test", Steps: func(Params) []Step {
		list := []Step{w.step("one", Guest), w.step("two", Guest)}
		list[1].Precheck = func(_ context.Context, r *Run) error { r.Keep("before", r.Out("one", "made")); return nil }
		list[1].Do = func(_ context.Context, r *Run) error {
			r.Progress("half way")
			tokens[r.Token()]++
			if proof := r.Proof(); proof.Check(m.now()) != nil {
				t.Errorf("proof %+v", proof)
			}
			if w.fails["two"] != nil {
				return errTest
			}
			w.effects[r.Step()]++
			return nil
		}
		check := list[1].Postcheck
		list[1].Postcheck = func(ctx context.Context, r *Run) (State, error) {
			if r.Kept("before") != "one-1" {
				t.Errorf("kept %q", r.Kept("before"))
			}
			return check(ctx, r)
		}
		return list
	}}
	w.fails["two"] = errTest
	if err := apply(t, s, c.ID, book); KindOf(err) != StepFailed {
		t.Fatal(err)
	}
	delete(w.fails, "two")
	if err := s.Resume(t.Context(), c.ID, func(string) (Runbook, bool) { return book, true }, Undecided); err != nil {
		t.Fatal(err)
	}
	if len(tokens) != 1 || !strings.Contains(out.String(), "half way") {
		t.Errorf("tokens %v, output %s", tokens, &out)
	}
	if err := apply(t, s, c.ID, book); err != nil || len(tokens) != 2 {
		t.Errorf("another run: %v, tokens %v", err, tokens)
	}
}

func TestTheGateIsReadAgainBeforeEachStep(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := host(t, m, "ops1")
	c := opened(t, s, m)
	w := newWorld()
	book := w.book()
	steps := book.Steps
	book.Steps = func(p Params) []Step {
		list := steps(p)
		do := list[0].Do
		list[0].Do = func(ctx context.Context, r *Run) error { m.facts.Snapshot.State = "error"; return do(ctx, r) }
		return list
	}
	err := apply(t, s, c.ID, book)
	if KindOf(err) != Refused || !strings.Contains(err.Error(), "G1") || w.effects["two"] != 0 {
		t.Errorf("%v, effects %v", err, w.effects)
	}
	// Mended, it goes on behind the first step.
	m.facts.Snapshot.State = "completed"
	books := func(string) (Runbook, bool) { return book, true }
	if err := s.Resume(t.Context(), c.ID, books, Undecided); err != nil || w.effects["one"] != 1 || w.effects["two"] != 1 {
		t.Errorf("%v, effects %v", err, w.effects)
	}
}

func TestAFailedStepIsUndoneAndResumed(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := host(t, m, "ops1")
	c := opened(t, s, m)
	w := newWorld()
	w.fails["two"] = errTest
	undone := 0
	book := w.book()
	steps := book.Steps
	book.Steps = func(p Params) []Step {
		list := steps(p)
		list[1].Undo = func(context.Context, *Run) error { undone++; return nil }
		return list
	}
	if err := apply(t, s, c.ID, book); KindOf(err) != StepFailed || undone != 1 {
		t.Errorf("%v, undone %d", err, undone)
	}
	if err := apply(t, s, c.ID, book); KindOf(err) != Busy {
		t.Errorf("a second run beside an unfinished one: %v", err)
	}
	delete(w.fails, "two")
	if err := s.Resume(t.Context(), c.ID, func(string) (Runbook, bool) { return book, true }, Undecided); err != nil {
		t.Error(err)
	}
	if w.effects["one"] != 1 || w.effects["two"] != 1 {
		t.Errorf("effects %v", w.effects)
	}
}

// TestWhatMustBePutBackIs: an Always step is done after a failure, and the run
// is over.
func TestWhatMustBePutBackIs(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := host(t, m, "ops1")
	c := opened(t, s, m)
	w := newWorld()
	w.fails["fix"] = errTest
	book := Runbook{Name: "test", Steps: func(Params) []Step {
		last := w.step("terminate", Cloud)
		last.Always = true
		return []Step{w.step("rescue", Cloud), w.step("fix", Guest), w.step("check", Read), last}
	}}
	if err := apply(t, s, c.ID, book); KindOf(err) != StepFailed || w.effects["terminate"] != 1 || w.effects["check"] != 0 {
		t.Errorf("%v, effects %v", err, w.effects)
	}
	// The run is over: the command can be given again.
	delete(w.fails, "fix")
	w.effects = map[string]int{}
	if err := apply(t, s, c.ID, book); err != nil || w.effects["terminate"] != 1 {
		t.Errorf("%v, effects %v", err, w.effects)
	}
}

// TestTheRootVolumeIsAway: between detach and attach there is none at its
// place, by our own doing, and the gate knows which it was.
func TestTheRootVolumeIsAway(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := host(t, m, "ops1")
	c := opened(t, s, m)
	root := m.facts.Root
	w := newWorld()
	w.fails["fix"] = errTest
	book := Runbook{Name: "test", Steps: func(Params) []Step {
		list := []Step{w.step("stop", Stop), w.step("detach", Stop), w.step("fix", Cloud), w.step("attach", Stop)}
		list[1].Unroots = true
		detach, attach := list[1].Do, list[3].Do
		list[1].Do = func(ctx context.Context, r *Run) error { m.facts.Root = Volume{}; return detach(ctx, r) }
		list[3].Do = func(ctx context.Context, r *Run) error { m.facts.Root = root; return attach(ctx, r) }
		return list
	}}
	if err := apply(t, s, c.ID, book); KindOf(err) != StepFailed || !strings.Contains(err.Error(), "fix") {
		t.Errorf("%v, effects %v", err, w.effects)
	}
	delete(w.fails, "fix")
	if err := s.Resume(t.Context(), c.ID, func(string) (Runbook, bool) { return book, true }, Undecided); err != nil || w.effects["attach"] != 1 {
		t.Errorf("%v, effects %v", err, w.effects)
	}
	// Somebody else took it away: no.
	m.facts.Root = Volume{}
	w.effects = map[string]int{}
	if err := apply(t, s, c.ID, book); KindOf(err) != Refused || !strings.Contains(err.Error(), "G2") {
		t.Errorf("%v", err)
	}
}

// TestProof: what a server is shown of a gate that said yes, also when the
// change was opened on another machine.
func TestProof(t *testing.T) {
	t.Parallel()
	m := newMemory()
	c := opened(t, host(t, m, "laptop"), m)
	s := host(t, m, "ops1")
	proof, err := s.Prove(t.Context(), c.ID)
	if err != nil || proof.ID != c.ID || proof.Snapshot != "snap-1" || proof.Host != "ops1" {
		t.Errorf("%+v, %v", proof, err)
	}
	if err := proof.Check(m.now()); err != nil {
		t.Error(err)
	}
	m.facts.Snapshot = nil
	if _, err := s.Prove(t.Context(), c.ID); KindOf(err) != Refused {
		t.Errorf("without a snapshot: %v", err)
	}
	if _, err := s.Prove(t.Context(), "c-20261122-07"); KindOf(err) != Refused {
		t.Errorf("no such change: %v", err)
	}
	if _, err := s.Prove(t.Context(), "../../etc"); KindOf(err) != Usage {
		t.Errorf("no change's name: %v", err)
	}
}

func TestConfirmation(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		confirm Confirm
		typed   string
		want    Kind
	}{
		{"nobody there", Confirm{}, "", Declined},
		{"yes without a plan", Confirm{Yes: true}, "", Declined},
		{"another plan", Confirm{Yes: true, Plan: "sha256:1"}, "", Pending},
		{"y", Confirm{Terminal: true}, "y\n", Declined},
		{"end of input", Confirm{Terminal: true}, "", Declined},
		{"another instance", Confirm{Terminal: true}, "quickport-test\n", Declined},
		{"the name", Confirm{Terminal: true}, "quickport-prod\n", 0},
	}
	for _, c := range cases {
		m := newMemory()
		s := host(t, m, "ops1")
		id := opened(t, s, m).ID
		w := newWorld()
		s.Confirm = c.confirm
		s.Confirm.In = strings.NewReader(c.typed)
		err := s.Apply(t.Context(), id, w.book())
		if c.want == 0 && err != nil || c.want != 0 && KindOf(err) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
		if done := w.effects["one"] > 0; done != (c.want == 0) {
			t.Errorf("%s: effects %v", c.name, w.effects)
		}
	}
}

func TestTheGlass(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, emergency, typed, reason string
		allowed                        bool
		want                           Kind
	}{
		{"off by default", "disk at 99 %", glassPhrase, "disk full, nobody can log in", false, Refused},
		{"no emergency", "", glassPhrase, "disk full, nobody can log in", true, Refused},
		{"wrong phrase", "disk at 99 %", "yes", "disk full, nobody can log in", true, Declined},
		{"no reason", "disk at 99 %", glassPhrase, "x", true, Usage},
		{"broken", "disk at 99 %", glassPhrase, "disk full, nobody can log in", true, 0},
	} {
		m := newMemory()
		s := host(t, m, "ops1")
		id := opened(t, s, m).ID
		m.facts.Snapshot = nil
		s.Config.AllowBreakGlass, s.BreakGlass = c.allowed, c.reason
		s.Emergency = func(context.Context) (string, error) { return c.emergency, nil }
		w := newWorld()
		p, err := s.Plan(t.Context(), id, w.book())
		if err != nil {
			t.Fatal(err)
		}
		s.Confirm = Confirm{Yes: true, Plan: p.Hash(), Terminal: true, In: strings.NewReader(c.typed + "\n")}
		err = s.Apply(t.Context(), id, w.book())
		if c.want == 0 && err != nil || c.want != 0 && KindOf(err) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
		if done := w.effects["one"] > 0; done != (c.want == 0) {
			t.Errorf("%s: effects %v", c.name, w.effects)
		}
		if j, err := s.Look(t.Context(), id); err != nil || (j.Change().BreakGlass != "") != (c.want == 0) {
			t.Errorf("%s: the journal says %v, %v", c.name, j, err)
		}
	}
}

func TestWhatStopsTheMachineIsNotRunOnIt(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := host(t, m, "ops1")
	c := opened(t, s, m)
	s.Backend.Self = func(context.Context) (string, error) { return testInstance, nil }
	w := newWorld()
	book := Runbook{Name: "test", Steps: func(Params) []Step { return []Step{w.step("stop", Stop)} }}
	if err := apply(t, s, c.ID, book); KindOf(err) != Refused || w.effects["stop"] != 0 {
		t.Errorf("%v, effects %v", err, w.effects)
	}
}

func TestWhatCannotBeBegun(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := host(t, m, "ops1")
	w := newWorld()
	if err := s.Apply(t.Context(), "", w.book()); KindOf(err) != Refused {
		t.Errorf("without a change: %v", err)
	}
	for _, reason := range []string{"", "short", "onewordwithoutspaces", "disk-resize"} {
		if _, err := s.Open(t.Context(), DiskResize, reason); KindOf(err) != Usage {
			t.Errorf("reason %q: %v", reason, err)
		}
	}
	if _, err := s.Open(t.Context(), "disk", "disk at 91 percent"); KindOf(err) != Usage {
		t.Errorf("action: %v", err)
	}
	c := opened(t, s, m)
	if _, err := s.Open(t.Context(), DiskResize, "another one beside"); KindOf(err) != Busy {
		t.Errorf("two at a time: %v", err)
	}
	book := w.book()
	book.Actions = []Action{Kernel}
	if err := apply(t, s, c.ID, book); KindOf(err) != Refused {
		t.Errorf("for another action: %v", err)
	}
	book = w.book()
	book.Discover = func(context.Context) (Params, error) { return Params{"db_password": "x"}, nil }
	if err := apply(t, s, c.ID, book); err == nil {
		t.Error("a secret became a parameter")
	}
	s.Leftovers = func(context.Context) ([]string, error) { return []string{"i-0123456789abcdef0"}, nil }
	if err := s.Close(t.Context(), c.ID); KindOf(err) != Forbidden {
		t.Errorf("a rescue instance lives: %v", err)
	}
}

// TestAbandonFreesTheLock, also that of a host that died between lock and
// journal.
func TestAbandonFreesTheLock(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := host(t, m, "ops1")
	c := opened(t, s, m)
	if err := s.Abandon(t.Context(), c.ID, "its host is gone"); err != nil || m.holder != (Holder{}) {
		t.Errorf("%v, holder %v", err, m.holder)
	}
	m.holder = Holder{Change: "c-20261122-02", Host: "dead"}
	if _, err := s.Open(t.Context(), DiskResize, "disk at 91 percent"); KindOf(err) != Busy {
		t.Errorf("the lock is held: %v", err)
	}
	if err := s.Abandon(t.Context(), "c-20261122-02", "its host is gone"); err != nil || m.holder != (Holder{}) {
		t.Errorf("%v, holder %v", err, m.holder)
	}
	// A crash may have left the file, too, and nothing in it.
	m.holder = Holder{Change: "c-20261122-03", Host: "dead"}
	if err := os.WriteFile(filepath.Join(s.Journals.Dir, "c-20261122-03.jsonl"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Abandon(t.Context(), "c-20261122-03", "its host is gone"); err != nil || m.holder != (Holder{}) {
		t.Errorf("%v, holder %v", err, m.holder)
	}
	if _, err := s.Open(t.Context(), DiskResize, "disk at 91 percent"); err != nil {
		t.Error(err)
	}
}

func TestAbort(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := host(t, m, "ops1")
	c := opened(t, s, m)
	w := newWorld()
	w.fails["two"] = errTest
	if err := apply(t, s, c.ID, w.book()); KindOf(err) != StepFailed {
		t.Fatal(err)
	}
	abort := Runbook{Name: "abort", Protects: true, Aborts: true, Steps: func(Params) []Step { return []Step{w.step("keep", Cloud)} }}
	if err := apply(t, s, c.ID, abort); err != nil || w.effects["keep"] != 1 {
		t.Errorf("%v, effects %v", err, w.effects)
	}
	if err := s.Resume(t.Context(), c.ID, func(string) (Runbook, bool) { return w.book(), true }, Undecided); err != nil || w.effects["two"] != 0 {
		t.Errorf("the aborted run went on: %v, effects %v", err, w.effects)
	}
	if err := apply(t, s, c.ID, w.book()); KindOf(err) != Refused {
		t.Errorf("other work in an aborted change: %v", err)
	}
	// Back to the snapshot, hours later and without the Elastic IP.
	m.now = func() time.Time { return time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC) }
	m.facts.Address = Address{}
	delete(w.fails, "two")
	back := w.book()
	back.Name, back.Restores = "restore instance", true
	if err := apply(t, s, c.ID, back); err != nil {
		t.Error(err)
	}
	if j, err := s.Look(t.Context(), c.ID); err != nil || j.Change().Status != Frozen {
		t.Errorf("%v, %v", j.Change().Status, err)
	}
}

func TestASnapshotMadeInTheConsole(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := host(t, m, "ops1")
	c := opened(t, s, m)
	delete(m.facts.Snapshot.Tags, TagChange)
	if _, err := s.Prove(t.Context(), c.ID); KindOf(err) != Refused || !strings.Contains(err.Error(), "G7") {
		t.Errorf("not tagged: %v", err)
	}
	adopt := map[string]string{"snapshot": "snap-1"}
	if err := s.Note(t.Context(), c.ID, KindAdopt, 0, adopt); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prove(t.Context(), c.ID); err != nil {
		t.Error(err)
	}
	if err := s.Abandon(t.Context(), c.ID, "enough of this one"); err != nil {
		t.Fatal(err)
	}
	other := opened(t, s, m)
	delete(m.facts.Snapshot.Tags, TagChange)
	if err := s.Note(t.Context(), other.ID, KindAdopt, 0, adopt); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prove(t.Context(), other.ID); KindOf(err) != Refused || !strings.Contains(err.Error(), "G8") {
		t.Errorf("used twice: %v", err)
	}
}

func TestTwoPeople(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s, second := host(t, m, "ops1"), host(t, m, "laptop")
	s.Journals.Actor.ARN, second.Journals.Actor.ARN = "arn:ravi", "arn:asha"
	s.Config.Approvals.Min = 1
	c := opened(t, s, m)
	w := newWorld()
	p, err := s.Plan(t.Context(), c.ID, w.book())
	if err != nil {
		t.Fatal(err)
	}
	for _, approve := range []func() error{
		func() error { return nil },
		func() error { return s.Approve(t.Context(), c.ID, p.Hash()) },
		func() error { return second.Approve(t.Context(), c.ID, "sha256:another") },
	} {
		if err := approve(); err != nil {
			t.Fatal(err)
		}
		if err := apply(t, s, c.ID, w.book()); KindOf(err) != Refused || w.effects["one"] != 0 {
			t.Errorf("not approved by another: %v", err)
		}
	}
	if err := second.Approve(t.Context(), c.ID, p.Hash()); err != nil {
		t.Fatal(err)
	}
	if err := apply(t, s, c.ID, w.book()); err != nil {
		t.Error(err)
	}
}

// TestWaits: a terminal shows a wait in one place, a log keeps few lines of it.
func TestWaits(t *testing.T) {
	t.Parallel()
	for _, terminal := range []bool{true, false} {
		var b strings.Builder
		s := &screen{w: &b, terminal: terminal}
		for n := range 100 {
			s.wait(fmt.Sprint(n, " %"))
		}
		s.line("done")
		want := "     0 %\n     done\n"
		if terminal {
			want = "\r\x1b[K     99 %\r\x1b[K     done\n"
		}
		if got := b.String(); !strings.HasSuffix(got, want) || !terminal && got != want {
			t.Errorf("terminal %v: %q", terminal, got)
		}
	}
}
