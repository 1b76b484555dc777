package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gt06/ops"
	"gt06/ops/backup"
	"gt06/ops/host"
	"gt06/ops/runbook"
)

// machine is the machine of the configuration. Before the first start of gt06d no
// data directory tells where it will be found: the configuration does.
func (o *opsTool) machine(w *opsWork) runbook.Machine {
	t := *o.tool
	if _, err := os.Stat(t.dataDir); errors.Is(err, fs.ErrNotExist) {
		t.dataDir = w.Config.GT06.DataDir
	}
	c, err := t.client()
	if err != nil {
		c.Path = "" // asked, it says that no server listens
	}
	m := runbook.NewMachine(w.Config, c.Path)
	m.Places = func(uri string) (backup.Place, error) { return o.place(w, uri) }
	return m
}

// hostCommands are those of the machine itself.
func (o *opsTool) hostCommands() []*cobra.Command {
	return []*cobra.Command{
		o.preflightCommand(), o.machineCommand(), o.portCommand(), o.validateAllCommand(),
		o.restartCommand(), o.takeoverCommand(),
		o.group(&cobra.Command{Use: "cleanup", Short: "Free room", Example: "  gt06ctl ops cleanup disk"}, o.cleanupDisk()),
		o.backupCommand(),
	}
}

func (o *opsTool) machineCommand() *cobra.Command {
	return o.looking(&cobra.Command{
		Use: "machine", Short: "Say how this machine is: what preflight and validate judge",
		Example: "  gt06ctl ops machine --json", Long: "machine reads load, memory, clock, disks, the devices' port and the services of this\nmachine. With --json it is what --host reads over ssh.",
	}, func(cmd *cobra.Command, _ []string) error {
		w, err := o.local(cmd)
		if err != nil {
			return err
		}
		m := o.machine(w)
		v, err := m.Look(cmd.Context())
		if err != nil {
			return err
		}
		var b bytes.Buffer
		runbook.Preflight(&v, nil, &w.Config, "").Print(&b)
		for _, n := range v.Notes {
			fmt.Fprintln(&b, "note:", n)
		}
		return o.say(cmd, v, b.String())
	})
}

func (o *opsTool) portCommand() *cobra.Command {
	return o.looking(&cobra.Command{
		Use: "port", Short: "Say who holds the devices' port", Example: "  gt06ctl ops port",
		Long: "port finds the processes that listen on gt06.port: by the inode of the socket, so that\na name or an argument cannot deceive. To give the port to gt06d: gt06ctl ops takeover.",
	}, func(cmd *cobra.Command, _ []string) error {
		w, err := o.localOrAlone(cmd)
		if err != nil {
			return err
		}
		m := o.machine(w)
		p, err := m.Port(cmd.Context())
		if err != nil {
			return err
		}
		return o.say(cmd, p, fmt.Sprintf("port %d: %s\n", p.Number, p))
	})
}

// vitals reads the machine: this one, or another by ssh.
func (o *opsTool) vitals(ctx context.Context, w *opsWork) (runbook.Vitals, error) {
	if o.host != "" {
		return runbook.Remote(ctx, host.New(), o.host, o.config)
	}
	m := o.machine(w)
	return m.Look(ctx)
}

// vet is the preflight that every runbook goes through which is not a copy or a
// way back: on the machine itself, or by ssh where --host names it.
func (o *opsTool) vet(ctx context.Context, w *opsWork, action ops.Action) error {
	if action == ops.SSHFix {
		return nil // it cannot be looked at, and that is why
	}
	if o.host != "" {
		v, err := runbook.Remote(ctx, host.New(), o.host, o.config)
		if err != nil {
			return err
		}
		return v.Vital(&w.Config, action)
	}
	here, err := o.onTarget(ctx, w)
	if err != nil {
		return err
	}
	if !here {
		_, err := fmt.Fprintln(w.Session.Out, "load and disks of the machine are not looked at from here; with --host USER@ADDRESS they are")
		return err
	}
	m := o.machine(w)
	v, err := m.Resources()
	if err != nil {
		return err
	}
	return v.Vital(&w.Config, action)
}

// emergency is what the glass may be broken for on this machine: a disk so full
// that nothing works.
func (o *opsTool) emergency(context.Context) (string, error) {
	const full = 98
	u, err := host.DiskUsage("/")
	if err != nil || u.BytesPercent() <= full {
		return "", err
	}
	return fmt.Sprintf("%s is at %.1f %%", u.Path, u.BytesPercent()), nil
}

func (o *opsTool) cleanupDisk() *cobra.Command {
	var days, snaps int
	c := o.mutating(&cobra.Command{
		Use: "disk", Short: "Delete what may be deleted: packages, old journal, rotated logs, old snaps",
		Long: `cleanup disk frees room and says how much by each rule. Of logs it deletes
regular files directly in /var/log that are rotated (*.gz, *.[0-9]) and that
nobody has open; it follows no link. Where MariaDB, gt06d, the journal, backups
or home directories have their data nothing is ever deleted, not even with
--break-glass.`,
		Example: "  gt06ctl ops cleanup disk\n  gt06ctl ops cleanup disk --journal-days 3 --apply",
	}, func(w *opsWork, _ []string) ops.Runbook { m := o.machine(w); return m.Cleanup(days, snaps) })
	c.Flags().IntVar(&days, "journal-days", 7, "days of the journal that are kept")
	c.Flags().IntVar(&snaps, "snap-retain", 2, "revisions of a snap that are kept")
	return c
}

func (o *opsTool) resizeGuest() *cobra.Command {
	mount := "/"
	c := o.mutating(&cobra.Command{
		Use: "guest", Short: "Grow partition and file system into a volume that has grown",
		Long:    "resize guest is the second half of resize volume, on the machine itself: growpart, then\nresize2fs or xfs_growfs, online. What is grown already stays as it is.",
		Example: "  gt06ctl ops resize guest --apply",
	}, func(w *opsWork, _ []string) ops.Runbook { m := o.machine(w); return m.ResizeGuest(mount) })
	c.Flags().StringVar(&mount, "mount", "/", "the file system")
	return c
}

func (o *opsTool) restartCommand() *cobra.Command {
	var uri string
	c := o.mutating(&cobra.Command{
		Use: "restart [" + strings.Join(runbook.Services(), "|") + "]", Short: "Bring the services up, in the order of the SOP",
		Long: `restart goes through the services in the SOP's order: MariaDB is asked, and
started only when it does not run; pending migrations of the backend run behind
a dump; pm2's programs are brought back and watched; nginx is tested, reloaded,
and must have new workers; traccar is restarted where it is enabled; gt06d is
upgraded to itself, which no device notices.`,
		Example: "  gt06ctl ops restart\n  gt06ctl ops restart nginx --apply",
		Args:    cobra.MaximumNArgs(1), ValidArgs: runbook.Services(),
	}, func(w *opsWork, args []string) ops.Runbook {
		what := "all"
		if len(args) > 0 {
			what = args[0]
		}
		m := o.machine(w)
		return m.Restart(what, uri)
	})
	c.Flags().StringVar(&uri, "s3", "", "where the dump goes: s3://BUCKET/PREFIX; default: backup.s3_uri, else backup.dir")
	return c
}

func (o *opsTool) restoreDB() *cobra.Command {
	var uri string
	var schemas []string
	c := o.mutating(&cobra.Command{
		Use: "db NAME", Short: "Put schemas of a dump over those of now",
		Long: `restore db reads the whole dump first: one that is damaged changes nothing. What
is there is dumped, too, before it is overwritten. Rows written since the dump
are lost, except those of GT06: its cursor goes back with the schema gt06, and
gt06d stores again what its log holds.`,
		Example: "  gt06ctl ops backup list\n  gt06ctl ops restore db db-20261125T142628Z.sql.gz --schema quickport_crm_laravel --apply",
		Args:    cobra.MaximumNArgs(1),
	}, func(w *opsWork, args []string) ops.Runbook {
		name := ""
		if len(args) > 0 {
			name = args[0]
		}
		m := o.machine(w)
		return m.RestoreDB(name, schemas, uri)
	})
	c.Flags().StringVar(&uri, "s3", "", "where the dump is: s3://BUCKET/PREFIX; default: backup.s3_uri, else backup.dir")
	c.Flags().StringSliceVar(&schemas, "schema", nil, "only this schema of it; may be given again")
	return c
}

// place is where backups are: a bucket, or the directory of the configuration.
func (o *opsTool) place(w *opsWork, uri string) (backup.Place, error) {
	if uri == "" {
		return backup.Dir(w.Config.Backup.Dir), nil
	}
	if w.Cloud == nil {
		if err := o.connect(context.Background(), w); err != nil {
			return nil, err
		}
	}
	b, err := w.Cloud.Bucket(uri)
	if err != nil {
		return nil, ops.Fail(ops.Usage, err)
	}
	return runbook.Bucket{Bucket: b}, nil
}

// onTarget says whether this is the machine that is operated.
func (o *opsTool) onTarget(ctx context.Context, w *opsWork) (bool, error) {
	if w.Backend.Self == nil {
		return false, nil
	}
	self, err := w.Backend.Self(ctx)
	return self == w.Config.AWS.InstanceID, err
}

// lastDump says when the newest dump was made that is known of from here.
func (o *opsTool) lastDump(w *opsWork) func(context.Context) (time.Time, error) {
	return func(ctx context.Context) (time.Time, error) {
		here, err := o.onTarget(ctx, w)
		switch {
		case err != nil:
			return time.Time{}, err
		case w.Config.Backup.S3URI == "" && o.host != "":
			v, err := runbook.Remote(ctx, host.New(), o.host, o.config)
			return v.Backup, err
		case w.Config.Backup.S3URI == "" && !here:
			_, err := fmt.Fprintln(w.Session.Out, "whether there is a backup of the database cannot be seen from here; with --host USER@ADDRESS it can")
			return time.Now(), err
		}
		p, err := o.place(w, w.Config.Backup.S3URI)
		if err != nil {
			return time.Time{}, err
		}
		m, _, err := backup.Last(ctx, p, backup.MariaDB, "")
		return m.Begun, err
	}
}

func (o *opsTool) preflightCommand() *cobra.Command {
	var action string
	c := o.looking(&cobra.Command{
		Use: "preflight", Short: "Say whether it is safe to begin, and if not, why and what to type next",
		Long: `preflight looks at the machine and at the cloud and ends with one word. Each
refusal has its id, the value seen, the value wanted, and the next command: typed
one after the other they end at safe. Within a change the gate is asked, too.
Not safe is exit code 4.`,
		Example: "  gt06ctl ops preflight\n  gt06ctl ops preflight --host ubuntu@3.109.42.82",
	}, func(cmd *cobra.Command, _ []string) error { return o.preflight(cmd, ops.Action(action)) })
	c.Flags().StringVar(&action, "action", "", "what it is for; default: the action of the open change")
	return c
}

func (o *opsTool) preflight(cmd *cobra.Command, action ops.Action) error {
	ctx := cmd.Context()
	w, err := o.work(ctx, cmd)
	if err != nil {
		return err
	}
	j, err := w.Session.Find(ctx, o.change)
	if err != nil && ops.KindOf(err) != ops.Refused {
		return err
	}
	var change ops.Change
	if j != nil {
		change = j.Change()
		action = change.Action
	}
	facts, err := w.Backend.Facts.Facts(ctx, ops.Question{Instance: w.Config.AWS.InstanceID})
	if err != nil {
		return err
	}
	v, err := o.vitals(ctx, w)
	if err != nil {
		return err
	}
	checks := runbook.Preflight(&v, &facts, &w.Config, action)
	more, notes, err := w.site().Preflight(ctx)
	if err != nil {
		return err
	}
	checks, v.Notes = append(checks, more...), append(v.Notes, notes...)
	next := `gt06ctl ops change open --action ` + string(orOther(action)) + ` --reason "why it must be"`
	if j != nil {
		if change.Unfinished != "" {
			checks = append(checks, ops.Check{ID: "C4", Text: "nothing is unfinished", Seen: change.Unfinished + " of " + change.ID, Want: "nothing", Next: "gt06ctl ops change resume " + change.ID})
		}
		gate, err := w.Session.Gate.Read(ctx, ops.GateQuestion{Change: change, Class: ops.Guest})
		if err != nil {
			return err
		}
		checks = append(checks, gate.Checks...)
		next = "gt06ctl ops " + step(action)
		note := map[string]string{"name": ops.CheckPreflight, "safe": strconv.FormatBool(checks.OK())}
		if v.GT06 != nil {
			b := v.Before()
			note["connections"], note["logins"] = strconv.Itoa(b.Connections), strconv.Itoa(b.Logins)
		}
		if err := w.Session.Note(ctx, change.ID, ops.KindCheck, preflightCode(checks), note); err != nil {
			return err
		}
	}
	if err := o.sayVerdict(cmd, w, checks, v, next); err != nil {
		return err
	}
	if !checks.OK() {
		return ops.Fail(ops.Unsafe, errors.New("not safe"), "mend the above, in its order")
	}
	return nil
}

func preflightCode(c ops.Checks) int {
	if c.OK() {
		return 0
	}
	return int(ops.Unsafe)
}

// sayVerdict is the one screen: the answer, then what is in order, then the
// next command.
func (o *opsTool) sayVerdict(cmd *cobra.Command, w *opsWork, checks ops.Checks, v runbook.Vitals, next string) error {
	verdict := "SAFE"
	if !checks.OK() {
		verdict = "NOT SAFE, because"
		next = checks.Failed()[0].Next
	}
	var b bytes.Buffer
	const form = "2006-01-02 15:04:05 MST"
	fmt.Fprintf(&b, "%s, %s (%s)\n", v.Host, v.At.In(w.Config.Zone()).Format(form), v.At.UTC().Format("15:04:05 MST"))
	checks.Print(&b)
	for _, n := range v.Notes {
		fmt.Fprintln(&b, "note:", n)
	}
	if at, err := time.Parse("2006-01", w.Config.SOPVersion); err == nil && v.At.Sub(at) > 180*24*time.Hour {
		fmt.Fprintf(&b, "note: the SOP was validated last in %s, more than 180 days ago\n", w.Config.SOPVersion)
	}
	fmt.Fprintln(&b, verdict)
	for _, c := range checks.Failed() {
		fmt.Fprintf(&b, "  %s %s\n", c.ID, c.Text)
	}
	fmt.Fprintln(&b, "next:", next)
	if !checks.OK() {
		fmt.Fprintln(&b, "unsure whether a snapshot is needed? take one: gt06ctl ops snapshot create --apply")
	}
	return o.say(cmd, map[string]any{"safe": checks.OK(), "checks": checks, "next": next, "machine": v}, b.String())
}

func orOther(a ops.Action) ops.Action {
	if a == "" {
		return ops.Other
	}
	return a
}

// step is the command a change of an action is usually for.
func step(a ops.Action) string {
	switch a {
	case ops.DiskCleanup:
		return "cleanup disk"
	case ops.DiskResize:
		return "resize volume --size GIB"
	case ops.SSHFix:
		return "ssh-recover"
	case ops.Restart, ops.Migrate:
		return "restart"
	case ops.Upgrade:
		return "restart gt06"
	case ops.OSUpdate, ops.Kernel, ops.Architecture, ops.Refactor, ops.Financial, ops.Other:
	}
	return "run -- COMMAND"
}
