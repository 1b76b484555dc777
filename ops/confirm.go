package ops

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Confirm is how the operator says yes.
type Confirm struct {
	In       io.Reader
	Terminal bool   // In and Out are a person
	Yes      bool   // --yes: only with the plan's hash
	Plan     string // --plan sha256:…
	// Again is the command line that was given, with other flags, to paste.
	Again func(flags ...string) string
}

// confirm shows the plan and asks for the name of the instance: a hand that
// types y out of habit does not type the name of production.
func (s *Session) confirm(ctx context.Context, p Plan) error {
	if !p.mutates() {
		return nil
	}
	_, _ = fmt.Fprintf(s.Out, "%s%s\n", p.Text(), p.Hash())
	apply := "gt06ctl ops " + p.Book + " --apply --yes --plan " + p.Hash()
	if s.Confirm.Again != nil {
		apply = s.Confirm.Again("--apply", "--yes", "--plan", p.Hash())
	}
	if s.Confirm.Plan != "" && s.Confirm.Plan != p.Hash() {
		return Fail(Pending, fmt.Errorf("the plan is another one now: %s was approved, %s would be done", s.Confirm.Plan, p.Hash()), "read it, then: "+apply)
	}
	if s.Confirm.Yes {
		if s.Confirm.Plan == "" {
			return Fail(Declined, errors.New("--yes approves nothing without --plan and the hash of what was read"), apply)
		}
		return nil
	}
	if !s.Confirm.Terminal {
		return Fail(Declined, errors.New("nobody is there to confirm"), apply)
	}
	f, err := s.Backend.Facts.Facts(ctx, Question{Instance: s.Config.AWS.InstanceID})
	if err != nil {
		return err
	}
	return s.typed(f.Instance.Name, "type the name of the instance to go on")
}

// typed asks for a text.
func (s *Session) typed(want, question string) error {
	_, _ = fmt.Fprintf(s.Out, "%s (%s): ", question, want)
	line, _ := bufio.NewReader(io.LimitReader(s.Confirm.In, 1<<10)).ReadString('\n')
	if want == "" || strings.TrimSpace(line) != want {
		return Fail(Declined, errors.New("not confirmed: nothing was changed"))
	}
	return nil
}

// glassPhrase is what is typed to go on without the gate.
const glassPhrase = "I break the glass and answer for it"

// breakGlass lets a run pass the gate: only where the configuration allows it,
// in an emergency that can be seen, with a phrase that is typed. The record is
// the first thing of its run.
func (s *Session) breakGlass(ctx context.Context, j *Journal, p Plan) error {
	if !s.Config.AllowBreakGlass {
		return Fail(Refused, errors.New("--break-glass is off: the strategy allows no exception (allow_break_glass)"), "gt06ctl ops snapshot create --change "+p.Change+" --apply")
	}
	if err := validReason(s.BreakGlass, "break-glass", s.Config.Gate.MinReason); err != nil {
		return Fail(Usage, err)
	}
	what := ""
	if s.Emergency != nil {
		var err error
		if what, err = s.Emergency(ctx); err != nil {
			return err
		}
	}
	if what == "" {
		return Fail(Refused, errors.New("--break-glass is for a disk over 98 % or an instance that cannot be reached; neither is so"))
	}
	if !s.Confirm.Terminal {
		return Fail(Declined, errors.New("--break-glass needs a person who types"))
	}
	if err := s.typed(glassPhrase, "the gate will not be asked; type the sentence"); err != nil {
		return err
	}
	return j.append(ctx, Record{Kind: KindBreakGlass, RC: int(Refused), In: map[string]string{"reason": s.BreakGlass, "emergency": what, "plan": p.Hash()}})
}
