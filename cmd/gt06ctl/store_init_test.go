package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gt06/cmd/internal/cli"
	"gt06/storage/sqlstore/mariadbtest"
)

func TestStoreInit(t *testing.T) {
	t.Parallel()
	dsn := mariadbtest.Schema(t)
	schema := dsn[strings.LastIndexByte(dsn, '/')+1:]
	socket := os.Getenv("GT06_TEST_MARIADB")
	call := func(args ...string) (out, said string, code cli.Code) {
		var o, e strings.Builder
		code = cli.Code(run(append([]string{"store", "init"}, args...), nil, &o, &e))
		return o.String(), e.String(), code
	}
	plan := []string{"--mariadb", socket, "--schema", schema + "_new", "--user", schema}
	out, said, code := call(plan...)
	if code != cli.Done || !strings.Contains(out, "CREATE DATABASE `"+schema+"_new`") || !strings.Contains(out, "IDENTIFIED VIA unix_socket;\n") || !strings.Contains(out, "nothing was changed") {
		t.Errorf("%d\n%s%s", code, out, said)
	}
	out, said, code = call(append(plan, "--json")...)
	var p struct {
		Applied    bool
		Statements []string
		DSN        string
	}
	if err := json.Unmarshal([]byte(out), &p); err != nil || code != cli.Done || p.Applied || len(p.Statements) != 3 || p.DSN != schema+"@unix("+socket+")/"+schema+"_new" {
		t.Errorf("%v, %d, %s%s", err, code, out, said)
	}
	secret := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(secret, []byte("gt06:wrong-"+mariadbtest.Password+"@unix("+socket+")/"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		args []string
		code cli.Code
		says string
	}{
		{"no MariaDB", []string{"--mariadb", filepath.Join(t.TempDir(), "s")}, cli.Timeout, "systemctl start mariadb"},
		{"a password that is wrong", []string{"--dsn-file", secret}, cli.Permission, "sudo gt06ctl store init"},
		{"no such file", []string{"--dsn-file", secret + "x"}, cli.Usage, "no such file"},
		{"a bad name", []string{"--mariadb", socket, "--schema", "a b"}, cli.Usage, `"a b"`},
		{"no such reader", []string{"--mariadb", socket, "--reader", "nobody_x"}, cli.Refused, "nobody_x"},
		{"both", []string{"--plan", "--apply"}, cli.Usage, "plan"},
	} {
		out, said, code := call(c.args...)
		if code != c.code || !strings.Contains(said, c.says) || strings.Contains(out+said, mariadbtest.Password) {
			t.Errorf("%s: %d\n%s%s", c.what, code, out, said)
		}
	}
}
