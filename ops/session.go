package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Session is one command of an operator: what it may use.
type Session struct {
	Config     Config
	Backend    Backend
	Journals   *Journals
	Gate       Gate
	Confirm    Confirm
	Out        io.Writer // for people: plans and progress
	Failpoint  func(name string)
	BreakGlass string // the reason; "": the gate holds
	// Emergency says what is so bad that the glass may be broken; "": nothing.
	Emergency func(ctx context.Context) (string, error)
	// Vet refuses a machine on which nothing for an action should begin now: no
	// room, high load. It is not asked for copies and for ways back.
	Vet func(ctx context.Context, action Action) error
	// Leftovers are instances made for a rescue or a restore that still live.
	Leftovers func(ctx context.Context) ([]string, error)
}

func resume(id string) string { return "gt06ctl ops change resume " + id }

// Find returns the journal of a change that work may go on in, from this
// machine or the mirror. Without an id it is the one open here; it asks nothing
// of the cloud when there is none.
func (s *Session) Find(ctx context.Context, id string) (*Journal, error) {
	if id == "" {
		list, err := s.Journals.List()
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(list, func(c Change) bool { return c.live() })
		if i < 0 {
			return nil, Fail(Refused, errors.New("no change is open: nothing is changed outside of one"),
				`gt06ctl ops change open --action `+string(Restart)+` --reason "why it must be"`, "opened on another machine: --change ID")
		}
		id = list[i].ID
	}
	j, err := s.Journals.Open(ctx, id)
	if err != nil {
		return nil, err
	}
	if c := j.Change(); !c.live() {
		return nil, Fail(Refused, fmt.Errorf("change %s is %s", id, c.Status), "gt06ctl ops change open --help")
	}
	return j, nil
}

// Look returns the journal of a change in any state; without an id, of the
// newest one here.
func (s *Session) Look(ctx context.Context, id string) (*Journal, error) {
	if id == "" {
		list, err := s.Journals.List()
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			return nil, Fail(Refused, errors.New("there is no change here yet"), "gt06ctl ops change open --help")
		}
		id = list[len(list)-1].ID
	}
	return s.Journals.Open(ctx, id)
}

// Open begins a change. One at a time: the file lock, the journals and the
// lock of the cloud all say no to a second one.
func (s *Session) Open(ctx context.Context, action Action, reason string) (Change, error) {
	if err := errors.Join(validAction(action), validReason(reason, action, s.Config.Gate.MinReason)); err != nil {
		return Change{}, Fail(Usage, err, "gt06ctl ops change open --help")
	}
	lock, err := lockFile(s.Config.Lock.File)
	if err != nil {
		return Change{}, err
	}
	defer lock.unlock()
	if err := s.noneOpen(ctx); err != nil {
		return Change{}, err
	}
	facts, err := s.Backend.Facts.Facts(ctx, Question{Instance: s.Config.AWS.InstanceID})
	if err != nil {
		return Change{}, err
	}
	if facts.Instance.ID != s.Config.AWS.InstanceID {
		return Change{}, Fail(Refused, fmt.Errorf("instance %s is not in account %s, region %s", s.Config.AWS.InstanceID, facts.Account, s.Config.AWS.Region), "look at aws.instance_id, aws.region and the profile")
	}
	id, err := s.Journals.next(s.Config.Zone())
	if err != nil {
		return Change{}, err
	}
	if err := s.acquire(ctx, id); err != nil {
		return Change{}, err
	}
	// What another host wrote before it gave the lock back is seen only now.
	if err := s.noneOpen(ctx); err != nil {
		return Change{}, errors.Join(err, s.release(ctx, id))
	}
	a := facts.Address
	root, err := json.Marshal(facts.Root)
	if err != nil {
		return Change{}, err
	}
	j, err := s.Journals.create(ctx, id, map[string]string{
		"action": string(action), "reason": reason, "instance": facts.Instance.ID, "name": facts.Instance.Name, "account": facts.Account, "zone": facts.Instance.Zone,
		"root_device": facts.Instance.RootDevice, "root": string(root),
		"eip_allocation": a.Allocation, "eip_association": a.Association, "eip": a.IP, "eip_instance": a.Instance,
	})
	if err != nil {
		return Change{}, err
	}
	return j.Change(), nil
}

// noneOpen refuses while a change is open, here or on another host.
func (s *Session) noneOpen(ctx context.Context) error {
	if err := s.Journals.Sync(ctx); err != nil {
		return err
	}
	list, err := s.Journals.List()
	if err != nil {
		return err
	}
	for i := range list {
		if c := &list[i]; c.live() {
			return Fail(Busy, fmt.Errorf("change %s (%s: %s) is %s since %s, by %s on %s: one change at a time", c.ID, c.Action, c.Reason, c.Status, at(c.OpenedAt), c.OpenedBy.User, c.OpenedBy.Host),
				"gt06ctl ops change show "+c.ID, "finish it: gt06ctl ops change close "+c.ID)
		}
	}
	return nil
}

func (s *Session) holder(id string) Holder {
	return Holder{Change: id, Host: s.Journals.Actor.Host, Since: s.Journals.Now().UTC().Format(time.RFC3339Nano)}
}

func (s *Session) acquire(ctx context.Context, id string) error {
	if s.Backend.Lock == nil {
		return nil
	}
	who, err := s.Backend.Lock.Acquire(ctx, s.holder(id))
	if errors.Is(err, ErrHeld) {
		return Fail(Busy, fmt.Errorf("change %s of host %s has the lock since %s", who.Change, who.Host, who.Since),
			"gt06ctl ops change show "+who.Change, "when its host is gone for good: gt06ctl ops change abandon "+who.Change)
	}
	return err
}

func (s *Session) release(ctx context.Context, id string) error {
	if s.Backend.Lock == nil {
		return nil
	}
	who, err := s.Backend.Lock.Holder(ctx)
	if err != nil || who.Change != id {
		return err
	}
	return s.Backend.Lock.Release(ctx, who)
}

// work opens a change to change something in it: the locks of machine and
// cloud are held.
func (s *Session) work(ctx context.Context, id string) (*Journal, func(), error) {
	lock, err := lockFile(s.Config.Lock.File)
	if err != nil {
		return nil, nil, err
	}
	j, err := s.Find(ctx, id)
	if err == nil && s.Backend.Lock != nil {
		var who Holder
		if who, err = s.Backend.Lock.Holder(ctx); err == nil && who.Change != j.id {
			err = s.acquire(ctx, j.id)
		}
	}
	if err != nil {
		lock.unlock()
		return nil, nil, err
	}
	return j, lock.unlock, nil
}

// Plan makes the plan of a runbook in a change and changes nothing.
func (s *Session) Plan(ctx context.Context, id string, book Runbook) (Plan, error) {
	j, err := s.Find(ctx, id)
	if err != nil {
		return Plan{}, err
	}
	c := j.Change()
	if err := s.fits(&c, &book); err != nil {
		return Plan{}, err
	}
	return discover(ctx, c.ID, &book)
}

// fits says whether a runbook belongs into a change as it is.
func (s *Session) fits(c *Change, book *Runbook) error {
	switch {
	case c.Unfinished != "" && !book.Aborts:
		return Fail(Busy, fmt.Errorf("%s of change %s has not ended", c.Unfinished, c.ID), resume(c.ID), "or stop here and keep the evidence: gt06ctl ops abort --change "+c.ID)
	case c.Instance != s.Config.AWS.InstanceID:
		return Fail(Refused, fmt.Errorf("change %s is for instance %s, the configuration names %s", c.ID, c.Instance, s.Config.AWS.InstanceID))
	case book.Actions != nil && !slices.Contains(book.Actions, c.Action):
		names := make([]string, 0, len(book.Actions))
		for _, a := range book.Actions {
			names = append(names, string(a))
		}
		return Fail(Refused, fmt.Errorf("%s belongs into a change for %s; %s is for %s", book.Name, strings.Join(names, " or "), c.ID, c.Action),
			"close this one first: gt06ctl ops change close "+c.ID)
	case c.Status == Frozen && !book.Restores && !book.Protects:
		return Fail(Refused, fmt.Errorf("change %s was aborted: only a restore is possible", c.ID), "gt06ctl ops restore instance --change "+c.ID)
	}
	return nil
}

// Apply plans again, has the plan confirmed, and runs it.
func (s *Session) Apply(ctx context.Context, id string, book Runbook) error {
	j, unlock, err := s.work(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	c := j.Change()
	if err := s.fits(&c, &book); err != nil {
		return err
	}
	if s.Vet != nil && s.BreakGlass == "" && !book.Protects && !book.Restores && !book.Aborts {
		if err := s.Vet(ctx, c.Action); err != nil {
			return err
		}
	}
	p, err := discover(ctx, c.ID, &book)
	if err != nil {
		if KindOf(err) == Forbidden {
			err = errors.Join(err, j.append(ctx, Record{Kind: KindForbidden, RC: int(Forbidden), In: map[string]string{"book": book.Name, "error": err.Error()}}))
		}
		return err
	}
	if err := s.offHost(ctx, p); err != nil {
		return err
	}
	if err := s.confirm(ctx, p); err != nil {
		return err
	}
	if err := s.approved(j, p); err != nil {
		return err
	}
	if book.Aborts && c.Status != Frozen {
		if err := j.append(ctx, Record{Kind: KindFreeze, In: map[string]string{"unfinished": c.Unfinished}}); err != nil {
			return err
		}
	}
	if s.BreakGlass != "" {
		if err := s.breakGlass(ctx, j, p); err != nil {
			return err
		}
	}
	if !p.mutates() {
		_, _ = fmt.Fprintln(s.Out, "nothing to do")
		return nil
	}
	if err := j.append(ctx, Record{Kind: KindPlan, In: map[string]string{"book": p.Book, "params": encode(p.Params), "text": p.Text(), "plan": p.Hash()}}); err != nil {
		return err
	}
	return s.newExecution(j, &book, p).run(ctx)
}

// Decision is what the operator says of a step of which nobody can see whether
// it was done.
type Decision string

// The decisions.
const (
	Undecided Decision = ""
	Redo      Decision = "redo"
	Skip      Decision = "skip"
)

// Resume goes on with the run of a change that did not end. The books are those
// a plan can name.
func (s *Session) Resume(ctx context.Context, id string, books func(name string) (Runbook, bool), d Decision) error {
	j, unlock, err := s.work(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	c := j.Change()
	if c.Unfinished == "" {
		_, _ = fmt.Fprintf(s.Out, "change %s has nothing to resume\n", c.ID)
		return nil
	}
	book, ok := books(c.Unfinished)
	if !ok {
		return Fail(Usage, fmt.Errorf("this version knows no %q", c.Unfinished), "use the version that began it")
	}
	i := lastPlan(j.records)
	p, err := plan(c.ID, &book, decode(j.records[i].In["params"]))
	if err != nil {
		return err
	}
	if p.Hash() != j.records[i].In["plan"] {
		return Fail(Refused, fmt.Errorf("the plan of %s would be another one in this version", p.Book), "use the version that began it")
	}
	if err := s.offHost(ctx, p); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(s.Out, "resuming %s of change %s\n", p.Book, c.ID)
	e := s.newExecution(j, &book, p)
	e.decision = d
	return e.run(ctx)
}

// offHost refuses what would stop the machine it runs on, before anything of
// the plan is done.
func (s *Session) offHost(ctx context.Context, p Plan) error {
	stops := slices.ContainsFunc(p.Steps, func(st Step) bool { return st.Class == Stop })
	if !stops || s.Backend.Self == nil {
		return nil
	}
	self, err := s.Backend.Self(ctx)
	if err != nil {
		return err
	}
	if self == s.Config.AWS.InstanceID {
		return Fail(Refused, fmt.Errorf("%s stops %s, and this is %s: gt06ctl would end in the middle of it", p.Book, self, self), "run it from your own machine or a bastion, with the same configuration")
	}
	return nil
}

// Note adds a record of an observation to a change: a preflight, a validation.
func (s *Session) Note(ctx context.Context, id string, kind string, rc int, in map[string]string) error {
	j, unlock, err := s.work(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	return j.append(ctx, Record{Kind: kind, RC: rc, In: in})
}

// Approve says of a plan that a second person has read it.
func (s *Session) Approve(ctx context.Context, id, hash string) error {
	if s.Journals.Actor.ARN == "" {
		return Fail(Refused, errors.New("the cloud does not say who you are: an approval is somebody's"))
	}
	return s.Note(ctx, id, KindApprove, 0, map[string]string{"plan": hash, "arn": s.Journals.Actor.ARN})
}

// approved wants approvals.min other people's names under a plan.
func (s *Session) approved(j *Journal, p Plan) error {
	if s.Config.Approvals.Min == 0 || !p.mutates() {
		return nil
	}
	who := map[string]bool{}
	for _, r := range j.records {
		if r.Kind == KindApprove && r.In["plan"] == p.Hash() && r.Actor.ARN != s.Journals.Actor.ARN {
			who[r.Actor.ARN] = true
		}
	}
	if len(who) < s.Config.Approvals.Min {
		return Fail(Refused, fmt.Errorf("%d of %d approvals of this plan by others", len(who), s.Config.Approvals.Min), "somebody else: gt06ctl ops change approve "+j.id+" --plan "+p.Hash())
	}
	return nil
}

// Close ends a change that left nothing behind.
func (s *Session) Close(ctx context.Context, id string) error {
	j, unlock, err := s.work(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	c := j.Change()
	if c.Unfinished != "" {
		return Fail(Busy, fmt.Errorf("%s of change %s has not ended", c.Unfinished, c.ID), resume(c.ID))
	}
	if s.Leftovers != nil {
		left, err := s.Leftovers(ctx)
		if err != nil {
			return err
		}
		if len(left) > 0 {
			err := Fail(Forbidden, fmt.Errorf("rescue instances must never remain running: %s", strings.Join(left, ", ")), "terminate it: aws ec2 terminate-instances --instance-ids "+strings.Join(left, " "))
			return errors.Join(err, j.append(ctx, Record{Kind: KindForbidden, RC: int(Forbidden), In: map[string]string{"action": "leave rescue instance running", "instances": strings.Join(left, " ")}}))
		}
	}
	if c.Validated.Before(c.LastEffect) {
		return Fail(Refused, fmt.Errorf("change %s has not been validated since its last step", c.ID), "gt06ctl ops validate --change "+c.ID)
	}
	if err := j.append(ctx, Record{Kind: KindClose}); err != nil {
		return err
	}
	return s.release(ctx, c.ID)
}

// Abandon ends a change as it is, and frees the lock of one whose host died
// between lock and journal.
func (s *Session) Abandon(ctx context.Context, id, reason string) error {
	if err := validReason(reason, "abandon", s.Config.Gate.MinReason); err != nil {
		return Fail(Usage, err)
	}
	lock, err := lockFile(s.Config.Lock.File)
	if err != nil {
		return err
	}
	defer lock.unlock()
	j, err := s.Journals.Open(ctx, id)
	if err != nil && KindOf(err) == Refused && s.Backend.Lock != nil {
		who, herr := s.Backend.Lock.Holder(ctx)
		if herr != nil || who.Change != id {
			return errors.Join(err, herr)
		}
		j, err = s.Journals.create(ctx, id, map[string]string{"action": string(Other), "reason": "left by " + who.Host + " between lock and journal", "instance": s.Config.AWS.InstanceID})
	}
	if err != nil {
		return err
	}
	if c := j.Change(); c.live() {
		if err := j.append(ctx, Record{Kind: KindAbandon, In: map[string]string{"reason": reason, "unfinished": c.Unfinished}}); err != nil {
			return err
		}
	}
	return s.release(ctx, id)
}

// consumed maps snapshots to the other change that used them, and tells when
// the last step of another change ended.
func (s *Session) consumed(id string) (map[string]string, time.Time, error) {
	list, err := s.Journals.List()
	if err != nil {
		return nil, time.Time{}, err
	}
	used := map[string]string{}
	var last time.Time
	for i := range list {
		c := &list[i]
		if c.ID == id {
			continue
		}
		if c.Snapshot != "" {
			used[c.Snapshot] = c.ID
		}
		if c.LastEffect.After(last) {
			last = c.LastEffect
		}
	}
	return used, last, nil
}
