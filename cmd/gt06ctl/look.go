package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
)

func (t *tool) statusCommand() *cobra.Command {
	var every time.Duration
	c := &cobra.Command{
		Use: "status", Short: "Say how the server fares", Example: "  gt06ctl status\n  gt06ctl status --json\n  gt06ctl status --watch\n  gt06ctl status --watch=10s",
		Long: "With --watch it is said again and again; over a restart and an upgrade, too.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every == 0 {
				var st control.Status
				if err := t.call(cmd.Context(), "status", &st); err != nil {
					return err
				}
				return t.sayStatus(cmd.OutOrStdout(), &st)
			}
			return t.watchStatus(cmd.Context(), cmd.OutOrStdout(), every)
		},
	}
	c.Flags().DurationVar(&every, "watch", 0, "say it again this often")
	c.Flags().Lookup("watch").NoOptDefVal = "2s"
	return c
}

// watchStatus says the status until it is interrupted. A server that is away
// may be one that restarts.
func (t *tool) watchStatus(ctx context.Context, out io.Writer, every time.Duration) error {
	const home = "\x1b[H\x1b[2J" // top left, nothing below
	for {
		var st control.Status
		err := t.call(ctx, "status", &st)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the operator ended it
		}
		if cli.Terminal(out) && !t.json {
			fmt.Fprintf(out, "%severy %v, %s; Ctrl-C ends\n\n", home, every, time.Now().Format(time.TimeOnly))
		}
		switch {
		case err == nil:
			err = t.sayStatus(out, &st)
		case t.json:
			err = printJSON(out, map[string]string{"error": err.Error()})
		default:
			_, err = fmt.Fprintln(out, err)
		}
		if err != nil || !pause(ctx, every) {
			return err
		}
		if !cli.Terminal(out) && !t.json {
			fmt.Fprintln(out)
		}
	}
}

func (t *tool) sayStatus(out io.Writer, st *control.Status) error {
	if t.json {
		return printJSON(out, st)
	}
	w := newTable(out)
	colour := green
	if st.State != "ready" {
		colour = yellow
	}
	w.row("state", tint(out, colour, st.State))
	for _, r := range st.Reasons {
		w.row("", r)
	}
	w.rowf("server", "%s, pid %d, generation %d, up %v", st.Version, st.PID, st.Generation, time.Duration(st.UptimeS)*time.Second)
	w.rowf("devices", "%d online, %d connections", st.DevicesOnline, st.Connections)
	if k := st.Keeper; k != nil {
		w.rowf("keeper", "pid %d holds the port and %d connections", k.PID, max(0, k.Held-1))
	}
	if u := st.LastUpgrade; u != nil {
		w.rowf("upgrade", "%s %s, from %s to %s, %d connections, %.1f ms", u.Result, ago(u.At), u.From.Version, u.To.Version, u.Moved, u.StallMS)
	}
	oldest := "empty"
	if st.Spool.Oldest != "" {
		oldest = "since " + st.Spool.Oldest
	}
	w.rowf("log", "%.1f MiB, %s", float64(st.Spool.Bytes)/(1<<20), oldest)
	w.rowf("store", "%s is %s, %d records behind", st.Store.Kind, st.Store.State, st.Store.Lag)
	memory := "no limit"
	if m := st.Memory; m.Limit > 0 {
		memory = fmt.Sprintf("the heap ends at %d MiB (%s)", m.Limit>>20, m.From)
	}
	w.rowf("memory", "%d MiB, %s", st.Memory.Resident>>20, memory)
	if st.Clock.Synchronised == "no" {
		w.row("clock", "nothing synchronises it")
	}
	if st.Store.LastError != "" {
		w.row("", st.Store.LastError)
	}
	for _, s := range st.Sinks {
		missed := ""
		if s.Missed > 0 {
			missed = fmt.Sprintf(", %d missed", s.Missed)
		}
		w.rowf("sink", "%s (%s) is %s, %d records behind%s", s.Name, s.Kind, s.State, s.Lag, missed)
		if counts := countsLine(s.Counts); counts != "" {
			w.row("", counts)
		}
		if s.LastError != "" {
			w.row("", s.LastError)
		}
	}
	return w.end()
}

// countsLine names what was counted: zeros are left out.
func countsLine(counts map[string]int64) string {
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[what]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, strings.ReplaceAll(what, "_", " ")))
		}
	}
	return strings.Join(parts, ", ")
}

func (t *tool) devicesCommand() *cobra.Command {
	var stale time.Duration
	var problems bool
	c := &cobra.Command{
		Use: "devices [list]", Short: "List the devices, say which may come in, what is wrong with them",
		Example: "  gt06ctl devices\n  gt06ctl devices --stale 5m\n  gt06ctl devices --problems\n  gt06ctl devices allow 490154203237518",
		Args: cobra.MatchAll(cobra.MaximumNArgs(1), func(_ *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] != "list" {
				return fmt.Errorf("devices knows no %q", args[0])
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if problems {
				return t.problems(cmd)
			}
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
			w := newTable(out, "IMEI", "STATUS", "ONLINE", "SEEN", "FIX", "PLACE", "KM/H", "NAME")
			for _, d := range list {
				place, speed := "", ""
				if d.Latitude != nil {
					place, speed = fmt.Sprintf("%.5f %.5f", *d.Latitude, *d.Longitude), fmt.Sprintf("%.0f", *d.SpeedKMH)
				}
				w.row(d.IMEI, d.Status, d.Online, ago(d.LastSeen), ago(d.FixTime), place, speed, d.Name)
			}
			return w.end()
		},
	}
	c.Flags().DurationVar(&stale, "stale", 0, "only devices silent for longer than this")
	c.Flags().BoolVar(&problems, "problems", false, "what is wrong with devices since the server began, and what mends it")
	c.AddCommand(t.deviceCommands()...)
	return c
}

func ago(stamp string) string {
	at, err := time.Parse(time.RFC3339, stamp)
	if err != nil {
		return "never"
	}
	return time.Since(at).Truncate(time.Second).String() + " ago"
}
