//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/bench"
	"gt06/cmd/internal/cli"
)

func (t *tool) benchCommand() *cobra.Command {
	opt := bench.Options{}
	var bare bool
	c := &cobra.Command{
		Use: "bench", Short: "Measure this machine and the server on it",
		Example: "  gt06ctl bench --quick\n  gt06ctl bench --only 'decode|memory'\n  gt06ctl bench --mariadb /run/mysqld/mysqld.sock --out bench\n  gt06ctl bench --out bench --compare bench/results.json",
		Long: `bench starts servers of its own on loopback ports, with data in a temporary
directory, and measures them beside a reference in the same run: the checksum
that processors have, a bare epoll server in C (when there is a compiler),
fdatasync alone, LOAD DATA. Ratios mean something on any machine; times only on
one that nobody else uses. A whole run takes about six minutes.

Groups: decode start memory cpu storm durable latency rows large.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if bare {
				return bench.Bare(cmd.Context(), t.dataDir, cmd.OutOrStdout())
			}
			if opt.Server == "" {
				self, err := os.Executable()
				if err != nil {
					return cli.Fail(cli.Internal, err)
				}
				opt.Server = filepath.Join(filepath.Dir(self), "gt06d")
			}
			if _, err := os.Stat(opt.Server); err != nil {
				return cli.Fail(cli.Usage, err, "name the server's program: --gt06d FILE")
			}
			if opt.Out != "" {
				if err := os.MkdirAll(opt.Out, 0o750); err != nil {
					return cli.Fail(cli.NotWritable, err)
				}
			}
			err := bench.Run(cmd.Context(), opt, cmd.OutOrStdout(), cmd.ErrOrStderr(), t.json)
			switch {
			case errors.Is(err, bench.ErrApart):
				return cli.Fail(cli.Red, err, "compare runs of a machine that does nothing else")
			case err != nil:
				return cli.Fail(cli.Internal, err)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&opt.Server, "gt06d", "", "the server's program [beside this one]")
	f.StringVar(&opt.Only, "only", "", "regular expression: the groups wanted")
	f.BoolVar(&opt.Quick, "quick", false, "short and small, to see that it works")
	f.StringArrayVar(&opt.Vectors, "vectors", nil, "file of frames for the mixed stream: JSON lines with a member hex; may be repeated")
	f.StringVar(&opt.Socket, "mariadb", "", "socket of a MariaDB where root has no password: schemas are made and dropped")
	f.StringVar(&opt.Out, "out", "", "directory for bench.md, results.json and plots; the data of the servers lies in it, too")
	f.StringVar(&opt.Compare, "compare", "", "results.json of an earlier run: sets its ratios beside these; exit 7 when one is more than 15 % apart")
	f.IntVar(&opt.Rows, "rows", 0, "rows of the large table (group large); 50000000 takes about twenty minutes and 15 GB")
	f.BoolVar(&bare, "bare", false, "serve without log and database: what bench itself starts")
	_ = f.MarkHidden("bare")
	return c
}
