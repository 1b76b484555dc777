package main

import (
	"strings"
	"testing"
	"time"

	"gt06/ops/cloud"
	"gt06/ops/cloud/fake"
)

// TestBadDay restores the machine while AWS throttles every list and loses the
// reply to every change once: nothing is there twice, and nobody has to resume.
func TestBadDay(t *testing.T) {
	t.Parallel()
	a, site := guarded(t)
	a.Guest = func(string, string) (int, string, string) { return 0, "{}", "" }
	a.Lag = 1
	o := newOperator(t, site)
	id := o.open("other", "everything goes wrong today")
	bad := func(actions ...string) {
		for _, action := range []string{"DescribeInstances", "DescribeVolumes", "DescribeSnapshots", "DescribeAddresses", "GetObject"} {
			a.Inject(fake.Fault{Action: action, Kind: fake.Throttle, Times: 2})
		}
		for _, action := range actions {
			a.Inject(fake.Fault{Action: action, Kind: fake.Throttle})
			a.Inject(fake.Fault{Action: action, Kind: fake.LostReply})
		}
	}
	bad("CreateSnapshot", "PutObject", "CreateTags")
	o.done("snapshot", "create")
	bad("StopInstances", "CreateVolume", "DetachVolume", "AttachVolume", "StartInstances", "PutObject", "CreateTags")
	o.done("restore", "instance", "--guest", "ssm")
	if s := a.Snapshots(map[string]string{cloud.TagChange: id}); len(s) != 1 {
		t.Errorf("snapshots %+v", s)
	}
	if v := a.Volumes(map[string]string{cloud.TagChange: id}); len(v) != 1 || v[0].Device != "/dev/sda1" {
		t.Errorf("volumes %+v", v)
	}
	o.must(0, "verify-journal")
}

// TestRefused: each thing that can be wrong with a snapshot or around it is
// refused with its check, and nothing of the machine is changed.
func TestRefused(t *testing.T) {
	t.Parallel()
	day := func(age time.Duration) string {
		return time.Now().Add(-age).In(time.FixedZone("IST", 19800)).Format(time.DateOnly)
	}
	today := day(0)
	good := func(site fake.Site, id string, age time.Duration) fake.Snapshot {
		today := day(age)
		return fake.Snapshot{Volume: site.Volume, Age: age, Description: today + ": the disk is at 91 percent", Tags: map[string]string{
			"Name": "prod-root-" + today + "-before-disk-resize", cloud.TagInstance: site.Instance, cloud.TagChange: id,
		}}
	}
	for name, c := range map[string]struct {
		check string
		args  []string
		spoil func(a *fake.AWS, site fake.Site, s *fake.Snapshot)
	}{
		"nothing wrong":     {"", nil, func(*fake.AWS, fake.Site, *fake.Snapshot) {}},
		"wrong volume":      {"G2", nil, func(_ *fake.AWS, _ fake.Site, s *fake.Snapshot) { s.Volume = "vol-0fedcba9876543210" }},
		"in error":          {"G1", nil, func(_ *fake.AWS, _ fake.Site, s *fake.Snapshot) { s.State = "error" }},
		"another change's":  {"G1", nil, func(_ *fake.AWS, _ fake.Site, s *fake.Snapshot) { s.Tags[cloud.TagChange] = "c-20260101-01" }},
		"another machine's": {"G3", nil, func(_ *fake.AWS, _ fake.Site, s *fake.Snapshot) { s.Tags[cloud.TagInstance] = "i-00000000000000001" }},
		"for another action": {"G4", nil, func(_ *fake.AWS, _ fake.Site, s *fake.Snapshot) {
			s.Tags["Name"] = "prod-root-" + today + "-before-ssh-fix"
		}},
		"without a reason": {"G5", nil, func(_ *fake.AWS, _ fake.Site, s *fake.Snapshot) { s.Description = today }},
		"stale": {"G6", nil, func(_ *fake.AWS, site fake.Site, s *fake.Snapshot) {
			*s = good(site, s.Tags[cloud.TagChange], 5*time.Hour) // which may be the day before
		}},
		"clock off":       {"G6", nil, func(a *fake.AWS, _ fake.Site, _ *fake.Snapshot) { a.Skew = 5 * time.Minute }},
		"made by a plan":  {"G7", nil, func(_ *fake.AWS, _ fake.Site, s *fake.Snapshot) { s.Tags["aws:backup:source-resource"] = "x" }},
		"shared":          {"G8", nil, func(_ *fake.AWS, _ fake.Site, s *fake.Snapshot) { s.Shared = true }},
		"no Recycle Bin":  {"G9", []string{"--mode", "stop"}, func(a *fake.AWS, _ fake.Site, _ *fake.Snapshot) { a.Protect(nil, nil, nil) }},
		"Elastic IP lost": {"G10", nil, func(a *fake.AWS, site fake.Site, _ *fake.Snapshot) { a.PutAddress(site.Allocation, site.IP, "") }},
		"Elastic IP elsewhere": {"G10", nil, func(a *fake.AWS, site fake.Site, _ *fake.Snapshot) {
			a.PutAddress(site.Allocation, site.IP, "i-00000000000000001")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, site := guarded(t)
			o := newOperator(t, site)
			id := o.open("disk-resize", "the disk is at 91 percent")
			s := good(site, id, 0)
			c.spoil(a, site, &s)
			a.PutSnapshot(s)
			code, text := o.apply("", append([]string{"resize", "volume", "--size", "40"}, c.args...)...)
			changed := a.Changes("ec2:ModifyVolume", "ec2:StopInstances", "ec2:StartInstances", "ec2:CreateSnapshot", "ec2:AssociateAddress")
			if c.check == "" {
				if code != 0 || changed != 1 {
					t.Errorf("exit %d, %d changes\n%s", code, changed, text)
				}
				return
			}
			alone := 1
			if strings.Contains(text, "no snapshot has the tag") {
				alone = 2 // then there is no plan to restore from either
			}
			if code != 3 || changed != 0 || !strings.Contains(text, c.check+" ") || strings.Count(text, ", wanted ") != alone || !strings.Contains(text, "hint: ") {
				t.Errorf("exit %d, %d changes, want %s alone\n%s", code, changed, c.check, text)
			}
		})
	}
}
