package runbook

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"gt06/ops"
	"gt06/ops/host"
	"gt06/server/control"
)

// Before is what a preflight noted of the fleet; no connections: nothing.
type Before struct {
	Connections int // open
	Logins      int // connections opened in gt06d's window
}

// Before is what this look has to say to a later one.
func (v *Vitals) Before() Before {
	var b Before
	if v.GT06 != nil {
		b.Connections = v.GT06.Connections
	}
	if c, ok := v.reconnects(); ok {
		b.Logins = int(c.Value)
	}
	return b
}

// reconnects is gt06d's own check of them.
func (v *Vitals) reconnects() (control.Check, bool) {
	if v.Checks == nil {
		return control.Check{}, false
	}
	i := slices.IndexFunc(v.Checks.Checks, func(c control.Check) bool { return c.Name == "reconnects" })
	if i < 0 {
		return control.Check{}, false
	}
	return v.Checks.Checks[i], true
}

// Validate is section 7 of the SOP: system, network, application, GT06, beside
// what was before.
func (m *Machine) Validate(ctx context.Context, f *ops.Facts, before Before) (ops.Checks, Vitals, error) {
	v, err := m.Look(ctx)
	if err != nil {
		return nil, v, err
	}
	c := &m.Config
	var out ops.Checks
	add := func(text string, ok bool, seen, want, next string) {
		out = append(out, ops.Check{Text: text, OK: ok, Seen: seen, Want: want, Next: next})
	}
	for _, d := range v.Disks {
		add(d.Path+" has room", !Full(d, c), usage(d), fmt.Sprintf("at most %d %% and %d %% of inodes", c.Limits.DiskPct, c.Limits.InodePct), cleanup)
	}
	limit := c.Limits.LoadFactor * float64(v.Load.CPUs)
	add("load is usual", v.Load.One <= limit, fmt.Sprintf("%.1f, up %s", v.Load.One, v.Load.Uptime), fmt.Sprintf("at most %.1f", limit), "top -b -n 1 -o %CPU | head -20")
	add(fmt.Sprintf("port %d is gt06d's", c.GT06.Port), v.Port.Ours || v.Port.PM2 != "", v.Port.String(), "gt06d listens", "gt06ctl ops port")
	for _, name := range slices.Sorted(maps.Keys(v.Services)) {
		add(name+" is well", v.Services[name] == "", orWell(v.Services[name]), "well", "gt06ctl ops preflight")
	}
	if c.Services.NginxUnit != "" {
		status, err := host.HTTPStatus(ctx, m.Page)
		seen := fmt.Sprint("status ", status)
		if err != nil {
			seen = err.Error()
		}
		add("application answers", status == http.StatusOK, seen, "status 200 from "+m.Page, "curl -i "+m.Page)
	}
	if f != nil {
		add("Elastic IP is attached", f.Address.Instance == c.AWS.InstanceID, fmt.Sprintf("%s at %s", orNone(f.Address.IP), orNone(f.Address.Instance)), c.AWS.InstanceID,
			fmt.Sprintf("aws ec2 associate-address --allocation-id %s --instance-id %s", c.AWS.EIPAllocation, c.AWS.InstanceID))
	}
	return numbered("V", append(out, v.devices(c, before)...)), v, nil
}

// devices are the checks of the GT06 server: its own three, and that the fleet
// is still there.
func (v *Vitals) devices(config *ops.Config, before Before) ops.Checks {
	var out ops.Checks
	add := func(text string, ok bool, seen, want, next string) {
		out = append(out, ops.Check{Text: text, OK: ok, Seen: seen, Want: want, Next: next})
	}
	if v.GT06 == nil {
		if v.Port.PM2 != "" {
			return nil // not taken over yet: nobody can be asked
		}
		add("gt06d answers", false, "nobody does", "gt06ctl status works", "gt06ctl status")
		return out
	}
	add("gt06d is ready", v.GT06.State == "ready", v.GT06.State, "ready", "gt06ctl status")
	if v.Checks == nil {
		add("GT06 checks", false, "no answer", "an answer", "gt06ctl validate")
		return out
	}
	for _, c := range v.Checks.Checks {
		add("GT06 "+c.Name, c.OK, c.Text, fmt.Sprintf("limit %g", c.Limit), "gt06ctl devices --problems")
	}
	if before.Connections == 0 {
		return out
	}
	const kept, few = 0.95, 10
	add("devices are connected", float64(v.GT06.Connections) >= kept*float64(before.Connections), fmt.Sprintf("%d of %d before", v.GT06.Connections, before.Connections), "at least 95 %", "gt06ctl validate --watch 10m")
	if c, ok := v.reconnects(); ok {
		// That each device comes back once, after a stop, is no storm.
		limit := max(few, float64(before.Connections), config.GT06.StormFactor*float64(before.Logins))
		add("logins are as usual", c.Value <= limit, fmt.Sprintf("%s; %d at the preflight", c.Text, before.Logins), fmt.Sprintf("at most %.0f", limit), "gt06ctl devices --problems")
	}
	return out
}

func orWell(s string) string {
	if s == "" {
		return "well"
	}
	return s
}
