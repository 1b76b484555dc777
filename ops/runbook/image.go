package runbook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"gt06/ops"
	"gt06/ops/cloud"
)

// ImageActions are the changes an image is for (strategy, section 5): an image
// is never made casually.
func ImageActions() []ops.Action { return []ops.Action{ops.OSUpdate, ops.Kernel, ops.Architecture} }

// ImageCreate makes a machine image, tagged together with its snapshots. The
// documents disagree on disk and SSH work (manual 3.4: image; strategy 5:
// snapshot); the strategy is followed, and anyway makes one there too. A reboot
// is for a kernel change only; without it the file systems are as after a power
// cut.
func (m Site) ImageCreate(reboot, anyway bool, change func(context.Context) (ops.Change, error)) ops.Runbook {
	return ops.Runbook{
		Name: "ami create", Protects: !reboot,
		Discover: func(ctx context.Context) (ops.Params, error) {
			c, err := change(ctx)
			if err != nil {
				return nil, err
			}
			if !slices.Contains(ImageActions(), c.Action) && !anyway {
				return nil, ops.Fail(ops.Refused, fmt.Errorf("an image is for %v, and this change is for %s: never create an image casually", ImageActions(), c.Action), "its snapshot is enough: gt06ctl ops snapshot create --apply", "where an image is wanted all the same: --with-ami")
			}
			if reboot && c.Action != ops.Kernel {
				return nil, ops.Fail(ops.Forbidden, fmt.Errorf("an image with a reboot is for kernel changes; this one is for %s", c.Action))
			}
			i, err := m.instance(ctx)
			return ops.Params{"instance": i.ID, "reboot": strconv.FormatBool(reboot)}, err
		},
		Steps: func(p ops.Params) []ops.Step {
			class, down := ops.Cloud, time.Duration(0)
			if p["reboot"] == "true" {
				class, down = ops.Stop, 3*time.Minute
			}
			state := func(ctx context.Context, r *ops.Run) (cloud.Image, error) {
				return find(ctx, m, func(ctx context.Context) ([]cloud.Image, error) { return m.Cloud.Images(ctx, madeTags(r)) })
			}
			return []ops.Step{{
				ID: "image.create", Class: class, Title: fmt.Sprintf("image of %s, reboot %s", p["instance"], p["reboot"]), Downtime: down, Cost: "that of its snapshots",
				Do: func(ctx context.Context, r *ops.Run) error {
					now, _, err := m.Cloud.Now(ctx)
					if err != nil {
						return cloudError(err)
					}
					date := now.In(m.Config.Zone()).Format(time.DateOnly)
					name := fmt.Sprintf("%s-%s-before-%s-%s", m.Config.AWS.NamePrefix, date, r.Change.Action, r.Token()[:6])
					id, err := m.Cloud.CreateImage(ctx, origin(r), p["instance"], name, date+": "+r.Change.Reason, p["reboot"] == "true", cloud.Tags{cloud.TagName: name, cloud.TagInstance: p["instance"], cloud.TagRole: cloud.RoleImage})
					if err != nil {
						return cloudError(err)
					}
					return m.wait(ctx, r, id, "available", snapshotLimit, func(ctx context.Context) (string, error) { i, err := m.Cloud.Image(ctx, id); return i.State, err })
				},
				Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
					i, err := state(ctx, r)
					if errors.Is(err, errNone) {
						return ops.State{Seen: "no image"}, nil
					}
					return ops.State{Done: i.State == "available", Seen: fmt.Sprintf("%s is %s, snapshots %v", i.ID, i.State, i.Snapshots), Out: map[string]string{"image": i.ID}}, err
				},
			}}
		},
	}
}
