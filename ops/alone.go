package ops

import (
	"context"
	"errors"
	"fmt"
)

// Alone does a runbook on a machine that no cloud is configured for: in a change
// of its own that is opened for it and closed behind it, journalled and resumed
// like every other. There is no snapshot, so nothing asks for one; where the
// configuration names an instance, Apply is the only way.
func (s *Session) Alone(ctx context.Context, action Action, reason string, book Runbook) error {
	if s.Config.AWS.InstanceID != "" {
		return Fail(Refused, fmt.Errorf("%s has snapshots: nothing is changed here without one", s.Config.AWS.InstanceID), "gt06ctl ops "+book.Name)
	}
	s.Backend, s.Gate = Backend{Facts: thisMachine(s.Journals.Actor.Host)}, noGate{}
	j, err := s.Find(ctx, "")
	if err != nil && KindOf(err) != Refused {
		return err
	}
	var id string
	if j != nil {
		id = j.id
	} else {
		c, err := s.Open(ctx, action, reason)
		if err != nil {
			return err
		}
		id = c.ID
	}
	if j != nil && j.Change().Unfinished != "" {
		err = s.Resume(ctx, id, func(name string) (Runbook, bool) { return book, name == book.Name }, Undecided)
	} else {
		err = s.Apply(ctx, id, book)
	}
	return errors.Join(err, s.endAlone(ctx, id))
}

// endAlone closes the change, unless its run is to be resumed.
func (s *Session) endAlone(ctx context.Context, id string) error {
	j, unlock, err := s.work(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if j.Change().Unfinished != "" {
		return nil
	}
	return j.append(ctx, Record{Kind: KindClose})
}

// Preview is the plan that Alone would do now.
func (s *Session) Preview(ctx context.Context, book Runbook) (Plan, error) {
	id, err := s.Journals.next(s.Config.Zone())
	if err != nil {
		return Plan{}, err
	}
	if j, err := s.Find(ctx, ""); err == nil {
		id = j.id
	}
	return discover(ctx, id, &book)
}

// thisMachine is the world of a machine without a cloud: its name.
type thisMachine string

// Facts implements FactSource.
func (m thisMachine) Facts(context.Context, Question) (Facts, error) {
	return Facts{Instance: Instance{Name: string(m)}}, nil
}

// noGate lets everything pass: there is no snapshot to ask for.
type noGate struct{}

// Read implements Gate.
func (noGate) Read(context.Context, GateQuestion) (Evidence, error) { return Evidence{}, nil }
