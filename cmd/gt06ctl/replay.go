package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
)

func (t *tool) quarantineCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "quarantine", Short: "Look at frames nobody could place, and try them again",
		Example: "  gt06ctl quarantine list\n  gt06ctl quarantine show 17\n  gt06ctl quarantine replay",
		Long:    "Frames that cannot be decoded, that came before a login, or whose rows the database\nrefused are kept with the reason.",
	}
	args := control.QuarantineArgs{Most: 50}
	list := &cobra.Command{
		Use: "list", Short: "List the last ones", Example: "  gt06ctl quarantine list --most 10", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			frames, err := t.quarantined(cmd.Context(), args)
			if err != nil {
				return err
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), frames)
			}
			w := newTable(cmd.OutOrStdout(), "ID", "RECEIVED", "IMEI", "REASON", "FRAME")
			for i := range frames {
				f := &frames[i]
				short := f.Hex
				if len(short) > 40 {
					short = short[:40] + "…"
				}
				w.row(f.ID, f.ReceivedAt, f.IMEI, f.Reason, short)
			}
			return w.end()
		},
	}
	list.Flags().IntVar(&args.Most, "most", 50, "how many")
	show := &cobra.Command{
		Use: "show ID", Short: "Show one, byte by byte", Example: "  gt06ctl quarantine show 17", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, list []string) error {
			id, err := strconv.ParseInt(list[0], 10, 64)
			if err != nil || id < 1 {
				return cli.Fail(cli.Usage, fmt.Errorf("%q is no id", list[0]), "gt06ctl quarantine list")
			}
			frames, err := t.quarantined(cmd.Context(), control.QuarantineArgs{ID: id, Most: 1})
			if err != nil {
				return err
			}
			if len(frames) == 0 {
				return cli.Fail(cli.Usage, fmt.Errorf("no frame %d is in quarantine", id), "gt06ctl quarantine list")
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), frames[0])
			}
			out := cmd.OutOrStdout()
			if err := printf(out, "received %s from %s\n%s\n\n", frames[0].ReceivedAt, frames[0].IMEI, frames[0].Reason); err != nil {
				return err
			}
			b, err := hex.DecodeString(frames[0].Hex)
			if err != nil {
				return err
			}
			d := decoder{out: out, noLogin: true}
			return d.frame(b)
		},
	}
	again := &cobra.Command{
		Use: "replay [ID]", Short: "Decode them again with today's decoder: one, or all", Example: "  gt06ctl quarantine replay\n  gt06ctl quarantine replay 17", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, list []string) error {
			q := control.ReplayArgs{Quarantine: true}
			if len(list) == 1 {
				var err error
				if q.ID, err = strconv.ParseInt(list[0], 10, 64); err != nil || q.ID < 1 {
					return cli.Fail(cli.Usage, fmt.Errorf("%q is no id", list[0]), "gt06ctl quarantine list")
				}
			}
			return t.replay(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), q)
		},
	}
	c.AddCommand(list, show, again)
	return c
}

func (t *tool) quarantined(ctx context.Context, args control.QuarantineArgs) (frames []control.Quarantined, err error) {
	return frames, t.ask(ctx, "quarantine", args, &frames)
}

func (t *tool) replayCommand() *cobra.Command {
	var from, to string
	c := &cobra.Command{
		Use: "replay --from TIME --to TIME", Short: "Decode frames of a time again, into the same rows",
		Long: `replay reads the log, decodes what was received in a time with today's decoder,
and stores what it says. Rows that are there are replaced, none is doubled. The
log reaches back spool.retention; times are RFC 3339, YYYY-MM-DD HH:MM in UTC, or
2h for two hours ago.`,
		Example: "  gt06ctl replay --from '2026-11-24 08:00' --to '2026-11-24 10:00'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var q control.ReplayArgs
			var err error
			now := time.Now()
			if from == "" || to == "" {
				return cli.Fail(cli.Usage, errors.New("replay: of which time? give --from and --to"), "gt06ctl replay --from 2h --to 1h")
			}
			if q.From, err = moment(from, now); err != nil {
				return err
			}
			if q.To, err = moment(to, now); err != nil {
				return err
			}
			return t.replay(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), q)
		},
	}
	c.Flags().StringVar(&from, "from", "", "received at or after")
	c.Flags().StringVar(&to, "to", "", "received before")
	return c
}

func (t *tool) replay(ctx context.Context, stdout, stderr io.Writer, q control.ReplayArgs) error {
	done, err := follow[control.Replayed, control.Replayed](ctx, t, stderr, "replay", q, func(p *control.Replayed) string {
		return fmt.Sprintf("%d records read, %d frames stored again", p.Read, p.Frames)
	}, "what was stored again is whole, run it once more")
	if err != nil {
		return err
	}
	if t.json {
		return printJSON(stdout, done)
	}
	_, err = fmt.Fprintf(stdout, "%d frames stored again, %d left the quarantine, %d are in it still, %d refused, %d not in the log any more\n", done.Frames, done.Left, done.Remained, done.Refused, done.Gone)
	return err
}
