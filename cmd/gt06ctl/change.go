package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
)

// patience is how long an upgrade waits for the end of another one.
const patience = 90 * time.Second

func (t *tool) upgradeCommand() *cobra.Command {
	var args control.UpgradeArgs
	o := t.newOps()
	c := &cobra.Command{
		Use: "upgrade", Short: "Replace the running server; the devices stay connected",
		Long: `upgrade starts a new server beside the running one, hands every connection over
and watches the new one for a probation. When anything goes wrong the running
program serves on. Without --binary it is the program that was started, read
from disk again: that is also how a new configuration is taken.

A binary in a directory beside a link named "current" (…/1.4.0/gt06d and
…/current) moves that link once the probation is over, and not before: a crash
or a reboot starts the last version that survived it.

Where the server's upgrade.require_change is set, --change names an open change
of gt06ctl ops, opened here or on another machine: its gate is read at this
moment, and what it said goes to the server and into both records.

Exit codes: 0 upgraded, 3 refused, 6 rolled back; the old program serves after 3
and 6.`,
		Example: "  gt06ctl upgrade\n  gt06ctl upgrade --binary /usr/lib/gt06/1.4.0/gt06d\n  gt06ctl upgrade --change c-20261122-01",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if args.Binary != "" {
				abs, err := filepath.Abs(args.Binary)
				if err != nil {
					return err
				}
				args.Binary = abs
			}
			if o.change != "" {
				return explainOps(cmd.Context(), o.upgradeInChange(cmd, args))
			}
			return t.upgrade(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
		},
	}
	c.Flags().StringVar(&args.Binary, "binary", "", "the new program")
	c.Flags().StringVar(&o.change, "change", "", "the change of gt06ctl ops it is done in")
	c.Flags().StringVar(&o.config, "ops-config", o.config, "configuration of gt06ctl ops (GT06_OPS_CONFIG)")
	c.Flags().BoolVar(&args.NoWait, "no-wait", false, "return when the new one serves, before the probation is over")
	return c
}

func (t *tool) upgrade(ctx context.Context, stdout, stderr io.Writer, args control.UpgradeArgs) error {
	out, err := t.askUpgrade(ctx, stderr, args)
	if err != nil {
		return err
	}
	if out == nil {
		return nil // a signal ended us, as ExecReload; the upgrade goes on
	}
	if out.Result == control.Upgraded && args.Binary != "" && !args.NoWait {
		if err := moveCurrent(args.Binary); err != nil {
			return cli.Fail(cli.StepFailed, fmt.Errorf("upgraded, but the link that a restart follows is not moved: %w", err), "move it by hand, or the next restart starts the version before")
		}
	}
	if t.json {
		err = printJSON(stdout, out)
	} else {
		err = sayUpgrade(stdout, out)
	}
	if err != nil {
		return err
	}
	switch out.Result {
	case control.Refused:
		return cli.Fail(cli.Refused, fmt.Errorf("refused: %s", out.Reason), "the running server goes on as before")
	case control.RolledBack:
		return cli.Fail(cli.StepFailed, fmt.Errorf("rolled back: %s", out.Reason), "the old program serves again; no device was dropped; its log says more")
	}
	return nil
}

func sayUpgrade(w io.Writer, u *control.Upgrade) error {
	if u.Result != control.Upgraded {
		return nil // the error says it
	}
	return printf(w, "upgraded from %s (pid %d) to %s (pid %d): %d connections moved, %d dropped, nobody served for %.1f ms, %.1f s in all\n",
		u.From.Version, u.From.PID, u.To.Version, u.To.PID, u.Moved, u.Dropped, u.StallMS, u.TotalMS/1000)
}

// askUpgrade asks again when the server that was asked has just been replaced
// itself: another upgrade was under way.
func (t *tool) askUpgrade(ctx context.Context, stderr io.Writer, args control.UpgradeArgs) (*control.Upgrade, error) {
	c, err := t.client()
	if err != nil {
		return nil, cli.Fail(cli.Usage, err)
	}
	for end := time.Now().Add(patience); ; {
		var out *control.Upgrade
		err := c.Stream(ctx, "upgrade", args, func(b json.RawMessage) error {
			var e control.UpgradeEvent
			if err := json.Unmarshal(b, &e); err != nil {
				return err
			}
			if e.Step != "" && !t.json {
				_ = printf(stderr, "%s\n", e.Step)
			}
			if e.Result != nil {
				out = e.Result
			}
			return nil
		})
		switch {
		case out != nil, ctx.Err() != nil:
			return out, nil //nolint:nilerr // the end of the stream behind the result
		case err != nil && !errors.Is(err, control.ErrNoServer):
			return nil, explain(err)
		case time.Now().After(end), err != nil && time.Now().After(end.Add(-patience+5*time.Second)):
			return nil, explain(errors.Join(err, errors.New("the server ended without an answer")))
		}
		timer := time.NewTimer(100 * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// moveCurrent points the link beside a version's directory to it.
func moveCurrent(binary string) error {
	version := filepath.Dir(binary)
	link := filepath.Join(filepath.Dir(version), "current")
	st, err := os.Lstat(link)
	if err != nil || st.Mode()&os.ModeSymlink == 0 || version == link {
		return nil //nolint:nilerr // no versions beside each other here
	}
	temporary := fmt.Sprintf("%s.%d", link, os.Getpid())
	if err := os.Symlink(filepath.Base(version), temporary); err != nil {
		return err
	}
	if err := os.Rename(temporary, link); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return nil
}

func (t *tool) upgradesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "upgrades", Short: "List past upgrades and how they ended", Example: "  gt06ctl upgrades",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []control.Upgrade
			if err := t.call(cmd.Context(), "upgrades", &list); err != nil {
				return err
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), list)
			}
			w := newTable(cmd.OutOrStdout(), "WHEN", "RESULT", "FROM", "TO", "MOVED", "DROPPED", "STALL", "REASON")
			for i := range list {
				u := &list[i]
				w.row(u.At, u.Result, u.From.Version, u.To.Version, u.Moved, u.Dropped, fmt.Sprintf("%.1f ms", u.StallMS), u.Reason)
			}
			return w.end()
		},
	}
}

func (t *tool) stopCommand() *cobra.Command {
	return &cobra.Command{
		Use: "stop", Short: "Stop the server and free its port; connections end",
		Long: `stop ends the server for good: everything received is durable and answered, then
all connections are closed and the port is free. A restart is something else:
systemctl restart, or gt06ctl upgrade, which no device notices.`,
		Example: "  gt06ctl stop",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st control.Status
			if err := t.call(cmd.Context(), "status", &st); err != nil {
				return err
			}
			if err := t.call(cmd.Context(), "stop", &struct{}{}); err != nil {
				return err
			}
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for end := time.Now().Add(30 * time.Second); alive(st.PID); {
				if time.Now().After(end) {
					return cli.Fail(cli.Timeout, fmt.Errorf("pid %d has not ended within 30 s", st.PID), "its log says what it waits for")
				}
				select {
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				case <-tick.C:
				}
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"stopped": true, "pid": st.PID})
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "stopped: pid %d has ended, its port is free\n", st.PID)
			return err
		},
	}
}

// alive says whether a process exists and is no zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	for i := len(b) - 1; i > 1; i-- {
		if b[i] == ')' {
			return i+2 < len(b) && b[i+2] != 'Z'
		}
	}
	return true
}
