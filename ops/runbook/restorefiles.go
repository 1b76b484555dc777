package runbook

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gt06/ops"
	"gt06/ops/cloud"
)

// filesScript mounts the lent volume read-only, copies the paths it is given,
// and writes the checksums of what it copied.
//
//go:embed restorefiles.sh
var filesScript string

// filesDevice is where the temporary volume is lent to the machine.
const filesDevice = "/dev/sdg"

// FilesDir is where restored files go, a directory a change: never onto what is
// there now.
const FilesDir = "/restore"

// RestoreFiles brings files back out of a snapshot (strategy 6.2), on the
// machine itself: a temporary volume instead of a temporary instance, lent,
// mounted, copied from, and deleted in any case. Snapshot "" is that of the
// change.
func (m Site) RestoreFiles(execute Execute, dir, snapshot string, paths []string, change func(context.Context) (ops.Change, error)) ops.Runbook {
	return ops.Runbook{
		Name: "restore files",
		Discover: func(ctx context.Context) (ops.Params, error) {
			if err := restorable(paths); err != nil {
				return nil, ops.Fail(ops.Usage, err, "gt06ctl ops restore files /var/www/app/.env /etc/nginx")
			}
			self, on, err := m.Cloud.Self(ctx)
			if err != nil {
				return nil, err
			}
			if !on || self.InstanceID != m.Config.AWS.InstanceID {
				return nil, ops.Fail(ops.Refused, fmt.Errorf("the volume is mounted where this runs, and this is not %s", m.Config.AWS.InstanceID), "run it on the machine")
			}
			i, root, err := m.root(ctx)
			if err != nil {
				return nil, err
			}
			s, err := m.restorable(ctx, root, snapshot, change)
			if err != nil {
				return nil, err
			}
			list, err := json.Marshal(paths)
			return ops.Params{
				"instance": i.ID, "zone": i.Zone, "snapshot": s.ID, "type": root.Type, "size": strconv.Itoa(int(max(s.SizeGiB, 1))), "iops": strconv.Itoa(int(root.IOPS)), "throughput": strconv.Itoa(int(root.Throughput)),
				"encrypted": strconv.FormatBool(root.Encrypted), "kms": root.KMSKey, "paths": string(list),
			}, err
		},
		Steps: func(p ops.Params) []ops.Step { return m.filesSteps(p, execute, dir) },
	}
}

// restorable refuses paths that are not plain and absolute.
func restorable(paths []string) error {
	if len(paths) == 0 {
		return errors.New("name the files or directories")
	}
	for _, p := range paths {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" || strings.ContainsAny(p, "\n\x00") {
			return fmt.Errorf("%q is no absolute path of a file or directory", p)
		}
	}
	return nil
}

// restorable finds the snapshot: the named one, of this volume or one this
// machine had before.
func (m Site) restorable(ctx context.Context, root cloud.Volume, snapshot string, change func(context.Context) (ops.Change, error)) (cloud.Snapshot, error) {
	if snapshot == "" {
		c, err := change(ctx)
		if err != nil {
			return cloud.Snapshot{}, err
		}
		s, err := facts{m.Cloud, m.Config}.snapshot(ctx, ops.Question{Change: c.ID})
		if err != nil {
			return cloud.Snapshot{}, cloudError(err)
		}
		if s == nil {
			return cloud.Snapshot{}, ops.Fail(ops.Refused, errors.New("this change has no snapshot"), "gt06ctl ops snapshot list, then --snapshot ID")
		}
		snapshot = s.ID
	}
	s, err := m.Cloud.Snapshot(ctx, snapshot)
	switch {
	case err != nil:
		return s, cloudError(err)
	case s.State != "completed":
		return s, ops.Fail(ops.Refused, fmt.Errorf("%s is %s", s.ID, s.State))
	case s.Volume != root.ID && s.Tags[cloud.TagInstance] != m.Config.AWS.InstanceID:
		return s, ops.Fail(ops.Refused, fmt.Errorf("%s is of %s, no root volume of this machine", s.ID, s.Volume), "gt06ctl ops snapshot list")
	}
	return s, nil
}

func (m Site) filesSteps(p ops.Params, execute Execute, dir string) []ops.Step {
	instance := always(p["instance"])
	volume := func(r *ops.Run) string { return r.Out("volume.create", "volume") }
	create := m.create(p, "volume.create", cloud.Tags{cloud.TagRole: cloud.RoleTemp, cloud.TagInstance: p["instance"], cloud.TagName: "gt06ops-temp"})
	lend := m.attach("volume.lend", "lend it to the machine as "+filesDevice, volume, instance, filesDevice)
	back := m.detach("volume.return", "take it off", volume, instance)
	lend.Class, lend.Unroots = ops.Cloud, false
	back.Class, back.Unroots, back.Always = ops.Cloud, false, true
	return []ops.Step{create, lend, copyFiles(p, execute, dir, volume), back, m.deleteTemp(volume)}
}

func copyFiles(p ops.Params, execute Execute, dir string, volume func(*ops.Run) string) ops.Step {
	var paths []string
	_ = json.Unmarshal([]byte(p["paths"]), &paths) // made by Discover
	target := func(r *ops.Run) string { return filepath.Join(dir, r.Change.ID) }
	manifest := func(r *ops.Run) string { return filepath.Join(target(r), "MANIFEST.sha256") }
	return ops.Step{
		ID: "files.copy", Class: ops.Guest, Title: fmt.Sprintf("copy %s to %s/<change>, with checksums", p["paths"], dir),
		Do: func(ctx context.Context, r *ops.Run) error {
			said := ""
			argv := append([]string{"sh", "-c", filesScript, "restore", volume(r), target(r)}, paths...)
			code, err := execute(ctx, argv, func(line string) { said += line + " "; r.Progress(line) })
			if err == nil && code != 0 {
				err = fmt.Errorf("exit code %d: %s", code, said)
			}
			return err
		},
		Postcheck: func(_ context.Context, r *ops.Run) (ops.State, error) {
			sums, err := os.ReadFile(manifest(r))
			if errors.Is(err, os.ErrNotExist) {
				return ops.State{Seen: "no manifest"}, nil
			}
			n := strings.Count(string(sums), "\n")
			return ops.State{Done: n > 0, Seen: fmt.Sprintf("%d files in %s", n, target(r))}, err
		},
	}
}

// deleteTemp deletes the temporary volume; its tag is looked at, here and by
// the policy.
func (m Site) deleteTemp(volume func(*ops.Run) string) ops.Step {
	gone := func(ctx context.Context, r *ops.Run) (bool, string, error) {
		if volume(r) == "" {
			return true, "none was made", nil
		}
		v, err := m.Cloud.Volume(ctx, volume(r))
		if errors.Is(err, cloud.ErrNotFound) {
			return true, "gone", nil
		}
		return slices.Contains([]string{"deleting", "deleted"}, v.State), v.State, cloudError(err)
	}
	return ops.Step{
		ID: "volume.end", Class: ops.Cloud, Title: "delete the temporary volume", Always: true,
		Do: func(ctx context.Context, r *ops.Run) error {
			if done, _, err := gone(ctx, r); done || err != nil {
				return err
			}
			return cloudError(m.Cloud.DeleteVolume(ctx, volume(r)))
		},
		Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
			done, seen, err := gone(ctx, r)
			return ops.State{Done: done, Seen: seen}, err
		},
	}
}
