package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"regexp"
	"strings"
	"time"
	_ "time/tzdata" // times are shown in the zone of the operator, on any machine

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"gt06/cmd/internal/cli"
	"gt06/ops"
	"gt06/ops/cloud"
)

// opsTool is what the commands below `gt06ctl ops` share: the global flags,
// and the runbooks a change can name.
type opsTool struct {
	*tool
	config, change, plan, profile, breakGlass string
	host                                      string // the machine to look at, by ssh
	apply, yes                                bool
	timeout                                   time.Duration

	connect func(context.Context, *opsWork) error // fills the Backend
	books   map[*cobra.Command]bookOf
}

// opsWork is one command at work: configuration, cloud, session.
type opsWork struct {
	Config  ops.Config
	Cloud   *cloud.Cloud
	Backend ops.Backend
	Session *ops.Session
}

// bookOf makes the runbook of a command. It reads flags and arguments and asks
// nothing: what it must find out is for Discover, and a resume calls it without
// arguments for its Steps.
type bookOf func(w *opsWork, args []string) ops.Runbook

const mutatingMark = "gt06ops:mutating"

func (t *tool) opsCommand() *cobra.Command {
	_, root := t.opsTree()
	return root
}

func (t *tool) opsTree() (*opsTool, *cobra.Command) {
	o := t.newOps()
	root := o.group(&cobra.Command{
		Use: "ops", Short: "Maintenance that cannot skip the snapshot",
		Long: `ops is the operator's two documents as a program: a change is opened, a snapshot
of this volume for this change passes the gate, a plan is shown and confirmed,
each step is journalled, and what was interrupted is resumed.

Nothing is changed without --apply; a plan that was not applied ends with exit
code 10. On a terminal the name of the instance is typed to confirm; elsewhere
it takes --yes and --plan with the hash of the plan that was read.`,
		Example: `  gt06ctl ops preflight
  gt06ctl ops change open --action disk-resize --reason "disk at 91 percent"
  gt06ctl ops snapshot create --apply
  gt06ctl ops change show`,
	},
		o.changeCommand(), o.runCommand(), o.abortCommand(), o.sopCommand(), o.verifyJournalCommand(),
		o.snapshotCommand(), o.amiCommand(), o.resizeCommand(), o.sshRecoverCommand(), o.restoreCommand(),
		o.auditCommand(), o.costCommand(), o.initCommand(), o.selftestCommand(),
	)
	root.AddCommand(o.hostCommands()...)
	f := root.PersistentFlags()
	f.BoolVar(&o.apply, "apply", false, "do it; without, the plan is shown and nothing changes")
	f.StringVar(&o.change, "change", "", "the change to work in; default: the one that is open on this machine")
	f.BoolVar(&o.yes, "yes", false, "confirm without a terminal; only with --plan")
	f.StringVar(&o.plan, "plan", "", "hash of the plan that was read: sha256:…")
	f.DurationVar(&o.timeout, "timeout", 4*time.Hour, "give up after this; what was begun can be resumed")
	f.StringVar(&o.config, "config", o.config, "configuration (GT06_OPS_CONFIG)")
	f.StringVar(&o.profile, "profile", "", "SSO profile of the cloud; default: aws.profile, else the role of the instance")
	f.StringVar(&o.host, "host", "", "look at the machine USER@ADDRESS over ssh instead of at this one")
	f.StringVar(&o.breakGlass, "break-glass", "", "reason to go past the gate in an emergency; off unless the configuration allows it")
	return o, root
}

func (t *tool) newOps() *opsTool {
	o := &opsTool{tool: t, config: os.Getenv("GT06_OPS_CONFIG"), connect: connectCloud, books: map[*cobra.Command]bookOf{}}
	if o.config == "" {
		o.config = ops.DefaultConfig
	}
	return o
}

// group is a command that only holds others. What is not there and must not be
// is refused as what it is.
func (o *opsTool) group(c *cobra.Command, below ...*cobra.Command) *cobra.Command {
	c.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			if err := ops.Permitted(c.Name() + " " + strings.Join(args, " ")); err != nil {
				return explainOps(cmd.Context(), err)
			}
			return cli.Fail(cli.Usage, fmt.Errorf("there is no %s %s", cmd.CommandPath(), args[0]), cmd.CommandPath()+" --help")
		}
		return nil
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	c.AddCommand(below...)
	return c
}

// looking makes a command that changes nothing. It gets its connection to the
// cloud when it asks for it: o.work.
func (o *opsTool) looking(c *cobra.Command, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	o.usage(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
		defer cancel()
		cmd.SetContext(ctx)
		return explainOps(ctx, run(cmd, args))
	}
	return c
}

// mutating makes a command that changes something. It is the only way to run a
// runbook, so that nothing gets past change, plan, confirmation and gate.
func (o *opsTool) mutating(c *cobra.Command, book bookOf) *cobra.Command {
	o.usage(c)
	c.Annotations = map[string]string{mutatingMark: "true"}
	o.books[c] = book
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
		defer cancel()
		return explainOps(ctx, o.mutate(ctx, cmd, book, args))
	}
	return c
}

func (o *opsTool) usage(c *cobra.Command) {
	check := c.Args
	if check == nil {
		check = cobra.NoArgs
	}
	c.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return cli.Fail(cli.Usage, err, cmd.CommandPath()+" --help")
		}
		return nil
	}
}

func (o *opsTool) mutate(ctx context.Context, cmd *cobra.Command, book bookOf, args []string) error {
	w, err := o.work(ctx, cmd)
	if err != nil {
		return err
	}
	b := book(w, args)
	if o.apply {
		if err := w.Session.Apply(ctx, o.change, b); err != nil {
			return err
		}
		return o.say(cmd, map[string]any{"book": b.Name, "applied": true}, b.Name+": done\n")
	}
	p, err := w.Session.Plan(ctx, o.change, b)
	if err != nil {
		return err
	}
	return o.sayPlan(cmd, p, pasteable(os.Args, "--apply"))
}

// sayPlan shows a plan that was not applied, and how to do it.
func (o *opsTool) sayPlan(cmd *cobra.Command, p ops.Plan, apply string) error {
	text := p.Text() + p.Hash() + "\n"
	if err := o.say(cmd, map[string]any{"book": p.Book, "change": p.Change, "params": p.Params, "steps": p.Lines(), "plan": p.Hash(), "text": p.Text(), "applied": false}, text); err != nil {
		return err
	}
	if len(p.Steps) == 0 {
		return nil
	}
	return ops.Fail(ops.Pending, errors.New("this is the plan; nothing was changed"), "to do it: "+apply)
}

// pasteable is a command line to paste: the same one, with other flags of approval.
func pasteable(args []string, flags ...string) string {
	plain := regexp.MustCompile(`^[\w@%+=:,./-]+$`)
	line := []string{"gt06ctl"}
	rest := args[1:]
	for len(rest) > 0 && rest[0] != "--" {
		switch arg := rest[0]; {
		case arg == "--apply" || arg == "--yes" || arg == "--json" || strings.HasPrefix(arg, "--plan="):
		case arg == "--plan":
			if len(rest) > 1 && strings.HasPrefix(rest[1], "sha256:") { // of takeover it is alone
				rest = rest[1:]
			}
		default:
			line = append(line, arg)
		}
		rest = rest[1:]
	}
	line = append(append(line, flags...), rest...)
	for i, arg := range line {
		if !plain.MatchString(arg) {
			line[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(line, " ")
}

// say prints a result for people or for programs.
func (o *opsTool) say(cmd *cobra.Command, value any, text string) error {
	if o.json {
		return printJSON(cmd.OutOrStdout(), value)
	}
	_, err := io.WriteString(cmd.OutOrStdout(), text)
	return err
}

// work reads the configuration and prepares a session. Whether there is an open
// change is decided before the cloud is asked for anything.
func (o *opsTool) work(ctx context.Context, cmd *cobra.Command) (*opsWork, error) {
	w, err := o.local(cmd)
	if err != nil {
		return nil, err
	}
	if cmd.Annotations[mutatingMark] != "" && o.change == "" {
		if _, err := w.Session.Find(ctx, ""); err != nil {
			return nil, err
		}
	}
	if err := o.connect(ctx, w); err != nil {
		return nil, err
	}
	s := w.Session
	s.Backend, s.Journals.Mirror, s.Journals.Anchor = w.Backend, w.Backend.Mirror, w.Backend.Anchor
	if w.Backend.ARN != nil {
		if s.Journals.Actor.ARN, err = w.Backend.ARN(ctx); err != nil {
			return nil, err
		}
	}
	s.Gate = &ops.SnapshotGate{Facts: w.Backend.Facts, Config: w.Config}
	s.Vet = func(ctx context.Context, action ops.Action) error { return o.vet(ctx, w, action) }
	if s.Emergency == nil {
		s.Emergency = o.emergency
	}
	return w, nil
}

// local is work without the cloud.
func (o *opsTool) local(cmd *cobra.Command) (*opsWork, error) {
	config, err := ops.ReadConfig(o.config)
	if err != nil {
		return nil, err
	}
	if o.profile != "" {
		config.AWS.Profile = o.profile
	}
	return o.workOn(cmd, config), nil
}

// workOn is work of a configuration.
func (o *opsTool) workOn(cmd *cobra.Command, config ops.Config) *opsWork {
	out := cmd.OutOrStdout()
	if o.json {
		out = cmd.ErrOrStderr()
	}
	fail := failpoint(os.Getenv("GT06_FAILPOINT"))
	return &opsWork{Config: config, Session: &ops.Session{
		Config: config, Out: out, BreakGlass: o.breakGlass, Failpoint: fail,
		Journals: &ops.Journals{Dir: config.Journal.Dir, Actor: actor(), Now: time.Now, Failpoint: fail},
		Confirm:  ops.Confirm{In: cmd.InOrStdin(), Terminal: terminal(cmd.InOrStdin()), Yes: o.yes, Plan: o.plan, Again: func(flags ...string) string { return pasteable(os.Args, flags...) }},
	}}
}

// explainOps turns the kind of an error into the exit code.
func explainOps(ctx context.Context, err error) error {
	e, ok := errors.AsType[*ops.Error](err)
	switch {
	case err == nil:
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return cli.Fail(cli.Timeout, err, "what was begun: gt06ctl ops change list")
	case ok:
		return cli.Fail(cli.Code(e.Kind), err, e.Hints...)
	}
	return err
}

// actor is who runs this program.
func actor() ops.Actor {
	a := ops.Actor{UID: os.Getuid(), User: os.Getenv("SUDO_USER")}
	if a.User == "" {
		if u, err := user.Current(); err == nil {
			a.User = u.Username
		}
	}
	a.Host, _ = os.Hostname()
	a.SSH, _, _ = strings.Cut(os.Getenv("SSH_CONNECTION"), " ")
	if name, err := os.Readlink("/proc/self/fd/0"); err == nil && strings.HasPrefix(name, "/dev/pts/") {
		a.TTY = strings.TrimPrefix(name, "/dev/")
	}
	return a
}

// terminal says whether a person types there.
func terminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	return term.IsTerminal(int(f.Fd()))
}
