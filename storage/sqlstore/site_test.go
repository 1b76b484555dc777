package sqlstore

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"gt06/storage/sqlstore/mariadbtest"
)

// administrator is root of the tests' MariaDB, and names nobody else uses.
func administrator(t *testing.T) (a *Administrator, name, socket string) {
	t.Helper()
	dsn := mariadbtest.Schema(t)
	name = dsn[strings.LastIndexByte(dsn, '/')+1:] + "_site"
	socket = os.Getenv("GT06_TEST_MARIADB")
	a, err := OpenAdministrator(t.Context(), "root@unix("+socket+")/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a, name, socket
}

func (a *Administrator) exec(t *testing.T, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := a.store.db.Exec(s); err != nil { //nolint:noctx // also behind the test's end
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func TestSite(t *testing.T) {
	t.Parallel()
	a, name, socket := administrator(t)
	crm := name + "_crm"
	a.exec(t, "CREATE USER "+crm+"@localhost IDENTIFIED BY 'x'", "CREATE USER "+crm+"@'%' IDENTIFIED BY 'x'")
	t.Cleanup(func() {
		a.exec(t, "DROP DATABASE IF EXISTS "+name, "DROP USER IF EXISTS "+name+"@localhost, "+crm+"@localhost, "+crm+"@'%'")
	})
	site := Site{Schema: name, User: name, Reader: crm}
	p, err := a.Plan(t.Context(), site)
	if err != nil || len(p.Statements) != 5 {
		t.Fatalf("%v, %q", err, p)
	}
	if again, err := a.Plan(t.Context(), site); err != nil || len(again.Statements) != 5 {
		t.Errorf("a plan has changed something: %v, %q", err, again)
	}
	if err := a.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if p, err = a.Plan(t.Context(), site); err != nil || len(p.Statements)+len(p.Notes) != 0 {
		t.Errorf("what was made is not seen: %v, %q", err, p)
	}
	if list, err := a.accounts(t.Context(), name); err != nil || len(list) != 1 || list[0].Plugin != "unix_socket" {
		t.Errorf("%+v, %v", list, err)
	}

	// The rights are enough for all a server does, and for nothing else.
	a.exec(t, "ALTER USER "+name+"@localhost IDENTIFIED BY 'x'")
	dsn := fmt.Sprintf("%s:x@unix(%s)/%s", name, socket, name)
	store, err := Open(t.Context(), Options{Kind: MariaDB, DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close() //nolint:errcheck // a test's own
	later := store.opt.Now().Add(200 * 24 * time.Hour)
	store.opt.Now = func() time.Time { return later }
	if err := store.Maintain(t.Context()); err != nil {
		t.Errorf("partitions are made and dropped: %v", err)
	}
	if _, err := store.db.Exec("CREATE DATABASE " + name + "_2"); err == nil { //nolint:noctx // a test's own
		t.Error("the server's login makes schemas")
	}
	reader, err := openMariaDB(Options{Kind: MariaDB, DSN: fmt.Sprintf("%s:x@unix(%s)/%s", crm, socket, name)})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()                                                     //nolint:errcheck // a test's own
	if _, err := reader.Exec("SELECT * FROM latest_positions"); err != nil { //nolint:noctx // a test's own
		t.Errorf("the CRM cannot read: %v", err)
	}
	if _, err := reader.Exec("DELETE FROM latest_positions"); err == nil { //nolint:noctx // a test's own
		t.Error("the CRM can write")
	}
	a.exec(t, "REVOKE DROP, INDEX ON "+pattern(name)+".* FROM "+name+"@localhost", "GRANT PROCESS ON *.* TO "+name+"@localhost")
	p, err = a.Plan(t.Context(), site)
	if err != nil || len(p.Statements) != 1 || !strings.HasPrefix(p.Statements[0], "GRANT DROP, INDEX ON ") || len(p.Notes) != 2 {
		t.Errorf("what lacks, a password, and more than it needs: %v, %q", err, p)
	}
}

func TestSiteRefused(t *testing.T) {
	t.Parallel()
	a, name, _ := administrator(t)
	crm := strings.TrimSuffix(name, "_site") // a schema that is there
	a.exec(t, "CREATE TABLE "+crm+".devices (id INT, plate VARCHAR(20), driver TEXT)")
	for _, c := range []struct {
		what string
		site Site
		want error
		says string
	}{
		{"tables of the CRM", Site{Schema: crm, User: name}, ErrForeignTable, "devices with the columns id, plate, driver"},
		{"a reader who is not there", Site{Schema: name, User: name, Reader: "nobody_x"}, ErrNoReader, "nobody_x"},
		{"a reader of another host", Site{Schema: name, User: name, Reader: "gt06@10.9.8.7"}, ErrNoReader, "10.9.8.7"},
		{"a schema that is SQL", Site{Schema: "a`; DROP DATABASE mysql", User: name}, ErrBadName, "DROP"},
		{"no schema", Site{User: name}, ErrBadName, `""`},
		{"a login that is SQL", Site{Schema: name, User: "x'@'%"}, ErrBadName, "x'"},
	} {
		p, err := a.Plan(t.Context(), c.site)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || errors.Is(err, ErrForeignTable) && len(p.Statements) > 0 {
			t.Errorf("%s: %v, %q", c.what, err, p)
		}
	}
}
