package cloud_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"gt06/ops/cloud"
	"gt06/ops/cloud/fake"
	"gt06/ops/cloud/mototest"
	"gt06/ops/deploy/iam"
)

func open(t *testing.T, site fake.Site) *cloud.Cloud {
	t.Helper()
	c, err := cloud.Open(t.Context(), cloud.Options{Region: site.Region, Endpoint: site.Endpoint})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func production(t *testing.T) (*fake.AWS, fake.Site, *cloud.Cloud) {
	t.Helper()
	a := fake.New()
	t.Cleanup(a.Close)
	site := a.Production()
	return a, site, open(t, site)
}

func policies(t *testing.T, site fake.Site, names ...string) []fake.Policy {
	t.Helper()
	var out []fake.Policy
	for _, n := range names {
		text := must(iam.Policy(n, iam.Site{Account: fake.Account, Region: site.Region, Allocation: site.Allocation, Bucket: site.Bucket}))(t)
		out = append(out, must(fake.ParsePolicy([]byte(text)))(t))
	}
	return out
}

// TestReaderMayNotChange: the role that looks is refused by AWS, and the
// refusal says so.
func TestReaderMayNotChange(t *testing.T) {
	t.Parallel()
	a, site, c := production(t)
	a.Policies = map[string][]fake.Policy{"test": policies(t, site, "read", "deny")}
	ctx := t.Context()
	i := must(c.Instance(ctx, site.Instance))(t)
	for what, err := range map[string]error{
		"stop":     c.Stop(ctx, i.ID),
		"snapshot": second(c.CreateSnapshot(ctx, cloud.Origin{Change: "c", Step: "s"}, site.Volume, "x", nil)),
		"address":  c.Associate(ctx, site.Allocation, i.ID),
		"object":   must(c.Bucket("s3://"+site.Bucket))(t).Create(ctx, "journal/x", nil),
	} {
		if !errors.Is(err, cloud.ErrDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, p := range must(c.Allowed(ctx, i, site.Allocation))(t) {
		if !errors.Is(p.Err, cloud.ErrDenied) {
			t.Errorf("%s: %v", p.Action, p.Err)
		}
	}
	if n := a.Changes(); n != 0 || a.AddressOf(site.Allocation) != site.Instance {
		t.Errorf("%d changes", n)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for a state, as long as a busy machine may take for it.
func until(t *testing.T, c *cloud.Cloud, want string, read func(context.Context) (string, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	ok(t, c.Await(ctx, nil, func(ctx context.Context) (bool, string, error) {
		state, err := read(ctx)
		return state == want, state, err
	}))
}

func instanceState(c *cloud.Cloud, id string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) { i, err := c.Instance(ctx, id); return i.State, err }
}

func volumeState(c *cloud.Cloud, id string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) { v, err := c.Volume(ctx, id); return v.State, err }
}

// TestBothClouds runs what moto knows against it and against the fake: the
// same calls, the same end.
func TestBothClouds(t *testing.T) {
	t.Parallel()
	t.Run("fake", func(t *testing.T) {
		t.Parallel()
		a, site, _ := production(t)
		a.Policies = map[string][]fake.Policy{"test": policies(t, site, iam.Names()...)}
		suite(t, site)
		if n := a.Uploads(); n != 0 {
			t.Errorf("%d uploads left, which cost", n)
		}
		for _, call := range a.Calls() {
			if call.Refused == "UnauthorizedOperation" || call.Refused == "AccessDenied" {
				t.Errorf("the policies refuse %s: %+v", call.Action, call)
			}
		}
	})
	t.Run("moto", func(t *testing.T) {
		t.Parallel()
		suite(t, mototest.Start(t))
	})
}

func suite(t *testing.T, site fake.Site) {
	t.Helper()
	c := open(t, site)
	ctx := t.Context()
	t.Run("who and when", func(t *testing.T) {
		who := must(c.Identity(ctx))(t)
		if len(who.Account) != 12 || !strings.HasPrefix(who.ARN, "arn:aws:") {
			t.Errorf("identity %+v", who)
		}
		_, ahead, err := c.Now(ctx)
		if err != nil || ahead.Abs() > 2*time.Second {
			t.Errorf("clock: %v ahead, %v", ahead, err)
		}
		if _, on, err := c.Self(ctx); on || err != nil {
			t.Errorf("a laptop is taken for an instance: %v %v", on, err)
		}
	})
	t.Run("machine", func(t *testing.T) {
		i := must(c.Instance(ctx, site.Instance))(t)
		root, attached := i.Root()
		if i.Name() != site.Name || i.State != "running" || !attached || root.Volume != site.Volume || i.Zone != "ap-south-1a" {
			t.Errorf("instance %+v", i)
		}
		v := must(c.Volume(ctx, site.Volume))(t)
		if v.SizeGiB != 30 || v.Type != "gp3" || v.Instance != site.Instance || v.Device != i.RootDevice {
			t.Errorf("volume %+v", v)
		}
		a := must(c.Address(ctx, site.Allocation))(t)
		if a.IP != site.IP || a.Instance != site.Instance || a.Association == "" {
			t.Errorf("address %+v", a)
		}
		for what, err := range map[string]error{
			"instance": second(c.Instance(ctx, "i-0000000000000dead")), "volume": second(c.Volume(ctx, "vol-0000000000000dead")),
			"snapshot": second(c.Snapshot(ctx, "snap-0000000000000dead")), "address": second(c.Address(ctx, "eipalloc-0000000000000dead")),
		} {
			if !errors.Is(err, cloud.ErrNotFound) {
				t.Errorf("%s that is not there: %v", what, err)
			}
		}
	})
	t.Run("snapshot", func(t *testing.T) {
		by := cloud.Origin{Change: "c-1", Step: "snapshot"}
		s := must(c.CreateSnapshot(ctx, by, site.Volume, "2026-11-25 before resize", cloud.Tags{cloud.TagName: "prod-root-2026-11-25-before-disk-resize", cloud.TagInstance: site.Instance}))(t)
		until(t, c, "completed", func(ctx context.Context) (string, error) { s, err := c.Snapshot(ctx, s.ID); return s.State, err })
		s = must(c.Snapshot(ctx, s.ID))(t)
		if s.Percent != 100 || s.Volume != site.Volume || s.Tags[cloud.TagChange] != "c-1" || s.Tags[cloud.TagInstance] != site.Instance || s.Owner == "" {
			t.Errorf("snapshot %+v", s)
		}
		again := must(c.CreateSnapshot(ctx, by, site.Volume, "2026-11-25 before resize", nil))(t)
		other := must(c.CreateSnapshot(ctx, cloud.Origin{Change: "c-1", Step: "second"}, site.Volume, "x", nil))(t)
		if again.ID != s.ID || other.ID == s.ID {
			t.Errorf("a repeated step made %s after %s; another step %s", again.ID, s.ID, other.ID)
		}
		if shared := must(c.SnapshotShared(ctx, s.ID))(t); shared {
			t.Error("shared")
		}
	})
	t.Run("grow", func(t *testing.T) {
		if err := c.Grow(ctx, site.Volume, 30); !errors.Is(err, cloud.ErrProtected) {
			t.Errorf("the same size: %v", err)
		}
		ok(t, c.Grow(ctx, site.Volume, 40))
		until(t, c, "usable", func(ctx context.Context) (string, error) {
			m, known, err := c.Modification(ctx, site.Volume)
			if known && m.Usable() && m.TargetGiB == 40 {
				return "usable", err
			}
			return m.State, err
		})
	})
	t.Run("restore", func(t *testing.T) { restore(t, c, site) })
	t.Run("rescue", func(t *testing.T) {
		i := must(c.Instance(ctx, site.Instance))(t)
		m := cloud.Machine{Image: i.Image, Type: "t3.micro", Zone: i.Zone, Subnet: i.Subnet, Groups: i.Groups, Script: "shutdown -P +60", Role: cloud.RoleRescue}
		by := cloud.Origin{Change: "c-3", Step: "rescue.launch"}
		first := must(c.Launch(ctx, by, m))(t)
		until(t, c, "running", instanceState(c, first.ID))
		again := must(c.Launch(ctx, by, m))(t)
		if again.ID != first.ID {
			t.Errorf("a repeated launch made a second rescue instance %s", again.ID)
		}
		ok(t, c.Terminate(ctx, first.ID))
		until(t, c, "terminated", instanceState(c, first.ID))
		if next := must(c.Launch(ctx, cloud.Origin{Change: "c-3", Step: "rescue.again"}, m))(t); next.ID == first.ID {
			t.Error("a terminated instance is taken for a living one")
		} else {
			ok(t, c.Terminate(ctx, next.ID))
		}
		if err := c.Terminate(ctx, site.Instance); !errors.Is(err, cloud.ErrProtected) {
			t.Errorf("terminate production: %v", err)
		}
	})
	t.Run("tags", func(t *testing.T) {
		ok(t, c.Tag(ctx, site.Instance, cloud.Tags{"gt06ops:lock": "c-1@host"}))
		ok(t, c.Untag(ctx, site.Instance, cloud.Tags{"gt06ops:lock": "c-2@other"}))
		if tags := must(c.TagsOf(ctx, site.Instance))(t); tags["gt06ops:lock"] != "c-1@host" {
			t.Errorf("another's value took the tag away: %v", tags)
		}
		ok(t, c.Untag(ctx, site.Instance, cloud.Tags{"gt06ops:lock": "c-1@host"}))
		if tags := must(c.TagsOf(ctx, site.Instance))(t); tags["gt06ops:lock"] != "" || tags[cloud.TagName] != site.Name {
			t.Errorf("tags %v", tags)
		}
	})
	t.Run("allowed", func(t *testing.T) {
		i := must(c.Instance(ctx, site.Instance))(t)
		for _, p := range must(c.Allowed(ctx, i, site.Allocation))(t) {
			if p.Err != nil {
				t.Errorf("%s: %v", p.Action, p.Err)
			}
		}
		if now := must(c.Instance(ctx, site.Instance))(t); now.State != "running" {
			t.Errorf("a question stopped it: %s", now.State)
		}
	})
	t.Run("bucket", func(t *testing.T) { bucket(t, c, site) })
}

func second[T any](_ T, err error) error { return err }

// restore is the worst case, call by call: stop, detach, a volume from the
// snapshot, attach, start; the address stays.
func restore(t *testing.T, c *cloud.Cloud, site fake.Site) {
	t.Helper()
	ctx := t.Context()
	i := must(c.Instance(ctx, site.Instance))(t)
	root, _ := i.Root()
	old := must(c.Volume(ctx, root.Volume))(t)
	s := must(c.CreateSnapshot(ctx, cloud.Origin{Change: "c-2", Step: "snapshot"}, old.ID, "x", nil))(t)
	until(t, c, "completed", func(ctx context.Context) (string, error) { s, err := c.Snapshot(ctx, s.ID); return s.State, err })
	ok(t, c.Stop(ctx, i.ID))
	until(t, c, "stopped", instanceState(c, i.ID))
	ok(t, c.Stop(ctx, i.ID))
	by := cloud.Origin{Change: "c-2", Step: "volume.create"}
	fresh := must(c.CreateVolume(ctx, by, s.ID, old, cloud.Tags{cloud.TagInstance: i.ID, cloud.TagManaged: "true"}))(t)
	if again := must(c.CreateVolume(ctx, by, s.ID, old, nil))(t); again.ID != fresh.ID {
		t.Errorf("a repeated step made a second volume %s", again.ID)
	}
	until(t, c, "available", volumeState(c, fresh.ID))
	ok(t, c.Detach(ctx, old.ID, i.ID))
	until(t, c, "available", volumeState(c, old.ID))
	ok(t, c.Detach(ctx, old.ID, i.ID))
	ok(t, c.Attach(ctx, fresh.ID, i.ID, i.RootDevice))
	until(t, c, "in-use", volumeState(c, fresh.ID))
	ok(t, c.Attach(ctx, fresh.ID, i.ID, i.RootDevice))
	until(t, c, "attached", func(ctx context.Context) (string, error) {
		i, err := c.Instance(ctx, i.ID)
		root, _ := i.Root()
		return root.State, err
	})
	ok(t, c.Start(ctx, i.ID))
	until(t, c, "running", instanceState(c, i.ID))
	ok(t, c.Associate(ctx, site.Allocation, i.ID))
	if a := must(c.Address(ctx, site.Allocation))(t); a.Instance != i.ID {
		t.Errorf("address %+v", a)
	}
	if err := c.DeleteVolume(ctx, old.ID); !errors.Is(err, cloud.ErrProtected) {
		t.Errorf("delete the old root: %v", err)
	}
	temp := must(c.CreateVolume(ctx, cloud.Origin{Change: "c-2", Step: "temp"}, s.ID, old, cloud.Tags{cloud.TagRole: cloud.RoleTemp}))(t)
	until(t, c, "available", volumeState(c, temp.ID))
	ok(t, c.DeleteVolume(ctx, temp.ID))
	if _, err := c.Volume(ctx, temp.ID); !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("a deleted volume: %v", err)
	}
}

func bucket(t *testing.T, c *cloud.Cloud, site fake.Site) {
	t.Helper()
	ctx := t.Context()
	b := must(c.Bucket("s3://" + site.Bucket + "/backup"))(t)
	ok(t, b.Create(ctx, "c-1/1.json", []byte("one")))
	if err := b.Create(ctx, "c-1/1.json", []byte("other")); !errors.Is(err, cloud.ErrExists) {
		t.Errorf("written twice: %v", err)
	}
	body, _, err := b.Get(ctx, "c-1/1.json")
	if err != nil || string(body) != "one" {
		t.Errorf("%q, %v", body, err)
	}
	if _, _, err := b.Get(ctx, "c-1/2.json"); !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("nothing there: %v", err)
	}
	listed := must(b.List(ctx, "c-1/"))(t)
	if len(listed) != 1 || listed[0].Key != "c-1/1.json" || listed[0].Bytes != 3 {
		t.Errorf("list %+v", listed)
	}
	// A pipe, as a dump comes, of several parts.
	whole := make([]byte, 11<<20)
	for i := range whole {
		whole[i] = byte(rand.Uint32()) //nolint:gosec // any bytes
	}
	r, w, err := os.Pipe()
	ok(t, err)
	go func() {
		_, _ = io.Copy(w, bytes.NewReader(whole))
		_ = w.Close()
	}()
	ok(t, b.Upload(ctx, "db.sql.gz", r))
	back, _, err := b.Get(ctx, "db.sql.gz")
	if err != nil || sha256.Sum256(back) != sha256.Sum256(whole) {
		t.Errorf("%d bytes came back: %v", len(back), err)
	}
	if err := b.Upload(ctx, "killed.sql.gz", io.MultiReader(bytes.NewReader(whole), broken{})); !errors.Is(err, errDump) {
		t.Errorf("a dump that fails: %v", err)
	}
	if _, _, err := b.Get(ctx, "killed.sql.gz"); !errors.Is(err, cloud.ErrNotFound) {
		t.Errorf("half a dump is there: %v", err)
	}
	for _, uri := range []string{"s3:///x", "http://bucket/x", "bucket", "s3://b/x?y"} {
		if _, err := c.Bucket(uri); err == nil {
			t.Errorf("%q is taken for a bucket", uri)
		}
	}
}

var errDump = errors.New("mariadb-dump was killed")

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errDump }

func TestEndpointIsLoopback(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{"https://ec2.evil.example", "http://10.0.0.1:5000", "http://localhost.evil.example", "http://localhost:5000", "127.0.0.1:5000", "https://127.0.0.1:5000", "http://[::1]@evil.example"} {
		if _, err := cloud.Open(t.Context(), cloud.Options{Region: "ap-south-1", Endpoint: endpoint}); !errors.Is(err, cloud.ErrEndpoint) {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

// What moto is too kind for, or does not have.
func TestRefusals(t *testing.T) {
	t.Parallel()
	a, site, c := production(t)
	ctx := t.Context()
	ok(t, c.Grow(ctx, site.Volume, 40))
	for what, err := range map[string]error{
		"VolumeModificationRateExceeded": c.Grow(ctx, site.Volume, 50),
		"OperationNotPermitted":          c.Detach(ctx, site.Volume, site.Instance),
		"InvalidParameterValue":          second(c.CreateVolume(ctx, cloud.Origin{Change: "c", Step: "small"}, a.PutSnapshot(fake.Snapshot{Volume: site.Volume}), cloud.Volume{Zone: "ap-south-1a", Type: "gp3", SizeGiB: 8}, nil)),
		"IncorrectState":                 second(c.CreateVolume(ctx, cloud.Origin{Change: "c", Step: "early"}, a.PutSnapshot(fake.Snapshot{Volume: site.Volume, State: "error"}), cloud.Volume{Zone: "ap-south-1a", Type: "gp3", SizeGiB: 30}, nil)),
	} {
		if refused, is := errors.AsType[*cloud.Error](err); !is || refused.Code != what {
			t.Errorf("%s: %v", what, err)
		}
	}
	a.Advance(cloud.Cooldown)
	ok(t, c.Grow(ctx, site.Volume, 50))
	elsewhere := must(c.CreateVolume(ctx, cloud.Origin{Change: "c", Step: "zone"}, a.PutSnapshot(fake.Snapshot{Volume: site.Volume}), cloud.Volume{Zone: "ap-south-1b", Type: "gp3", SizeGiB: 30}, nil))(t)
	until(t, c, "available", volumeState(c, elsewhere.ID))
	if refused, is := errors.AsType[*cloud.Error](c.Attach(ctx, elsewhere.ID, site.Instance, "/dev/sdf")); !is || refused.Code != "InvalidVolume.ZoneMismatch" {
		t.Errorf("another zone: %v", refused)
	}
}

func TestSnapshotTakesTimeAndFails(t *testing.T) {
	t.Parallel()
	a, site, c := production(t)
	ctx := t.Context()
	a.Delays.Snapshot = time.Hour
	s := must(c.CreateSnapshot(ctx, cloud.Origin{Change: "c", Step: "s"}, site.Volume, "x", nil))(t)
	if s.State != "pending" {
		t.Errorf("state %s at once", s.State)
	}
	var seen []string
	// Its time passes when it was seen, however slow this machine is.
	ok(t, c.Await(ctx, func(text string) { seen = append(seen, text); a.Advance(time.Hour) }, func(ctx context.Context) (bool, string, error) {
		s, err := c.Snapshot(ctx, s.ID)
		return s.State == "completed", s.State, err
	}))
	if !slices.Equal(seen, []string{"pending", "completed"}) {
		t.Errorf("progress %v", seen)
	}
	a.FailSnapshots()
	bad := must(c.CreateSnapshot(ctx, cloud.Origin{Change: "c", Step: "bad"}, site.Volume, "x", nil))(t)
	a.Advance(time.Hour)
	until(t, c, "error", func(ctx context.Context) (string, error) { s, err := c.Snapshot(ctx, bad.ID); return s.State, err })
	if next := must(c.CreateSnapshot(ctx, cloud.Origin{Change: "c", Step: "bad"}, site.Volume, "x", nil))(t); next.ID == bad.ID {
		t.Error("the snapshot in error is taken again")
	}
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := c.Await(ctx, nil, func(context.Context) (bool, string, error) { return false, "pending 12 %", nil }); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "pending 12 %") {
		t.Errorf("a wait that ends: %v", err)
	}
}

// TestLostReply: each call that makes something is cut after its effect, then
// throttled, then answered with a server error; there is exactly one object,
// also where lists lag.
func TestLostReply(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string][]fake.Fault{
		"lost":                {{Kind: fake.LostReply}},
		"throttled":           {{Kind: fake.Throttle, Times: 2}},
		"broken":              {{Kind: fake.Broken}},
		"throttled then lost": {{Kind: fake.Throttle}, {Kind: fake.LostReply}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, site, c := production(t)
			a.Lag = 1
			ctx := t.Context()
			arm := func(action string) {
				for _, f := range faults {
					f.Action = action
					a.Inject(f)
				}
			}
			by := cloud.Origin{Change: "c-9", Step: "x"}
			mine := map[string]string{cloud.TagChange: "c-9"}
			arm("CreateSnapshot")
			s := must(c.CreateSnapshot(ctx, by, site.Volume, "x", nil))(t)
			if all := a.Snapshots(mine); len(all) != 1 || all[0].ID != s.ID {
				t.Errorf("snapshots %v", all)
			}
			until(t, c, "completed", func(ctx context.Context) (string, error) { s, err := c.Snapshot(ctx, s.ID); return s.State, err })
			arm("CreateVolume")
			v := must(c.CreateVolume(ctx, by, s.ID, must(c.Volume(ctx, site.Volume))(t), nil))(t)
			if all := a.Volumes(mine); len(all) != 1 || all[0].ID != v.ID {
				t.Errorf("volumes %v", all)
			}
			i := must(c.Instance(ctx, site.Instance))(t)
			arm("RunInstances")
			m := must(c.Launch(ctx, by, cloud.Machine{Image: i.Image, Type: "t3.micro", Zone: i.Zone, Groups: i.Groups, Role: cloud.RoleRescue}))(t)
			if all := a.Instances(mine); len(all) != 1 || all[0].ID != m.ID {
				t.Errorf("instances %v", all)
			}
			arm("CreateImage")
			image := must(c.CreateImage(ctx, by, site.Instance, "prod-2026-11-25", "x", false, nil))(t)
			if all := a.Images(mine); len(all) != 1 || all[0].ID != image {
				t.Errorf("images %v", all)
			}
		})
	}
}

func TestImageIsTaggedWithItsSnapshots(t *testing.T) {
	t.Parallel()
	a, site, c := production(t)
	id := must(c.CreateImage(t.Context(), cloud.Origin{Change: "c", Step: "ami"}, site.Instance, "prod", "2026-11-25 kernel", false, cloud.Tags{cloud.TagName: "prod"}))(t)
	until(t, c, "available", func(ctx context.Context) (string, error) { i, err := c.Image(ctx, id); return i.State, err })
	i := must(c.Image(t.Context(), id))(t)
	tagged := a.Snapshots(map[string]string{cloud.TagChange: "c", cloud.TagName: "prod"})
	if len(i.Snapshots) != 1 || len(tagged) != 1 || tagged[0].ID != i.Snapshots[0] || i.Tags[cloud.TagName] != "prod" {
		t.Errorf("image %+v, tagged snapshots %+v", i, tagged)
	}
}

func TestProtection(t *testing.T) {
	t.Parallel()
	a, site, c := production(t)
	ctx := t.Context()
	s := a.PutSnapshot(fake.Snapshot{Volume: site.Volume, Shared: true, Tags: map[string]string{"aws:backup:source-resource": "x"}})
	ok(t, c.LockSnapshot(ctx, s, "governance", 30))
	locks := must(c.SnapshotLocks(ctx, s))(t)
	if len(locks) != 1 || locks[0].Mode != "governance" || locks[0].Days != 30 || time.Until(locks[0].Expires) < 29*24*time.Hour {
		t.Errorf("locks %+v", locks)
	}
	if shared := must(c.SnapshotShared(ctx, s))(t); !shared {
		t.Error("a shared snapshot is not seen")
	}
	if by := must(c.Snapshot(ctx, s))(t).Tags.Automated(); by != "aws:backup:source-resource" {
		t.Errorf("made by %q", by)
	}
	if rules := must(c.RecycleBin(ctx))(t); len(rules) != 1 || rules[0].Days != 7 {
		t.Errorf("rules %+v", rules)
	}
	arn := must(c.ARN(ctx, "volume", site.Volume))(t)
	if plans := must(c.BackupPlans(ctx))(t); len(plans) != 1 || plans[0].KeepDays != 7 || !slices.Contains(plans[0].Resources, arn) {
		t.Errorf("plans %+v", plans)
	}
	if points := must(c.RecoveryPoints(ctx, arn))(t); len(points) != 1 || time.Since(points[0].Created) > 10*time.Hour {
		t.Errorf("points %+v", points)
	}
	a.Happened(fake.Event{Name: "DeleteSnapshot", User: "tired", Time: time.Now().Add(-time.Hour), Resources: []string{"snap-1"}})
	a.Happened(fake.Event{Name: "DeleteSnapshot", User: "earlier", Time: time.Now().Add(-48 * time.Hour)})
	if events := must(c.Events(ctx, time.Now().Add(-24*time.Hour), "DeleteSnapshot", "StopInstances"))(t); len(events) != 1 || events[0].User != "tired" || events[0].Resources[0] != "snap-1" {
		t.Errorf("events %+v", events)
	}
	i := must(c.Instance(ctx, site.Instance))(t)
	if open := must(c.Openings(ctx, i.Groups))(t); len(open) != 3 {
		t.Errorf("open to the world: %+v", open)
	}
	if gone := must(c.DeletedSnapshots(ctx, site.Volume))(t); len(gone) != 0 {
		t.Errorf("deleted: %v", gone)
	}
}

func TestSwap(t *testing.T) {
	t.Parallel()
	_, site, c := production(t)
	ctx := t.Context()
	b := must(c.Bucket("s3://" + site.Bucket))(t)
	v1 := must(b.Swap(ctx, "lock", "", []byte("a")))(t)
	if _, err := b.Swap(ctx, "lock", "", []byte("b")); !errors.Is(err, cloud.ErrChanged) {
		t.Errorf("first twice: %v", err)
	}
	v2 := must(b.Swap(ctx, "lock", v1, []byte("b")))(t)
	if _, err := b.Swap(ctx, "lock", v1, []byte("c")); !errors.Is(err, cloud.ErrChanged) {
		t.Errorf("an old version: %v", err)
	}
	if body, v, err := b.Get(ctx, "lock"); err != nil || string(body) != "b" || v != v2 {
		t.Errorf("%q %q %v", body, v, err)
	}
}

func TestSelfAndGuest(t *testing.T) {
	t.Parallel()
	a, site, c := production(t)
	ctx := t.Context()
	a.On = site.Instance
	m, on, err := c.Self(ctx)
	if err != nil || !on || m.InstanceID != site.Instance || m.PublicIP != site.IP {
		t.Errorf("self %+v %v %v", m, on, err)
	}
	if _, err := c.Run(ctx, site.Instance, "true", time.Minute); err == nil {
		t.Error("a command ran where SSM has no agent")
	}
	a.Guest = func(_, command string) (int, string, string) { return 3, "did " + command, "but" }
	if out := must(c.Run(ctx, site.Instance, "gt06ctl ops preflight", time.Minute))(t); out.Code != 3 || out.Stdout != "did gt06ctl ops preflight" || out.Stderr != "but" {
		t.Errorf("output %+v", out)
	}
}

func TestSkewedClock(t *testing.T) {
	t.Parallel()
	a, _, c := production(t)
	a.Skew = -5 * time.Minute
	now, ahead, err := c.Now(t.Context())
	if err != nil || ahead < 4*time.Minute+58*time.Second || ahead > 5*time.Minute+2*time.Second || time.Until(now) > -4*time.Minute {
		t.Errorf("now %v, ahead %v, %v", now, ahead, err)
	}
}
