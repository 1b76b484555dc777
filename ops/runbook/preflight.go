package runbook

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/cloud"
	"gt06/ops/host"
)

// cleanup is what helps when there is no room.
const cleanup = "gt06ctl ops cleanup disk --apply"

// numbered gives checks their ids.
func numbered(letter string, c ops.Checks) ops.Checks {
	for i := range c {
		c[i].ID = fmt.Sprint(letter, i+1)
	}
	return c
}

// vital are the checks without which nothing is begun: load and room.
func (v *Vitals) vital(c *ops.Config, action ops.Action) ops.Checks {
	l := v.Load
	limit := c.Limits.LoadFactor * float64(l.CPUs)
	rising := l.One > float64(l.CPUs) && l.One > c.Limits.LoadRise*l.Fifteen
	return ops.Checks{
		{
			Text: "load is usual", OK: l.One <= limit && !rising, Seen: fmt.Sprintf("%.1f, %.1f, %.1f on %d CPUs", l.One, l.Five, l.Fifteen, l.CPUs),
			Want: fmt.Sprintf("at most %.1f, and not %g times that of 15 minutes", limit, c.Limits.LoadRise), Next: "top -b -n 1 -o %CPU | head -20",
		},
		v.room(c, action),
	}
}

// Vital refuses a machine on which no change for an action should begin now: a
// preflight that nobody can forget.
func (v *Vitals) Vital(c *ops.Config, action ops.Action) error {
	failed := numbered("P", v.vital(c, action)).Failed()
	if len(failed) == 0 {
		return nil
	}
	var why, next []string
	for _, k := range failed {
		why = append(why, fmt.Sprintf("%s %s: %s, wanted %s", k.ID, k.Text, k.Seen, k.Want))
		next = append(next, k.Next)
	}
	return ops.Fail(ops.Unsafe, fmt.Errorf("not safe to begin: %s", strings.Join(why, "; ")), next...)
}

// judge says whether maintenance for an action may begin on a machine as it is.
// Each no names what was seen, what is wanted and what to type next.
func (v *Vitals) judge(c *ops.Config, action ops.Action) ops.Checks {
	out := v.vital(c, action)
	add := func(text string, ok bool, seen, want, next string) {
		out = append(out, ops.Check{Text: text, OK: ok, Seen: seen, Want: want, Next: next})
	}
	const leastMemory = 10
	free := 100 * float64(v.Load.MemoryAvailable) / float64(max(v.Load.MemoryTotal, 1))
	add("memory is available", free >= leastMemory, fmt.Sprintf("%.0f %% of %d MiB", free, v.Load.MemoryTotal>>20), fmt.Sprintf("at least %d %%", leastMemory), "ps -eo pid,rss,args --sort=-rss | head")
	add("clock is synchronised", v.Clock.Synchronised, fmt.Sprintf("synchronised %v, off by at most %s", v.Clock.Synchronised, v.Clock.Error), "synchronised", "sudo systemctl restart systemd-timesyncd.service")
	next := "sudo systemctl start " + c.GT06.Unit
	if v.Port.Taken {
		next = "gt06ctl ops port"
	}
	// Before the takeover it is a program of pm2, and that is in order.
	add(fmt.Sprintf("port %d has one owner", c.GT06.Port), v.Port.Ours || v.Port.PM2 != "" && len(v.Port.Holders) == 1, v.Port.String(), "gt06d, or the one program of pm2 it takes over from", next)
	for _, name := range slices.Sorted(maps.Keys(v.Services)) {
		seen, cause, _ := strings.Cut(name, " ")
		next := map[string]string{
			"mariadb": "sudo systemctl status " + c.Services.MariaDB, "nginx": "sudo nginx -t", "pm2": strings.TrimSpace("pm2 logs --nostream --lines 50 " + cause), "traccar": "sudo systemctl status traccar.service",
		}[seen]
		text := v.Services[name]
		if text == "" {
			text = "well"
		}
		add(name+" is well", v.Services[name] == "", text, "well", next)
	}
	if s := v.GT06; s != nil {
		add("gt06d is ready", s.State == "ready", strings.TrimSpace(s.State+" "+strings.Join(s.Reasons, ", ")), "ready", "gt06ctl status")
	}
	return numbered("P", out)
}

// room is one check of all file systems, their bytes and their inodes. A
// cleanup is the only action it does not stop.
func (v *Vitals) room(c *ops.Config, action ops.Action) ops.Check {
	var seen []string
	full := false
	for _, d := range v.Disks {
		seen = append(seen, usage(d))
		full = full || Full(d, c)
	}
	k := ops.Check{
		Text: "disks have room", OK: !full, Seen: strings.Join(seen, "; "),
		Want: fmt.Sprintf("at most %d %% of the bytes and %d %% of the inodes", c.Limits.DiskPct, c.Limits.InodePct), Next: cleanup,
	}
	switch {
	case full && action == ops.DiskCleanup:
		k.OK, k.Text = true, "disks are full, and a cleanup is what is open"
	case full && action == "":
		k.Next = `gt06ctl ops change open --action disk-cleanup --reason "disk over the limit, clean up first"`
	case full:
		k.Next = "gt06ctl ops change close, then change open --action disk-cleanup: nothing else is offered on a full disk"
	}
	return k
}

// Full says whether a file system is past the limits.
func Full(u host.Usage, c *ops.Config) bool {
	return u.BytesPercent() > float64(c.Limits.DiskPct) || u.FilesPercent() > float64(c.Limits.InodePct)
}

func usage(u host.Usage) string {
	text := fmt.Sprintf("%s %.0f %% of %.1f GiB", u.Path, u.BytesPercent(), float64(u.Bytes)/(1<<30))
	if u.Files > 0 {
		text += fmt.Sprintf(", %.0f %% of inodes", u.FilesPercent())
	}
	return text
}

// Preflight judges machine and cloud together. Facts are nil where the cloud
// was not asked.
func Preflight(v *Vitals, f *ops.Facts, c *ops.Config, action ops.Action) ops.Checks {
	out := v.judge(c, action)
	if f == nil {
		return out
	}
	return append(out,
		ops.Check{
			ID: "C1", Text: "Elastic IP is attached", OK: f.Address.Instance == c.AWS.InstanceID && (c.AWS.EIP == "" || f.Address.IP == c.AWS.EIP),
			Seen: fmt.Sprintf("%s at %s", orNone(f.Address.IP), orNone(f.Address.Instance)), Want: fmt.Sprintf("%s at %s", orAny(c.AWS.EIP), c.AWS.InstanceID),
			Next: fmt.Sprintf("aws ec2 associate-address --allocation-id %s --instance-id %s", c.AWS.EIPAllocation, c.AWS.InstanceID),
		},
		ops.Check{
			ID: "C2", Text: "Recycle Bin keeps deleted snapshots", OK: f.RecycleBinDays >= 7, Seen: fmt.Sprintf("%d days", f.RecycleBinDays), Want: "at least 7 days", Next: "gt06ctl ops init",
		},
		ops.Check{
			ID: "C3", Text: "root volume is attached", OK: f.Root.ID != "", Seen: orNone(f.Root.ID), Want: "a volume at " + f.Instance.RootDevice, Next: "gt06ctl ops audit",
		},
	)
}

// Preflight looks at what only the cloud knows of the machine, and tells how old
// the copies of its volume are: that the daily one is missing is no reason to
// stop what has a snapshot of its own.
func (m Site) Preflight(ctx context.Context) (checks ops.Checks, notes []string, err error) {
	i, err := m.instance(ctx)
	if err != nil {
		return nil, nil, err
	}
	left, err := Leftovers(m.Cloud)(ctx)
	if err != nil {
		return nil, nil, err
	}
	checks = ops.Checks{none("C5", "no rescue or temporary instance is left", left, "gt06ctl ops change list")}
	if disk, ok := i.Root(); ok {
		checks = append(checks, outlives("C6", i, disk))
		notes = []string{m.copies(ctx, i, disk)}
	}
	self, here, err := m.Cloud.Self(ctx)
	if err != nil || !here || self.InstanceID != i.ID {
		return checks, notes, cloudError(err)
	}
	a, err := m.Cloud.Address(ctx, m.Config.AWS.EIPAllocation)
	checks = append(checks, ops.Check{
		ID: "C7", Text: "the machine itself has the Elastic IP", OK: self.PublicIP == a.IP && a.IP != "", Seen: orNone(self.PublicIP) + " by its metadata", Want: orNone(a.IP),
		Next: fmt.Sprintf("aws ec2 associate-address --allocation-id %s --instance-id %s", m.Config.AWS.EIPAllocation, i.ID),
	})
	return checks, notes, cloudError(err)
}

// copies says how old the newest snapshots are, by hand and automated.
func (m Site) copies(ctx context.Context, i cloud.Instance, disk cloud.Disk) string {
	now, _, err := m.Cloud.Now(ctx)
	var manual, daily time.Time
	var all []cloud.Snapshot
	if err == nil {
		all, err = m.Cloud.SnapshotsOf(ctx, disk.Volume, nil)
	}
	for _, s := range all {
		if s.Tags.Automated() == "" && s.State == "completed" && s.Started.After(manual) {
			manual = s.Started
		}
	}
	if err == nil {
		var root cloud.Volume
		if root, err = m.Cloud.Volume(ctx, disk.Volume); err == nil {
			daily, _, err = m.daily(ctx, i, root, all)
		}
	}
	switch {
	case err != nil:
		return "how old the snapshots are cannot be seen: " + err.Error()
	case now.Sub(daily) > dailyAge:
		return fmt.Sprintf("newest snapshot by hand: %s; the daily one ran %s, wanted within %s: gt06ctl ops audit", ago(now, manual), ago(now, daily), dailyAge)
	}
	return fmt.Sprintf("newest snapshot by hand: %s, automated: %s", ago(now, manual), ago(now, daily))
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

func orAny(s string) string {
	if s == "" {
		return "any"
	}
	return s
}
