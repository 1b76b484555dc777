// Gt06d is the server the devices connect to.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/cmd/internal/config"
	"gt06/cmd/internal/logging"
	"gt06/storage/sqlstore"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, os.Getenv))
}

func run(args []string, stdout, stderr io.Writer, env func(string) string) int {
	root := command(stderr, env)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return cli.Report(logging.ForPeople(stderr, env), "gt06d", root.Execute())
}

func command(stderr io.Writer, env func(string) string) *cobra.Command {
	root := &cobra.Command{
		Use:   "gt06d",
		Short: "Receives GT06 trackers: durable before answered, once in the database",
		Long: `gt06d receives GT06/Concox trackers on TCP, makes every frame durable, answers
it, and stores it exactly once in SQLite or MariaDB.

Without arguments it serves on 127.0.0.1:5023 with SQLite in its data directory.
Every flag has an environment variable GT06_… and a key in a YAML file that
--config or GT06_CONFIG names; flags beat the environment, it beats the file.`,
		Example: `  gt06d
  gt06d --listen :5023
  GT06_DSN_FILE=/etc/gt06/dsn gt06d --store mariadb
  gt06d check-config --config /etc/gt06/gt06.yaml`,
		Version: cli.Version(), SilenceErrors: true, SilenceUsage: true, Args: usageArgs(cobra.NoArgs),
	}
	flags := config.Bind(root.PersistentFlags())
	serve := func(*cobra.Command, []string) error {
		cfg, err := flags.Load(env)
		if err != nil {
			return cli.Fail(cli.Usage, err, "gt06d check-config reads the same settings and starts nothing")
		}
		return serve(cfg, stderr, env)
	}
	root.RunE = serve
	root.SetHelpTemplate(cli.HelpTemplate)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return cli.Fail(cli.Usage, err, "gt06d --help lists the flags")
	})
	root.AddCommand(
		keeperCommand(flags, env),
		&cobra.Command{Use: "serve", Short: "Serve the devices (the default)", Example: "  gt06d serve --listen :5023", Args: usageArgs(cobra.NoArgs), RunE: serve},
		checkCommand(flags, env), cli.ManCommand(root),
	)
	return root
}

func checkCommand(flags *config.Flags, env func(string) string) *cobra.Command {
	var reference, trying, asJSON bool
	c := &cobra.Command{
		Use: "check-config", Short: "Read the settings, print those in use, start nothing", Args: usageArgs(cobra.NoArgs),
		Long: `check-config reads flags, environment and file as the server does, and prints
every key with the value in use and where it was said: a file that says the same,
without the password. A mistake is an error with its line, exit code 2.

With --try it looks whether a server with them could serve: port, directory,
database. It says what is missing and what to type next, and ends with the exit
code that a start would.`,
		Example: "  gt06d check-config --config /etc/gt06/gt06.yaml\n  gt06d check-config --try --config /etc/gt06/gt06.yaml\n  gt06d check-config --reference",
		RunE: func(cmd *cobra.Command, _ []string) error {
			text := config.Reference()
			if !reference {
				cfg, err := flags.Load(env)
				if err == nil {
					err = sqlstore.Check(sqlstore.Options{Kind: sqlstore.Kind(cfg.Store.Kind), DSN: cfg.Store.DSN})
				}
				if err == nil {
					err = checkSinks(&cfg)
				}
				if err != nil {
					return cli.Fail(cli.Usage, err, "gt06d check-config --reference explains every key")
				}
				for _, w := range cfg.Warnings {
					fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
				}
				if trying {
					return sayFindings(cmd, try(cmd, &cfg), asJSON)
				}
				text = cfg.Effective()
			}
			_, err := io.WriteString(cmd.OutOrStdout(), text)
			return err
		},
	}
	c.Flags().BoolVar(&reference, "reference", false, "print what can be set, as Markdown")
	c.Flags().BoolVar(&trying, "try", false, "say what is missing before a server could serve")
	c.Flags().BoolVar(&asJSON, "json", false, "with --try: print JSON for programs")
	return c
}

func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return cli.Fail(cli.Usage, err, "gt06d --help")
		}
		return nil
	}
}

// serve runs the server until a signal, a stop or an upgrade.
func serve(cfg config.Config, stderr io.Writer, env func(string) string) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	app, err := open(context.Background(), cfg, stderr, env)
	if err != nil {
		return err
	}
	err = app.run(signals)
	return errors.Join(err, app.close())
}
