package runbook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gt06/ops"
	"gt06/ops/cloud"
)

// Proof is what was tried against the account.
type Proof struct {
	Call string `json:"call"`
	OK   bool   `json:"ok"`
	Seen string `json:"seen"`
}

// unproven are the calls that cannot be tried without doing them, or only on
// what a change makes.
func unproven() []string {
	return []string{
		"ec2:CreateVolume, RunInstances, TerminateInstances: on what a change has made",
		"ec2:AttachVolume: a stopped machine with a free volume", "ec2:LockSnapshot, CreateImage, CreateTags",
		"s3:PutObject: the first journal record of a change tries it before anything else", "ssm:SendCommand",
	}
}

// Selftest makes every call that changes nothing against the real account:
// reads, and DryRun of what can be asked. A refusal does not end it.
func (m Site) Selftest(ctx context.Context) (proofs []Proof, not []string, err error) {
	c, id := m.Cloud, m.Config.AWS.InstanceID
	who, err := c.Identity(ctx)
	if err != nil {
		return nil, nil, cloudError(err)
	}
	i, err := m.instance(ctx)
	if err != nil {
		return nil, nil, err
	}
	root, _ := i.Root()
	arn, err := c.ARN(ctx, "volume", root.Volume)
	if err != nil {
		return nil, nil, cloudError(err)
	}
	count := func(what string) func(int, error) (string, error) {
		return func(n int, err error) (string, error) { return fmt.Sprintf("%d %s", n, what), err }
	}
	proofs = []Proof{{"sts:GetCallerIdentity", true, who.ARN}, {"ec2:DescribeInstances", true, i.ID + " is " + i.State}}
	for _, p := range []struct {
		call string
		try  func() (string, error)
	}{
		{"ec2:DescribeVolumes", func() (string, error) { v, err := c.Volume(ctx, root.Volume); return v.ID + " is " + v.State, err }},
		{"ec2:DescribeVolumesModifications", func() (string, error) {
			x, _, err := c.Modification(ctx, root.Volume)
			return "last: " + orElse(x.State, "none"), err
		}},
		{"ec2:DescribeSnapshots", func() (string, error) {
			return count("snapshots of the root volume")(length(c.SnapshotsOf(ctx, root.Volume, nil)))
		}},
		{"ec2:DescribeSnapshotAttribute", func() (string, error) { return m.probeSharing(ctx, root.Volume) }},
		{"ec2:DescribeLockedSnapshots", func() (string, error) { return count("locks")(length(c.SnapshotLocks(ctx))) }},
		{"ec2:ListSnapshotsInRecycleBin", func() (string, error) {
			return count("deleted snapshots")(length(c.DeletedSnapshots(ctx, root.Volume)))
		}},
		{"ec2:DescribeAddresses", func() (string, error) {
			a, err := c.Address(ctx, m.Config.AWS.EIPAllocation)
			return a.IP + " at " + orElse(a.Instance, "nothing"), err
		}},
		{"ec2:DescribeImages", func() (string, error) {
			return count("images")(length(c.Images(ctx, cloud.Tags{cloud.TagInstance: id})))
		}},
		{"ec2:DescribeSecurityGroups", func() (string, error) { return count("rules open to the world")(length(c.Openings(ctx, i.Groups))) }},
		{"ec2:DescribeTags", func() (string, error) { t, err := c.TagsOf(ctx, id); return fmt.Sprintf("%d tags", len(t)), err }},
		{"ec2:GetConsoleOutput", func() (string, error) { t, err := c.Console(ctx, id); return fmt.Sprintf("%d bytes", len(t)), err }},
		{"rbin:ListRules", func() (string, error) { return count("Recycle Bin rules")(length(c.RecycleBin(ctx))) }},
		{"backup:ListBackupPlans", func() (string, error) { return count("rules of plans")(length(c.BackupPlans(ctx))) }},
		{"backup:ListRecoveryPointsByResource", func() (string, error) { return count("recovery points")(length(c.RecoveryPoints(ctx, arn))) }},
		{"cloudtrail:LookupEvents", func() (string, error) {
			return count("stops in the last day")(length(c.Events(ctx, time.Now().Add(-24*time.Hour), "StopInstances")))
		}},
		{"s3:ListBucket", func() (string, error) { return m.probeBucket(ctx) }},
	} {
		seen, err := p.try()
		proofs = append(proofs, proof(p.call, seen, err))
	}
	permissions, err := c.Allowed(ctx, i, m.Config.AWS.EIPAllocation)
	for _, p := range permissions {
		proofs = append(proofs, proof(p.Action+" (DryRun)", "would be allowed", p.Err))
	}
	return proofs, unproven(), cloudError(err)
}

func length[T any](all []T, err error) (int, error) { return len(all), err }

func proof(call, seen string, err error) Proof {
	if err != nil {
		seen = err.Error()
		if errors.Is(err, cloud.ErrDenied) {
			seen = "refused: " + seen
		}
	}
	return Proof{call, err == nil, seen}
}

func (m Site) probeSharing(ctx context.Context, volume string) (string, error) {
	all, err := m.Cloud.SnapshotsOf(ctx, volume, nil)
	if err != nil || len(all) == 0 {
		return "no snapshot to ask about", err
	}
	shared, err := m.Cloud.SnapshotShared(ctx, all[0].ID)
	return fmt.Sprintf("%s shared: %v", all[0].ID, shared), err
}

func (m Site) probeBucket(ctx context.Context) (string, error) {
	if m.Config.Journal.S3URI == "" {
		return "journal.s3_uri is not set: the journal has no copy", nil
	}
	b, err := m.Cloud.Bucket(m.Config.Journal.S3URI)
	if err != nil {
		return "", ops.Fail(ops.Usage, err)
	}
	all, err := b.List(ctx, "journal/")
	return fmt.Sprintf("%d journal records", len(all)), err
}
