package runbook

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/cloud"
)

// rescueScript is what the rescue instance runs at its first boot: it waits for
// the volume, mends the keys, says how that went on the console, and ends
// itself in any case.
//
//go:embed rescue.sh
var rescueScript string

// rescueDevice is where the root volume is lent to the rescue instance.
const rescueDevice = "/dev/sdf"

// rescueType is the instance type of helpers: one of the two the policy allows.
const rescueType = "t3.micro"

// sshKey is one line of authorized_keys, without options.
var sshKey = regexp.MustCompile(`^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com) [A-Za-z0-9+/=]+( [A-Za-z0-9@._-]+)?$`)

// Rescue mends SSH access (manual 4.3): the root volume is lent to a rescue
// instance, which puts the key in and the modes right. Whatever fails after the
// stop, the volume goes back, the instance starts, and the rescue instance is
// terminated and seen terminated; it would also end itself within the hour.
// Key is a line of authorized_keys, "" to mend the modes only.
func (m Site) Rescue(user, key string) ops.Runbook {
	return ops.Runbook{
		Name: "ssh-recover", Actions: []ops.Action{ops.SSHFix},
		Discover: func(ctx context.Context) (ops.Params, error) {
			if !regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`).MatchString(user) {
				return nil, ops.Fail(ops.Usage, fmt.Errorf("%q is no user", user))
			}
			if key = strings.TrimSpace(key); key != "" && !sshKey.MatchString(key) {
				return nil, ops.Fail(ops.Usage, errors.New("the key is no single line of authorized_keys: a public key, without options"), "ssh-keygen -y -f PRIVATE > key.pub, then --key key.pub")
			}
			i, root, err := m.root(ctx)
			return ops.Params{"instance": i.ID, "zone": i.Zone, "device": i.RootDevice, "volume": root.ID, "image": i.Image, "subnet": i.Subnet, "groups": strings.Join(i.Groups, ","), "user": user, "public": key}, err
		},
		Steps: m.rescueSteps,
	}
}

func (m Site) rescueSteps(p ops.Params) []ops.Step {
	instance, volume := always(p["instance"]), always(p["volume"])
	rescue := func(r *ops.Run) string { return r.Out("rescue.launch", "rescue") }
	back := m.detach("rescue.detach", "take the root volume back from the rescue instance", volume, rescue)
	attach := m.attach("root.attach", "attach it as "+p["device"]+" again", volume, instance, p["device"])
	start, address := m.start(), m.address()
	steps := []ops.Step{
		m.stop(),
		m.detach("root.detach", "take the root volume "+p["volume"]+" off", volume, instance),
		m.launch(p),
		m.attach("rescue.attach", "lend it to the rescue instance as "+rescueDevice, volume, rescue, rescueDevice),
		m.mended(p, rescue),
	}
	steps[4].Unroots = true
	for _, s := range []*ops.Step{&back, &attach, &start, &address} {
		s.Always = true
		steps = append(steps, *s)
	}
	return append(steps, m.end())
}

func (m Site) launch(p ops.Params) ops.Step {
	return ops.Step{
		ID: "rescue.launch", Class: ops.Cloud, Unroots: true, Cost: "an hour of a " + rescueType,
		Title: "launch a rescue instance, " + rescueType + " in " + p["zone"] + ", that ends itself after an hour",
		Do: func(ctx context.Context, r *ops.Run) error {
			i, err := m.Cloud.Launch(ctx, origin(r), cloud.Machine{
				Image: p["image"], Type: rescueType, Zone: p["zone"], Subnet: p["subnet"], Groups: strings.FieldsFunc(p["groups"], func(r rune) bool { return r == ',' }), Role: cloud.RoleRescue,
				Script: RescueScript(p["user"], p["public"]),
			})
			if err != nil {
				return cloudError(err)
			}
			return m.wait(ctx, r, i.ID, "running", attachLimit, m.stateOf(i.ID))
		},
		Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
			i, err := find(ctx, m, func(ctx context.Context) ([]cloud.Instance, error) {
				all, err := m.Cloud.Instances(ctx, madeTags(r))
				return slices.DeleteFunc(all, func(i cloud.Instance) bool { return i.State == "terminated" || i.State == "shutting-down" }), err
			})
			if errors.Is(err, errNone) {
				return ops.State{Seen: "no rescue instance"}, nil
			}
			return ops.State{Done: i.State == "running", Seen: i.ID + " is " + i.State, Out: map[string]string{"rescue": i.ID}}, err
		},
	}
}

// RescueScript is the first-boot script for a user and a key.
func RescueScript(user, key string) string {
	return strings.NewReplacer("@USER@", user, "@KEY@", key).Replace(rescueScript)
}

// The lines the script ends with.
const (
	rescueDone   = "gt06ops-rescue: done"
	rescueFailed = "gt06ops-rescue: failed"
)

// rescueError is what the rescue instance says when it cannot mend the keys.
type rescueError struct{ said string }

// Error implements error.
func (e *rescueError) Error() string { return "the rescue instance says: failed: " + e.said }

// mended waits for the script's last line on the console.
func (m Site) mended(p ops.Params, rescue func(*ops.Run) string) ops.Step {
	said := func(ctx context.Context, r *ops.Run) (string, error) {
		text, err := m.Cloud.Console(ctx, rescue(r))
		if err != nil {
			return "", cloudError(err)
		}
		if _, why, failed := strings.Cut(text, rescueFailed); failed {
			line, _, _ := strings.Cut(why, "\n")
			return "", &rescueError{strings.TrimPrefix(line, ": ")}
		}
		if strings.Contains(text, rescueDone) {
			return "mended", nil
		}
		return "no word yet", nil
	}
	return ops.Step{
		ID: "keys.mend", Class: ops.Cloud, Title: fmt.Sprintf("on the rescue instance: authorized_keys of %s, modes 700 and 600, owner", p["user"]), Downtime: 3 * time.Minute,
		Do: func(ctx context.Context, r *ops.Run) error {
			return m.wait(ctx, r, "the rescue instance's word", "mended", stopLimit, func(ctx context.Context) (string, error) { return said(ctx, r) })
		},
		Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
			now, err := said(ctx, r)
			if failed, ok := errors.AsType[*rescueError](err); ok { // that is seen, not unknown
				return ops.State{Seen: failed.Error()}, nil
			}
			return ops.State{Done: now == "mended", Seen: now}, err
		},
	}
}

// end terminates the rescue instance and waits until it is.
func (m Site) end() ops.Step {
	return ops.Step{
		ID: "rescue.terminate", Class: ops.Cloud, Title: "terminate the rescue instance and see it terminated", Always: true,
		Do: func(ctx context.Context, r *ops.Run) error {
			ids, err := m.rescues(ctx, r)
			if err != nil {
				return err
			}
			for _, id := range ids {
				if err := m.Cloud.Terminate(ctx, id); err != nil {
					return cloudError(err)
				}
				if err := m.wait(ctx, r, id, "terminated", stopLimit, m.stateOf(id)); err != nil {
					return err
				}
			}
			return nil
		},
		Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
			ids, err := m.rescues(ctx, r)
			return ops.State{Done: err == nil && len(ids) == 0, Seen: strconv.Itoa(len(ids)) + " rescue instances of this change live"}, err
		},
	}
}

// rescues lists the rescue instances of the change that live: also one whose
// launch failed before it was written down.
func (m Site) rescues(ctx context.Context, r *ops.Run) ([]string, error) {
	all, err := m.Cloud.Instances(ctx, cloud.Tags{cloud.TagChange: r.Change.ID, cloud.TagRole: cloud.RoleRescue})
	if err != nil {
		return nil, cloudError(err)
	}
	var ids []string
	for _, i := range all {
		if i.State != "terminated" {
			ids = append(ids, i.ID)
		}
	}
	return ids, nil
}
