package runbook

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/cloud"
)

// dailyAge is how old the newest automated backup may be: a day and what a
// backup window is wide.
const dailyAge = 26 * time.Hour

// never are calls no runbook makes; that one was made is a finding, whoever did
// it. within are those that runbooks make: each must lie in a step of a change.
var (
	never  = []string{"DeleteSnapshot", "DeregisterImage", "UnlockSnapshot", "DisassociateAddress", "ReleaseAddress", "DeleteRule", "UpdateRule", "StopLogging"} //nolint:gochecknoglobals // a table
	within = []string{"StopInstances", "TerminateInstances", "ModifyVolume", "DetachVolume", "DeleteVolume"}                                                     //nolint:gochecknoglobals // a table
)

// Span is the time a step of a change was at work.
type Span struct {
	Change   string
	From, To time.Time
}

// Work reads from a change's records when its steps were at work. A step
// without an end is at work until the next record, or still.
func Work(records []ops.Record) []Span {
	var spans []Span
	open := map[string]int{}
	for _, r := range records {
		switch r.Kind {
		case ops.KindIntent:
			open[r.Step] = len(spans)
			spans = append(spans, Span{Change: r.Change, From: r.Time})
		case ops.KindResult:
			if i, ok := open[r.Step]; ok {
				spans[i].To = r.Time
			}
		}
	}
	for i := range spans {
		if spans[i].To.IsZero() {
			spans[i].To = spans[i].From.Add(time.Hour)
		}
	}
	return spans
}

// Audit reads the posture of the account: is there what both documents ask
// for, and did anybody do what they forbid. Everything is asked, whatever the
// answers are.
func (m Site) Audit(ctx context.Context, since time.Time, work []Span) (ops.Checks, error) {
	i, root, err := m.root(ctx)
	if err != nil {
		return nil, err
	}
	snapshots, err := m.Cloud.SnapshotsOf(ctx, root.ID, nil)
	if err != nil {
		return nil, cloudError(err)
	}
	now, _, err := m.Cloud.Now(ctx)
	if err != nil {
		return nil, cloudError(err)
	}
	var checks ops.Checks
	for _, part := range []func() (ops.Checks, error){
		func() (ops.Checks, error) { return m.auditDaily(ctx, now, i, root, snapshots) },
		func() (ops.Checks, error) { return m.auditSnapshots(ctx, now, root, snapshots) },
		func() (ops.Checks, error) { return m.auditThings(ctx, i, root) },
		func() (ops.Checks, error) { return m.auditCalls(ctx, since, work, i, root) },
	} {
		more, err := part()
		if err != nil {
			return nil, cloudError(err)
		}
		checks = append(checks, more...)
	}
	return append(checks, m.sopAge(now)), nil
}

// daily says when the newest automated backup was made, and under which names
// the service knows machine and volume.
func (m Site) daily(ctx context.Context, i cloud.Instance, root cloud.Volume, snapshots []cloud.Snapshot) (newest time.Time, arns []string, err error) {
	for _, s := range snapshots {
		if s.Tags.Automated() != "" && s.State == "completed" && s.Started.After(newest) {
			newest = s.Started
		}
	}
	for kind, id := range map[string]string{"volume": root.ID, "instance": i.ID} {
		arn, err := m.Cloud.ARN(ctx, kind, id)
		if err != nil {
			return newest, nil, err
		}
		arns = append(arns, arn)
		points, err := m.Cloud.RecoveryPoints(ctx, arn)
		if err != nil {
			return newest, nil, err
		}
		for _, p := range points {
			if p.Status == "COMPLETED" && p.Created.After(newest) {
				newest = p.Created
			}
		}
	}
	return newest, arns, nil
}

func ago(now, then time.Time) string {
	if then.IsZero() {
		return "never"
	}
	return now.Sub(then).Round(time.Minute).String() + " ago"
}

// auditDaily looks at the safety net: a plan of at least seven days that covers
// the machine, and a backup it made within a day.
func (m Site) auditDaily(ctx context.Context, now time.Time, i cloud.Instance, root cloud.Volume, snapshots []cloud.Snapshot) (ops.Checks, error) {
	newest, arns, err := m.daily(ctx, i, root, snapshots)
	if err != nil {
		return nil, err
	}
	plans, err := m.Cloud.BackupPlans(ctx)
	if err != nil {
		return nil, err
	}
	kept := ""
	for _, p := range plans {
		covers := slices.ContainsFunc(p.Resources, func(r string) bool {
			key, value, tag := strings.Cut(r, "=")
			return slices.Contains(arns, r) || r == "*" || strings.HasSuffix(r, ":volume/*") || tag && (i.Tags[key] == value || root.Tags[key] == value)
		})
		if covers && (p.KeepDays == 0 || p.KeepDays >= 7) {
			kept = fmt.Sprintf("%s, %s, keeps %d days", p.Name, p.Schedule, p.KeepDays)
		}
	}
	return ops.Checks{
		{ID: "A1", Text: "daily backup ran", OK: now.Sub(newest) <= dailyAge, Seen: ago(now, newest), Want: "within " + dailyAge.String(), Next: "gt06ctl ops init prints the plan; AWS Backup shows why a job failed"},
		{ID: "A2", Text: "a plan keeps daily backups for 7 days", OK: kept != "", Seen: orElse(kept, fmt.Sprintf("none of %d plans covers %s or %s for 7 days", len(plans), i.ID, root.ID)), Want: "daily, at least 7 days", Next: "gt06ctl ops init"},
	}, nil
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// auditSnapshots looks at what protects the snapshots, and at their names.
func (m Site) auditSnapshots(ctx context.Context, now time.Time, root cloud.Volume, snapshots []cloud.Snapshot) (ops.Checks, error) {
	rules, err := m.Cloud.RecycleBin(ctx)
	if err != nil {
		return nil, err
	}
	days := 0
	for _, r := range rules {
		if len(r.Only) == 0 && r.Status == "available" {
			days = max(days, int(r.Days))
		}
	}
	form := regexp.MustCompile(`^` + regexp.QuoteMeta(m.Config.AWS.NamePrefix) + `-\d{4}-\d{2}-\d{2}-before-[a-z0-9]+(-[a-z0-9]+)*$`)
	var misnamed, bad []string
	for _, s := range snapshots {
		if s.Tags.Automated() == "" && s.Tags[cloud.TagRole] == "" && !form.MatchString(s.Name()) {
			misnamed = append(misnamed, fmt.Sprintf("%s %q", s.ID, s.Name()))
		}
		shared, err := m.Cloud.SnapshotShared(ctx, s.ID)
		if err != nil {
			return nil, err
		}
		if shared {
			bad = append(bad, s.ID+" is shared")
		}
	}
	deleted, err := m.Cloud.DeletedSnapshots(ctx, root.ID)
	if err != nil {
		return nil, err
	}
	locks, err := m.Cloud.SnapshotLocks(ctx)
	if err != nil {
		return nil, err
	}
	var ending []string
	for _, l := range locks {
		if left := l.Expires.Sub(now); left < 7*24*time.Hour && slices.ContainsFunc(snapshots, func(s cloud.Snapshot) bool { return s.ID == l.Snapshot }) {
			ending = append(ending, fmt.Sprintf("%s in %s", l.Snapshot, left.Round(time.Hour)))
		}
	}
	return ops.Checks{
		{ID: "A3", Text: "Recycle Bin keeps deleted snapshots", OK: days >= 7, Seen: fmt.Sprintf("%d days", days), Want: "at least 7 days", Next: "gt06ctl ops init"},
		none("A4", "manual snapshots are named by the convention", misnamed, "name them in the console: "+m.Config.AWS.NamePrefix+"-YYYY-MM-DD-before-ACTION"),
		none("A5", "no snapshot is shared", bad, "make it private in the console"),
		none("A6", "no snapshot was deleted", deleted, "restore it from the Recycle Bin in the console"),
		none("A7", "no lock ends within 7 days", ending, "gt06ctl ops snapshot lock SNAPSHOT --days 30"),
	}, nil
}

// none makes a check that wants an empty list.
func none(id, text string, found []string, next string) ops.Check {
	return ops.Check{ID: id, Text: text, OK: len(found) == 0, Seen: orElse(strings.Join(found, ", "), "none"), Want: "none", Next: next}
}

// auditThings looks at the machine's account: address, left-over helpers, what
// the world can reach, and whether the tags the policies go by are there.
func (m Site) auditThings(ctx context.Context, i cloud.Instance, root cloud.Volume) (ops.Checks, error) {
	left, err := Leftovers(m.Cloud)(ctx)
	if err != nil {
		return nil, err
	}
	temporary, err := m.Cloud.Volumes(ctx, cloud.Tags{cloud.TagRole: cloud.RoleTemp})
	if err != nil {
		return nil, err
	}
	for _, v := range temporary {
		left = append(left, v.ID)
	}
	a, err := m.Cloud.Address(ctx, m.Config.AWS.EIPAllocation)
	if err != nil {
		return nil, err
	}
	openings, err := m.Cloud.Openings(ctx, i.Groups)
	if err != nil {
		return nil, err
	}
	var open []string
	for _, o := range openings {
		if wanted := []int32{80, 443, int32(m.Config.GT06.Port)}; o.Protocol != "tcp" || o.From != o.To || !slices.Contains(wanted, o.From) { //nolint:gosec // a port
			open = append(open, fmt.Sprintf("%s %d-%d from %s (%s)", o.Protocol, o.From, o.To, o.CIDR, o.Group))
		}
	}
	disk, _ := i.Root()
	var untagged []string
	for id, tags := range map[string]cloud.Tags{i.ID: i.Tags, root.ID: root.Tags} {
		if tags[cloud.TagManaged] != "true" {
			untagged = append(untagged, id)
		}
	}
	slices.Sort(untagged)
	return ops.Checks{
		{ID: "A8", Text: "Elastic IP is at the machine", OK: a.Instance == i.ID && (m.Config.AWS.EIP == "" || a.IP == m.Config.AWS.EIP), Seen: fmt.Sprintf("%s at %s", a.IP, orElse(a.Instance, "nothing")), Want: fmt.Sprintf("%s at %s", orElse(m.Config.AWS.EIP, a.IP), i.ID), Next: "gt06ctl ops preflight"},
		none("A9", "no rescue or temporary thing is left", left, "gt06ctl ops change list: resume the change it belongs to"),
		none("A10", "the world reaches web and GT06 only", open, "narrow the rule in the security group to the addresses that need it"),
		outlives("A11", i, disk),
		none("A12", "machine and volume have the tag the policies go by ("+cloud.TagManaged+")", untagged, "aws ec2 create-tags --tags Key="+cloud.TagManaged+",Value=true --resources "+strings.Join(untagged, " ")),
	}, nil
}

// outlives wants a root volume that is not deleted with its instance.
func outlives(id string, i cloud.Instance, disk cloud.Disk) ops.Check {
	return ops.Check{
		ID: id, Text: "the root volume outlives its instance", OK: !disk.DeleteWithHost, Seen: fmt.Sprintf("DeleteOnTermination %v", disk.DeleteWithHost), Want: "false",
		Next: "aws ec2 modify-instance-attribute --instance-id " + i.ID + ` --block-device-mappings '[{"DeviceName":"` + i.RootDevice + `","Ebs":{"DeleteOnTermination":false}}]'`,
	}
}

// auditCalls looks for forbidden calls: those no runbook makes, and those on
// this machine that lie in no step of any change.
func (m Site) auditCalls(ctx context.Context, since time.Time, work []Span, i cloud.Instance, root cloud.Volume) (ops.Checks, error) {
	events, err := m.Cloud.Events(ctx, since, slices.Concat(never, within)...)
	if err != nil {
		return nil, err
	}
	// Clocks of journal and trail differ a little.
	const slack = time.Minute
	var found []string
	for _, e := range events {
		if slices.Contains(within, e.Name) {
			ours := slices.Contains(e.Resources, i.ID) || slices.Contains(e.Resources, root.ID) || len(e.Resources) == 0
			matched := slices.ContainsFunc(work, func(s Span) bool { return e.Time.After(s.From.Add(-slack)) && e.Time.Before(s.To.Add(slack)) })
			if !ours || matched {
				continue
			}
		}
		found = append(found, fmt.Sprintf("%s of %s by %s at %s", e.Name, orElse(strings.Join(e.Resources, " "), "?"), e.User, e.Time.In(m.Config.Zone()).Format("2006-01-02 15:04 MST")))
	}
	return ops.Checks{none("A13", "no forbidden call outside of a change since "+since.In(m.Config.Zone()).Format("2006-01-02 15:04 MST"), found, "ask who did it and why; gt06ctl ops change list")}, nil
}

// sopAge warns where the documents were not validated for half a year.
func (m Site) sopAge(now time.Time) ops.Check {
	validated, err := time.Parse("2006-01", m.Config.SOPVersion)
	return ops.Check{ID: "A14", Text: "the documents were validated within 180 days", OK: err == nil && now.Sub(validated) <= 180*24*time.Hour, Seen: m.Config.SOPVersion, Want: "younger than 180 days", Next: "gt06ctl ops sop; validate it, then set sop_version"}
}
