package runbook

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"gt06/ops"
	"gt06/ops/cloud"
)

// newestBackup says when the last logical backup that proved whole was made;
// the zero time where there is none.
type newestBackup func(ctx context.Context) (time.Time, error)

// backupAge is how old that may be before a resize: the manual forbids one
// without a backup, and its snapshot is not the logical one.
const backupAge = 24 * time.Hour

// Resize makes the root volume larger. Online is what current instances do
// without a stop; stop is the manual's way, word for word. The file system
// follows with `resize guest`. Backup may be nil where the backups are on the
// machine and this is not.
func (m Site) Resize(gib int, mode string, backup newestBackup) ops.Runbook {
	return ops.Runbook{
		Name: "resize volume", Actions: []ops.Action{ops.DiskResize},
		Discover: func(ctx context.Context) (ops.Params, error) {
			if gib < 1 || gib > 16384 || mode != "online" && mode != "stop" {
				return nil, ops.Fail(ops.Usage, errors.New("a resize has --size GIB, up to 16384, and --mode online or stop"), "gt06ctl ops resize volume --help")
			}
			i, root, err := m.root(ctx)
			if err != nil {
				return nil, err
			}
			from := int(root.SizeGiB)
			if gib < from {
				return nil, ops.Fail(ops.Forbidden, fmt.Errorf("%s has %d GiB and a volume only grows: %d GiB is smaller", root.ID, from, gib))
			}
			if backup != nil {
				newest, err := backup(ctx)
				if err != nil {
					return nil, err
				}
				if age := time.Since(newest); age > backupAge {
					return nil, ops.Fail(ops.Forbidden, fmt.Errorf("no disk is resized without a backup: the newest of the database is from %s, wanted one of the last %s", newest.Format(time.RFC3339), backupAge), "gt06ctl ops backup db")
				}
			}
			return ops.Params{"instance": i.ID, "volume": root.ID, "from": strconv.Itoa(from), "to": strconv.Itoa(gib), "mode": mode}, nil
		},
		Steps: func(p ops.Params) []ops.Step {
			if p["from"] == p["to"] {
				return nil
			}
			grow := m.grow(p)
			if p["mode"] != "stop" {
				return []ops.Step{grow}
			}
			start, address := m.start(), m.address()
			start.Always, address.Always = true, true
			return []ops.Step{m.stop(), grow, start, address}
		},
	}
}

func (m Site) grow(p ops.Params) ops.Step {
	to, _ := strconv.Atoi(p["to"])
	usable := func(ctx context.Context, _ *ops.Run) (string, error) {
		v, err := m.Cloud.Volume(ctx, p["volume"])
		if err != nil {
			return "", err
		}
		change, known, err := m.Cloud.Modification(ctx, p["volume"])
		switch {
		case err != nil:
			return "", err
		case known && change.State == "failed":
			return "", fmt.Errorf("the resize of %s failed: %s", p["volume"], change.Message)
		case int(v.SizeGiB) >= to && (!known || change.Usable()):
			return p["to"] + " GiB", nil
		case known && int(change.TargetGiB) == to:
			return fmt.Sprintf("%s, %d %%", change.State, change.Percent), nil
		}
		return fmt.Sprint(v.SizeGiB, " GiB"), nil
	}
	return ops.Step{
		ID: "volume.modify", Class: ops.Cloud, Title: fmt.Sprintf("grow %s from %s to %s GiB", p["volume"], p["from"], p["to"]), Cost: fmt.Sprintf("the price of %s more GiB a month", difference(p)),
		Precheck: func(ctx context.Context, _ *ops.Run) error {
			change, known, err := m.Cloud.Modification(ctx, p["volume"])
			if err != nil {
				return cloudError(err)
			}
			now, _, err := m.Cloud.Now(ctx)
			if err != nil {
				return cloudError(err)
			}
			if next := change.Started.Add(cloud.Cooldown); known && int(change.TargetGiB) != to && now.Before(next) {
				return ops.Fail(ops.Refused, fmt.Errorf("%s was changed at %s and rests for %s: again from %s on", p["volume"], change.Started.Format(time.RFC3339), cloud.Cooldown, next.In(m.Config.Zone()).Format("15:04 MST")))
			}
			return nil
		},
		Do: func(ctx context.Context, r *ops.Run) error {
			now, err := m.Cloud.Volume(ctx, p["volume"])
			if err != nil {
				return cloudError(err)
			}
			change, known, err := m.Cloud.Modification(ctx, p["volume"])
			if err != nil {
				return cloudError(err)
			}
			if int(now.SizeGiB) < to && (!known || int(change.TargetGiB) != to || change.State == "failed") {
				if err := m.Cloud.Grow(ctx, p["volume"], int32(to)); err != nil { //nolint:gosec // up to 16384
					return cloudError(err)
				}
			}
			err = m.wait(ctx, r, p["volume"], p["to"]+" GiB", stopLimit, func(ctx context.Context) (string, error) { return usable(ctx, r) })
			if err == nil {
				r.Progress("next, on the machine: gt06ctl ops resize guest --change " + r.Change.ID + " --apply")
			}
			return err
		},
		Postcheck: seen(usable, always(p["to"]+" GiB")),
	}
}

func difference(p ops.Params) string {
	from, _ := strconv.Atoi(p["from"])
	to, _ := strconv.Atoi(p["to"])
	return strconv.Itoa(to - from)
}
