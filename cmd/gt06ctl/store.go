package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
)

func (t *tool) storeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "store", Short: "Look at the database: room, completeness, schema; make it",
		Example: "  gt06ctl store budget\n  gt06ctl store verify --from 2h\n  gt06ctl store migrate --plan",
	}
	var from, to string
	verify := &cobra.Command{
		Use: "verify", Short: "Ask of every frame in the log whether its rows are in the database",
		Long: `verify decodes what was received in a time and asks for each row whether it is
there: by storing it in a transaction that is taken back. Times are RFC 3339,
YYYY-MM-DD HH:MM in UTC, or 2h for two hours ago. Exit code 7 when rows are missing.`,
		Example: "  gt06ctl store verify\n  gt06ctl store verify --from 2h --to 1h", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var q control.VerifyArgs
			var err error
			now := time.Now()
			if q.From, err = moment(from, now); err != nil {
				return err
			}
			if q.To, err = moment(to, now); err != nil {
				return err
			}
			return t.storeVerify(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), q)
		},
	}
	verify.Flags().StringVar(&from, "from", "24h", "received at or after")
	verify.Flags().StringVar(&to, "to", "0s", "received before")
	var plan bool
	migrate := &cobra.Command{
		Use: "migrate", Short: "Bring the tables to the version of this program",
		Long: `A server brings the tables to its version itself, when it has proved itself after an
upgrade. migrate says which version they have and whether anything is left to do;
it changes nothing that a server would not have changed.`,
		Example: "  gt06ctl store migrate --plan", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.storeMigrate(cmd.Context(), cmd.OutOrStdout(), plan)
		},
	}
	migrate.Flags().BoolVar(&plan, "plan", false, "only say what would be done")
	c.AddCommand(
		&cobra.Command{
			Use: "budget", Short: "How fast log and database grow, and how long the disk lasts", Args: cobra.NoArgs,
			Long:    "budget measures the last day, or as much of it as the end of the log covers.",
			Example: "  gt06ctl store budget\n  gt06ctl store budget --json",
			RunE:    func(cmd *cobra.Command, _ []string) error { return t.storeBudget(cmd.Context(), cmd.OutOrStdout()) },
		},
		verify, migrate, t.storeInitCommand(),
	)
	return c
}

func (t *tool) storeBudget(ctx context.Context, out io.Writer) error {
	var b control.Budget
	if err := t.call(ctx, "budget", &b); err != nil {
		return err
	}
	if t.json {
		return printJSON(out, &b)
	}
	w := newTable(out, "", "NOW", "A DAY", "KEPT FOR", "")
	for _, p := range []*control.BudgetPart{&b.Log, &b.Database} {
		note := ""
		switch {
		case p.LimitBytes > 0:
			note = "at most " + mib(p.LimitBytes)
		case !b.OnThisDisk:
			note = "not on this disk, as far as can be seen"
		}
		w.row(p.Kind, mib(p.Bytes), mib(p.BytesPerD), fmt.Sprintf("%.0f days", p.KeepDays), note)
	}
	w.row("disk", mib(b.Total-b.Free), "", "", mib(b.Free)+" free of "+mib(b.Total))
	if err := w.end(); err != nil {
		return err
	}
	end := "the disk is not 95 % full at this rate: retention and limits end the growth before"
	if b.Days != nil {
		end = fmt.Sprintf("the disk is 95 %% full in %.1f days at this rate", *b.Days)
	}
	const short = 600
	if b.WindowS < short {
		end += fmt.Sprintf("\nmeasured over %.0f s only: ask again later", b.WindowS)
	}
	return printf(out, "%d rows, %d a day\n%s\n", b.Rows, b.RowsPerDay, end)
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func (t *tool) storeVerify(ctx context.Context, out, stderr io.Writer, q control.VerifyArgs) error {
	done, err := follow[control.Verified, control.Verified](ctx, t, stderr, "verify", q, func(p *control.Verified) string {
		return fmt.Sprintf("%d records, %d rows, %d missing", p.Records, p.Rows, p.Missing)
	}, "ask again")
	if err != nil {
		return err
	}
	if t.json {
		err = printJSON(out, done)
	} else {
		err = printf(out, "%d records, %d rows, %d missing\n", done.Records, done.Rows, done.Missing)
		for _, p := range done.Places {
			err = errors.Join(err, printf(out, "  received %s to %s: %d\n", clock(p.From), clock(p.To), p.Rows))
		}
	}
	if err == nil && done.Missing > 0 {
		return cli.Fail(cli.Red, errors.New("store verify: rows are missing"), "gt06ctl replay --from TIME --to TIME stores them from the log")
	}
	return err
}

func (t *tool) storeMigrate(ctx context.Context, out io.Writer, plan bool) error {
	var s control.SchemaInfo
	if err := t.call(ctx, "schema", &s); err != nil {
		return err
	}
	if t.json {
		return printJSON(out, &s)
	}
	switch {
	case s.Version > s.Known:
		return printf(out, "the tables have version %d, this server knows %d: a newer server made them, and both can live with it\n", s.Version, s.Known)
	case s.Pending == 0:
		return printf(out, "nothing to do: the tables have version %d, which is this server's\n", s.Version)
	}
	if err := printf(out, "%d to do, from version %d to %d\n", s.Pending, s.Version, s.Known); err != nil || plan {
		return err
	}
	return cli.Fail(cli.Refused, errors.New("store migrate: the server does it itself when its probation ends"), "gt06ctl upgrades says how the last one went")
}

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }
