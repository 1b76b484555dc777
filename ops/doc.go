// Package ops is the discipline of operations: a change is opened, a snapshot
// bound to it passes the gate, a plan is shown and confirmed, each step is
// journalled before and after, and what was interrupted is resumed. It knows
// neither the cloud nor the machine: ops/cloud and ops/host do, and the
// runbooks in ops/runbook are made of them.
//
//	change open ─► snapshot create ─► [ plan ─► confirm ─► run ]* ─► validate ─► change close
//	                                            run, for each step:
//	                                            precheck ─► gate, read again ─► intent (fsync)
//	                                            ─► do ─► postcheck ─► result (fsync)
//
// # A runbook
//
// A Runbook is a name, a Discover that only reads, and a pure function from
// what was discovered to steps:
//
//	func Reload(h Nginx) ops.Runbook {
//		return ops.Runbook{
//			Name: "restart nginx", // the command below `gt06ctl ops`
//			Discover: func(ctx context.Context) (ops.Params, error) {
//				return ops.Params{"unit": "nginx.service"}, h.Test(ctx)
//			},
//			Steps: func(p ops.Params) []ops.Step {
//				return []ops.Step{{
//					ID: "nginx.reload", Class: ops.Guest, Title: "reload " + p["unit"],
//					Precheck:  func(ctx context.Context, r *ops.Run) error { pids, err := h.Workers(ctx); r.Keep("workers", pids); return err },
//					Do:        func(ctx context.Context, r *ops.Run) error { return h.Reload(ctx, p["unit"]) },
//					Postcheck: func(ctx context.Context, r *ops.Run) (ops.State, error) {
//						pids, err := h.Workers(ctx)
//						return ops.State{Done: pids != r.Kept("workers"), Seen: "workers " + pids}, err
//					},
//				}}
//			},
//		}
//	}
//
// Params go into the journal, so that `change resume` makes the same steps in
// another process, perhaps in the middle of them, when the world does not look
// any more as it did for Discover. Hence: whatever Steps needs is in Params,
// Params do not change from one minute to the next by themselves (no free
// bytes, no times: the plan's hash would change), and no secret is in them.
//
// Do may be repeated: it looks for what it made before (a tag with
// Run.Change and the step, Run.Token where the API takes one). Postcheck reads
// the world; it is asked after Do, whatever Do returned, and before anything
// else when a run is resumed. What later steps need is in its State.Out, and
// they read it by Run.Out.
//
// # A command
//
// In cmd/gt06ctl, a command that changes anything is made by mutating, which
// is the only way to run a Runbook:
//
//	o.mutating(&cobra.Command{Use: "nginx", Short: …, Example: …}, func(ctx context.Context, b ops.Backend, args []string) (ops.Runbook, error) {
//		return runbook.Reload(host.Nginx{…}), nil
//	})
//
// A command that only looks is an ordinary cobra command. Errors for the
// operator are made by Fail: the kind is the exit code, hints say what to do.
package ops
