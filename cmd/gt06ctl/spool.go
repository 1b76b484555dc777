//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
	"gt06/storage"
	"gt06/storage/spool"
)

func (t *tool) spoolCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "spool", Short: "Look at the log, and salvage one",
		Long:    "The log (spool) is in the data directory: every frame that was answered is in it.",
		Example: "  gt06ctl spool list\n  gt06ctl spool verify\n  gt06ctl spool import /mnt/old/var/lib/gt06",
	}
	c.AddCommand(
		&cobra.Command{
			Use: "list [DIR]", Short: "List the segments", Example: "  gt06ctl spool list\n  gt06ctl spool list /mnt/old/var/lib/gt06", Args: cobra.MaximumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error { return t.spoolList(cmd.OutOrStdout(), args) },
		},
		&cobra.Command{
			Use: "verify [DIR]", Short: "Read every record: checksums, and no byte of a connection is missing",
			Long: `verify reads the whole log: every record must prove its checksum, and the bytes of
a connection must follow each other. It can run beside the server. Exit code 7 when
something is damaged or missing; the records around it are read all the same.`,
			Example: "  gt06ctl spool verify\n  gt06ctl spool verify /mnt/old/var/lib/gt06 --json", Args: cobra.MaximumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return t.spoolVerify(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
			},
		},
		&cobra.Command{
			Use: "import DIR", Short: "Store what the log of another data directory holds",
			Long: `import is for the time after an older volume or data directory was restored: the log
on the one that was in use before holds what came since. Name it as the server sees
it; no server may live on it, and nothing of it is changed. What the database has
already is merged, so it can be run again, and one that was cut short goes on
where it ended.`,
			Example: "  gt06ctl spool import /mnt/old/var/lib/gt06", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return t.spoolImport(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args[0])
			},
		},
	)
	return c
}

// segments returns the segments of a data directory, or of the log itself.
func (t *tool) segments(args []string) (dir string, segments []spool.Segment, err error) {
	data := t.dataDir
	if len(args) > 0 {
		data = args[0]
	}
	dir = filepath.Join(data, "spool")
	segments, err = spool.Segments(dir)
	if len(segments) == 0 && !errors.Is(err, spool.ErrVersion) {
		if inside, insideErr := spool.Segments(data); len(inside) > 0 && insideErr == nil {
			return data, inside, nil
		}
	}
	switch {
	case errors.Is(err, spool.ErrVersion):
		return dir, nil, cli.Fail(cli.Newer, err, "look at it with the version that wrote it, or a newer one")
	case err != nil:
		return dir, nil, cli.Fail(cli.Usage, err, "name a data directory: --data-dir DIR, or as the argument")
	case len(segments) == 0:
		return dir, nil, cli.Fail(cli.Usage, fmt.Errorf("%s has no segments of a log", dir), "name a data directory: --data-dir DIR, or as the argument")
	}
	return dir, segments, nil
}

type segmentLine struct {
	Number     uint32    `json:"number"`
	Generation uint64    `json:"generation"`
	Bytes      int64     `json:"bytes"`
	Valid      int64     `json:"valid_bytes"`
	Written    time.Time `json:"written"`
}

func (t *tool) spoolList(out io.Writer, args []string) error {
	dir, segments, err := t.segments(args)
	if err != nil {
		return err
	}
	total := int64(0)
	lines := make([]segmentLine, len(segments))
	for i, s := range segments {
		lines[i] = segmentLine(s)
		total += s.Bytes
	}
	if t.json {
		return printJSON(out, lines)
	}
	w := newTable(out, "SEGMENT", "GENERATION", "KIB", "WRITTEN", "")
	for _, s := range lines {
		note := ""
		if s.Valid < s.Bytes {
			note = fmt.Sprintf("valid to byte %d: what follows was written again after a failed sync", s.Valid)
		}
		w.row(s.Number, s.Generation, s.Bytes>>10, s.Written.Format(time.RFC3339), note)
	}
	if err := w.end(); err != nil {
		return err
	}
	return printf(out, "%d segments, %.1f MiB in %s\n", len(lines), float64(total)/(1<<20), dir)
}

func (t *tool) spoolVerify(ctx context.Context, out, stderr io.Writer, args []string) error {
	dir, segments, err := t.segments(args)
	if err != nil {
		return err
	}
	end := spool.End(segments)
	var st control.Status
	if len(args) == 0 && t.call(ctx, "status", &st) == nil { // a server writes on
		end = storage.Position(st.Spool.Durable)
	}
	live := newProgress(stderr)
	report, err := spool.Verify(ctx, dir, end, func(r *spool.Report) {
		if !t.json {
			live.say("%d records", r.Records)
		}
	})
	live.clear()
	if err != nil {
		return err
	}
	if t.json {
		err = printJSON(out, report)
	} else {
		err = printf(out, "%d records of %d connections, %s to %s\n%s\n", report.Records, report.Connections, clock(report.First), clock(report.Last),
			missing(report.Damaged, report.Skipped, report.Gaps, report.Missing))
		for _, p := range report.Places {
			err = errors.Join(err, printf(out, "  %v\n", p))
		}
	}
	if err == nil && !report.Whole() {
		return cli.Fail(cli.Red, errors.New("spool verify: the log is not whole"), "what can be read is stored; devices with a memory of their own may send the rest again")
	}
	return err
}

func (t *tool) spoolImport(ctx context.Context, out, stderr io.Writer, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return cli.Fail(cli.Usage, err)
	}
	done, err := follow[control.ImportProgress, control.Imported](ctx, t, stderr, "import", control.ImportArgs{Dir: dir}, func(p *control.ImportProgress) string {
		return fmt.Sprintf("%d records %s", p.Records, p.Step)
	}, "run it once more, it goes on where it ended")
	if err != nil {
		return err
	}
	if t.json {
		return printJSON(out, done)
	}
	if err := printf(out, "%d records, %s to %s; %d of them stored by this run\nrecovered  %d rows; %d were there already\nmissing    %s\n",
		done.Records, clock(done.First), clock(done.Last), done.Stored, done.Recovered, done.Merged,
		missing(done.Damaged, done.SkippedBytes, done.Gaps, done.MissingBytes)); err != nil {
		return err
	}
	if done.Next.IsZero() {
		return printf(out, "after it   nothing has come yet\n")
	}
	return printf(out, "after it   no record for %s, to %s: only devices with a memory of their own can send that again\n",
		done.Next.Sub(done.Last).Round(time.Second), clock(done.Next))
}

// missing says what is not there.
func missing(damaged int, skipped int64, gaps int, bytes int64) string {
	if damaged == 0 && gaps == 0 {
		return "nothing: every checksum is right, no byte of a connection is missing"
	}
	return fmt.Sprintf("%d places damaged (%d bytes of the log passed over), %d holes in connections (%d bytes)", damaged, skipped, gaps, bytes)
}
