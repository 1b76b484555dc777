package runbook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/cloud"
)

// Quiesce holds the database still while during runs, so that a snapshot begun
// in it needs no repair, and says how long that was.
type Quiesce func(ctx context.Context, during func() error) (held time.Duration, err error)

const snapshotLimit = 3 * time.Hour

// SnapshotCreate makes the snapshot the gate asks for: of the volume attached
// now, named and described by the rules, tagged with change and instance, and
// waits until it is completed. One that ends in error stays for the record, and
// a resume makes another. Quiesce may be nil.
func (m Site) SnapshotCreate(quiesce Quiesce) ops.Runbook {
	return ops.Runbook{
		Name: "snapshot create", Protects: true,
		Discover: func(ctx context.Context) (ops.Params, error) {
			i, root, err := m.root(ctx)
			return ops.Params{"instance": i.ID, "volume": root.ID, "size": fmt.Sprint(root.SizeGiB, " GiB"), "quiesce": strconv.FormatBool(quiesce != nil)}, err
		},
		Steps: func(p ops.Params) []ops.Step {
			return []ops.Step{{
				ID: "snapshot.create", Class: ops.Cloud, Title: fmt.Sprintf("snapshot %s of %s as %s-<today>-before-<action>, and wait until it is completed", p["volume"], p["instance"], m.Config.AWS.NamePrefix),
				Cost: "about 2 to 3 rupees a GiB and month of what is used",
				Do:   func(ctx context.Context, r *ops.Run) error { return m.snapshot(ctx, r, p, quiesce) },
				Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
					s, err := m.made(ctx, r, p["volume"])
					if errors.Is(err, errNone) {
						return ops.State{Seen: "no snapshot"}, nil
					}
					return ops.State{Done: s.State == "completed" && s.Percent == 100, Seen: fmt.Sprintf("%s %s is %s, %d %%", s.ID, s.Name(), s.State, s.Percent), Out: map[string]string{"snapshot": s.ID, "held_ms": r.Kept("held_ms")}}, err
				},
			}}
		},
	}
}

// made is the newest snapshot this step made.
func (m Site) made(ctx context.Context, r *ops.Run, volume string) (cloud.Snapshot, error) {
	return find(ctx, m, func(ctx context.Context) ([]cloud.Snapshot, error) {
		return m.Cloud.SnapshotsOf(ctx, volume, madeTags(r))
	})
}

func (m Site) snapshot(ctx context.Context, r *ops.Run, p ops.Params, quiesce Quiesce) error {
	// The date is that of the cloud's clock, which stamps the snapshot, in the
	// zone of the names.
	now, _, err := m.Cloud.Now(ctx)
	if err != nil {
		return cloudError(err)
	}
	date := now.In(m.Config.Zone()).Format(time.DateOnly)
	name := fmt.Sprintf("%s-%s-before-%s", m.Config.AWS.NamePrefix, date, r.Change.Action)
	var s cloud.Snapshot
	create := func() error {
		var err error
		s, err = m.Cloud.CreateSnapshot(ctx, origin(r), p["volume"], date+": "+r.Change.Reason, cloud.Tags{cloud.TagName: name, cloud.TagInstance: p["instance"]})
		return cloudError(err)
	}
	if quiesce == nil {
		err = create()
	} else {
		var held time.Duration
		if held, err = quiesce(ctx, create); err == nil {
			r.Progress("the database was held for " + held.Round(time.Millisecond).String())
			r.Keep("held_ms", strconv.FormatInt(held.Milliseconds(), 10))
		}
	}
	if err != nil {
		return err
	}
	return m.completed(ctx, r, s.ID)
}

// completed waits for a snapshot; error ends the wait at once.
func (m Site) completed(ctx context.Context, r *ops.Run, id string) error {
	ctx, cancel := context.WithTimeout(ctx, snapshotLimit)
	defer cancel()
	began := time.Now()
	return cloudError(m.Cloud.Await(ctx, func(text string) {
		r.Wait(text)
	}, func(ctx context.Context) (bool, string, error) {
		s, err := m.Cloud.Snapshot(ctx, id)
		if err == nil && s.State == "error" {
			err = fmt.Errorf("%s ended in state error: %s", id, s.Message)
		}
		left := ""
		if past := time.Since(began); s.Percent > 0 && s.Percent < 100 {
			left = fmt.Sprintf(", about %s left", (past * time.Duration(100-s.Percent) / time.Duration(s.Percent)).Round(time.Second))
		}
		return s.State == "completed" && s.Percent == 100, fmt.Sprintf("%s is %s, %d %%%s", id, s.State, s.Percent, left), err
	}))
}

// Lock is how a snapshot is to be locked. Compliance mode cannot be taken back
// by anybody, so it needs the sentence that Phrase returns.
type Lock struct {
	Snapshot string // "": of the change
	Mode     string // governance or compliance
	Days     int    // 1 to 365
	Phrase   string
}

// phrase is what is typed before a lock that nobody can take back.
func (l Lock) phrase(id string) string {
	return fmt.Sprintf("lock %s for %d days for good", id, l.Days)
}

// SnapshotLock protects the snapshot of a change from deletion.
func (m Site) SnapshotLock(l Lock, change func(context.Context) (ops.Change, error)) ops.Runbook {
	return ops.Runbook{
		Name: "snapshot lock", Protects: true,
		Discover: func(ctx context.Context) (ops.Params, error) {
			if !slices.Contains([]string{"governance", "compliance"}, l.Mode) || l.Days < 1 || l.Days > 365 {
				return nil, ops.Fail(ops.Usage, errors.New("a lock has --mode governance or compliance, and --days 1 to 365"), "gt06ctl ops snapshot lock --help")
			}
			id := l.Snapshot
			if id == "" {
				c, err := change(ctx)
				if err != nil {
					return nil, err
				}
				s, err := facts{m.Cloud, m.Config}.snapshot(ctx, ops.Question{Change: c.ID})
				if err != nil {
					return nil, cloudError(err)
				}
				if s == nil {
					return nil, ops.Fail(ops.Refused, errors.New("this change has no snapshot to lock"), "gt06ctl ops snapshot create --apply")
				}
				id = s.ID
			}
			s, err := m.Cloud.Snapshot(ctx, id)
			if err != nil {
				return nil, cloudError(err)
			}
			if l.Mode == "compliance" && l.Phrase != l.phrase(id) {
				return nil, ops.Fail(ops.Declined, fmt.Errorf("a lock in compliance mode cannot be taken back by anybody, and %s is paid for all %d days", sizeOf(s), l.Days), fmt.Sprintf("if that is wanted: --phrase %q", l.phrase(id)))
			}
			return ops.Params{"snapshot": id, "mode": l.Mode, "days": strconv.Itoa(l.Days)}, nil
		},
		Steps: func(p ops.Params) []ops.Step {
			days, _ := strconv.Atoi(p["days"])
			locked := func(ctx context.Context, _ *ops.Run) (string, error) {
				locks, err := m.Cloud.SnapshotLocks(ctx, p["snapshot"])
				if len(locks) == 0 {
					return "not locked", err
				}
				return fmt.Sprintf("%s for %d days", locks[0].Mode, locks[0].Days), err
			}
			return []ops.Step{{
				ID: "snapshot.lock", Class: ops.Cloud, Title: fmt.Sprintf("lock %s in %s mode for %d days", p["snapshot"], p["mode"], days), Cost: "the snapshot's price for all of them",
				Do: func(ctx context.Context, _ *ops.Run) error {
					return cloudError(m.Cloud.LockSnapshot(ctx, p["snapshot"], p["mode"], int32(days))) //nolint:gosec // 1 to 365
				},
				Postcheck: seen(locked, always(fmt.Sprintf("%s for %d days", p["mode"], days))),
			}}
		},
	}
}

func sizeOf(s cloud.Snapshot) string {
	if s.FullBytes > 0 {
		return fmt.Sprintf("%.1f GiB", float64(s.FullBytes)/(1<<30))
	}
	return fmt.Sprintf("up to %d GiB", s.SizeGiB)
}

// SnapshotVerify is the strategy's checklist after a snapshot (section 8), its
// five lines and no more, read now. It waits for a snapshot that is pending.
func (m Site) SnapshotVerify(ctx context.Context, c ops.Change, progress func(string)) (ops.Checks, error) {
	question := ops.Question{Instance: m.Config.AWS.InstanceID, Change: c.ID}
	if c.Adopted {
		question.Snapshot = c.Snapshot
	}
	source := facts{m.Cloud, m.Config}
	var f ops.Facts
	err := m.Cloud.Await(ctx, progress, func(ctx context.Context) (bool, string, error) {
		var err error
		if f, err = source.Facts(ctx, question); err != nil || f.Snapshot == nil {
			return true, "", err
		}
		return f.Snapshot.State != "pending", fmt.Sprintf("%s is %s, %d %%", f.Snapshot.ID, f.Snapshot.State, f.Snapshot.Progress), nil
	})
	if err != nil {
		return nil, cloudError(err)
	}
	create := "gt06ctl ops snapshot create --change " + c.ID + " --apply"
	s := f.Snapshot
	if s == nil {
		s = &ops.Snapshot{State: "none"}
	}
	noted := c.Address
	stamp := ""
	if !s.Start.IsZero() {
		stamp = s.Start.In(m.Config.Zone()).Format("2006-01-02 15:04:05 MST") + " (" + s.Start.UTC().Format("15:04:05") + " UTC)"
	}
	return ops.Checks{
		{ID: "V1", Text: "Snapshot state = completed", OK: s.State == "completed" && s.Progress == 100, Seen: fmt.Sprintf("%s %s, %d %%", s.ID, s.State, s.Progress), Want: "completed, 100 %", Next: create},
		{ID: "V2", Text: "Correct volume ID", OK: s.Volume != "" && s.Volume == f.Root.ID, Seen: s.Volume, Want: f.Root.ID + ", attached now", Next: create},
		{ID: "V3", Text: "Correct instance ID", OK: s.Tags[ops.TagInstance] == m.Config.AWS.InstanceID && f.Instance.ID == m.Config.AWS.InstanceID, Seen: s.Tags[ops.TagInstance], Want: m.Config.AWS.InstanceID, Next: create},
		{ID: "V4", Text: "Elastic IP noted", OK: noted.IP != "" && f.Address == noted, Seen: strings.TrimSpace(noted.IP + " " + noted.Association), Want: strings.TrimSpace(f.Address.IP + " " + f.Address.Association), Next: "gt06ctl ops preflight"},
		{ID: "V5", Text: "Timestamp logged", OK: stamp != "", Seen: stamp, Want: "the start of the snapshot", Next: create},
	}, nil
}

// ListedSnapshot is a snapshot as the list shows it.
type ListedSnapshot struct {
	cloud.Snapshot
	Class string `json:"class"` // "change c-…", "evidence c-…", "plan", "by hand"
	Lock  string `json:"lock,omitempty"`
}

// SnapshotList lists the snapshots of the root volume, the newest first.
func (m Site) SnapshotList(ctx context.Context) ([]ListedSnapshot, error) {
	_, root, err := m.root(ctx)
	if err != nil {
		return nil, err
	}
	all, err := m.Cloud.SnapshotsOf(ctx, root.ID, nil)
	if err != nil {
		return nil, cloudError(err)
	}
	locks, err := m.Cloud.SnapshotLocks(ctx)
	if err != nil {
		return nil, cloudError(err)
	}
	out := make([]ListedSnapshot, 0, len(all))
	for _, s := range all {
		l := ListedSnapshot{Snapshot: s, Class: classOf(s)}
		for _, k := range locks {
			if k.Snapshot == s.ID {
				l.Lock = k.Mode + " until " + k.Expires.In(m.Config.Zone()).Format(time.DateOnly)
			}
		}
		out = append(out, l)
	}
	return out, nil
}

func classOf(s cloud.Snapshot) string {
	switch change := s.Tags[cloud.TagChange]; {
	case s.Tags.Automated() != "":
		return "plan"
	case strings.HasSuffix(change, broken):
		return "evidence " + strings.TrimSuffix(change, broken)
	case change != "":
		return "change " + change
	}
	return "by hand"
}
