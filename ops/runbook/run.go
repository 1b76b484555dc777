// Package runbook holds the ways of working, a file each: plans made of what
// ops/cloud and ops/host can do. How one is written: package ops.
package runbook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"gt06/ops"
)

// Execute runs a program of the machine and returns its exit code. Its output
// goes to each, line by line; its environment holds no secret.
type Execute func(ctx context.Context, argv []string, each func(line string)) (code int, err error)

// Run is any other maintenance: a command of the operator, behind the gate and
// in the journal. Nobody can see afterwards whether an arbitrary command was
// done, so a resume asks.
func Run(execute Execute, argv []string) ops.Runbook {
	return ops.Runbook{
		Name: "run",
		Discover: func(context.Context) (ops.Params, error) {
			if len(argv) == 0 {
				return nil, ops.Fail(ops.Usage, errors.New("there is no command"), "gt06ctl ops run -- apt-get upgrade -y")
			}
			if err := ops.Permitted(strings.Join(argv, " ")); err != nil {
				return nil, err
			}
			var b strings.Builder
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false) // a person reads it
			err := enc.Encode(argv)
			return ops.Params{"command": strings.TrimSpace(b.String())}, err
		},
		Steps: func(p ops.Params) []ops.Step {
			var list []string
			_ = json.Unmarshal([]byte(p["command"]), &list) // made above
			return []ops.Step{{
				ID: "command.run", Class: ops.Guest, Title: "run " + p["command"], Once: true,
				Do: func(ctx context.Context, r *ops.Run) error {
					code, err := execute(ctx, list, r.Progress)
					r.Keep("code", fmt.Sprint(code))
					if err == nil && code != 0 {
						err = fmt.Errorf("it ended with exit code %d", code)
					}
					return err
				},
				Postcheck: func(_ context.Context, r *ops.Run) (ops.State, error) {
					return ops.State{Done: r.Kept("code") == "0", Seen: "exit code " + r.Kept("code")}, nil
				},
			}}
		},
	}
}
