package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"gt06/ops"
	"gt06/ops/host"
)

func (o *opsTool) abortCommand() *cobra.Command {
	return o.mutating(&cobra.Command{
		Use: "abort", Short: "Stop, keep the evidence, say what a restore loses and how it is done",
		Long: `abort ends what is under way in the change and freezes it: after it only a restore
is possible. It makes a snapshot of the volume as it is, broken or not, and counts
what came since the snapshot of the change.`,
		Example: "  gt06ctl ops abort --apply",
	}, func(w *opsWork, _ []string) ops.Runbook {
		query := func(ctx context.Context, statement string) ([][]string, error) {
			if self, err := w.Backend.Self(ctx); err != nil || self != w.Config.AWS.InstanceID {
				return nil, errors.Join(err, errors.New("rows are counted on the machine itself"))
			}
			return host.MariaDB{System: host.New(), Defaults: w.Config.Backup.DefaultsFile}.Query(ctx, statement)
		}
		return w.site().Abort(query, o.current(w))
	})
}
