package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
)

func (t *tool) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say how the server fares", Example: "  gt06ctl status\n  gt06ctl status --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st control.Status
			if err := t.call(cmd.Context(), "status", &st); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if t.json {
				return printJSON(out, st)
			}
			w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
			fmt.Fprintf(w, "state\t%s\n", st.State)
			for _, r := range st.Reasons {
				fmt.Fprintf(w, "\t%s\n", r)
			}
			fmt.Fprintf(w, "server\t%s, pid %d, generation %d, up %v\n", st.Version, st.PID, st.Generation, time.Duration(st.UptimeS)*time.Second)
			fmt.Fprintf(w, "devices\t%d online, %d connections\n", st.DevicesOnline, st.Connections)
			if k := st.Keeper; k != nil {
				fmt.Fprintf(w, "keeper\tpid %d holds the port and %d connections\n", k.PID, max(0, k.Held-1))
			}
			if u := st.LastUpgrade; u != nil {
				fmt.Fprintf(w, "upgrade\t%s %s, from %s to %s, %d connections, %.1f ms\n", u.Result, ago(u.At), u.From.Version, u.To.Version, u.Moved, u.StallMS)
			}
			fmt.Fprintf(w, "log\t%.1f MiB, oldest %s\n", float64(st.Spool.Bytes)/(1<<20), st.Spool.Oldest)
			fmt.Fprintf(w, "store\t%s is %s, %d records behind\n", st.Store.Kind, st.Store.State, st.Store.Lag)
			if st.Store.LastError != "" {
				fmt.Fprintf(w, "\t%s\n", st.Store.LastError)
			}
			return w.Flush()
		},
	}
}

func (t *tool) devicesCommand() *cobra.Command {
	var stale time.Duration
	c := &cobra.Command{
		Use: "devices [list]", Short: "List the devices", Example: "  gt06ctl devices\n  gt06ctl devices --stale 5m",
		Args: cobra.MatchAll(cobra.MaximumNArgs(1), func(_ *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] != "list" {
				return fmt.Errorf("devices knows %q, not %q", "list", args[0])
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []control.Device
			if err := t.call(cmd.Context(), "devices", &list); err != nil {
				return err
			}
			if stale > 0 {
				kept := list[:0]
				for _, d := range list {
					seen, err := time.Parse(time.RFC3339, d.LastSeen)
					if err != nil || time.Since(seen) > stale {
						kept = append(kept, d)
					}
				}
				list = kept
			}
			out := cmd.OutOrStdout()
			if t.json {
				return printJSON(out, list)
			}
			w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "IMEI\tSTATUS\tONLINE\tSEEN\tFIX\tPLACE\tKM/H\tNAME")
			for _, d := range list {
				place, speed := "", ""
				if d.Latitude != nil {
					place, speed = fmt.Sprintf("%.5f %.5f", *d.Latitude, *d.Longitude), fmt.Sprintf("%.0f", *d.SpeedKMH)
				}
				fmt.Fprintf(w, "%s\t%s\t%v\t%s\t%s\t%s\t%s\t%s\n", d.IMEI, d.Status, d.Online, ago(d.LastSeen), ago(d.FixTime), place, speed, d.Name)
			}
			return w.Flush()
		},
	}
	c.Flags().DurationVar(&stale, "stale", 0, "only devices silent for longer than this")
	return c
}

func ago(stamp string) string {
	at, err := time.Parse(time.RFC3339, stamp)
	if err != nil {
		return "never"
	}
	return time.Since(at).Truncate(time.Second).String() + " ago"
}

func (t *tool) validateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "validate", Short: "Check that timestamps and places move and nobody reconnects all the time", Example: "  gt06ctl validate && echo all is well",
		Long: "The three checks of the operator's SOP, section 7. A red check ends with exit code 7; a server\nyounger than the window of ten minutes says that it is warming up.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var v control.Validation
			if err := t.call(cmd.Context(), "validate", &v); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if t.json {
				if err := printJSON(out, v); err != nil {
					return err
				}
			} else {
				for _, c := range v.Checks {
					mark := "ok "
					if !c.OK {
						mark = "RED"
					}
					fmt.Fprintf(out, "[%s] %-10s %s\n", mark, c.Name, c.Text)
				}
				if v.WarmingUp {
					fmt.Fprintln(out, "the server is warming up: nothing is red yet")
				}
			}
			if !v.OK {
				return cli.Fail(cli.Red, errors.New("validate: a check is red"), "gt06ctl devices --stale 5m lists the silent devices")
			}
			return nil
		},
	}
}

func (t *tool) tailCommand() *cobra.Command {
	var unidentified bool
	c := &cobra.Command{
		Use: "tail [IMEI]", Short: "Watch frames come in", Example: "  gt06ctl tail\n  gt06ctl tail 356789012345678 --json\n  gt06ctl tail --unidentified",
		Long: "Frames are shown as they arrive, before they are durable. What this program cannot take fast enough is left out.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return cli.Fail(cli.Usage, err)
			}
			want := control.TailArgs{Unidentified: unidentified}
			if len(args) == 1 {
				want.IMEI = args[0]
			}
			out := cmd.OutOrStdout()
			return explain(client.Stream(cmd.Context(), "tail", want, func(line json.RawMessage) error {
				if t.json {
					_, err := fmt.Fprintf(out, "%s\n", line)
					return err
				}
				var s struct {
					Time, IMEI, Hex, Answer string
					Frame                   struct {
						Type      string
						Latitude  *float64
						Longitude *float64
						Speed     *float64 `json:"speed_kmh"`
						Alarms    []string
						Error     string
					}
				}
				if err := json.Unmarshal(line, &s); err != nil {
					return err
				}
				text := ""
				if s.Frame.Latitude != nil {
					text = fmt.Sprintf(" %.5f %.5f %.0f km/h", *s.Frame.Latitude, *s.Frame.Longitude, *s.Frame.Speed)
				}
				if len(s.Frame.Alarms) > 0 {
					text += " alarm " + strings.Join(s.Frame.Alarms, ",")
				}
				if s.Frame.Error != "" {
					text += " (" + s.Frame.Error + ")"
				}
				if s.IMEI == "" {
					s.IMEI = "no login"
				}
				_, err := fmt.Fprintf(out, "%.23s %-15s %s%s  %s\n", s.Time, s.IMEI, s.Frame.Type, text, s.Hex)
				return err
			}))
		},
	}
	c.Flags().BoolVar(&unidentified, "unidentified", false, "only frames without a login, with a wrong checksum, unknown or damaged")
	return c
}
