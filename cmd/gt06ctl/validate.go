package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
)

func (t *tool) validateCommand() *cobra.Command {
	var span, every time.Duration
	c := &cobra.Command{
		Use: "validate", Short: "Check that timestamps and places move and nobody reconnects all the time",
		Example: "  gt06ctl validate && echo all is well\n  gt06ctl validate --watch 10m",
		Long: `The three checks of the operator's SOP, section 7. A red check ends with exit
code 7; a server younger than the window of ten minutes says that it is warming
up.

With --watch the checks are watched for a time, over restarts and upgrades. A
line is printed whenever one of them changes; the end is red when anything was
red in that time.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ask := func(ctx context.Context, v *control.Validation) error { return t.call(ctx, "validate", v) }
			if span > 0 {
				return t.watchChecks(cmd.Context(), ask, cmd.OutOrStdout(), newProgress(cmd.ErrOrStderr()), span, every)
			}
			var v control.Validation
			if err := ask(cmd.Context(), &v); err != nil {
				return err
			}
			if err := t.sayChecks(cmd.OutOrStdout(), &v); err != nil {
				return err
			}
			if !v.OK {
				return isRed("a check is red")
			}
			return nil
		},
	}
	c.Flags().DurationVar(&span, "watch", 0, "watch for this long")
	c.Flags().DurationVar(&every, "every", 5*time.Second, "how often to look, with --watch")
	return c
}

func isRed(format string, args ...any) error {
	return cli.Fail(cli.Red, fmt.Errorf("validate: "+format, args...), "gt06ctl devices --stale 5m lists the silent devices; gt06ctl status says how the server fares")
}

func (t *tool) sayChecks(out io.Writer, v *control.Validation) error {
	if t.json {
		return printJSON(out, v)
	}
	var err error
	for i := range v.Checks {
		_, err = fmt.Fprintln(out, sayCheck(out, &v.Checks[i]))
	}
	if v.WarmingUp {
		_, err = fmt.Fprintln(out, "the server is warming up: nothing is red yet")
	}
	return err
}

func sayCheck(out io.Writer, c *control.Check) string {
	mark := tint(out, green, "ok ")
	if !c.OK {
		mark = tint(out, red, "RED")
	}
	return fmt.Sprintf("[%s] %-10s %s", mark, oneLine(c.Name), oneLine(c.Text))
}

// change is a line of `gt06ctl validate --watch --json`.
type change struct {
	At string `json:"at"` // RFC 3339
	control.Validation
}

// watchChecks looks at the checks for a time and prints what changes.
func (t *tool) watchChecks(ctx context.Context, ask func(context.Context, *control.Validation) error, out io.Writer, live *progress, span, every time.Duration) error {
	if every <= 0 {
		return cli.Fail(cli.Usage, errors.New("--every is a time, such as 5s"), "gt06ctl validate --watch 10m --every 5s")
	}
	defer live.clear()
	end := time.Now().Add(span)
	var last, now control.Validation
	var wasRed []string
	away := time.Time{}
	for first := true; ; {
		now = control.Validation{}
		err := ask(ctx, &now)
		switch {
		case ctx.Err() != nil:
			return cli.Fail(cli.Timeout, fmt.Errorf("interrupted %v before the end", time.Until(end).Round(time.Second)))
		case err != nil && (first || !away.IsZero() && time.Since(away) > t.gone):
			return err
		case err != nil:
			if away.IsZero() {
				away = time.Now()
			}
		default:
			away = time.Time{}
			live.clear()
			if err := t.sayChange(out, &last, &now, first); err != nil {
				return err
			}
			for i := range now.Checks {
				if c := &now.Checks[i]; !c.OK && !slices.Contains(wasRed, c.Name) {
					wasRed = append(wasRed, c.Name)
				}
			}
			last, first = now, false
		}
		left := time.Until(end)
		if left <= 0 {
			break
		}
		if live.live && !t.json {
			live.say("%v left", left.Round(time.Second))
		}
		pause(ctx, min(every, left))
	}
	live.clear()
	if t.json {
		if err := printJSON(out, change{time.Now().UTC().Format(time.RFC3339), last}); err != nil {
			return err
		}
	}
	switch {
	case !last.OK:
		return isRed("red at the end of %v", span)
	case len(wasRed) > 0:
		return isRed("green again, but red for a time within %v: %v", span, wasRed)
	}
	if t.json {
		return nil
	}
	_, err := fmt.Fprintf(out, "green for %v\n", span)
	return err
}

// sayChange prints the checks that are not as they were.
func (t *tool) sayChange(out io.Writer, last, now *control.Validation, first bool) error {
	stamp := time.Now().UTC().Format(time.RFC3339)
	changed := first || last.WarmingUp != now.WarmingUp
	for i := range now.Checks {
		c := &now.Checks[i]
		had := slices.ContainsFunc(last.Checks, func(l control.Check) bool { return l.Name == c.Name && l.OK == c.OK })
		if !had {
			changed = true
			if !t.json {
				fmt.Fprintln(out, stamp, sayCheck(out, c))
			}
		}
	}
	switch {
	case !changed:
		return nil
	case t.json:
		return printJSON(out, change{stamp, *now})
	case now.WarmingUp && !last.WarmingUp:
		_, err := fmt.Fprintln(out, stamp, "the server is warming up: nothing is red yet")
		return err
	case last.WarmingUp && !now.WarmingUp:
		_, err := fmt.Fprintln(out, stamp, "the server is warm: from now on a check can be red")
		return err
	}
	return nil
}
