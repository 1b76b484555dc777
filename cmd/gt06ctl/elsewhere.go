//go:build !linux

package main

import (
	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
)

// What works on the server's own files and processes is only named where no
// server runs.

func (t *tool) benchCommand() *cobra.Command {
	return onServer("bench", "Measure this machine and the server on it")
}

func (t *tool) spoolCommand() *cobra.Command {
	return onServer("spool", "Look at the log, or store what an older one holds")
}

func onServer(use, short string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short + " (on the server's machine)", Example: "  ssh USER@ADDRESS gt06ctl " + use,
		Args: cobra.ArbitraryArgs, FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true},
		RunE: func(*cobra.Command, []string) error {
			return cli.Fail(cli.Usage, errElsewhere, "ssh USER@ADDRESS gt06ctl "+use)
		},
	}
}
