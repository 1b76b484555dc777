package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"gt06/ops"
)

func (o *opsTool) changeCommand() *cobra.Command {
	return o.group(&cobra.Command{
		Use: "change", Short: "Open, look at, resume and end changes",
		Long: `A change is what all work belongs to: an action, a reason, a snapshot, a journal.
One is open at a time, on all machines.`,
		Example: `  gt06ctl ops change open --action os-update --reason "security updates of November"
  gt06ctl ops change list`,
	}, o.changeOpen(), o.changeShow(), o.changeList(), o.changeResume(), o.changeClose(), o.changeAbandon(), o.changeApprove())
}

func (o *opsTool) changeOpen() *cobra.Command {
	var action, reason string
	var names []string
	for _, a := range ops.Actions() {
		names = append(names, string(a))
	}
	c := o.looking(&cobra.Command{
		Use: "open --action ACTION --reason TEXT", Short: "Begin a change",
		Long:    "open begins a change and takes the lock.\n\nActions: " + strings.Join(names, ", ") + ".",
		Example: `  gt06ctl ops change open --action disk-cleanup --reason "logs fill the disk"`,
	}, func(cmd *cobra.Command, _ []string) error {
		w, err := o.work(cmd.Context(), cmd)
		if err != nil {
			return err
		}
		c, err := w.Session.Open(cmd.Context(), ops.Action(action), reason)
		if err != nil {
			return err
		}
		return o.say(cmd, c, fmt.Sprintf("change %s is open: %s, %s\nnext: gt06ctl ops snapshot create --change %s --apply\n", c.ID, c.Action, c.Reason, c.ID))
	})
	c.Flags().StringVar(&action, "action", "", "what for; the snapshot's name ends with it")
	c.Flags().StringVar(&reason, "reason", "", "why, at least 12 characters and two words")
	_ = c.RegisterFlagCompletionFunc("action", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (o *opsTool) changeList() *cobra.Command {
	return o.looking(&cobra.Command{Use: "list", Short: "List the changes known on this machine", Example: "  gt06ctl ops change list"}, func(cmd *cobra.Command, _ []string) error {
		w, err := o.local(cmd)
		if err != nil {
			return err
		}
		list, err := w.Session.Journals.List()
		if err != nil {
			return err
		}
		var b strings.Builder
		t := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "CHANGE\tSTATUS\tACTION\tOPENED\tBY\tSNAPSHOT\tREASON")
		for i := range list {
			c := &list[i]
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.ID, c.Status, c.Action, c.OpenedAt.In(w.Config.Zone()).Format("2006-01-02 15:04 MST"), c.OpenedBy.User, c.Snapshot, c.Reason)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		if list == nil {
			list = []ops.Change{}
		}
		return o.say(cmd, list, b.String())
	})
}

// named returns the change of the argument, of --change, or "".
func (o *opsTool) named(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return o.change
}

func (o *opsTool) changeShow() *cobra.Command {
	return o.looking(&cobra.Command{Use: "show [CHANGE]", Short: "Print a change and its journal", Example: "  gt06ctl ops change show c-20261122-01 > change.md", Args: cobra.MaximumNArgs(1)}, func(cmd *cobra.Command, args []string) error {
		w, err := o.local(cmd)
		if err != nil {
			return err
		}
		// The copy knows what other hosts did; without it, what is here is shown.
		var j *ops.Journal
		if full, err := o.work(cmd.Context(), cmd); err == nil {
			j, err = full.Session.Look(cmd.Context(), o.named(args))
			if ops.KindOf(err) == ops.JournalBroken {
				return err
			}
		}
		if j == nil {
			_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "this is what is known on this machine; the copy cannot be asked")
			if j, err = w.Session.Look(cmd.Context(), o.named(args)); err != nil {
				return err
			}
		}
		return o.say(cmd, map[string]any{"change": j.Change(), "records": j.Records()}, j.Report(w.Config.Zone()))
	})
}

func (o *opsTool) changeResume() *cobra.Command {
	var redo, skip bool
	c := o.looking(&cobra.Command{
		Use: "resume [CHANGE]", Short: "Go on with what was interrupted", Args: cobra.MaximumNArgs(1),
		Long: `resume goes on with the plan that did not end. A step that was begun is looked at
first: it is not done twice.`,
		Example: "  gt06ctl ops change resume c-20261122-01",
	}, func(cmd *cobra.Command, args []string) error {
		w, err := o.work(cmd.Context(), cmd)
		if err != nil {
			return err
		}
		d := ops.Undecided
		switch {
		case redo && skip:
			return ops.Fail(ops.Usage, errors.New("--redo and --skip exclude each other"))
		case redo:
			d = ops.Redo
		case skip:
			d = ops.Skip
		}
		if err := w.Session.Resume(cmd.Context(), o.named(args), func(name string) (ops.Runbook, bool) { return o.book(w, name) }, d); err != nil {
			return err
		}
		return o.say(cmd, map[string]any{"resumed": true}, "")
	})
	c.Flags().BoolVar(&redo, "redo", false, "do the step again whose end nobody can see")
	c.Flags().BoolVar(&skip, "skip", false, "I looked: that step is done")
	return c
}

// book returns the runbook of a name, for a resume.
func (o *opsTool) book(w *opsWork, name string) (ops.Runbook, bool) {
	for _, book := range o.books {
		if b := book(w, nil); b.Name == name {
			return b, true
		}
	}
	return ops.Runbook{}, false
}

func (o *opsTool) changeClose() *cobra.Command {
	return o.looking(&cobra.Command{
		Use: "close [CHANGE]", Short: "End a change: validated, and nothing left behind", Args: cobra.MaximumNArgs(1),
		Example: "  gt06ctl ops change close c-20261122-01",
	}, func(cmd *cobra.Command, args []string) error {
		w, err := o.work(cmd.Context(), cmd)
		if err != nil {
			return err
		}
		if err := w.Session.Close(cmd.Context(), o.named(args)); err != nil {
			return err
		}
		return o.say(cmd, map[string]any{"closed": true}, "closed\n")
	})
}

func (o *opsTool) changeAbandon() *cobra.Command {
	var reason string
	c := o.looking(&cobra.Command{
		Use: "abandon CHANGE", Short: "End a change as it is, and free its lock", Args: cobra.ExactArgs(1),
		Example: `  gt06ctl ops change abandon c-20261122-01 --reason "its host is gone"`,
	}, func(cmd *cobra.Command, args []string) error {
		w, err := o.work(cmd.Context(), cmd)
		if err != nil {
			return err
		}
		if err := w.Session.Abandon(cmd.Context(), args[0], reason); err != nil {
			return err
		}
		return o.say(cmd, map[string]any{"abandoned": args[0]}, "abandoned\n")
	})
	c.Flags().StringVar(&reason, "reason", "", "why it cannot be finished")
	return c
}

func (o *opsTool) snapshotAdopt() *cobra.Command {
	return o.looking(&cobra.Command{
		Use: "adopt SNAPSHOT", Short: "Take a snapshot made in the console for this change", Args: cobra.ExactArgs(1),
		Long: `adopt takes a snapshot that was made by hand, without the tag of the change, into
the journal. All other checks of the gate hold.`,
		Example: "  gt06ctl ops snapshot adopt snap-0123456789abcdef0",
	}, func(cmd *cobra.Command, args []string) error {
		w, err := o.work(cmd.Context(), cmd)
		if err != nil {
			return err
		}
		f, err := w.Backend.Facts.Facts(cmd.Context(), ops.Question{Instance: w.Config.AWS.InstanceID, Snapshot: args[0]})
		if err != nil {
			return err
		}
		if f.Snapshot == nil {
			return ops.Fail(ops.Refused, fmt.Errorf("there is no snapshot %s in this account and region", args[0]), "gt06ctl ops snapshot list")
		}
		if err := w.Session.Note(cmd.Context(), o.change, ops.KindAdopt, 0, map[string]string{"snapshot": args[0]}); err != nil {
			return err
		}
		return o.say(cmd, map[string]string{"adopted": args[0]}, "adopted "+args[0]+"\nnext: gt06ctl ops snapshot verify\n")
	})
}

func (o *opsTool) changeApprove() *cobra.Command {
	return o.looking(&cobra.Command{
		Use: "approve CHANGE --plan HASH", Short: "Say as a second person that a plan was read", Args: cobra.ExactArgs(1),
		Example: "  gt06ctl ops change approve c-20261122-01 --plan sha256:…",
	}, func(cmd *cobra.Command, args []string) error {
		if o.plan == "" {
			return ops.Fail(ops.Usage, errors.New("an approval is of one plan: --plan sha256:…"))
		}
		w, err := o.work(cmd.Context(), cmd)
		if err != nil {
			return err
		}
		if err := w.Session.Approve(cmd.Context(), args[0], o.plan); err != nil {
			return err
		}
		return o.say(cmd, map[string]any{"approved": o.plan}, "approved\n")
	})
}

func (o *opsTool) verifyJournalCommand() *cobra.Command {
	return o.looking(&cobra.Command{
		Use: "verify-journal", Short: "Prove that no journal record was altered, removed or cut off",
		Example: "  gt06ctl ops verify-journal",
	}, func(cmd *cobra.Command, _ []string) error {
		w, err := o.work(cmd.Context(), cmd)
		if err != nil {
			return err
		}
		v, err := w.Session.Journals.Verify(cmd.Context())
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%d changes, %d records, %d copies compared: as they were written\n", v.Changes, v.Records, v.Copies)
		if v.Fetched > 0 {
			text += fmt.Sprintf("%d records were not here and came from the copy: another host wrote them, or the root volume was restored\n", v.Fetched)
		}
		return o.say(cmd, v, text)
	})
}

// failpoint ends this process at the n-th passage of a named place, for tests:
// GT06_FAILPOINT=record:7.
func failpoint(spec string) func(string) {
	name, count, _ := strings.Cut(spec, ":")
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		return nil
	}
	var passed atomic.Int64
	return func(at string) {
		if at == name && passed.Add(1) == n {
			if self, err := os.FindProcess(os.Getpid()); err == nil {
				_ = self.Kill()
			}
			select {}
		}
	}
}
