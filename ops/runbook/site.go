package runbook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/cloud"
)

// Site is the instance that is operated, seen from its cloud: the steps the
// cloud's runbooks are made of.
type Site struct {
	Cloud  *cloud.Cloud
	Config ops.Config
}

// instance reads it and its root volume; a root volume that is away is asked
// for by others.
func (m Site) instance(ctx context.Context) (cloud.Instance, error) {
	i, err := m.Cloud.Instance(ctx, m.Config.AWS.InstanceID)
	return i, cloudError(err)
}

// root reads the volume attached at the root device's name now: never one a
// configuration names.
func (m Site) root(ctx context.Context) (cloud.Instance, cloud.Volume, error) {
	i, err := m.instance(ctx)
	if err != nil {
		return i, cloud.Volume{}, err
	}
	disk, ok := i.Root()
	if !ok {
		return i, cloud.Volume{}, ops.Fail(ops.Refused, fmt.Errorf("nothing is attached to %s at %s", i.ID, i.RootDevice), "gt06ctl ops restore instance", "gt06ctl ops change list shows a run that has not ended")
	}
	v, err := m.Cloud.Volume(ctx, disk.Volume)
	return i, v, cloudError(err)
}

// limits of the waits; AWS is usually much faster.
const (
	stopLimit   = 15 * time.Minute
	attachLimit = 5 * time.Minute
)

// wait reads until a thing is in a state, shows how long it has been, and fails
// when the limit is over.
func (m Site) wait(ctx context.Context, r *ops.Run, what, want string, limit time.Duration, read func(context.Context) (string, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	err := m.Cloud.Await(ctx, func(text string) {
		r.Wait(fmt.Sprintf("%s: %s (%s of at most %s)", what, text, time.Since(began).Round(time.Second), limit))
	}, func(ctx context.Context) (bool, string, error) {
		seen, err := read(ctx)
		return seen == want, seen, err
	})
	if err != nil {
		return cloudError(fmt.Errorf("wait for %s to be %s: %w", what, want, err))
	}
	return nil
}

func (m Site) stateOf(id string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) { i, err := m.Cloud.Instance(ctx, id); return i.State, err }
}

// placeOf says where a volume is: "free", or "at <instance> <device>" once the
// instance has it.
func (m Site) placeOf(volume string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		v, err := m.Cloud.Volume(ctx, volume)
		if err != nil || v.Instance == "" {
			if v.State == "available" {
				return "free", err
			}
			return v.State, err
		}
		i, err := m.Cloud.Instance(ctx, v.Instance)
		if err != nil {
			return "", err
		}
		k := slices.IndexFunc(i.Disks, func(d cloud.Disk) bool { return d.Volume == volume })
		if k >= 0 && i.Disks[k].State == "attached" {
			return "at " + i.ID + " " + i.Disks[k].Device, nil
		}
		return "moving", nil
	}
}

// seen makes a postcheck of a reading and the value it should have.
func seen(read func(context.Context, *ops.Run) (string, error), want func(*ops.Run) string) func(context.Context, *ops.Run) (ops.State, error) {
	return func(ctx context.Context, r *ops.Run) (ops.State, error) {
		now, err := read(ctx, r)
		return ops.State{Done: now == want(r), Seen: now}, cloudError(err)
	}
}

func always[T any](v T) func(*ops.Run) T { return func(*ops.Run) T { return v } }

// stop stops the instance and waits.
func (m Site) stop() ops.Step {
	id := m.Config.AWS.InstanceID
	return ops.Step{
		ID: "instance.stop", Class: ops.Stop, Title: "stop " + id, Downtime: time.Minute,
		Do: func(ctx context.Context, r *ops.Run) error {
			if err := m.Cloud.Stop(ctx, id); err != nil {
				return cloudError(err)
			}
			return m.wait(ctx, r, id, "stopped", stopLimit, m.stateOf(id))
		},
		Postcheck: seen(func(ctx context.Context, _ *ops.Run) (string, error) { return m.stateOf(id)(ctx) }, always("stopped")),
	}
}

// start starts it and waits until it runs.
func (m Site) start() ops.Step {
	id := m.Config.AWS.InstanceID
	return ops.Step{
		ID: "instance.start", Class: ops.Stop, Title: "start " + id, Downtime: time.Minute,
		Do: func(ctx context.Context, r *ops.Run) error {
			if err := m.Cloud.Start(ctx, id); err != nil {
				return cloudError(err)
			}
			return m.wait(ctx, r, id, "running", stopLimit, m.stateOf(id))
		},
		Postcheck: seen(func(ctx context.Context, _ *ops.Run) (string, error) { return m.stateOf(id)(ctx) }, always("running")),
	}
}

// address gives the Elastic IP back to the instance; that it still has it is
// success. Stop and start keep the association; a new one is made after the
// start, because that is when an instance can have it for certain.
func (m Site) address() ops.Step {
	id, allocation := m.Config.AWS.InstanceID, m.Config.AWS.EIPAllocation
	at := func(ctx context.Context, _ *ops.Run) (string, error) {
		a, err := m.Cloud.Address(ctx, allocation)
		return a.Instance, err
	}
	return ops.Step{
		ID: "address.associate", Class: ops.Cloud, Title: fmt.Sprintf("Elastic IP %s (%s) at %s", m.Config.AWS.EIP, allocation, id),
		Do: func(ctx context.Context, r *ops.Run) error {
			if now, err := at(ctx, r); err != nil || now == id {
				return cloudError(err)
			}
			return cloudError(m.Cloud.Associate(ctx, allocation, id))
		},
		Postcheck: seen(at, always(id)),
	}
}

// attach gives a volume to an instance.
func (m Site) attach(step, title string, volume, instance func(*ops.Run) string, device string) ops.Step {
	want := func(r *ops.Run) string { return "at " + instance(r) + " " + device }
	return ops.Step{
		ID: step, Class: ops.Stop, Title: title, Unroots: true,
		Do: func(ctx context.Context, r *ops.Run) error {
			if err := m.Cloud.Attach(ctx, volume(r), instance(r), device); err != nil {
				return cloudError(err)
			}
			return m.wait(ctx, r, volume(r), want(r), attachLimit, m.placeOf(volume(r)))
		},
		Postcheck: seen(func(ctx context.Context, r *ops.Run) (string, error) { return m.placeOf(volume(r))(ctx) }, want),
	}
}

// detach takes a volume from an instance; that it has none is success.
func (m Site) detach(step, title string, volume, instance func(*ops.Run) string) ops.Step {
	return ops.Step{
		ID: step, Class: ops.Stop, Title: title, Unroots: true,
		Do: func(ctx context.Context, r *ops.Run) error {
			if instance(r) == "" {
				return nil
			}
			if err := m.Cloud.Detach(ctx, volume(r), instance(r)); err != nil {
				return cloudError(err)
			}
			return m.wait(ctx, r, volume(r), "free", attachLimit, m.placeOf(volume(r)))
		},
		Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
			now, err := m.placeOf(volume(r))(ctx)
			free := now == "free" || instance(r) != "" && strings.HasPrefix(now, "at ") && !strings.HasPrefix(now, "at "+instance(r)+" ")
			return ops.State{Done: free || instance(r) == "", Seen: now}, cloudError(err)
		},
	}
}

// origin names what a step makes in this run of a plan: a later run of the same
// step makes its own, a repeated try finds it.
func origin(r *ops.Run) cloud.Origin {
	return cloud.Origin{Change: r.Change.ID, Step: r.Step() + "." + r.Token()[:12]}
}

// made finds what a step of this run made; both have the same tags.
func madeTags(r *ops.Run) cloud.Tags {
	o := origin(r)
	return cloud.Tags{cloud.TagChange: o.Change, cloud.TagStep: o.Step}
}

// find looks for what a step made: a list may lack it for a moment after it was
// made, so that an empty one is believed at the third look only.
func find[T any](ctx context.Context, m Site, list func(context.Context) ([]T, error)) (T, error) {
	var found T
	looks := 0
	err := m.Cloud.Await(ctx, nil, func(ctx context.Context) (bool, string, error) {
		all, err := list(ctx)
		if looks++; err != nil || len(all) == 0 {
			if err == nil && looks >= 3 {
				err = errNone
			}
			return false, "", err
		}
		found = all[0]
		return true, "", nil
	})
	return found, cloudError(err)
}

// errNone says that a thing which should be there once is not.
var errNone = errors.New("gt06/ops: it is not there")
