package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gt06/cmd/internal/cli"
	"gt06/storage/sqlstore"
	"gt06/storage/sqlstore/mariadbtest"
)

// tryWith asks check-config --try about a configuration file.
func tryWith(t *testing.T, text string) (list []finding, said string, code cli.Code) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "gt06.yaml")
	if err := os.WriteFile(path, []byte("data_dir: "+filepath.Join(dir, "data")+"\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, stderr strings.Builder
	code = cli.Code(run([]string{"check-config", "--try", "--json", "--config", path}, &out, &stderr, func(string) string { return "" }))
	if err := json.Unmarshal([]byte(out.String()), &list); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out.String(), stderr.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Error("it made the data directory")
	}
	return list, stderr.String(), code
}

func TestTryPort(t *testing.T) {
	t.Parallel()
	list, said, code := tryWith(t, "listen: 127.0.0.1:0\n")
	if code != cli.Done || len(list) != 4 || list[3].Next == "" {
		t.Errorf("nothing is missing: %d, %+v, %s", code, list, said)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // a test's own
	list, said, code = tryWith(t, fmt.Sprintf("listen: %q\n", ln.Addr()))
	if code != cli.InUse || list[0].OK || !strings.Contains(list[0].Seen, fmt.Sprintf("pid %d", os.Getpid())) || !strings.Contains(said, "hint: gt06ctl takeover") {
		t.Errorf("%d, %+v, %s", code, list[0], said)
	}
}

func TestTryDatabase(t *testing.T) {
	t.Parallel()
	dsn := mariadbtest.Schema(t)
	at := func(dsn string) string { return fmt.Sprintf("listen: 127.0.0.1:0\nstore: mariadb\ndsn: %q\n", dsn) }
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test's own
	tables := func() (n int) {
		if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if list, said, code := tryWith(t, at(dsn)); code != cli.Done || tables() != 0 {
		t.Errorf("an empty schema: %d, %+v, %s, %d tables", code, list, said, tables())
	}
	if list, said, code := tryWith(t, at(dsn+"_not")); code != cli.Login || list[2].OK || !strings.Contains(said, "hint: gt06ctl store init --apply") {
		t.Errorf("no schema: %d, %+v, %s", code, list, said)
	}
	if _, _, code := tryWith(t, at("gt06@unix(/nowhere)/gt06")); code != cli.Timeout {
		t.Errorf("no server: %d", code)
	}
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE alarms (id INT, what TEXT)"); err != nil {
		t.Fatal(err)
	}
	if list, said, code := tryWith(t, at(dsn)); code != cli.Refused || !strings.Contains(list[2].Seen, "alarms with the columns id, what") || tables() != 1 {
		t.Errorf("a table of somebody else: %d, %+v, %s", code, list, said)
	}
	if _, err := db.ExecContext(t.Context(), "DROP TABLE alarms"); err != nil {
		t.Fatal(err)
	}
	store, err := sqlstore.Open(t.Context(), sqlstore.Options{Kind: sqlstore.MariaDB, DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if list, said, code := tryWith(t, at(dsn)); code != cli.Done {
		t.Errorf("our own tables: %d, %+v, %s", code, list, said)
	}
	if _, err := db.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (?, 1)", sqlstore.Schema()+2); err != nil {
		t.Fatal(err)
	}
	if list, said, code := tryWith(t, at(dsn)); code != cli.Refused || !strings.Contains(list[2].Seen, "version") {
		t.Errorf("tables of the version after the next: %d, %+v, %s", code, list, said)
	}
}
