package runbook

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/cloud"
)

// Query asks the database of the machine.
type Query func(ctx context.Context, statement string) ([][]string, error)

// Abort stops what is under way and keeps the evidence: a snapshot of the
// volume as it is now, broken or not, comes before any repair. Then it says what
// a restore would lose, and how it is done.
func (m Site) Abort(query Query, change func(context.Context) (ops.Change, error)) ops.Runbook {
	return ops.Runbook{
		Name: "abort", Protects: true, Aborts: true,
		Discover: func(ctx context.Context) (ops.Params, error) {
			c, err := change(ctx)
			if err != nil {
				return nil, err
			}
			volume := c.Root.ID // where it was, when a run has taken it away
			if _, root, err := m.root(ctx); err == nil {
				volume = root.ID
			}
			p := ops.Params{"volume": volume, "snapshot": c.Snapshot}
			if c.Snapshot == "" {
				return p, nil // there is nothing to go back to, and evidence all the same
			}
			s, err := m.Cloud.Snapshot(ctx, c.Snapshot)
			p["since"] = s.Started.UTC().Format(time.RFC3339)
			return p, cloudError(err)
		},
		Steps: func(p ops.Params) []ops.Step {
			nothing := func(context.Context, *ops.Run) error { return nil }
			return []ops.Step{
				{
					ID: "evidence.snapshot", Class: ops.Cloud, Title: "snapshot " + p["volume"] + " as it is now, before anything is mended",
					Cost: "about 2 to 3 rupees a GiB and month of what is used",
					Do: func(ctx context.Context, r *ops.Run) error {
						name := fmt.Sprintf("%s-%s-before-restore", m.Config.AWS.NamePrefix, time.Now().In(m.Config.Zone()).Format(time.DateOnly))
						_, err := m.Cloud.CreateSnapshot(ctx, evidence(r), p["volume"], "aborted: "+r.Change.Reason, cloud.Tags{cloud.TagName: name, cloud.TagInstance: m.Config.AWS.InstanceID})
						return cloudError(err)
					},
					Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
						by := evidence(r)
						s, err := find(ctx, m, func(ctx context.Context) ([]cloud.Snapshot, error) {
							return m.Cloud.SnapshotsOf(ctx, p["volume"], cloud.Tags{cloud.TagChange: by.Change, cloud.TagStep: by.Step})
						})
						if errors.Is(err, errNone) {
							return ops.State{Seen: "no snapshot"}, nil
						}
						// The moment it stands for is that of the call: nobody waits.
						return ops.State{Done: s.State != "error", Seen: fmt.Sprintf("%s is %s, %d %%", s.ID, s.State, s.Percent), Out: map[string]string{"snapshot": s.ID}}, err
					},
				},
				{
					ID: "loss.count", Class: ops.Read, Title: "count what came since the snapshot of the change", Do: nothing,
					Postcheck: func(ctx context.Context, _ *ops.Run) (ops.State, error) {
						return ops.State{Done: true, Seen: m.loss(ctx, p, query)}, nil
					},
				},
				{
					ID: "restore.plan", Class: ops.Read, Title: "say how to go back", Do: nothing,
					Postcheck: func(_ context.Context, r *ops.Run) (ops.State, error) {
						if p["snapshot"] == "" {
							return ops.State{Done: true, Seen: "no step of this change has passed the gate: nothing was changed that a restore would mend"}, nil
						}
						return ops.State{Done: true, Seen: fmt.Sprintf("from %s, in place of %s, which is kept; next: gt06ctl ops restore instance --change %s", p["snapshot"], p["volume"], r.Change.ID)}, nil
					},
				},
			}
		},
	}
}

// broken ends the change a snapshot of something broken is tagged with.
const broken = "-broken"

// evidence is the origin of the broken volume's snapshot: not the change's own,
// or the gate would take it for that.
func evidence(r *ops.Run) cloud.Origin {
	return cloud.Origin{Change: r.Change.ID + broken, Step: r.Step()}
}

// loss says what is in the database since the snapshot: what a restore of the
// root volume takes away. The salvage brings back what GT06 had received.
func (m Site) loss(ctx context.Context, p ops.Params, query Query) string {
	since, err := time.Parse(time.RFC3339, p["since"])
	if err != nil {
		return "there is no snapshot to go back to"
	}
	window := fmt.Sprintf("everything since %s (%s UTC), %s", since.In(m.Config.Zone()).Format("2006-01-02 15:04:05 MST"), since.UTC().Format("15:04:05"), time.Since(since).Round(time.Second))
	rows, err := rowsSince(ctx, query, m.Config.Backup.DBs, since)
	if err != nil {
		return window + "; not counted: " + err.Error()
	}
	return window + ": " + rows
}

// rowsSince counts the rows of each table that says when a row came.
func rowsSince(ctx context.Context, query Query, schemas []string, since time.Time) (string, error) {
	var names []string
	for _, s := range schemas {
		names = append(names, "'"+strings.NewReplacer("'", "''", `\`, `\\`).Replace(s)+"'")
	}
	tables, err := query(ctx, "SELECT table_schema, table_name, MAX(column_name) FROM information_schema.columns WHERE table_schema IN ("+strings.Join(names, ", ")+
		") AND column_name IN ('created_at', 'received_at') AND data_type IN ('datetime', 'timestamp') GROUP BY 1, 2 ORDER BY 1, 2")
	if err != nil {
		return "", err
	}
	quote := func(s string) string { return "`" + strings.ReplaceAll(s, "`", "``") + "`" }
	var parts []string
	for _, t := range tables {
		n, err := query(ctx, fmt.Sprintf("SET time_zone = '+00:00'; SELECT COUNT(*) FROM %s.%s WHERE %s >= '%s'", quote(t[0]), quote(t[1]), quote(t[2]), since.UTC().Format(time.DateTime)))
		if err != nil {
			return "", err
		}
		if len(n) == 1 && n[0][0] != "0" {
			parts = append(parts, fmt.Sprintf("%s rows of %s.%s", n[0][0], t[0], t[1]))
		}
	}
	if parts == nil {
		return "no rows", nil
	}
	return strings.Join(parts, ", "), nil
}
