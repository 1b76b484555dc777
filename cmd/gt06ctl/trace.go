package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
)

func (t *tool) traceCommand() *cobra.Command {
	var q control.TraceArgs
	var off bool
	c := &cobra.Command{
		Use: "trace [IMEI]", Short: "Write the frames of one device to the server's log for a time",
		Example: "  gt06ctl trace 356789012345678 --for 10m\n  gt06ctl trace\n  gt06ctl trace 356789012345678 --off",
		Long: `The server's log has no frames: there are too many. trace switches them on for one
device, as hex and decoded, with their answers. It ends by itself, and goes on
after a restart and an upgrade until then. Without an IMEI it lists who is
traced. gt06ctl tail shows the same frames here, and nowhere else.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if q.IMEI, err = oneIMEI(args); err != nil {
				return err
			}
			switch {
			case q.IMEI == "" && (off || cmd.Flags().Changed("for")):
				return cli.Fail(cli.Usage, errors.New("trace: whose frames? give an IMEI"), "gt06ctl trace 356789012345678 --for 10m")
			case off:
				q.For = 0
			case q.For <= 0:
				return cli.Fail(cli.Usage, errors.New("trace: --for is a time, such as 10m"), "--off ends a trace")
			}
			list := []control.Trace{}
			if err := t.ask(cmd.Context(), "trace", q, &list); err != nil {
				return err
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), list)
			}
			if len(list) == 0 {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "no device is traced")
				return err
			}
			w := newTable(cmd.OutOrStdout(), "IMEI", "UNTIL", "LEFT", "BY")
			for _, tr := range list {
				w.row(tr.IMEI, tr.Until.UTC().Format(time.RFC3339), time.Until(tr.Until).Round(time.Second), tr.By)
			}
			return w.end()
		},
	}
	c.Flags().DurationVar(&q.For, "for", 10*time.Minute, "for how long, 24h at most")
	c.Flags().BoolVar(&off, "off", false, "end it now")
	return c
}
