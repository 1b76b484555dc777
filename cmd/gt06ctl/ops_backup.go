package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gt06/ops"
	"gt06/ops/backup"
)

func (o *opsTool) backupCommand() *cobra.Command {
	var uri string
	c := o.group(&cobra.Command{
		Use: "backup", Short: "Copies of databases and files that are proven whole",
		Long: `A backup makes a new object and changes nothing else, so it needs no change and
no --apply, and runs from cron. The snapshot of the volume holds all of it, too;
a dump can be read without it.`,
		Example: "  gt06ctl ops backup db\n  gt06ctl ops backup verify",
	}, o.backupDB(&uri), o.backupFiles(&uri), o.backupList(&uri), o.backupVerify(&uri), o.backupExtract(&uri))
	c.PersistentFlags().StringVar(&uri, "s3", "", "the place: s3://BUCKET/PREFIX; default: backup.s3_uri, else backup.dir")
	return c
}

// inPlace runs a command on the place of backups.
func (o *opsTool) inPlace(uri *string, run func(cmd *cobra.Command, w *opsWork, p backup.Place, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		w, err := o.local(cmd)
		if err != nil {
			return err
		}
		at := *uri
		if at == "" {
			at = w.Config.Backup.S3URI
		}
		p, err := o.place(w, at)
		if err != nil {
			return err
		}
		return run(cmd, w, p, args)
	}
}

func (o *opsTool) backupDB(uri *string) *cobra.Command {
	var smaller bool
	c := o.looking(&cobra.Command{
		Use: "db", Short: "Dump all schemas as they are at one moment, and check the dump",
		Long: `backup db dumps the schemas of backup.dbs at one moment with routines, events and
triggers, and copies the SQLite databases of backup.sqlite. A dump counts when
the program ended well, its last line is there, everything the server knows is in
it, and it is not less than half of the last one. Of backup.dir the oldest go
when there are more than backup.keep; of a bucket nothing is ever deleted.

The login comes from backup.defaults_file (mode 0600), or is root's own.`,
		Example: "  gt06ctl ops backup db\n  gt06ctl ops backup db --s3 s3://quickport-backup/db",
	}, o.inPlace(uri, func(cmd *cobra.Command, w *opsWork, p backup.Place, _ []string) error {
		var made []backup.Manifest
		m := o.machine(w)
		opt := o.backupOptions(cmd, smaller)
		if len(w.Config.Backup.DBs) > 0 {
			b, err := backup.Dump(cmd.Context(), m.DB, w.Config.Backup.DBs, p, opt)
			if err != nil {
				return refuseBackup(err)
			}
			made = append(made, b)
		}
		for _, path := range w.Config.Backup.SQLite {
			b, err := backup.CopySQLite(cmd.Context(), path, p, opt)
			if err != nil {
				return refuseBackup(err)
			}
			made = append(made, b)
		}
		if len(made) == 0 {
			return ops.Fail(ops.Usage, errors.New("neither backup.dbs nor backup.sqlite names a database"))
		}
		return o.sayMade(cmd, w, p, made)
	}))
	c.Flags().BoolVar(&smaller, "accept-smaller", false, "accept less than half of the last one")
	return c
}

func (o *opsTool) backupOptions(cmd *cobra.Command, smaller bool) backup.Options {
	return backup.Options{Smaller: smaller, Now: time.Now, Progress: func(text string) { _, _ = fmt.Fprintln(cmd.ErrOrStderr(), text) }}
}

func refuseBackup(err error) error {
	if errors.Is(err, backup.ErrShrunk) {
		return ops.Fail(ops.Refused, err, "look whether something is missing; when it is meant: --accept-smaller")
	}
	return err
}

// sayMade tells what was made, and lets the oldest go where the place is ours
// to keep small.
func (o *opsTool) sayMade(cmd *cobra.Command, w *opsWork, p backup.Place, made []backup.Manifest) error {
	var b strings.Builder
	for i := range made {
		m := &made[i]
		fmt.Fprintf(&b, "%s in %s: %s\n", m.Name, p, size(m))
		for _, l := range m.Loose {
			fmt.Fprintf(&b, "  not of the same moment: %s\n", l)
		}
		if m.Incomplete != "" {
			fmt.Fprintf(&b, "  left out: %s\n", m.Incomplete)
		}
		if dir, ok := p.(backup.Dir); ok {
			gone, err := dir.Prune(cmd.Context(), m.Kind, m.Source, w.Config.Backup.Keep)
			if err != nil {
				return err
			}
			for _, name := range gone {
				fmt.Fprintf(&b, "  more than %d are kept: %s went\n", w.Config.Backup.Keep, name)
			}
		}
	}
	fmt.Fprintf(&b, "prove it: gt06ctl ops backup verify %s\n", made[0].Name)
	return o.say(cmd, made, b.String())
}

func size(m *backup.Manifest) string {
	text := fmt.Sprintf("%d bytes", m.Bytes)
	if tables, rows, objects := m.Contents.Count(); tables > 0 {
		text += fmt.Sprintf(", %d tables, %d rows, %d triggers, events, routines and views", tables, rows, objects)
	}
	if len(m.Archive) > 0 {
		text += fmt.Sprintf(", %d files", len(m.Archive))
	}
	return text
}

func (o *opsTool) backupFiles(uri *string) *cobra.Command {
	return o.looking(&cobra.Command{
		Use: "files", Short: "Archive configurations, secrets and the journal, encrypted",
		Long: `backup files archives what protect names, the configuration of gt06, Laravel's
.env and the journal. All of it is encrypted to backup.recipient: the identity to
read it is kept elsewhere (age-keygen makes the pair).`,
		Example: "  gt06ctl ops backup files",
	}, o.inPlace(uri, func(cmd *cobra.Command, w *opsWork, p backup.Place, _ []string) error {
		c := &w.Config
		if c.Backup.Recipient == "" {
			return ops.Fail(ops.Usage, errors.New("backup.recipient is missing: secrets are copied encrypted only"), "age-keygen -o key.txt, keep key.txt away from this machine, and set backup.recipient to its public key")
		}
		paths := append(slices.Clone(c.Protect), "/etc/gt06", filepath.Join(c.Services.LaravelDir, ".env"), c.Journal.Dir)
		slices.Sort(paths)
		m, err := backup.Archive(cmd.Context(), slices.Compact(paths), c.Backup.Recipient, p, o.backupOptions(cmd, true))
		if err != nil {
			return err
		}
		return o.sayMade(cmd, w, p, []backup.Manifest{m})
	}))
}

func (o *opsTool) backupList(uri *string) *cobra.Command {
	return o.looking(&cobra.Command{Use: "list", Short: "List the backups that are whole", Example: "  gt06ctl ops backup list"}, o.inPlace(uri, func(cmd *cobra.Command, w *opsWork, p backup.Place, _ []string) error {
		list, err := backup.List(cmd.Context(), p)
		if err != nil {
			return err
		}
		var b strings.Builder
		t := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tTAKEN\tHOLDS\tOF")
		for i := range list {
			m := &list[i]
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", m.Name, m.Begun.In(w.Config.Zone()).Format("2006-01-02 15:04 MST"), size(m), m.Source)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		if list == nil {
			list = []backup.Manifest{}
		}
		return o.say(cmd, list, b.String())
	}))
}

// chosen is the named backup, or the newest dump.
func chosen(ctx context.Context, p backup.Place, args []string) (backup.Manifest, error) {
	if len(args) > 0 {
		m, err := backup.Read(ctx, p, filepath.Base(args[0]))
		if err != nil {
			err = ops.Fail(ops.Refused, err, "gt06ctl ops backup list")
		}
		return m, err
	}
	m, ok, err := backup.Last(ctx, p, backup.MariaDB, "")
	if err == nil && !ok {
		err = ops.Fail(ops.Refused, fmt.Errorf("%s holds no dump", p), "gt06ctl ops backup db")
	}
	return m, err
}

func (o *opsTool) backupVerify(uri *string) *cobra.Command {
	var identity string
	c := o.looking(&cobra.Command{
		Use: "verify [NAME]", Short: "Restore a backup where nobody uses it, and compare", Args: cobra.MaximumNArgs(1),
		Long: `verify reads a backup to its end, then puts it back: a dump into a MariaDB of its
own that is thrown away, where it is dumped again and compared in rows, checksums,
routines, triggers, events and views; a SQLite database into a temporary file; an
archive of files when --identity names the file with the age identity. Without a
name it is the newest dump. What is not proven is exit code 7.`,
		Example: "  gt06ctl ops backup verify\n  gt06ctl ops backup verify files-20261125T142628Z.tar.age --identity key.txt",
	}, o.inPlace(uri, func(cmd *cobra.Command, w *opsWork, p backup.Place, args []string) error {
		m, err := chosen(cmd.Context(), p, args)
		if err != nil {
			return err
		}
		secret := ""
		if identity != "" {
			if secret, err = backup.Identity(identity); err != nil {
				return err
			}
		}
		v, err := backup.Verify(cmd.Context(), o.machine(w).System, p, m, secret)
		if errors.Is(err, backup.ErrDamaged) {
			err = ops.Fail(ops.Red, err, "gt06ctl ops backup list shows the others")
		}
		if err != nil {
			return err
		}
		text := m.Name + ": restored and compared, the same: " + size(&m) + "\n"
		if !v.Restored {
			text = m.Name + ": checksum right; what is in it takes --identity\n"
		}
		if len(v.Differs) > 0 {
			text = strings.Join(v.Differs, "\n") + "\n"
		}
		if err := o.say(cmd, map[string]any{"name": m.Name, "restored": v.Restored, "differs": append([]string{}, v.Differs...)}, text); err != nil {
			return err
		}
		if len(v.Differs) > 0 {
			return ops.Fail(ops.Red, fmt.Errorf("%s, restored, differs in %d ways", m.Name, len(v.Differs)), "gt06ctl ops backup db makes another")
		}
		return nil
	}))
	c.Flags().StringVar(&identity, "identity", "", "file with the age identity, for archives of files")
	return c
}

func (o *opsTool) backupExtract(uri *string) *cobra.Command {
	var identity, to string
	c := o.looking(&cobra.Command{
		Use: "extract NAME", Short: "Decrypt an archive of files into a new directory", Args: cobra.ExactArgs(1),
		Example: "  gt06ctl ops backup extract files-20261125T142628Z.tar.age --identity key.txt --to /restore/files",
	}, o.inPlace(uri, func(cmd *cobra.Command, _ *opsWork, p backup.Place, args []string) error {
		if identity == "" || to == "" {
			return ops.Fail(ops.Usage, errors.New("--identity and --to are needed"), cmd.CommandPath()+" --help")
		}
		secret, err := backup.Identity(identity)
		if err != nil {
			return err
		}
		m, err := chosen(cmd.Context(), p, args)
		if err != nil {
			return err
		}
		if err := backup.Extract(cmd.Context(), p, m, secret, to); err != nil {
			return err
		}
		return o.say(cmd, map[string]any{"name": m.Name, "to": to, "files": len(m.Archive)}, fmt.Sprintf("%d files of %s below %s\n", len(m.Archive), m.Name, to))
	}))
	c.Flags().StringVar(&identity, "identity", "", "file with the age identity")
	c.Flags().StringVar(&to, "to", "", "directory; files that are there are not overwritten")
	return c
}
