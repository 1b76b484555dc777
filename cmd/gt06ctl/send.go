package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gt06/protocol"
	"gt06/server/control"
)

func (t *tool) sendCommand() *cobra.Command {
	var args control.SendArgs
	var names strings.Builder
	for _, c := range protocol.CommandNames() {
		fmt.Fprintf(&names, "  %-24s %s\n", strings.Join(append([]string{c.Name}, c.Args...), " "), c.Help)
	}
	c := &cobra.Command{
		Use: "send IMEI COMMAND", Short: "Send a command to a device and wait for its reply",
		Long: `send finds the connection of a device, sends it a command and prints its reply.
COMMAND is a text of the device's, which ends in #, or one of these names; their
texts follow the device's model:

` + names.String() + `
What may be sent is the server's commands.allow. A command that can stop an
engine needs --yes-cut-engine, and a fix of the last ten minutes that is slow
enough (commands.cut_below_kmh). Every byte is in the log before it leaves;
replies are in device_commands, late ones too.

Exit codes: 0 a reply came, 9 none in time, 13 not allowed, 14 no such device or
offline.`,
		Example: "  gt06ctl send 490154203237518 position\n  gt06ctl send 490154203237518 'TIMER,30,300#' --wait 1m\n  gt06ctl send 490154203237518 engine-stop --yes-cut-engine",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, list []string) error {
			args.IMEI, args.Command, args.Args = list[0], list[1], list[2:]
			var sent control.Sent
			if err := t.ask(cmd.Context(), "send", args, &sent); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case t.json:
				return printJSON(out, sent)
			case sent.Queued != "":
				return printf(out, "the device is offline: %q waits for it until %s\n", sent.Command, sent.Queued)
			case sent.Reply == nil:
				return printf(out, "sent %q\n", sent.Command)
			}
			return printf(out, "%s\n(%.0f ms after %q)\n", *sent.Reply, sent.AfterMS, sent.Command)
		},
	}
	c.Flags().DurationVar(&args.Wait, "wait", 30*time.Second, "how long to wait for the reply; 0: not at all")
	c.Flags().DurationVar(&args.Queue, "queue", 0, "keep the command this long for a device that is offline")
	c.Flags().BoolVar(&args.CutEngine, "yes-cut-engine", false, "yes, the engine may stop")
	c.Flags().BoolVar(&args.Alternative, "alternative", false, "the older texts, with a password")
	c.Flags().StringVar(&args.Password, "password", "", "the device's password, for --alternative")
	return c
}

func (t *tool) commandsCommand() *cobra.Command {
	args := control.CommandsArgs{}
	c := &cobra.Command{
		Use: "commands IMEI", Short: "List what was sent to a device, and its replies", Example: "  gt06ctl commands 490154203237518",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, list []string) error {
			args.IMEI = list[0]
			var rows []struct {
				Command   string `json:"command"`
				By        string `json:"requested_by"`
				Flag      uint32 `json:"flag"`
				SentAt    string `json:"sent_at"`
				Reply     string `json:"reply"`
				RepliedAt string `json:"replied_at"`
			}
			if err := t.ask(cmd.Context(), "commands", args, &rows); err != nil {
				return err
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			w := newTable(cmd.OutOrStdout(), "SENT", "BY", "COMMAND", "REPLIED", "REPLY")
			for _, r := range rows {
				w.row(r.SentAt, r.By, r.Command, r.RepliedAt, r.Reply)
			}
			return w.end()
		},
	}
	c.Flags().IntVar(&args.Most, "most", 20, "how many")
	return c
}
