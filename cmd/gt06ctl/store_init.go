package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/storage/sqlstore"
)

// siteFlags are how `store init` was called.
type siteFlags struct {
	sqlstore.Site
	socket, login, dsnFile string
	plan, apply            bool
}

// sockets are where distributions put MariaDB's.
//
//nolint:gochecknoglobals // read-only table
var sockets = []string{"/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock"}

func (t *tool) storeInitCommand() *cobra.Command {
	var f siteFlags
	c := &cobra.Command{
		Use: "init", Short: "Make the schema and the server's login in MariaDB",
		Long: `init makes a schema of gt06's own and a login that needs no password: MariaDB asks
the kernel who is at the other end of the socket, and takes the user of the same
name. It may do with its own schema what the server does and nothing else. With
--reader the CRM's login may read. What is there already stays as it is, and
tables of somebody else that have our names are refused.

Run it as root on the database's machine. Nothing is changed without --apply.`,
		Example: "  gt06ctl store init --plan\n  gt06ctl store init --apply --reader quickport\n  gt06ctl store init --plan --schema gt06_test --user gt06test", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.plan && f.apply {
				return cli.Fail(cli.Usage, errors.New("--plan or --apply, not both"), "gt06ctl store init --plan")
			}
			return t.storeInit(cmd.Context(), cmd.OutOrStdout(), &f)
		},
	}
	s := c.Flags()
	s.BoolVar(&f.plan, "plan", false, "only say what would be done (the default)")
	s.BoolVar(&f.apply, "apply", false, "do it")
	s.StringVar(&f.Schema, "schema", "gt06", "the schema")
	s.StringVar(&f.User, "user", "gt06", "the server's login, and user of the operating system")
	s.StringVar(&f.Reader, "reader", "", "a login that may read: NAME, or NAME@HOST for one of several")
	s.StringVar(&f.socket, "mariadb", "", "MariaDB's socket [the first that is there of "+strings.Join(sockets, ", ")+"]")
	s.StringVar(&f.login, "login", "root", "whose login makes them")
	s.StringVar(&f.dsnFile, "dsn-file", "", "file with another way in, with a password: user:password@unix(/path)/")
	return c
}

func (t *tool) storeInit(ctx context.Context, out io.Writer, f *siteFlags) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dsn, err := f.dsn()
	if err != nil {
		return err
	}
	a, err := sqlstore.OpenAdministrator(ctx, dsn)
	if err != nil {
		return explainSite(err)
	}
	defer a.Close() //nolint:errcheck // nothing is left unsaid
	p, err := a.Plan(ctx, f.Site)
	if err != nil {
		return explainSite(err)
	}
	if f.apply {
		if err := a.Apply(ctx, p); err != nil {
			return cli.Fail(cli.StepFailed, err, "what was done before stays; again: gt06ctl store init --plan")
		}
		left, err := a.Plan(ctx, f.Site)
		if err != nil {
			return explainSite(err)
		}
		if len(left.Statements) > 0 {
			return cli.Fail(cli.StepFailed, fmt.Errorf("MariaDB took everything and still lacks: %s", strings.Join(left.Statements, "; ")))
		}
	}
	if t.json {
		return printJSON(out, map[string]any{"applied": f.apply, "statements": p.Statements, "notes": p.Notes, "dsn": f.ours()})
	}
	return f.say(out, p)
}

func (f *siteFlags) say(out io.Writer, p sqlstore.SitePlan) error {
	var b strings.Builder
	for _, s := range p.Statements {
		fmt.Fprintf(&b, "%s;\n", s)
	}
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	switch {
	case len(p.Statements) == 0:
		fmt.Fprintf(&b, "nothing to do: schema, login and rights are there\n")
	case f.apply:
		fmt.Fprintf(&b, "done; for /etc/gt06/gt06.yaml:\n  store: mariadb\n  dsn: %s\nnext: gt06d check-config --try --config /etc/gt06/gt06.yaml\n", f.ours())
	default:
		fmt.Fprintf(&b, "nothing was changed; the same with --apply does it\n")
	}
	return printf(out, "%s", b.String())
}

// ours is the server's DSN.
func (f *siteFlags) ours() string { return fmt.Sprintf("%s@unix(%s)/%s", f.User, f.socket, f.Schema) }

// dsn is the way in of who makes schema and login.
func (f *siteFlags) dsn() (string, error) {
	if f.socket == "" {
		f.socket = sockets[0]
		if i := slices.IndexFunc(sockets, func(path string) bool { _, err := os.Stat(path); return err == nil }); i >= 0 {
			f.socket = sockets[i]
		}
	}
	if f.dsnFile == "" {
		return fmt.Sprintf("%s@unix(%s)/", f.login, f.socket), nil
	}
	b, err := os.ReadFile(f.dsnFile)
	if err != nil {
		return "", cli.Fail(cli.Usage, err)
	}
	return strings.TrimSpace(string(b)), nil
}

func explainSite(err error) error {
	switch {
	case errors.Is(err, sqlstore.ErrUnreachable):
		return cli.Fail(cli.Timeout, err, "systemctl start mariadb; another socket: --mariadb SOCKET")
	case errors.Is(err, sqlstore.ErrLogin):
		return cli.Fail(cli.Permission, err, "run it as root: sudo gt06ctl store init --plan; where root has a password: --dsn-file FILE")
	case errors.Is(err, sqlstore.ErrForeignTable):
		return cli.Fail(cli.Refused, err, "gt06ctl store init --plan --schema NAME")
	case errors.Is(err, sqlstore.ErrNotMariaDB):
		return cli.Fail(cli.Refused, err, "SQLite needs nothing: store: sqlite")
	case errors.Is(err, sqlstore.ErrNoReader):
		return cli.Fail(cli.Refused, err, "DB_USERNAME in the .env of Laravel names it")
	case errors.Is(err, sqlstore.ErrBadName):
		return cli.Fail(cli.Usage, err)
	}
	return cli.Fail(cli.Internal, err)
}
