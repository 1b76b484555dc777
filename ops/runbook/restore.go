package runbook

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/cloud"
)

// keepDays is how long a replaced root volume is kept: what was written after
// the snapshot is on it and nowhere else.
const keepDays = 30

// salvageDevice is where the kept volume is lent to the machine, to read the
// spool from it.
const salvageDevice = "/dev/sdf"

// Guest runs a command on the machine, from afar.
type Guest func(ctx context.Context, command string) (cloud.Output, error)

// RestoreInstance puts the root volume back to the snapshot of the change
// (strategy 6.1), keeps the old one, gives the Elastic IP back after the start,
// lends the old volume to the machine, and salvages the spool from it: the
// restore takes the database, the spool and the local journal back in time, and
// what devices sent since is on the old volume only. Without salvage that
// is a command of its own, on the machine.
func (m Site) RestoreInstance(guest Guest, salvage bool, change func(context.Context) (ops.Change, error)) ops.Runbook {
	return ops.Runbook{
		Name: "restore instance", Restores: true,
		Discover: func(ctx context.Context) (ops.Params, error) {
			c, err := change(ctx)
			if err != nil {
				return nil, err
			}
			question := ops.Question{Change: c.ID}
			if c.Snapshot != "" {
				question.Snapshot = c.Snapshot
			}
			s, err := facts{m.Cloud, m.Config}.snapshot(ctx, question)
			if err != nil {
				return nil, cloudError(err)
			}
			if s == nil {
				return nil, ops.Fail(ops.Refused, fmt.Errorf("change %s has no snapshot to go back to", c.ID), "gt06ctl ops snapshot list", "gt06ctl ops snapshot adopt SNAPSHOT --change "+c.ID)
			}
			i, old, err := m.root(ctx)
			if err != nil {
				return nil, err
			}
			if old.ID != s.Volume {
				return nil, ops.Fail(ops.Refused, fmt.Errorf("%s is of %s, attached is %s: it was restored already", s.ID, s.Volume, old.ID), "gt06ctl ops change show "+c.ID)
			}
			return ops.Params{
				"instance": i.ID, "zone": i.Zone, "device": i.RootDevice, "old": old.ID, "snapshot": s.ID, "type": old.Type, "size": strconv.Itoa(int(old.SizeGiB)), "iops": strconv.Itoa(int(old.IOPS)),
				"throughput": strconv.Itoa(int(old.Throughput)), "encrypted": strconv.FormatBool(old.Encrypted), "kms": old.KMSKey, "taken": s.Start.UTC().Format(time.RFC3339), "salvage": strconv.FormatBool(salvage),
			}, nil
		},
		Steps: func(p ops.Params) []ops.Step { return m.restoreSteps(p, guest) },
	}
}

func (m Site) restoreSteps(p ops.Params, guest Guest) []ops.Step {
	instance, old := always(p["instance"]), always(p["old"])
	fresh := func(r *ops.Run) string { return r.Out("volume.create", "volume") }
	steps := []ops.Step{
		m.stop(),
		m.create(p, "volume.create", cloud.Tags{cloud.TagInstance: p["instance"], cloud.TagManaged: "true", cloud.TagName: m.Config.AWS.NamePrefix + "-restored"}),
		m.detach("root.detach", fmt.Sprintf("take %s, the root volume of now, off %s; it is kept", p["old"], p["device"]), old, instance),
		m.keep(p),
		m.attach("root.attach", "attach the new volume as "+p["device"], fresh, instance, p["device"]),
		m.start(),
		m.address(),
		m.attach("old.attach", fmt.Sprintf("lend %s to the machine as %s, to salvage the spool", p["old"], salvageDevice), old, instance, salvageDevice),
	}
	// The machine runs on the new volume by then.
	last := &steps[len(steps)-1]
	last.Class = ops.Cloud
	if p["salvage"] != "true" {
		do := last.Do
		last.Do = func(ctx context.Context, r *ops.Run) error {
			if err := do(ctx, r); err != nil {
				return err
			}
			r.Progress("next, on the machine: gt06ctl ops restore salvage --volume " + p["old"] + " --change " + r.Change.ID + " --apply")
			return nil
		}
		return steps
	}
	back := m.detach("old.detach", "take the old volume off again; it stays, tagged "+cloud.TagKeepUntil, old, instance)
	back.Class, back.Always = ops.Cloud, false
	return append(steps, m.salvageAfar(p, guest), back)
}

// create makes a volume from the snapshot, like the old one in all that the
// restore plan names.
func (m Site) create(p ops.Params, step string, tags cloud.Tags) ops.Step {
	size, _ := strconv.Atoi(p["size"])
	iops, _ := strconv.Atoi(p["iops"])
	throughput, _ := strconv.Atoi(p["throughput"])
	like := cloud.Volume{Zone: p["zone"], Type: p["type"], SizeGiB: int32(size), IOPS: int32(iops), Throughput: int32(throughput), Encrypted: p["encrypted"] == "true", KMSKey: p["kms"]} //nolint:gosec // read from AWS
	return ops.Step{
		ID: step, Class: ops.Cloud, Title: fmt.Sprintf("volume from %s in %s, %s, %s GiB", p["snapshot"], p["zone"], p["type"], p["size"]), Cost: "a second volume of " + p["size"] + " GiB",
		Do: func(ctx context.Context, r *ops.Run) error {
			v, err := m.Cloud.CreateVolume(ctx, origin(r), p["snapshot"], like, tags)
			if err != nil {
				return cloudError(err)
			}
			return m.wait(ctx, r, v.ID, "free", attachLimit, m.placeOf(v.ID))
		},
		Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
			v, err := find(ctx, m, func(ctx context.Context) ([]cloud.Volume, error) { return m.Cloud.Volumes(ctx, madeTags(r)) })
			if errors.Is(err, errNone) {
				return ops.State{Seen: "no volume"}, nil
			}
			return ops.State{Done: v.State == "available" || v.State == "in-use", Seen: v.ID + " is " + v.State, Out: map[string]string{"volume": v.ID}}, err
		},
	}
}

// keep marks the replaced volume with the day before which nobody touches it.
func (m Site) keep(p ops.Params) ops.Step {
	until := func(r *ops.Run) string { return r.Change.OpenedAt.AddDate(0, 0, keepDays).Format(time.DateOnly) }
	return ops.Step{
		ID: "old.keep", Class: ops.Cloud, Title: fmt.Sprintf("tag %s %s, %d days on", p["old"], cloud.TagKeepUntil, keepDays), Unroots: true,
		Do: func(ctx context.Context, r *ops.Run) error {
			return cloudError(m.Cloud.Tag(ctx, p["old"], cloud.Tags{cloud.TagKeepUntil: until(r)}))
		},
		Postcheck: seen(func(ctx context.Context, _ *ops.Run) (string, error) {
			v, err := m.Cloud.Volume(ctx, p["old"])
			return v.Tags[cloud.TagKeepUntil], err
		}, until),
	}
}

// salvageAfar runs the salvage on the machine and shows what it printed.
func (m Site) salvageAfar(p ops.Params, guest Guest) ops.Step {
	return ops.Step{
		ID: "spool.salvage", Class: ops.Guest, Title: "on the machine: import the spool of " + p["old"] + " (every frame after the snapshot is there)",
		Do: func(ctx context.Context, r *ops.Run) error {
			out, err := guest(ctx, SalvageScript(p["old"], m.Config.GT06.DataDir))
			if err != nil {
				return cloudError(err)
			}
			if out.Code != 0 {
				return fmt.Errorf("it ended with exit code %d: %s", out.Code, out.Stderr)
			}
			r.Keep("printed", strings.TrimSpace(out.Stdout))
			r.Progress(r.Kept("printed"))
			return nil
		},
		// The import merges by the natural key: done again it changes nothing,
		// so after a crash it is simply done again.
		Postcheck: func(_ context.Context, r *ops.Run) (ops.State, error) {
			printed := r.Kept("printed")
			return ops.State{Done: printed != "", Seen: printed}, nil
		},
	}
}

// salvageScript mounts the kept volume read-only and imports its spool.
//
//go:embed salvage.sh
var salvageScript string

// SalvageScript is the salvage as a shell script for the machine: the kept
// volume, and where gt06d has its data.
func SalvageScript(volume, dataDir string) string {
	return strings.NewReplacer("@VOLUME@", volume, "@DATA@", dataDir).Replace(salvageScript)
}

// Salvage is the same on the machine itself, with the volume lent to it.
func (m Site) Salvage(execute Execute, volume string) ops.Runbook {
	return ops.Runbook{
		Name: "restore salvage", Restores: true,
		Discover: func(ctx context.Context) (ops.Params, error) {
			v, err := m.Cloud.Volume(ctx, volume)
			if err != nil {
				return nil, cloudError(err)
			}
			if v.Instance != m.Config.AWS.InstanceID || v.Tags[cloud.TagKeepUntil] == "" {
				return nil, ops.Fail(ops.Refused, fmt.Errorf("%s is no kept root volume lent to %s: it is at %q", volume, m.Config.AWS.InstanceID, v.Instance), "gt06ctl ops change show")
			}
			return ops.Params{"old": volume}, nil
		},
		Steps: func(p ops.Params) []ops.Step {
			return []ops.Step{m.salvageAfar(p, func(ctx context.Context, script string) (cloud.Output, error) {
				var out cloud.Output
				code, err := execute(ctx, []string{"sh", "-c", script}, func(line string) { out.Stdout += line + "\n" })
				out.Code, out.Stderr = code, out.Stdout
				return out, err
			})}
		},
	}
}
