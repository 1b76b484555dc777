package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// Site is what a server needs of a MariaDB that others use, too: a schema of its
// own, a login without a password, and who else may read.
type Site struct {
	Schema string // [gt06]
	// User logs in as the user of the operating system of the same name: through
	// the socket, without a password.
	User string // [gt06]
	// Reader is somebody else's login that may read: NAME, or NAME@HOST for one of
	// several. "": nobody.
	Reader string
}

// Errors of a Site that callers test for.
var (
	ErrNotMariaDB = errors.New("gt06/sqlstore: the database is no MariaDB of 10.4 or newer")
	ErrNoReader   = errors.New("gt06/sqlstore: there is no such login")
	ErrBadName    = errors.New("gt06/sqlstore: not a name that is used here: letters, digits, _ and -")
)

// SitePlan is what is missing.
type SitePlan struct {
	Statements []string `json:"statements"` // in their order; none: nothing to do
	Notes      []string `json:"notes"`      // what is there and left alone
}

// Rights are the least a server can do with: its rows, its tables, the
// partitions it makes and drops.
//
//nolint:gochecknoglobals // read-only table
var rights = []string{"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "INDEX"}

var identifier = regexp.MustCompile(`^[A-Za-z0-9_-]{1,60}$`)

// Administrator is a connection that may make schemas and logins.
type Administrator struct{ store Store }

// OpenAdministrator connects: a DSN without a database, of root over the socket
// as a rule. ErrLogin and ErrUnreachable can be tested for.
func OpenAdministrator(ctx context.Context, dsn string) (*Administrator, error) {
	a := &Administrator{Store{opt: Options{Kind: MariaDB, DSN: dsn}, d: mariaDialect{}}}
	var err error
	if a.store.db, err = openMariaDB(a.store.opt); err != nil {
		return nil, err
	}
	if err := a.store.asked(ctx); err != nil {
		return nil, errors.Join(a.store.classify(err), a.Close())
	}
	return a, nil
}

// Close ends the connection.
func (a *Administrator) Close() error { return a.store.Close() }

// Plan compares a site with what is there and changes nothing. A table of
// somebody else that has a name of ours is ErrForeignTable with its columns.
func (a *Administrator) Plan(ctx context.Context, site Site) (p SitePlan, err error) {
	for _, name := range []string{site.Schema, site.User} {
		if !identifier.MatchString(name) {
			return p, fmt.Errorf("%w: %q", ErrBadName, name)
		}
	}
	if err := a.version(ctx); err != nil {
		return p, err
	}
	var n int
	if err := a.store.db.GetContext(ctx, &n, "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = ?", site.Schema); err != nil {
		return p, a.store.classify(err)
	}
	if n == 0 {
		p.Statements = append(p.Statements, "CREATE DATABASE `"+site.Schema+"` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
	} else if err := a.foreign(ctx, site.Schema); err != nil {
		return p, err
	}
	if err := a.login(ctx, site, &p); err != nil {
		return p, a.store.classify(err)
	}
	if err := a.reader(ctx, site, &p); err != nil {
		return p, a.store.classify(err)
	}
	return p, nil
}

// Apply runs a plan. What was done stays done when a statement fails: plan and
// apply again.
func (a *Administrator) Apply(ctx context.Context, p SitePlan) error {
	for _, s := range p.Statements {
		if _, err := a.store.db.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// version asks for what a login without a password needs.
func (a *Administrator) version(ctx context.Context) error {
	var name string
	var major, minor int
	if err := a.store.db.GetContext(ctx, &name, "SELECT VERSION()"); err != nil {
		return a.store.classify(err)
	}
	_, _ = fmt.Sscanf(name, "%d.%d", &major, &minor)
	if !strings.Contains(name, "MariaDB") || major < 10 || major == 10 && minor < 4 {
		return fmt.Errorf("%w: it says %s", ErrNotMariaDB, name)
	}
	return nil
}

// foreign looks for tables of somebody else in the schema.
func (a *Administrator) foreign(ctx context.Context, schema string) error {
	cfg, err := mysql.ParseDSN(a.store.opt.DSN)
	if err != nil {
		return Check(a.store.opt)
	}
	cfg.DBName = schema
	in := Store{opt: Options{Kind: MariaDB, DSN: cfg.FormatDSN()}, d: a.store.d}
	if in.db, err = openMariaDB(in.opt); err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only asked
	return in.classify(in.refuseForeign(ctx))
}

// account is a row of mysql.user.
type account struct{ User, Host, Plugin string }

func (c account) String() string { return "'" + c.User + "'@'" + c.Host + "'" }

func (a *Administrator) accounts(ctx context.Context, user string) (list []account, err error) {
	err = a.store.db.SelectContext(ctx, &list, "SELECT User AS user, Host AS host, plugin AS plugin FROM mysql.user WHERE User = ? ORDER BY Host", user)
	return list, err
}

// login is the server's own.
func (a *Administrator) login(ctx context.Context, site Site, p *SitePlan) error {
	own := account{User: site.User, Host: "localhost"}
	list, err := a.accounts(ctx, site.User)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(c account) bool { return c.Host == own.Host })
	switch {
	case i < 0:
		p.Statements = append(p.Statements, "CREATE USER "+own.String()+" IDENTIFIED VIA unix_socket")
	case list[i].Plugin != "unix_socket":
		p.Notes = append(p.Notes, fmt.Sprintf("%s logs in by %s: left as it is; its password belongs into the file that dsn_file names", own, list[i].Plugin))
	}
	return a.grant(ctx, site.Schema, own, i >= 0, rights, p)
}

// reader lets somebody else's login read.
func (a *Administrator) reader(ctx context.Context, site Site, p *SitePlan) error {
	if site.Reader == "" {
		return nil
	}
	name, host, one := strings.Cut(site.Reader, "@")
	list, err := a.accounts(ctx, name)
	if err != nil {
		return err
	}
	if one {
		list = slices.DeleteFunc(list, func(c account) bool { return c.Host != host })
	}
	if len(list) == 0 || name == "" {
		return fmt.Errorf("%w: %s", ErrNoReader, site.Reader)
	}
	for _, c := range list {
		if strings.ContainsAny(c.String()[1:len(c.String())-1], `\`) || strings.Count(c.String(), "'") != 4 {
			return fmt.Errorf("%w: %s", ErrBadName, c)
		}
		if err := a.grant(ctx, site.Schema, c, true, []string{"SELECT"}, p); err != nil {
			return err
		}
	}
	return nil
}

// grant adds what an account lacks on the schema.
func (a *Administrator) grant(ctx context.Context, schema string, to account, there bool, want []string, p *SitePlan) error {
	has := map[string]bool{}
	if there {
		var err error
		if has, err = a.rights(ctx, schema, to); err != nil {
			return err
		}
	}
	lacks := slices.DeleteFunc(slices.Clone(want), func(r string) bool { return has[r] || has["ALL PRIVILEGES"] })
	if len(lacks) > 0 {
		p.Statements = append(p.Statements, fmt.Sprintf("GRANT %s ON %s.* TO %s", strings.Join(lacks, ", "), pattern(schema), to))
	}
	for _, r := range want {
		delete(has, r)
	}
	delete(has, "USAGE")
	if len(has) > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%s may do more than it needs: %s", to, strings.Join(slices.Sorted(maps.Keys(has)), ", ")))
	}
	return nil
}

// pattern is a schema in a GRANT, where _ would stand for any letter.
func pattern(schema string) string { return "`" + strings.ReplaceAll(schema, "_", `\_`) + "`" }

// rights reads what an account may do on a schema, as SHOW GRANTS says it:
//
//	GRANT SELECT, INSERT ON `gt06`.* TO `gt06`@`localhost`
func (a *Administrator) rights(ctx context.Context, schema string, of account) (map[string]bool, error) {
	var lines []string
	if err := a.store.db.SelectContext(ctx, &lines, "SHOW GRANTS FOR "+of.String()); err != nil {
		return nil, err
	}
	has := map[string]bool{}
	for _, l := range lines {
		list, rest, _ := strings.Cut(strings.TrimPrefix(l, "GRANT "), " ON ")
		on, _, _ := strings.Cut(rest, " TO ")
		if on != "*.*" && on != "`"+schema+"`.*" && on != pattern(schema)+".*" {
			continue
		}
		for r := range strings.SplitSeq(list, ", ") {
			has[r] = true
		}
	}
	return has, nil
}
