package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"gt06/ops"
	"gt06/ops/runbook"
)

func (o *opsTool) validateAllCommand() *cobra.Command {
	var span time.Duration
	c := o.looking(&cobra.Command{
		Use: "validate", Short: "Section 7 of the SOP: system, network, application, GT06",
		Long: `validate looks at disks, load, the devices' port, every service, the page of the
application, the Elastic IP and the three checks of gt06d, and writes the result
into the open change: a change is closed only when it is green. A red check is
exit code 7. With --watch it looks again every ten seconds and stops at red.`,
		Example: "  gt06ctl ops validate\n  gt06ctl ops validate --watch 10m",
	}, func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		w, err := o.work(ctx, cmd)
		if err != nil {
			return err
		}
		checks, err := o.validateOnce(ctx, w)
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for end := time.Now().Add(span); err == nil && checks.OK() && time.Now().Before(end); {
			select {
			case <-tick.C:
				checks, err = o.validateOnce(ctx, w)
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if err != nil {
			return err
		}
		var b bytes.Buffer
		checks.Print(&b)
		if err := o.say(cmd, map[string]any{"ok": checks.OK(), "checks": checks}, b.String()); err != nil {
			return err
		}
		if failed := checks.Failed(); len(failed) > 0 {
			return ops.Fail(ops.Red, fmt.Errorf("%d checks are red, the first: %s", len(failed), failed[0].Text), failed[0].Next, "worse, and it looks wrong: gt06ctl ops abort")
		}
		return nil
	})
	c.Flags().DurationVar(&span, "watch", 0, "look again for this long")
	return c
}

// validateOnce looks and writes the result into the open change.
func (o *opsTool) validateOnce(ctx context.Context, w *opsWork) (ops.Checks, error) {
	if o.host != "" {
		return nil, ops.Fail(ops.Usage, errors.New("validate looks at the machine it runs on"), "ssh "+o.host+" sudo gt06ctl ops validate")
	}
	facts, err := w.Backend.Facts.Facts(ctx, ops.Question{Instance: w.Config.AWS.InstanceID})
	if err != nil {
		return nil, err
	}
	j, err := w.Session.Find(ctx, o.change)
	if err != nil && ops.KindOf(err) != ops.Refused {
		return nil, err
	}
	var before runbook.Before
	if j != nil {
		for _, r := range j.Records() {
			if r.Kind == ops.KindCheck && r.In["name"] == ops.CheckPreflight && r.In["connections"] != "" {
				before.Connections, _ = strconv.Atoi(r.In["connections"])
				before.Logins, _ = strconv.Atoi(r.In["logins"])
			}
		}
	}
	m := o.machine(w)
	checks, _, err := m.Validate(ctx, &facts, before)
	if err != nil || j == nil {
		return checks, err
	}
	rc := 0
	in := map[string]string{"name": ops.CheckValidate}
	for _, c := range checks {
		in[c.ID] = "ok: " + c.Text
		if !c.OK {
			rc, in[c.ID] = int(ops.Red), "NO: "+c.Text+": "+c.Seen
		}
	}
	return checks, w.Session.Note(ctx, j.Change().ID, ops.KindCheck, rc, in)
}
