package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"gt06/ops"
	"gt06/ops/runbook"
)

func (o *opsTool) runCommand() *cobra.Command {
	return o.mutating(&cobra.Command{
		Use: "run -- COMMAND [ARGUMENT]...", Short: "Run any other maintenance, gated and journalled",
		Long: `run is for maintenance that has no command of its own. It is gated and
journalled as any other. Its environment holds nothing but PATH, HOME, LANG and
TERM. What both documents forbid is refused with exit code 13.`,
		Example: "  gt06ctl ops run --apply -- apt-get upgrade -y",
		Args:    cobra.ArbitraryArgs,
	}, func(_ *opsWork, args []string) ops.Runbook { return runbook.Run(execute, args) })
}

// execute runs a program with a clean environment.
func execute(ctx context.Context, argv []string, each func(string)) (int, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	for _, name := range []string{"PATH", "HOME", "LANG", "TERM"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(r); lines.Scan(); {
			each(lines.Text())
		}
		_, _ = io.Copy(io.Discard, r) // behind a line too long to show
	}()
	err := cmd.Run()
	_ = w.Close()
	<-read
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}
