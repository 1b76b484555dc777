package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
)

// importing is the flags of import.
type importing struct {
	mapping, dsnFile string
	plan, again      bool
}

func (t *tool) historyCommand() *cobra.Command {
	var f importing
	c := &cobra.Command{
		Use: "import", Short: "Bring over the history of another server's table",
		Long: `import reads a table of MariaDB by a mapping file (the one of a sink that fills it: see
ops/deploy/node/mapping.yaml) and stores its rows as positions, their IMEIs as devices.
It needs a primary key of one whole number, and columns for imei, fix_time, latitude
and longitude.

It goes on where the last run ended: how far it is commits with the rows. A fix that is
there already (the same device and second, within a metre) is not stored twice, so
--again, from the beginning, is safe; it finds rows that were written late. What is
older than retention.rows is refused, for it would be dropped at once.

Rows that were imported have protocol 0, which no frame has.`,
		Example: "  gt06ctl import --mapping /etc/gt06/mapping.yaml --plan\n  gt06ctl import --mapping /etc/gt06/mapping.yaml\n  gt06ctl import --mapping old.yaml --dsn-file /etc/gt06/old.dsn --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.importHistory(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), f)
		},
	}
	c.Flags().StringVar(&f.mapping, "mapping", "", "file that says which columns are which fields")
	c.Flags().StringVar(&f.dsnFile, "dsn-file", "", "file with the dsn of the MariaDB that has the table (default: the dsn of the server's store)")
	c.Flags().BoolVar(&f.plan, "plan", false, "compare the mapping with the table, count, and change nothing")
	c.Flags().BoolVar(&f.again, "again", false, "read from the beginning")
	return c
}

func (t *tool) importHistory(ctx context.Context, out, stderr io.Writer, f importing) error {
	if f.mapping == "" {
		return cli.Fail(cli.Usage, errors.New("which table? --mapping FILE says it"), "ops/deploy/node/mapping.yaml is an example")
	}
	text, err := os.ReadFile(f.mapping)
	if err != nil {
		return cli.Fail(cli.Usage, err)
	}
	args := control.HistoryArgs{Mapping: string(text), Plan: f.plan, Again: f.again}
	if f.dsnFile != "" {
		dsn, err := os.ReadFile(f.dsnFile)
		if err != nil {
			return cli.Fail(cli.Usage, err)
		}
		args.DSN = strings.TrimSpace(string(dsn))
	}
	done, err := follow[control.HistoryProgress, control.History](ctx, t, stderr, "history", args, func(p *control.HistoryProgress) string {
		return fmt.Sprintf("%d of %d rows", p.Read, p.Of)
	}, "run it once more, it goes on where it ended")
	if err != nil {
		return err
	}
	if t.json {
		return printJSON(out, done)
	}
	var refused int64
	for _, n := range done.Refused {
		refused += n
	}
	w := newTable(out)
	w.row("source", done.Source)
	w.row("read", done.Read)
	w.row("written", done.Written)
	w.row("already there", done.There)
	w.row("refused", refused)
	for _, why := range slices.Sorted(maps.Keys(done.Refused)) {
		w.rowf("", "%d %s", done.Refused[why], why)
	}
	w.row("waiting", done.Waiting)
	if err := w.end(); err != nil || !f.plan {
		return err
	}
	return printf(out, "The mapping fits the table; nothing was changed.\n")
}
