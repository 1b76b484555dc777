package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gt06/ops"
	"gt06/ops/runbook"
)

const takeoverText = `takeover finds who holds the devices' port by the inode of the socket. When it is
a program of pm2, of any user, in fork or in cluster mode, it writes down how that
is started (with its environment, for root alone: takeover.json beside the
journal), stops it, starts gt06d, sees that it holds the port, takes the program
from pm2's list and from the one that starts with the machine, and watches for a
while. Whatever fails: the program is started again, as it was. Each device
connects anew, once. A systemd unit, a container, Traccar or a program started by
hand on the port is named, with how to stop it, and left alone.

With --back gt06d is stopped and the program started as it was written down. What
gt06d received is in its tables and sinks first, as far as they can be reached.`

// takingFlags are those of both forms.
func takingFlags(f *pflag.FlagSet) *runbook.Taking {
	var t runbook.Taking
	f.BoolVar(&t.Back, "back", false, "from gt06d to the program of pm2")
	f.StringVar(&t.App, "app", "", "the program of pm2; default: the one that holds the port")
	f.StringVar(&t.PM2, "pm2", "", "the program pm2; default: beside its daemon's Node, in the PATH, in the user's nvm")
	f.StringVar(&t.Dir, "dir", "", "for --back to what no takeover wrote down: its directory")
	f.StringVar(&t.Script, "script", "", "and its script")
	f.DurationVar(&t.Watch, "watch", 2*time.Minute, "watch port, devices and the three checks for so long; 0: do not")
	return &t
}

func (o *opsTool) takeoverCommand() *cobra.Command {
	var t *runbook.Taking
	c := o.mutating(&cobra.Command{
		Use: "takeover", Short: "Give the devices' port from a program of pm2 to gt06d, or back", Long: takeoverText,
		Example: "  gt06ctl ops takeover\n  gt06ctl ops takeover --apply\n  gt06ctl ops takeover --back --apply",
	}, func(w *opsWork, _ []string) ops.Runbook { m := o.machine(w); return m.Takeover(*t) })
	t = takingFlags(c.Flags())
	return c
}

// takeoverCommand is `gt06ctl ops takeover` where ops is configured, behind its
// gate; elsewhere the same runbook in a change of its own.
func (t *tool) takeoverCommand() *cobra.Command {
	o := t.newOps()
	var taking *runbook.Taking
	var port int
	var unit string
	c := &cobra.Command{
		Use: "takeover", Short: "Take the devices' port over from the Node service, or give it back",
		Long: takeoverText + `

Nothing changes without --apply. Where /etc/gt06/ops.yaml is, this is
gt06ctl ops takeover: it wants an open change and its snapshot. Elsewhere it is
the same, without a cloud: confirmed by typing the name of this machine, or with
--yes and --plan=HASH; journalled, and gone on with when it is given again after
it was killed.`,
		Example: "  gt06ctl takeover --plan\n  sudo gt06ctl takeover --apply\n  sudo gt06ctl takeover --back --apply",
	}
	book := func(w *opsWork) ops.Runbook { m := o.machine(w); return m.Takeover(*taking) }
	o.usage(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
		defer cancel()
		if o.plan == justPlan {
			o.plan = ""
			if o.apply {
				return explainOps(ctx, ops.Fail(ops.Usage, errors.New("--plan shows what --apply does: one of the two, or --plan=HASH"), "gt06ctl takeover --help"))
			}
		}
		w, err := o.localOrAlone(cmd)
		if err != nil {
			return explainOps(ctx, err)
		}
		if w.Config.AWS.InstanceID != "" {
			c.Annotations = map[string]string{mutatingMark: "true"} // behind the gate
			return explainOps(ctx, o.mutate(ctx, cmd, func(w *opsWork, _ []string) ops.Runbook { return book(w) }, nil))
		}
		w.Config.GT06.Port, w.Config.GT06.Unit = port, unit
		return explainOps(ctx, withoutOps(o.alone(ctx, cmd, w, book(w))))
	}
	f := c.Flags()
	taking = takingFlags(f)
	f.BoolVar(&o.apply, "apply", false, "do it; without, the plan is shown and nothing changes")
	f.StringVar(&o.plan, "plan", "", "show what would be done; --plan=HASH: the plan that was read, for --yes")
	f.Lookup("plan").NoOptDefVal = justPlan
	f.BoolVar(&o.yes, "yes", false, "confirm without a terminal; only with --plan=HASH")
	f.StringVar(&o.change, "change", "", "the change of gt06ctl ops it is done in")
	f.StringVar(&o.config, "ops-config", o.config, "configuration of gt06ctl ops (GT06_OPS_CONFIG)")
	f.DurationVar(&o.timeout, "timeout", time.Hour, "give up after this; given again, it goes on")
	f.IntVar(&port, "port", 5023, "the port of the devices, where ops is not configured")
	f.StringVar(&unit, "unit", "gt06d.service", "the unit of gt06d, where ops is not configured")
	return c
}

// justPlan is --plan without a hash.
const justPlan = "show"

// localOrAlone is local, and the defaults on a machine without a configuration
// of ops. One that is named must be there.
func (o *opsTool) localOrAlone(cmd *cobra.Command) (*opsWork, error) {
	if _, err := os.Stat(o.config); o.config != ops.DefaultConfig || !errors.Is(err, fs.ErrNotExist) {
		return o.local(cmd)
	}
	config, err := ops.WithoutCloud()
	if err != nil {
		return nil, err
	}
	return o.workOn(cmd, config), nil
}

// alone runs a runbook on a machine without a cloud.
func (o *opsTool) alone(ctx context.Context, cmd *cobra.Command, w *opsWork, book ops.Runbook) error {
	if os.Geteuid() != 0 {
		return ops.Fail(ops.Denied, errors.New("it takes root: the port's holder is another user's, and units are root's"), "sudo "+pasteable(os.Args))
	}
	again := func(flags ...string) string {
		return strings.Replace(pasteable(os.Args, flags...), "--plan sha256:", "--plan=sha256:", 1)
	}
	if o.apply {
		w.Session.Confirm.Again = again
		if err := w.Session.Alone(ctx, ops.Refactor, book.Name+" of the devices' port", book); err != nil {
			return err
		}
		return o.say(cmd, map[string]any{"book": book.Name, "applied": true}, book.Name+": done\n")
	}
	p, err := w.Session.Preview(ctx, book)
	if err != nil {
		return err
	}
	return o.sayPlan(cmd, p, again("--apply"))
}

// withoutOps has the hints of an error name the command that was given.
func withoutOps(err error) error {
	e, ok := errors.AsType[*ops.Error](err)
	if !ok {
		return err
	}
	hints := make([]string, 0, len(e.Hints))
	for _, h := range e.Hints {
		switch {
		case strings.Contains(h, "gt06ctl ops takeover"):
			h = strings.ReplaceAll(h, "gt06ctl ops takeover", "gt06ctl takeover")
		case strings.Contains(h, "gt06ctl ops change resume"):
			h = "go on, or begin again when all is as before: " + pasteable(os.Args, "--apply")
		}
		hints = append(hints, h)
	}
	return ops.Fail(e.Kind, fmt.Errorf("%w", err), hints...)
}
