package runbook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/cloud"
)

// Backend is a cloud as changes, gate and journal need it. With a bucket
// (journal.s3_uri) the journal is copied to <uri>/journal/<change>/<seq>.json
// and the lock is <uri>/lock/<instance>.json, taken by compare-and-swap;
// without, the lock is a tag of the instance.
func Backend(c *cloud.Cloud, config ops.Config) (ops.Backend, error) {
	b := ops.Backend{
		Facts: facts{c, config}, Anchor: anchor{c, config.AWS.InstanceID},
		Self: func(ctx context.Context) (string, error) {
			m, _, err := c.Self(ctx)
			return m.InstanceID, err
		},
		ARN: func(ctx context.Context) (string, error) {
			who, err := c.Identity(ctx)
			return who.ARN, cloudError(err)
		},
		Lock: tagLock{c, config.AWS.InstanceID, raceTime(config)},
	}
	if config.Journal.S3URI == "" {
		return b, nil
	}
	bucket, err := c.Bucket(config.Journal.S3URI)
	if err != nil {
		return b, ops.Fail(ops.Usage, fmt.Errorf("journal.s3_uri: %w", err))
	}
	b.Mirror = mirror{bucket}
	if config.Lock.Backend != "tag" {
		b.Lock = objectLock{bucket, "lock/" + config.AWS.InstanceID + ".json"}
	}
	return b, nil
}

// cloudError gives an error of the cloud its exit code and a way on.
func cloudError(err error) error {
	switch {
	case err == nil:
		return nil
	case ops.KindOf(err) != ops.Internal: // has one
		return err
	case errors.Is(err, cloud.ErrCredentials):
		return ops.Fail(ops.Denied, err, "aws sso login, then name the profile: --profile NAME", "on the instance: does it have its role?")
	case errors.Is(err, cloud.ErrDenied):
		return ops.Fail(ops.Denied, err, "gt06ctl ops selftest --account shows what this role may do", "the policies: gt06ctl ops init")
	case errors.Is(err, cloud.ErrNotFound):
		return ops.Fail(ops.Refused, err, "look at aws.region, aws.instance_id and the profile")
	case errors.Is(err, cloud.ErrProtected):
		return ops.Fail(ops.Forbidden, err)
	case errors.Is(err, context.DeadlineExceeded):
		return ops.Fail(ops.TimedOut, err)
	}
	return err
}

// facts answers the gate's questions.
type facts struct {
	cloud  *cloud.Cloud
	config ops.Config
}

func (f facts) Facts(ctx context.Context, q ops.Question) (ops.Facts, error) {
	out, err := f.read(ctx, q)
	return out, cloudError(err)
}

func (f facts) read(ctx context.Context, q ops.Question) (ops.Facts, error) {
	c := f.cloud
	var out ops.Facts
	who, err := c.Identity(ctx)
	if err != nil {
		return out, err
	}
	out.Account = who.Account
	i, err := c.Instance(ctx, q.Instance)
	if errors.Is(err, cloud.ErrNotFound) {
		err = nil
	}
	if err != nil {
		return out, err
	}
	// The clock is the Date header of the answer above.
	now, ahead, err := c.Now(ctx)
	if err != nil {
		return out, err
	}
	out.CloudTime, out.LocalTime = now, now.Add(ahead)
	out.Instance = ops.Instance{ID: i.ID, Name: i.Name(), State: i.State, Zone: i.Zone, RootDevice: i.RootDevice}
	if root, ok := i.Root(); ok {
		v, err := c.Volume(ctx, root.Volume)
		if err != nil {
			return out, err
		}
		out.Root = ops.Volume{ID: v.ID, Type: v.Type, KMS: v.KMSKey, GiB: int(v.SizeGiB), IOPS: int(v.IOPS), Throughput: int(v.Throughput), Encrypted: v.Encrypted}
	}
	a, err := c.Address(ctx, f.config.AWS.EIPAllocation)
	if err != nil && !errors.Is(err, cloud.ErrNotFound) {
		return out, err
	}
	out.Address = ops.Address{Allocation: a.Allocation, Association: a.Association, IP: a.IP, Instance: a.Instance}
	if out.Snapshot, err = f.snapshot(ctx, q); err != nil {
		return out, err
	}
	rules, err := c.RecycleBin(ctx)
	for _, r := range rules {
		if len(r.Only) == 0 && r.Status == "available" {
			out.RecycleBinDays = max(out.RecycleBinDays, int(r.Days))
		}
	}
	return out, err
}

// snapshot is the named one, else the newest of the change that is not an
// image's.
func (f facts) snapshot(ctx context.Context, q ops.Question) (*ops.Snapshot, error) {
	var s cloud.Snapshot
	switch {
	case q.Snapshot != "":
		var err error
		if s, err = f.cloud.Snapshot(ctx, q.Snapshot); err != nil {
			if errors.Is(err, cloud.ErrNotFound) {
				return nil, nil
			}
			return nil, err
		}
	case q.Change != "":
		all, err := f.cloud.Snapshots(ctx, cloud.Tags{cloud.TagChange: q.Change})
		all = slices.DeleteFunc(all, func(s cloud.Snapshot) bool { return s.Tags[cloud.TagRole] != "" })
		if err != nil || len(all) == 0 {
			return nil, err
		}
		s = all[0]
	default:
		return nil, nil
	}
	shared, err := f.cloud.SnapshotShared(ctx, s.ID)
	if err != nil {
		return nil, err
	}
	locks, err := f.cloud.SnapshotLocks(ctx, s.ID)
	if err != nil {
		return nil, err
	}
	out := &ops.Snapshot{ID: s.ID, Volume: s.Volume, State: s.State, Owner: s.Owner, Name: s.Name(), Description: s.Description, Progress: s.Percent, Start: s.Started, Tags: s.Tags, Public: shared}
	for _, l := range locks {
		out.Lock = l.Mode
	}
	return out, nil
}

// mirror keeps copies of the journal in a bucket.
type mirror struct{ bucket *cloud.Bucket }

func place(change string, seq int) string { return fmt.Sprintf("journal/%s/%08d.json", change, seq) }

func (m mirror) Put(ctx context.Context, change string, seq int, line []byte) error {
	err := m.bucket.Create(ctx, place(change, seq), line)
	if errors.Is(err, cloud.ErrExists) {
		return fmt.Errorf("%w: %w", ops.ErrExists, err)
	}
	return cloudError(err)
}

func (m mirror) Get(ctx context.Context, change string, seq int) ([]byte, error) {
	line, _, err := m.bucket.Get(ctx, place(change, seq))
	if errors.Is(err, cloud.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", os.ErrNotExist, err)
	}
	return line, cloudError(err)
}

func (m mirror) Last(ctx context.Context) (map[string]int, error) {
	objects, err := m.bucket.List(ctx, "journal/")
	last := map[string]int{}
	for _, o := range objects {
		change, file, _ := strings.Cut(strings.TrimPrefix(o.Key, "journal/"), "/")
		if seq, err := strconv.Atoi(strings.TrimSuffix(file, ".json")); err == nil {
			last[change] = max(last[change], seq)
		}
	}
	return last, cloudError(err)
}

// anchor keeps the journal's end in a tag of the instance.
type anchor struct {
	cloud    *cloud.Cloud
	instance string
}

func (a anchor) SetHead(ctx context.Context, head string) error {
	return cloudError(a.cloud.Tag(ctx, a.instance, cloud.Tags{cloud.TagHead: head}))
}

func (a anchor) Head(ctx context.Context) (string, error) {
	tags, err := a.cloud.TagsOf(ctx, a.instance)
	return tags[cloud.TagHead], cloudError(err)
}

// objectLock is the lock as an object: {} is free.
type objectLock struct {
	bucket *cloud.Bucket
	key    string
}

func (l objectLock) read(ctx context.Context) (who ops.Holder, version string, err error) {
	body, version, err := l.bucket.Get(ctx, l.key)
	if errors.Is(err, cloud.ErrNotFound) {
		return ops.Holder{}, "", nil
	}
	if err == nil {
		err = json.Unmarshal(body, &who)
	}
	return who, version, cloudError(err)
}

func (l objectLock) swap(ctx context.Context, version string, who ops.Holder) error {
	body, err := json.Marshal(who)
	if err != nil {
		return err
	}
	_, err = l.bucket.Swap(ctx, l.key, version, body)
	return err
}

func (l objectLock) Acquire(ctx context.Context, h ops.Holder) (ops.Holder, error) {
	who, version, err := l.read(ctx)
	if err != nil {
		return who, err
	}
	if who != (ops.Holder{}) {
		return who, ops.ErrHeld
	}
	if err = l.swap(ctx, version, h); err == nil {
		return h, nil
	}
	if !errors.Is(err, cloud.ErrChanged) {
		return who, cloudError(err)
	}
	// Lost, or won with a lost reply and refused at the second try.
	if who, _, err = l.read(ctx); err != nil || who == h {
		return who, err
	}
	return who, ops.ErrHeld
}

func (l objectLock) Release(ctx context.Context, h ops.Holder) error {
	who, version, err := l.read(ctx)
	if err != nil {
		return err
	}
	if who != h {
		return ops.ErrHeld
	}
	err = l.swap(ctx, version, ops.Holder{})
	if errors.Is(err, cloud.ErrChanged) {
		if who, _, again := l.read(ctx); again == nil && who != h {
			return nil // given back by the try whose reply was lost
		}
	}
	return cloudError(err)
}

func (l objectLock) Holder(ctx context.Context) (ops.Holder, error) {
	who, _, err := l.read(ctx)
	return who, err
}

// tagLock is the lock as a tag of the instance: "<change>@<host>@<since>". Tags
// are not compare-and-swap: a writer waits until any other that saw it free has
// written too, and the value that stands then has won. A writer that took
// longer than that from its look to its write may have written over a winner,
// who is at work: it has not got the lock, and leaves its tag, so that nobody
// else gets it. A bucket needs none of this.
type tagLock struct {
	cloud    *cloud.Cloud
	instance string
	race     time.Duration
}

// raceTime is how long two writers may be apart.
func raceTime(config ops.Config) time.Duration {
	if config.AWS.EndpointURL != "" {
		return 300 * time.Millisecond
	}
	return 3 * time.Second
}

func value(h ops.Holder) string { return h.Change + "@" + h.Host + "@" + h.Since }

func (l tagLock) Holder(ctx context.Context) (ops.Holder, error) {
	tags, err := l.cloud.TagsOf(ctx, l.instance)
	if err != nil || tags[cloud.TagLock] == "" {
		return ops.Holder{}, cloudError(err)
	}
	change, rest, _ := strings.Cut(tags[cloud.TagLock], "@")
	host, since, _ := strings.Cut(rest, "@")
	return ops.Holder{Change: change, Host: host, Since: since}, nil
}

func (l tagLock) Acquire(ctx context.Context, h ops.Holder) (ops.Holder, error) {
	began := time.Now()
	who, err := l.Holder(ctx)
	if err != nil {
		return who, err
	}
	if who != (ops.Holder{}) {
		return who, ops.ErrHeld
	}
	if err := l.cloud.Tag(ctx, l.instance, cloud.Tags{cloud.TagLock: value(h)}); err != nil {
		return who, cloudError(err)
	}
	if took := time.Since(began); took > l.race {
		return who, ops.Fail(ops.Busy, fmt.Errorf("the lock was free, and written only %s later: another may have taken it meanwhile", took.Round(time.Millisecond)),
			"see that nobody works on it, then gt06ctl ops change abandon "+h.Change, "a lock without this gap: journal.s3_uri")
	}
	timer := time.NewTimer(l.race)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return who, ctx.Err()
	case <-timer.C:
	}
	if who, err = l.Holder(ctx); err != nil || who == h {
		return who, err
	}
	return who, ops.ErrHeld
}

func (l tagLock) Release(ctx context.Context, h ops.Holder) error {
	who, err := l.Holder(ctx)
	if err != nil {
		return err
	}
	if who != h {
		return ops.ErrHeld
	}
	return cloudError(l.cloud.Untag(ctx, l.instance, cloud.Tags{cloud.TagLock: value(h)}))
}

// Leftovers lists the helper instances that still live.
func Leftovers(c *cloud.Cloud) func(context.Context) ([]string, error) {
	return func(ctx context.Context) ([]string, error) {
		var left []string
		for _, role := range []string{cloud.RoleRescue, cloud.RoleTemp} {
			all, err := c.Instances(ctx, cloud.Tags{cloud.TagRole: role})
			if err != nil {
				return nil, cloudError(err)
			}
			for _, i := range all {
				if i.State != "terminated" {
					left = append(left, i.ID)
				}
			}
		}
		return left, nil
	}
}
