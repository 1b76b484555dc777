package sqlstore_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"

	"gt06/storage/sqlstore"
)

var update = flag.Bool("update", false, "write the files of this version anew")

const released = "../../testdata/released"

// Each version that was released left its schema; this one opens and migrates
// them all, and writes to them.
func TestReleasedSchemasAreOpened(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		if *update {
			s := openStore(t, opt)
			_ = s.Close()
			if err := os.WriteFile(filepath.Join(released, "v1", string(opt.Kind)+".sql"), []byte(dump(t, opt.Kind, open())), 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
		files, err := filepath.Glob(filepath.Join(released, "*", string(opt.Kind)+".sql"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no schemas of released versions, %v", err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			db := open()
			for statement := range strings.SplitSeq(string(text), ";\n\n") {
				if strings.TrimSpace(statement) != "" {
					db.MustExec(statement)
				}
			}
			s := openStore(t, opt)
			if s.Version() != sqlstore.Schema() {
				t.Errorf("%s: version %d after it was opened, want %d", file, s.Version(), sqlstore.Schema())
			}
			list, err := everyDevice(t, s)
			if err != nil || len(list) != 1 || list[0].IMEI != "490154203237518" {
				t.Errorf("%s: devices %+v, %v", file, list, err)
			}
			_ = s.Close()
		}
	})
}

// dump writes a schema and a device as statements.
func dump(t *testing.T, kind sqlstore.Kind, db *sqlx.DB) string {
	t.Helper()
	var b strings.Builder
	if kind == sqlstore.SQLite {
		var list []string
		if err := db.Select(&list, "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY name"); err != nil {
			t.Fatal(err)
		}
		b.WriteString(strings.Join(list, ";\n\n"))
	} else {
		var tables []string
		if err := db.Select(&tables, "SHOW TABLES"); err != nil {
			t.Fatal(err)
		}
		for _, name := range tables {
			var table, text string
			if err := db.QueryRow("SHOW CREATE TABLE "+name).Scan(&table, &text); err != nil {
				t.Fatal(err)
			}
			b.WriteString(text + ";\n\n")
		}
	}
	b.WriteString(";\n\nINSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1);\n\nINSERT INTO goose_db_version (version_id, is_applied) VALUES (1, 1)")
	b.WriteString(";\n\nINSERT INTO devices (imei, status, created_at, updated_at) VALUES ('490154203237518', 'allowed', '2026-11-24 00:00:00', '2026-11-24 00:00:00')\n")
	return b.String()
}
