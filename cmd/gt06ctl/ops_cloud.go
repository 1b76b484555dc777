package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gt06/ops"
	"gt06/ops/cloud"
	"gt06/ops/host"
	"gt06/ops/runbook"
)

// connectCloud prepares the account the configuration names; it asks it nothing.
func connectCloud(ctx context.Context, w *opsWork) error {
	at := w.Config.AWS
	c, err := cloud.Open(ctx, cloud.Options{Region: at.Region, Profile: at.Profile, Endpoint: at.EndpointURL})
	if err != nil {
		return ops.Fail(ops.Usage, err, "look at aws.profile and ~/.aws/config", "aws sso login --profile NAME")
	}
	w.Cloud, w.Session.Leftovers = c, runbook.Leftovers(c)
	w.Backend, err = runbook.Backend(c, w.Config)
	return err
}

// site is the instance as the cloud's runbooks see it.
func (w *opsWork) site() runbook.Site {
	return runbook.Site{Cloud: w.Cloud, Config: w.Config}
}

// current reads the change a command works in.
func (o *opsTool) current(w *opsWork) func(context.Context) (ops.Change, error) {
	return func(ctx context.Context) (ops.Change, error) {
		j, err := w.Session.Find(ctx, o.change)
		if err != nil {
			return ops.Change{}, err
		}
		return j.Change(), nil
	}
}

func (o *opsTool) snapshotCommand() *cobra.Command {
	return o.group(&cobra.Command{
		Use: "snapshot", Short: "Make, verify, list, lock the snapshots of the root volume",
		Long: `The snapshot is the undo button. There is no command here that deletes one: the
daily ones expire by their plan, those of a change stay.`,
		Example: `  gt06ctl ops snapshot create --apply
  gt06ctl ops snapshot verify`,
	}, o.snapshotCreate(), o.snapshotVerify(), o.snapshotList(), o.snapshotLock(), o.snapshotAdopt())
}

func (o *opsTool) snapshotCreate() *cobra.Command {
	var quiesce bool
	c := o.mutating(&cobra.Command{
		Use: "create", Short: "Snapshot the root volume for this change, and wait",
		Long: `create makes the snapshot the gate asks for: of the volume attached now, with
the name <prefix>-<date>-before-<action>, the reason in its description, and the
tags of change and instance. It stands for the moment it began; devices go on.
With --quiesce, on the machine, MariaDB is held still for that moment.`,
		Example: "  gt06ctl ops snapshot create --change c-20261122-01 --apply",
	}, func(w *opsWork, _ []string) ops.Runbook {
		if !quiesce {
			return w.site().SnapshotCreate(nil)
		}
		db := host.MariaDB{System: host.New()}
		if _, err := os.Stat(w.Config.Backup.DefaultsFile); err == nil {
			db.Defaults = w.Config.Backup.DefaultsFile
		}
		return w.site().SnapshotCreate(db.Hold)
	})
	c.Flags().BoolVar(&quiesce, "quiesce", false, "hold MariaDB still while the snapshot begins")
	return c
}

func (o *opsTool) snapshotVerify() *cobra.Command {
	return o.looking(&cobra.Command{
		Use: "verify", Short: "The strategy's five lines after a snapshot, read now",
		Long:    "verify waits for a snapshot that is pending, then answers section 8 of the strategy.",
		Example: "  gt06ctl ops snapshot verify --change c-20261122-01",
	}, func(cmd *cobra.Command, _ []string) error {
		w, err := o.work(cmd.Context(), cmd)
		if err != nil {
			return err
		}
		c, err := o.current(w)(cmd.Context())
		if err != nil {
			return err
		}
		checks, err := w.site().SnapshotVerify(cmd.Context(), c, func(text string) { _, _ = fmt.Fprintln(cmd.ErrOrStderr(), text) })
		if err != nil {
			return err
		}
		return o.sayChecks(cmd, checks, "the snapshot of "+c.ID)
	})
}

// sayChecks prints checks, and refuses where one is no.
func (o *opsTool) sayChecks(cmd *cobra.Command, checks ops.Checks, what string) error {
	var b strings.Builder
	checks.Print(&b)
	if err := o.say(cmd, map[string]any{"ok": checks.OK(), "checks": checks}, b.String()); err != nil {
		return err
	}
	if failed := checks.Failed(); len(failed) > 0 {
		return ops.Fail(ops.Refused, fmt.Errorf("%s is not good: %s", what, failed[0].Text), failed[0].Next)
	}
	return nil
}

func (o *opsTool) snapshotList() *cobra.Command {
	return o.looking(&cobra.Command{
		Use: "list", Short: "The snapshots of the root volume: whose, how old, locked until",
		Example: "  gt06ctl ops snapshot list",
	}, func(cmd *cobra.Command, _ []string) error {
		w, err := o.work(cmd.Context(), cmd)
		if err != nil {
			return err
		}
		list, err := w.site().SnapshotList(cmd.Context())
		if err != nil {
			return err
		}
		var b strings.Builder
		t := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "SNAPSHOT\tNAME\tSTATE\tTAKEN\tFOR\tLOCK")
		for _, s := range list {
			fmt.Fprintf(t, "%s\t%s\t%s %d %%\t%s\t%s\t%s\n", s.ID, s.Name(), s.State, s.Percent, s.Started.In(w.Config.Zone()).Format("2006-01-02 15:04 MST"), s.Class, s.Lock)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		return o.say(cmd, list, b.String())
	})
}

func (o *opsTool) snapshotLock() *cobra.Command {
	var l runbook.Lock
	var w *opsWork
	c := o.mutating(&cobra.Command{
		Use: "lock [SNAPSHOT]", Short: "Protect a snapshot from deletion, for some days", Args: cobra.MaximumNArgs(1),
		Long: `lock is for baselines: before a migration, at a financial milestone. In mode
compliance nobody can take it back, and the snapshot is paid for all its days.`,
		Example: "  gt06ctl ops snapshot lock --mode governance --days 30 --apply",
	}, func(now *opsWork, args []string) ops.Runbook {
		w = now
		if len(args) > 0 {
			l.Snapshot = args[0]
		}
		return w.site().SnapshotLock(l, o.current(w))
	})
	c.Flags().StringVar(&l.Mode, "mode", "governance", "governance or compliance")
	c.Flags().IntVar(&l.Days, "days", 30, "how long, 1 to 365")
	c.Flags().StringVar(&l.Phrase, "phrase", "", "the sentence that confirms compliance mode")
	return c
}

func (o *opsTool) amiCommand() *cobra.Command {
	var reboot, anyway bool
	create := o.mutating(&cobra.Command{
		Use: "create", Short: "Make an image of the machine, for system, kernel and architecture changes",
		Long: `create makes an image tagged together with its snapshots, without a reboot; with
--reboot only in a change for action kernel. Where the documents disagree (disk
and SSH work) the strategy is followed: a snapshot; --with-ami makes one anyway.`,
		Example: "  gt06ctl ops ami create --apply",
	}, func(w *opsWork, _ []string) ops.Runbook { return w.site().ImageCreate(reboot, anyway, o.current(w)) })
	create.Flags().BoolVar(&reboot, "reboot", false, "reboot for a clean file system; kernel changes only")
	create.Flags().BoolVar(&anyway, "with-ami", false, "also where a snapshot is enough")
	return o.group(&cobra.Command{Use: "ami", Short: "Machine images", Example: "  gt06ctl ops ami create"}, create)
}

// resizeVolume is `resize volume`; what the machine does of it is beside it.
func (o *opsTool) resizeVolume() *cobra.Command {
	var size int
	var mode string
	c := o.mutating(&cobra.Command{
		Use: "volume", Short: "Make the root volume larger",
		Long: `volume grows the root volume, online: current instances need no stop. --mode stop
is the manual's way. A volume rests six hours between two changes and never
shrinks. The file system follows on the machine: gt06ctl ops resize guest.`,
		Example: "  gt06ctl ops resize volume --size 40 --apply",
	}, func(w *opsWork, _ []string) ops.Runbook { return w.site().Resize(size, mode, o.lastDump(w)) })
	c.Flags().IntVar(&size, "size", 0, "new size in GiB")
	c.Flags().StringVar(&mode, "mode", "online", "online or stop")
	return c
}

func (o *opsTool) sshRecoverCommand() *cobra.Command {
	var user, file string
	c := o.mutating(&cobra.Command{
		Use: "ssh-recover", Short: "Let SSH in again, through a rescue instance",
		Long: `ssh-recover stops the machine, lends its root volume to a rescue instance that
puts the key into authorized_keys and the modes right, and puts everything back.
The rescue instance is terminated in any case, and ends itself within the hour.`,
		Example: "  gt06ctl ops ssh-recover --key ~/.ssh/id_ed25519.pub --apply",
	}, func(w *opsWork, _ []string) ops.Runbook {
		book := w.site().Rescue(user, "")
		if file != "" {
			book.Discover = func(ctx context.Context) (ops.Params, error) {
				key, err := os.ReadFile(file)
				if err != nil {
					return nil, ops.Fail(ops.Usage, err)
				}
				return w.site().Rescue(user, string(key)).Discover(ctx)
			}
		}
		return book
	})
	c.Flags().StringVar(&user, "user", "ubuntu", "whose access")
	c.Flags().StringVar(&file, "key", "", "file with the public key to let in; without, only the modes are mended")
	return c
}

// restoreInstance is `restore instance`; the others are beside it.
func (o *opsTool) restoreInstance() *cobra.Command {
	var guest string
	c := o.mutating(&cobra.Command{
		Use: "instance", Short: "Put the whole machine back to the snapshot of the change",
		Long: `instance is the worst case: stop, a volume from the snapshot in the place of the
root volume, start, Elastic IP. The old volume is kept for 30 days. It takes the
database, the spool and the local journal back to the snapshot; what devices
sent since is on the old volume, and is salvaged from it at the end (--guest
ssm), or on the machine: gt06ctl ops restore salvage.`,
		Example: "  gt06ctl ops restore instance --change c-20261122-01 --apply",
	}, func(w *opsWork, _ []string) ops.Runbook {
		afar := func(ctx context.Context, command string) (cloud.Output, error) {
			return w.Cloud.Run(ctx, w.Config.AWS.InstanceID, command, 30*time.Minute)
		}
		return w.site().RestoreInstance(afar, guest == "ssm", o.current(w))
	})
	c.Flags().StringVar(&guest, "guest", "", "how commands run on the machine: ssm, or nothing")
	_ = c.RegisterFlagCompletionFunc("guest", cobra.FixedCompletions([]string{"ssm"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// restoreSalvage is `restore salvage`, on the machine.
func (o *opsTool) restoreSalvage() *cobra.Command {
	var volume string
	c := o.mutating(&cobra.Command{
		Use: "salvage", Short: "Import the spool of the old root volume, on the machine",
		Long: `salvage is the end of restore instance where no SSM runs it: the old volume,
which the restore lent to the machine, is mounted read-only, and every frame in
its spool that the database lacks is imported.`,
		Example: "  gt06ctl ops restore salvage --volume vol-0123456789abcdef0 --apply",
	}, func(w *opsWork, _ []string) ops.Runbook { return w.site().Salvage(execute, volume) })
	c.Flags().StringVar(&volume, "volume", "", "the old root volume, as restore instance named it")
	return c
}

// restoreFiles is `restore files`, on the machine.
func (o *opsTool) restoreFiles() *cobra.Command {
	var snapshot string
	c := o.mutating(&cobra.Command{
		Use: "files PATH...", Short: "Copy files out of a snapshot, on the machine", Args: cobra.ArbitraryArgs,
		Long: `files makes a temporary volume of the snapshot, mounts it read-only here, copies
the paths to /restore/<change> with their checksums, and deletes the volume in any
case. Nothing is put over what is there now: that is the operator's to do.`,
		Example: "  gt06ctl ops restore files /var/www/quickport-laravel/.env /etc/nginx --apply",
	}, func(w *opsWork, args []string) ops.Runbook {
		return w.site().RestoreFiles(execute, runbook.FilesDir, snapshot, args, o.current(w))
	})
	c.Flags().StringVar(&snapshot, "snapshot", "", "another snapshot than that of the change")
	return c
}

// resizeCommand and restoreCommand hold what the cloud and what the machine do
// of both.
func (o *opsTool) resizeCommand() *cobra.Command {
	return o.group(&cobra.Command{Use: "resize", Short: "More room: the volume, then the file system", Example: "  gt06ctl ops resize volume --size 40"}, o.resizeVolume(), o.resizeGuest())
}

func (o *opsTool) restoreCommand() *cobra.Command {
	return o.group(&cobra.Command{Use: "restore", Short: "Ways back: the instance, files, a database", Example: "  gt06ctl ops restore instance"}, o.restoreInstance(), o.restoreFiles(), o.restoreSalvage(), o.restoreDB())
}
