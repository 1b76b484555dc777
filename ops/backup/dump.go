package backup

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/host"
)

// Options of making a backup.
type Options struct {
	Smaller  bool         // accept one much smaller than the last
	Progress func(string) // told now and then; may be nil
	Now      func() time.Time
}

// dumpArgs make one consistent read of complete schemas.
func dumpArgs(schemas []string, binlog bool) []string {
	args := []string{
		"--single-transaction", "--quick", "--routines", "--events", "--triggers", "--hex-blob",
		"--default-character-set=utf8mb4", "--max-allowed-packet=1G",
	}
	if binlog {
		args = append(args, "--master-data=2")
	}
	return append(append(args, "--databases"), schemas...)
}

// Dump writes all schemas as they were at one moment into a place. It counts
// as a backup when the program ended well, the last line is there, every schema
// and as many triggers, events and routines as the server knows are in it, and
// it is not much smaller than the last one; otherwise nothing is left of it.
func Dump(ctx context.Context, db host.MariaDB, schemas []string, p Place, o Options) (Manifest, error) {
	schemas = slices.Sorted(slices.Values(schemas))
	m := Manifest{Format: format, Kind: MariaDB, Begun: o.Now().UTC(), Source: strings.Join(schemas, " ")}
	m.Name = nameOf(m.Begun, MariaDB, "")
	var err error
	if m.Loose, err = db.Unprotected(ctx, schemas); err != nil { // which refuses names that would need quotes
		return m, err
	}
	for _, s := range schemas {
		if err := mayRead(ctx, db, s); err != nil {
			return m, err
		}
	}
	binlog, err := db.Query(ctx, "SELECT @@log_bin")
	if err != nil {
		return m, err
	}
	w, err := begin(ctx, p, &m, true, o.Progress)
	if err != nil {
		return m, err
	}
	defer w.object.Abort()
	scan, err := dump(ctx, db, dumpArgs(schemas, len(binlog) == 1 && binlog[0][0] == "1"), w)
	if err != nil {
		return m, err
	}
	m.Contents, m.Position, m.GTID, m.Server = scan.contents, scan.position, scan.gtid, scan.server
	for _, s := range schemas {
		if m.Contents[s] == nil {
			return m, fmt.Errorf("schema %s is not in the dump", s)
		}
		if err := complete(ctx, db, s, m.Contents[s]); err != nil {
			return m, err
		}
	}
	if err := w.finish(&m); err != nil {
		return m, err
	}
	if err := shrunk(ctx, p, &m, o); err != nil {
		return m, err
	}
	m.Ended = o.Now().UTC()
	return m, commit(ctx, p, w, &m)
}

// dump runs the program into a writer and reads along.
func dump(ctx context.Context, db host.MariaDB, args []string, w io.Writer) (*scanner, error) {
	scan := newScanner()
	c := db.Client("mariadb-dump", args...)
	c.Stdout = io.MultiWriter(scan, w)
	r, err := db.Exec(ctx, c)
	switch {
	case err != nil:
		return nil, err
	case r.Code != 0:
		return nil, &host.ExitError{Command: c.Name, Result: r}
	}
	return scan, scan.check()
}

// rights are what a login needs to see all of a schema; LOCK TABLES is for
// those that are not InnoDB.
func rights() []string { return []string{"EVENT", "LOCK TABLES", "SELECT", "SHOW VIEW", "TRIGGER"} }

// mayRead refuses a login that does not see everything: mariadb-dump leaves out
// what it may not see without a word, and so does information_schema.
func mayRead(ctx context.Context, db host.MariaDB, schema string) error {
	const grantee = `GRANTEE = CONCAT("'", REPLACE(CURRENT_USER(), '@', "'@'"), "'")`
	rows, err := db.Query(ctx, "SELECT PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES WHERE "+grantee+
		" UNION SELECT PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES WHERE "+grantee+" AND '"+schema+"' LIKE TABLE_SCHEMA")
	if err != nil {
		return err
	}
	var missing []string
	for _, r := range rights() {
		if !slices.ContainsFunc(rows, func(have []string) bool { return have[0] == r }) {
			missing = append(missing, r)
		}
	}
	if len(missing) > 0 {
		return ops.Fail(ops.Denied, fmt.Errorf("the login of the backup lacks %s on %s: its dump would not be whole, and nobody would be told", strings.Join(missing, ", "), schema),
			fmt.Sprintf("in MariaDB: GRANT %s ON %s.* TO the login", strings.Join(rights(), ", "), schema))
	}
	return nil
}

// complete compares the numbers of objects with those the server knows.
func complete(ctx context.Context, db host.MariaDB, schema string, got *Schema) error {
	rows, err := db.Query(ctx, fmt.Sprintf(`SELECT 'routine', COUNT(*) FROM mysql.proc WHERE db = '%[1]s' AND type IN ('FUNCTION', 'PROCEDURE')
		UNION ALL SELECT 'event', COUNT(*) FROM mysql.event WHERE db = '%[1]s'
		UNION ALL SELECT 'trigger', COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = '%[1]s'
		UNION ALL SELECT 'view', COUNT(*) FROM information_schema.VIEWS WHERE TABLE_SCHEMA = '%[1]s'
		UNION ALL SELECT 'table', COUNT(*) FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA = '%[1]s'`, schema))
	if err != nil {
		return ops.Fail(ops.Denied, fmt.Errorf("which routines and events there are cannot be seen: %w", err),
			"in MariaDB: GRANT SELECT ON mysql.proc TO the login; GRANT SELECT ON mysql.event TO the login")
	}
	have := map[string]int{"table": len(got.Tables)}
	for o := range got.Objects {
		kind, _, _ := strings.Cut(o, " ")
		if kind == "function" || kind == "procedure" {
			kind = "routine"
		}
		have[kind]++
	}
	for _, r := range rows {
		want, err := strconv.Atoi(r[1])
		if err != nil {
			return err
		}
		if have[r[0]] != want {
			return fmt.Errorf("%s has %d of kind %s and the dump %d: were they changed meanwhile?", schema, want, r[0], have[r[0]])
		}
	}
	return nil
}

// shrunk refuses a backup of less than half of what the last one held.
func shrunk(ctx context.Context, p Place, m *Manifest, o Options) error {
	last, ok, err := Last(ctx, p, m.Kind, m.Source)
	if err != nil || !ok || o.Smaller || m.RawBytes >= last.RawBytes/2 {
		return err
	}
	return fmt.Errorf("%s would be %d bytes, %w: %s has %d", m.Name, m.RawBytes, ErrShrunk, last.Name, last.RawBytes)
}

// errKind is a backup given where another kind is needed.
func errKind(m Manifest, want Kind) error {
	if m.Kind != want {
		return fmt.Errorf("%s is a backup of kind %s, not %s", m.Name, m.Kind, want)
	}
	return nil
}
