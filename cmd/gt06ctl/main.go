// Gt06ctl is the operator's tool.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	root := command()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return cli.Report(stderr, "gt06ctl", root.ExecuteContext(ctx))
}

// tool is what all commands share.
type tool struct {
	dataDir, socket string
	json            bool
	gone            time.Duration // how long a server may be away while it is watched
}

func command() *cobra.Command {
	t := &tool{gone: gone}
	root := &cobra.Command{
		Use:   "gt06ctl",
		Short: "Looks at and works on a gt06d server",
		Long: `gt06ctl looks at and works on a gt06d server. It finds the server by its data
directory. Every command takes --json.`,
		Version: cli.Version(), SilenceErrors: true, SilenceUsage: true, SuggestionsMinimumDistance: 2,
	}
	dir := os.Getenv("GT06_DATA_DIR")
	if dir == "" {
		dir = defaultDataDir()
	}
	root.PersistentFlags().StringVar(&t.dataDir, "data-dir", dir, "data directory of the server (GT06_DATA_DIR)")
	root.PersistentFlags().StringVar(&t.socket, "socket", "", "control socket of the server, instead of --data-dir")
	root.PersistentFlags().BoolVar(&t.json, "json", false, "print JSON for programs")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return cli.Fail(cli.Usage, err, c.CommandPath()+" --help")
	})
	for _, g := range []struct {
		title string
		list  []*cobra.Command
	}{
		{"Look", []*cobra.Command{t.statusCommand(), t.validateCommand(), t.tailCommand(), t.alarmsCommand(), t.traceCommand()}},
		{"Devices", []*cobra.Command{t.devicesCommand(), t.trackCommand(), t.sendCommand(), t.commandsCommand(), t.captureCommand()}},
		{"Server", []*cobra.Command{t.upgradeCommand(), t.upgradesCommand(), t.stopCommand(), t.takeoverCommand(), t.quarantineCommand(), t.replayCommand(), t.spoolCommand(), t.historyCommand(), t.storeCommand()}},
		{"Maintenance", []*cobra.Command{t.opsCommand(), t.supportBundleCommand()}},
		{"Tools", []*cobra.Command{t.decodeCommand(), t.protocolCommand(), t.simulateCommand(), t.benchCommand(), cli.ManCommand(root), t.versionCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title + ":"})
		for _, c := range g.list {
			c.GroupID = g.title
		}
		root.AddCommand(g.list...)
	}
	root.SetHelpCommandGroupID("Tools")
	root.SetCompletionCommandGroupID("Tools")
	root.SetHelpTemplate(cli.HelpTemplate)
	complete(root)
	return root
}

// complete makes a mistake in the arguments of a command, and of those below it,
// one of usage.
func complete(c *cobra.Command) {
	check := c.Args
	switch {
	case !c.Runnable():
		check = knownWord
		c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	case check == nil:
		check = cobra.NoArgs
	}
	c.Args = func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if _, ours := errors.AsType[*cli.Error](err); err == nil || ours {
			return err
		}
		return cli.Fail(cli.Usage, err, cmd.CommandPath()+" --help")
	}
	for _, sub := range c.Commands() {
		complete(sub)
	}
}

// knownWord refuses what follows the name of a group and is none of its
// commands.
func knownWord(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := c.CommandPath() + " --help"
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + c.CommandPath() + " " + strings.Join(near, " or ") + "?"
	}
	return cli.Fail(cli.Usage, fmt.Errorf("%s has no command %q", c.CommandPath(), args[0]), hint)
}

// defaultDataDir is the server's default, or that of the package where only
// that exists.
func defaultDataDir() string {
	const packaged = "/var/lib/gt06"
	dir := control.DefaultDataDir()
	if _, err := os.Stat(dir); err != nil {
		if _, err := os.Stat(packaged); err == nil {
			return packaged
		}
	}
	return dir
}

// errElsewhere: what is asked of a server is asked on its machine.
var errElsewhere = fmt.Errorf("gt06d runs on Linux, this is %s: ssh USER@ADDRESS gt06ctl … asks it there", runtime.GOOS)

// client returns the way to the server.
func (t *tool) client() (control.Client, error) {
	if t.socket != "" {
		return control.Client{Path: t.socket}, nil
	}
	if runtime.GOOS != "linux" {
		return control.Client{}, errElsewhere
	}
	path, err := control.Find(t.dataDir)
	return control.Client{Path: path}, err
}

// call asks the server and explains what can go wrong.
func (t *tool) call(ctx context.Context, verb string, out any) error {
	return t.ask(ctx, verb, nil, out)
}

// ask is call with arguments.
func (t *tool) ask(ctx context.Context, verb string, args, out any) error {
	c, err := t.client()
	if err != nil {
		return cli.Fail(cli.Usage, err)
	}
	return explain(c.Call(ctx, verb, args, out))
}

func explain(err error) error {
	var refused *control.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return cli.Fail(cli.Code(refused.Code), err, refused.Hints...)
	case errors.Is(err, control.ErrNoServer):
		return cli.Fail(cli.Timeout, err, "start it: gt06d; or name its data directory: --data-dir DIR")
	case errors.Is(err, os.ErrPermission):
		return cli.Fail(cli.Permission, err, "run it as root or as the user of the server")
	}
	return cli.Fail(cli.Internal, err)
}

func (t *tool) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version and commit of this program", Example: "  gt06ctl version --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if t.json {
				return printJSON(cmd.OutOrStdout(), map[string]string{"version": cli.Version()})
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "gt06ctl", cli.Version())
			return err
		},
	}
}
