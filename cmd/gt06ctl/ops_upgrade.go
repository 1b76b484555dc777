package main

import (
	"errors"

	"github.com/spf13/cobra"

	"gt06/ops"
	"gt06/server/control"
)

// upgradeInChange reads the gate of a change, upgrades the server with the
// evidence, and writes the end into the journal of the change.
func (o *opsTool) upgradeInChange(cmd *cobra.Command, args control.UpgradeArgs) error {
	ctx := cmd.Context()
	w, err := o.work(ctx, cmd)
	if err != nil {
		return err
	}
	proof, err := w.Session.Prove(ctx, o.change)
	if err != nil {
		return err
	}
	args.Change = &proof
	err = o.upgrade(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
	end := map[string]string{"class": string(ops.Guest), "upgrade": "done", "binary": args.Binary}
	if err != nil {
		end["upgrade"] = err.Error()
	}
	return errors.Join(err, w.Session.Note(ctx, o.change, ops.KindResult, int(ops.KindOf(err)), end))
}
