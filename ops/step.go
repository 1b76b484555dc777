package ops

import (
	"context"
	"time"

	"gt06/server/control"
)

// Class says what a step can harm, and so what is asked before it.
type Class string

// The classes.
const (
	Read  Class = "read"  // looks only
	Guest Class = "guest" // changes the machine from within
	Cloud Class = "cloud" // changes things of the account; the machine goes on
	Stop  Class = "stop"  // the machine stops or loses its root volume: never run on the machine itself
)

// Step is one thing a plan does. Precheck and Undo may be nil.
type Step struct {
	ID    string // of the thing and the verb, "volume.modify"; once in a plan
	Class Class
	Title string // what happens, in the imperative; part of the plan's hash

	// Precheck refuses a step whose beginning is not right. What Postcheck
	// will compare with is kept by Run.Keep, in the intent record.
	Precheck func(ctx context.Context, r *Run) error
	// Do has the effect. It may be called again after a crash: it looks for
	// what it made before.
	Do func(ctx context.Context, r *Run) error
	// Postcheck reads the world and says whether the effect is there. It
	// decides, not the error of Do: a reply may be lost after the effect.
	Postcheck func(ctx context.Context, r *Run) (State, error)
	// Undo takes the effect back when the step failed. It never deletes a
	// volume or a snapshot.
	Undo func(ctx context.Context, r *Run) error

	// Always: the step is done, too, when one before it has failed. A run that
	// failed and whose Always steps are done is over: the command is given
	// again. Without Always steps it is resumed at the step that failed.
	Always bool
	// Once: nobody can see afterwards whether it was done; a resume asks the
	// operator (--redo or --skip) instead of repeating it.
	Once bool
	// Unroots: from here to the end of the run the root volume may be away
	// from its place by our own doing; the gate then compares with the volume
	// that was there when the run began.
	Unroots bool

	Downtime time.Duration // expected, of the services
	Cost     string        // what it costs, "" for nothing
}

// mutates says whether a step changes anything.
func (s *Step) mutates() bool { return s.Class != Read }

// State is what a postcheck saw.
type State struct {
	Done bool
	Seen string            // the value seen, for the operator
	Out  map[string]string // what later steps need
}

// Params is what a runbook found out and was told: its steps are made of it.
type Params map[string]string

// Runbook is one way of working, as data.
type Runbook struct {
	Name     string   // the command below `gt06ctl ops`: "resize volume"
	Actions  []Action // of the changes it belongs to; nil: all
	Protects bool     // it makes a copy and harms nothing: the gate's snapshot is not asked for
	Restores bool     // it may run in a change that was aborted
	Aborts   bool     // it ends the run under way and freezes the change first
	Discover func(ctx context.Context) (Params, error)
	Steps    func(Params) []Step
}

// Run is a plan under way, for the functions of its steps.
type Run struct {
	Change Change
	Params Params

	step     *Step
	proof    control.Change
	sequence int // of the plan's record
	kept     map[string]map[string]string
	out      map[string]map[string]string
	screen   *screen
}

// Keep puts a value into the intent record of this step.
func (r *Run) Keep(name, value string) {
	if r.kept[r.step.ID] == nil {
		r.kept[r.step.ID] = map[string]string{}
	}
	r.kept[r.step.ID][name] = value
}

// Kept returns what Precheck kept for this step, in this process or before.
func (r *Run) Kept(name string) string { return r.kept[r.step.ID][name] }

// Out returns what the postcheck of an earlier step put out.
func (r *Run) Out(step, name string) string { return r.out[step][name] }

// Step returns the ID of the step under way: what is made gets it as the tag
// gt06ops:step.
func (r *Run) Step() string { return r.step.ID }

// Token returns the same text for each repetition of this step in this run and
// in no other: 40 hex digits, for APIs that take a client token.
func (r *Run) Token() string {
	return digest(r.Change.ID, r.sequence, r.step.ID)[:40]
}

// Proof is the evidence of the gate before this step, for a server that wants
// it.
func (r *Run) Proof() control.Change { return r.proof }

// Progress tells the operator something of the step: a line.
func (r *Run) Progress(text string) { r.screen.line(text) }

// Wait tells how far a long wait is. It may be called often: a terminal shows
// it in one place, a log gets it now and then.
func (r *Run) Wait(text string) { r.screen.wait(text) }
