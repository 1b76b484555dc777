package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"gt06/server/control"
)

// execution is one run of a plan, in the process that began it or in a later
// one. All it knows of itself is in the journal.
type execution struct {
	s        *Session
	j        *Journal
	book     *Runbook
	plan     Plan
	live     *Run
	unrooted bool // this run may have taken the root volume away
	failed   error
	decision Decision
	tried    map[string]bool // steps with an intent
	done     map[string]bool // steps with a good result
}

func lastPlan(records []Record) int {
	for i, r := range slices.Backward(records) {
		if r.Kind == KindPlan {
			return i
		}
	}
	return -1
}

// newExecution reads what the journal says of the last plan.
func (s *Session) newExecution(j *Journal, book *Runbook, p Plan) *execution {
	i := lastPlan(j.records)
	e := &execution{
		s: s, j: j, book: book, plan: p, tried: map[string]bool{}, done: map[string]bool{},
		live: &Run{
			Change: j.Change(), Params: p.Params, sequence: j.records[i].Seq, kept: map[string]map[string]string{}, out: map[string]map[string]string{},
			screen: &screen{w: s.Out, terminal: s.Confirm.Terminal},
		},
	}
	for _, r := range j.records[i:] {
		switch r.Kind {
		case KindIntent:
			e.tried[r.Step] = true
			e.live.kept[r.Step] = maps.Clone(r.In)
		case KindResult:
			e.done[r.Step] = r.RC == 0
			e.live.out[r.Step] = r.Out
			if r.RC != 0 {
				e.failed = fmt.Errorf("%s failed: %s", r.Step, r.Out["error"])
			}
		}
	}
	if !e.plan.cleans() {
		e.failed = nil // it is resumed at the step that failed
	}
	for k := range p.Steps {
		e.unrooted = e.unrooted || p.Steps[k].Unroots && e.tried[p.Steps[k].ID]
	}
	return e
}

// errUnknown: nobody could look whether a step that was begun is done. The run
// is neither good nor failed.
var errUnknown = errors.New("gt06/ops: not known")

// run does the steps that are not done.
func (e *execution) run(ctx context.Context) error {
	left := false // an Always step is not done
	for i := range e.plan.Steps {
		step := &e.plan.Steps[i]
		if e.done[step.ID] || e.failed != nil && !step.Always {
			continue
		}
		_, _ = fmt.Fprintf(e.s.Out, "%2d/%d %s: %s\n", i+1, len(e.plan.Steps), step.ID, step.Title)
		err := e.step(ctx, step)
		if err != nil {
			e.live.screen.line("not done")
		}
		switch {
		case err == nil:
		case ctx.Err() != nil, KindOf(err) == JournalBroken, errors.Is(err, errUnknown):
			return e.explain(err)
		case len(e.tried) == 0:
			// Nothing was begun: the run is over, so that what the refusal asks
			// for (a snapshot) can be done, and the command be given again.
			return errors.Join(err, e.j.append(ctx, Record{Kind: KindPlanEnd, Run: e.live.sequence, RC: int(KindOf(err)), In: map[string]string{"book": e.plan.Book}}))
		case !e.plan.cleans():
			return e.explain(err)
		default:
			left = left || step.Always
			e.failed = errors.Join(e.failed, err)
		}
	}
	if left {
		return e.explain(e.failed)
	}
	end := Record{Kind: KindPlanEnd, Run: e.live.sequence, In: map[string]string{"book": e.plan.Book}}
	if e.failed != nil {
		end.RC = int(StepFailed)
	}
	if err := e.j.append(ctx, end); err != nil {
		return err
	}
	if e.failed != nil {
		return Fail(StepFailed, fmt.Errorf("%w; what had to be put back is", e.failed), "mend the cause, then give the command again: gt06ctl ops "+e.plan.Book)
	}
	return nil
}

// explain gives an error of a step its kind and the way on.
func (e *execution) explain(err error) error {
	if had, ok := errors.AsType[*Error](err); ok {
		return Fail(had.Kind, err, append(slices.Clone(had.Hints), resume(e.j.id))...)
	}
	return Fail(StepFailed, err, "mend the cause, then "+resume(e.j.id))
}

// step does one step: precheck, gate, intent, do, postcheck, result.
func (e *execution) step(ctx context.Context, step *Step) error {
	e.live.step = step
	began := e.j.all.Now()
	if e.tried[step.ID] {
		done, err := e.lookBack(ctx, step, began)
		if done || err != nil {
			return err
		}
	} else if step.Precheck != nil {
		if err := step.Precheck(ctx, e.live); err != nil {
			return e.refused(ctx, step, fmt.Errorf("%s: %w", step.ID, err))
		}
	}
	if err := e.gate(ctx, step); err != nil {
		return e.refused(ctx, step, err)
	}
	in := maps.Clone(e.live.kept[step.ID])
	if in == nil {
		in = map[string]string{}
	}
	in["class"] = string(step.Class)
	if err := e.j.append(ctx, Record{Kind: KindIntent, Run: e.live.sequence, Step: step.ID, In: in}); err != nil {
		return err
	}
	e.tried[step.ID] = true
	e.unrooted = e.unrooted || step.Unroots
	doErr := step.Do(ctx, e.live)
	if e.s.Failpoint != nil {
		e.s.Failpoint("did")
	}
	if ctx.Err() != nil {
		return errors.Join(doErr, ctx.Err())
	}
	state, err := step.Postcheck(ctx, e.live)
	if err != nil || !state.Done {
		return e.fail(ctx, step, began, state, doErr, err)
	}
	return e.result(ctx, step, began, state, "")
}

// lookBack asks whether a step that was begun before is done.
func (e *execution) lookBack(ctx context.Context, step *Step, began time.Time) (done bool, err error) {
	if step.Once {
		switch e.decision {
		case Redo:
			return false, nil
		case Skip:
			return true, e.result(ctx, step, began, State{Done: true, Seen: "the operator says it is done"}, "skipped")
		case Undecided:
		}
		return false, Fail(StepFailed, errors.Join(errUnknown, fmt.Errorf("%s was begun and its end is not known", step.ID)), "look whether it was done, then "+resume(e.j.id)+" --skip", "or do it again: "+resume(e.j.id)+" --redo")
	}
	state, err := step.Postcheck(ctx, e.live)
	if err != nil {
		return false, errors.Join(errUnknown, fmt.Errorf("%s: look whether it is done: %w", step.ID, err))
	}
	if !state.Done {
		return false, nil
	}
	return true, e.result(ctx, step, began, state, "was done before")
}

func (e *execution) result(ctx context.Context, step *Step, began time.Time, state State, how string) error {
	out := maps.Clone(state.Out)
	if out == nil {
		out = map[string]string{}
	}
	e.live.out[step.ID] = maps.Clone(state.Out)
	out["seen"] = state.Seen
	in := map[string]string{"class": string(step.Class)}
	if e.book.Protects {
		in["class"] = string(Read) // it harmed nothing: no validation is due for it
	}
	if how != "" {
		in["how"] = how
	}
	took := e.j.all.Now().Sub(began)
	if err := e.j.append(ctx, Record{Kind: KindResult, Run: e.live.sequence, Step: step.ID, In: in, Out: out, MS: took.Milliseconds()}); err != nil {
		return err
	}
	e.done[step.ID] = true
	e.live.screen.line(fmt.Sprintf("done in %s: %s", took.Round(time.Millisecond), state.Seen))
	return nil
}

// refused writes down that a step was not begun.
func (e *execution) refused(ctx context.Context, step *Step, cause error) error {
	if ctx.Err() != nil {
		return cause
	}
	err := e.j.append(ctx, Record{
		Kind: KindResult, Run: e.live.sequence, Step: step.ID, RC: int(KindOf(cause)),
		In: map[string]string{"class": string(Read)}, Out: map[string]string{"error": cause.Error()},
	})
	return errors.Join(cause, err)
}

// fail writes down that a step did not do what it should, and undoes it.
func (e *execution) fail(ctx context.Context, step *Step, began time.Time, state State, doErr, postErr error) error {
	cause := errors.Join(doErr, postErr)
	if cause == nil {
		cause = fmt.Errorf("it returned, and its effect is not there: %s", state.Seen)
	}
	took := e.j.all.Now().Sub(began)
	err := e.j.append(ctx, Record{
		Kind: KindResult, Run: e.live.sequence, Step: step.ID, RC: int(StepFailed), MS: took.Milliseconds(),
		In: map[string]string{"class": string(step.Class)}, Out: map[string]string{"error": cause.Error(), "seen": state.Seen},
	})
	if err != nil {
		return err
	}
	cause = fmt.Errorf("%s: %w", step.ID, cause)
	if step.Undo == nil || postErr != nil { // not known whether there is anything to undo
		return cause
	}
	undone := step.Undo(ctx, e.live)
	r := Record{Kind: KindUndo, Run: e.live.sequence, Step: step.ID}
	if undone != nil {
		r.RC, r.Out = int(StepFailed), map[string]string{"error": undone.Error()}
		cause = errors.Join(cause, fmt.Errorf("and not undone: %w", undone))
	}
	return errors.Join(cause, e.j.append(ctx, r))
}

// gate reads the gate again, now, and writes down what it said. A run that is
// already cleaning up after a failure goes on: to stop it would leave more
// behind.
func (e *execution) gate(ctx context.Context, step *Step) error {
	if !step.mutates() || e.book.Protects || e.failed != nil && step.Always {
		return nil
	}
	r, refused, err := e.s.readGate(ctx, e.j, GateQuestion{Class: step.Class, Restore: e.book.Restores, Away: e.unrooted})
	if err != nil {
		return fmt.Errorf("gate before %s: %w", step.ID, err)
	}
	r.Run, r.Step = e.live.sequence, step.ID
	if err := e.j.append(ctx, r); err != nil {
		return err
	}
	e.live.proof = e.j.proof()
	if e.j.Change().BreakGlass != "" && e.s.BreakGlass != "" {
		return nil
	}
	return refused
}

// readGate asks the gate and makes the record of what it said.
func (s *Session) readGate(ctx context.Context, j *Journal, q GateQuestion) (r Record, refused, err error) {
	q.Change = j.Change()
	if q.Consumed, q.Effect, err = s.consumed(j.id); err != nil {
		return r, nil, err
	}
	ev, err := s.Gate.Read(ctx, q)
	if err != nil {
		return r, nil, err
	}
	r = Record{Kind: KindGate, Out: map[string]string{"snapshot": ev.Snapshot, "restore": ev.Restore.String()}}
	for _, c := range ev.Checks {
		r.Out[c.ID] = "ok: " + c.Seen
		if !c.OK {
			r.Out[c.ID] = "NO: " + c.Seen + ", wanted " + c.Want
		}
	}
	if refused = ev.Checks.refusal(Refused, "the gate"); refused != nil {
		r.RC = int(Refused)
	}
	return r, refused, nil
}

// proof is what the last record, a gate's that said yes, is to others.
func (j *Journal) proof() control.Change {
	last := j.records[len(j.records)-1]
	return control.Change{ID: j.id, Snapshot: last.Out["snapshot"], CheckedAt: last.Time.Format(time.RFC3339), Head: last.Hash, Host: last.Actor.Host}
}

// Prove reads the gate of a change now, writes down what it said, and returns
// the evidence a server wants for its upgrade.
func (s *Session) Prove(ctx context.Context, id string) (control.Change, error) {
	j, unlock, err := s.work(ctx, id)
	if err != nil {
		return control.Change{}, err
	}
	defer unlock()
	r, refused, err := s.readGate(ctx, j, GateQuestion{Class: Guest})
	if err != nil {
		return control.Change{}, err
	}
	if err := j.append(ctx, r); err != nil {
		return control.Change{}, err
	}
	return j.proof(), refused
}

func encode(p Params) string {
	b, err := json.Marshal(p)
	if err != nil { // a map of strings
		panic(err)
	}
	return string(b)
}

func decode(s string) Params {
	p := Params{}
	if json.Unmarshal([]byte(s), &p) != nil {
		return nil
	}
	return p
}
