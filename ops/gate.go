package ops

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Gate decides whether a step of a class may happen in a change, from the world
// as it is at that moment: what it said before is evidence, never a token.
type Gate interface {
	Read(ctx context.Context, q GateQuestion) (Evidence, error)
}

// GateQuestion is what a gate is asked.
type GateQuestion struct {
	Change   Change
	Class    Class
	Restore  bool              // back to the snapshot: its age and the Elastic IP are no reason to refuse
	Away     bool              // this run may have taken the root volume away itself
	Consumed map[string]string // snapshot -> the other change that used it
	Effect   time.Time         // when the last mutating step of another change ended
}

// Evidence is what it answers.
type Evidence struct {
	Checks   Checks
	Facts    Facts
	Restore  RestorePlan
	Snapshot string
}

// RestorePlan is what is needed to make the root volume again (G11).
type RestorePlan struct {
	Snapshot, Volume, Zone, Device, Type, KMS string
	GiB, IOPS, Throughput                     int
}

// String is the plan in one line.
func (p RestorePlan) String() string {
	kms := p.KMS
	if kms == "" {
		kms = "default"
	}
	return fmt.Sprintf("volume from %s in %s, %s, %d GiB, %d IOPS, %d MiB/s, kms %s; to %s in place of %s", p.Snapshot, p.Zone, p.Type, p.GiB, p.IOPS, p.Throughput, kms, p.Device, p.Volume)
}

// SnapshotGate is the gate: no maintenance without a snapshot, of this volume,
// for this change, complete, and looked at again now.
type SnapshotGate struct {
	Facts  FactSource
	Config Config
}

// maxSkew is how far the clock here may be from the cloud's.
const maxSkew = 2 * time.Minute

// recycleDays is how long a deleted snapshot has to come back from.
const recycleDays = 7

var snapshotSuffix = regexp.MustCompile(`^(\d{4}-\d{2}-\d{2})-before-([a-z0-9]+(?:-[a-z0-9]+)*)$`)

// Read asks the cloud and answers G1 to G11.
func (g *SnapshotGate) Read(ctx context.Context, q GateQuestion) (Evidence, error) {
	question := Question{Instance: g.Config.AWS.InstanceID, Change: q.Change.ID}
	if q.Change.Adopted {
		question.Snapshot = q.Change.Snapshot
	}
	f, err := g.Facts.Facts(ctx, question)
	if err != nil {
		return Evidence{}, err
	}
	return g.judge(q, f), nil
}

// judge answers from facts alone.
func (g *SnapshotGate) judge(q GateQuestion, f Facts) Evidence {
	e := Evidence{Facts: f}
	root := f.Root
	if q.Restore || q.Away && root.ID == "" {
		root = q.Change.Root // what the snapshot must be of, wherever it is now
	}
	if f.Snapshot != nil {
		e.Snapshot = f.Snapshot.ID
		e.Checks = append(e.Checks, g.ofSnapshot(q, f, root.ID)...)
	} else {
		e.Checks = append(e.Checks, Check{
			ID: "G1", Text: "snapshot of this change is complete", Seen: "no snapshot has the tag " + TagChange + "=" + q.Change.ID,
			Want: "one that is completed", Next: "gt06ctl ops snapshot create --change " + q.Change.ID + " --apply",
		})
	}
	if q.Class == Stop {
		e.Checks = append(e.Checks, g.protection(q, f)...)
	}
	if !q.Restore {
		e.Checks = append(e.Checks, g.address(q, f))
	}
	e.Restore = restorePlan(f, root)
	e.Checks = append(e.Checks, Check{
		ID: "G11", Text: "restore plan is whole", OK: e.Restore.whole(), Seen: e.Restore.String(), Want: "snapshot, volume, zone, device, type and size all known",
		Next: "gt06ctl ops preflight",
	})
	return e
}

func restorePlan(f Facts, root Volume) RestorePlan {
	p := RestorePlan{
		Volume: root.ID, Zone: f.Instance.Zone, Device: f.Instance.RootDevice, Type: root.Type, KMS: root.KMS, GiB: root.GiB, IOPS: root.IOPS, Throughput: root.Throughput,
	}
	if f.Snapshot != nil {
		p.Snapshot = f.Snapshot.ID
	}
	return p
}

func (p RestorePlan) whole() bool {
	return p.Snapshot != "" && p.Volume != "" && p.Zone != "" && p.Device != "" && p.Type != "" && p.GiB > 0
}

// ofSnapshot is G1 to G8.
func (g *SnapshotGate) ofSnapshot(q GateQuestion, f Facts, root string) Checks {
	s := f.Snapshot
	create := "gt06ctl ops snapshot create --change " + q.Change.ID + " --apply"
	date := s.Start.In(g.Config.Zone()).Format(time.DateOnly)
	tag := s.Tags[TagInstance]
	skew := f.LocalTime.Sub(f.CloudTime).Abs()
	age := f.CloudTime.Sub(s.Start)
	automated := ""
	for name := range s.Tags {
		if strings.HasPrefix(name, "aws:backup:") || strings.HasPrefix(name, "aws:dlm:") {
			automated = name
		}
	}
	mine := s.Tags[TagChange] == q.Change.ID || q.Change.Adopted && q.Change.Snapshot == s.ID
	seenChange := TagChange + "=" + s.Tags[TagChange]
	if automated != "" {
		seenChange = "made by a plan: " + automated
	}
	other := q.Consumed[s.ID]
	owner := "owner " + s.Owner
	switch {
	case s.Public:
		owner += ", shared with everybody"
	case other != "":
		owner += ", used by " + other
	}
	waits := "gt06ctl ops snapshot verify --change " + q.Change.ID
	if s.State == "error" {
		waits = create
	}
	return Checks{
		{ID: "G1", Text: "snapshot is complete", OK: s.State == "completed" && s.Progress == 100, Seen: fmt.Sprintf("%s is %s, %d %%", s.ID, s.State, s.Progress), Want: "completed, 100 %", Next: waits},
		{ID: "G2", Text: "snapshot is of the root volume", OK: root != "" && s.Volume == root, Seen: s.Volume, Want: orNone(root) + ", attached now at " + f.Instance.RootDevice, Next: create},
		{ID: "G3", Text: "snapshot is of this instance, and the instance is here", OK: tag == g.Config.AWS.InstanceID && f.Instance.ID == g.Config.AWS.InstanceID, Seen: fmt.Sprintf("%s=%s, instance %s", TagInstance, orNone(tag), orNone(f.Instance.ID)), Want: g.Config.AWS.InstanceID, Next: create},
		g.name(q, s, date, create),
		g.description(q, s, date, create),
		{ID: "G6", Text: "snapshot is fresh and the clock is right", OK: skew <= maxSkew && (q.Restore || age <= g.Config.Gate.MaxAge.D() && age > -maxSkew && s.Start.After(q.Effect)), Seen: fmt.Sprintf("taken %s ago, clock off by %s, last step of another change: %s", age.Round(time.Second), skew.Round(time.Second), at(q.Effect)), Want: fmt.Sprintf("at most %s old, clock off by at most %s, taken after every earlier change", g.Config.Gate.MaxAge.D(), maxSkew), Next: freshen(skew, create)},
		{ID: "G7", Text: "snapshot was made by hand for this change", OK: mine && automated == "", Seen: seenChange, Want: TagChange + "=" + q.Change.ID, Next: create},
		{ID: "G8", Text: "snapshot is ours alone", OK: s.Owner == f.Account && s.Owner != "" && !s.Public && other == "", Seen: owner, Want: "owner " + f.Account + ", shared with nobody, used by no other change", Next: create},
	}
}

func freshen(skew time.Duration, create string) string {
	if skew > maxSkew {
		return "sudo chronyc makestep"
	}
	return create
}

func at(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

func (g *SnapshotGate) name(q GateQuestion, s *Snapshot, date, create string) Check {
	want := g.Config.AWS.NamePrefix + "-" + date + "-before-" + string(q.Change.Action)
	rest, ok := strings.CutPrefix(s.Name, g.Config.AWS.NamePrefix+"-")
	parts := snapshotSuffix.FindStringSubmatch(rest)
	return Check{ID: "G4", Text: "name says date and action", OK: ok && parts != nil && parts[1] == date && parts[2] == string(q.Change.Action), Seen: orNone(s.Name), Want: want, Next: create}
}

func (g *SnapshotGate) description(q GateQuestion, s *Snapshot, date, create string) Check {
	before, after, ok := strings.Cut(s.Description, date)
	return Check{
		ID: "G5", Text: "description says date and reason", OK: ok && validReason(strings.Trim(before+after, " :-"), q.Change.Action, g.Config.Gate.MinReason) == nil,
		Seen: orNone(s.Description), Want: date + " and a reason of at least " + fmt.Sprint(g.Config.Gate.MinReason) + " characters and two words", Next: create,
	}
}

// protection is G9: what is about to stop can come back even when somebody
// deletes the snapshot.
func (g *SnapshotGate) protection(q GateQuestion, f Facts) Checks {
	locked := slices.Contains(g.Config.Gate.LockRequired, q.Change.Action)
	lock := ""
	if f.Snapshot != nil {
		lock = f.Snapshot.Lock
	}
	c := Check{
		ID: "G9", Text: "Recycle Bin and lock protect the snapshot", OK: f.RecycleBinDays >= recycleDays && (!locked || lock == "governance" || lock == "compliance"),
		Seen: fmt.Sprintf("Recycle Bin keeps %d days, lock %s", f.RecycleBinDays, orNone(lock)), Want: fmt.Sprintf("at least %d days", recycleDays), Next: "gt06ctl ops init",
	}
	if locked {
		c.Want += fmt.Sprintf(", lock governance or compliance for action %s", q.Change.Action)
		if f.RecycleBinDays >= recycleDays {
			c.Next = "gt06ctl ops snapshot lock --mode governance --days 30 --change " + q.Change.ID + " --apply"
		}
	}
	return Checks{c}
}

// address is G10: the Elastic IP was noted when the change was opened and is
// still there.
func (g *SnapshotGate) address(q GateQuestion, f Facts) Check {
	noted, now := q.Change.Address, f.Address
	return Check{
		ID: "G10", Text: "Elastic IP is noted and attached",
		OK:   noted.Allocation != "" && noted.Association != "" && now == noted && now.Instance == g.Config.AWS.InstanceID,
		Seen: fmt.Sprintf("noted %s %s, now %s at %s", orNone(noted.Allocation), orNone(noted.Association), orNone(now.Association), orNone(now.Instance)),
		Want: fmt.Sprintf("%s associated with %s, as noted at %s", orNone(g.Config.AWS.EIPAllocation), g.Config.AWS.InstanceID, at(q.Change.OpenedAt)),
		Next: fmt.Sprintf("aws ec2 associate-address --allocation-id %s --instance-id %s", g.Config.AWS.EIPAllocation, g.Config.AWS.InstanceID),
	}
}
