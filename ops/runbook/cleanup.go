package runbook

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"gt06/ops"
	"gt06/ops/host"
)

// Cleanup frees room: a step for each rule that applies on this machine.
func (m *Machine) Cleanup(days, snaps int) ops.Runbook {
	return ops.Runbook{
		Name: "cleanup disk",
		Discover: func(context.Context) (ops.Params, error) {
			if days < 1 || snaps < 2 { // snap refuses less than two itself
				return nil, ops.Fail(ops.Usage, fmt.Errorf("%d days of journal and %d revisions: at least 1 and 2 are kept", days, snaps), "gt06ctl ops cleanup disk --help")
			}
			p := ops.Params{"journal-days": strconv.Itoa(days), "snap-retain": strconv.Itoa(snaps)}
			for _, r := range m.cleaner(host.Guard{}, days, snaps).Rules() {
				if r.Why != "" {
					p["skipped "+r.Name] = r.Why
				}
			}
			return p, nil
		},
		Steps: func(p ops.Params) []ops.Step {
			days, _ := strconv.Atoi(p["journal-days"])
			snaps, _ := strconv.Atoi(p["snap-retain"])
			var out []ops.Step
			for i, r := range m.cleaner(host.Guard{}, days, snaps).Rules() {
				if p["skipped "+r.Name] == "" {
					out = append(out, m.free(i, r, days, snaps))
				}
			}
			return out
		},
	}
}

func (m *Machine) cleaner(g host.Guard, days, snaps int) host.Cleanup {
	return host.Cleanup{System: m.System, Guard: g, Logs: m.Logs, Days: days, SnapRetain: snaps}
}

// free is the step of a rule. What a program deletes cannot be seen afterwards,
// but it can be told to do it again; of the logs one can see that none is left.
func (m *Machine) free(i int, r host.Rule, days, snaps int) ops.Step {
	// MariaDB is asked at the very moment where its data is.
	rule := func(ctx context.Context) host.Rule { return m.cleaner(m.guard(ctx), days, snaps).Rules()[i] }
	return ops.Step{
		ID: r.Name + ".clean", Class: ops.Guest, Title: r.Title,
		Precheck: func(_ context.Context, run *ops.Run) error {
			u, err := host.DiskUsage(m.Logs)
			run.Keep("available", strconv.FormatUint(u.Available, 10))
			return err
		},
		Do: func(ctx context.Context, run *ops.Run) error {
			err := rule(ctx).Free(ctx)
			if errors.Is(err, host.ErrProtected) {
				return ops.Fail(ops.Forbidden, err)
			}
			if err == nil {
				run.Keep("freed", "yes")
			}
			return err
		},
		Postcheck: func(ctx context.Context, run *ops.Run) (ops.State, error) {
			if run.Kept("freed") == "" {
				return ops.State{Seen: "not done yet"}, nil
			}
			if left := rule(ctx).Left; left != nil {
				files, bytes, err := left()
				if err != nil || files > 0 {
					return ops.State{Seen: fmt.Sprintf("%d files of %d bytes are left", files, bytes)}, err
				}
			}
			u, err := host.DiskUsage(m.Logs)
			before, _ := strconv.ParseUint(run.Kept("available"), 10, 64)
			freed := strconv.FormatUint(u.Available-min(before, u.Available), 10)
			return ops.State{Done: true, Seen: freed + " bytes freed, " + usage(u), Out: map[string]string{"freed": freed}}, err
		},
	}
}
