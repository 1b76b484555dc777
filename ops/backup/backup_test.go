package backup

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"
	_ "github.com/go-sql-driver/mysql" // the driver

	"gt06/ops"
	"gt06/ops/host"
)

// seed makes a schema with everything a dump can forget.
const seed = `
CREATE TABLE devices (id INT AUTO_INCREMENT PRIMARY KEY, name TEXT, raw VARBINARY(20), speed FLOAT, twice DOUBLE AS (speed * 2) STORED, attributes JSON) DEFAULT CHARSET=utf8mb4;
CREATE TABLE log (id BIGINT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(200)) ENGINE=InnoDB;
CREATE TABLE positions (device_id INT, fix_time DATETIME, PRIMARY KEY (device_id, fix_time))
	PARTITION BY RANGE COLUMNS(fix_time) (PARTITION p0 VALUES LESS THAN ('2026-01-01'), PARTITION px VALUES LESS THAN MAXVALUE);
CREATE TABLE loose (id INT) ENGINE=MyISAM;
CREATE TABLE empty (id INT PRIMARY KEY);
CREATE VIEW named AS SELECT id, name FROM devices WHERE name IS NOT NULL;
CREATE SEQUENCE numbers;
INSERT INTO devices (name, raw, speed, attributes) VALUES ('a\nb''c("', x'00ff0d0a27', 1.5, '{"a": 1}'), ('),(1;', NULL, NULL, NULL), ('नमस्ते 🚚', x'', -0.1, '[]');
INSERT INTO loose VALUES (1), (2);
INSERT INTO positions VALUES (1, '2025-12-31 23:59:59'), (1, '2026-01-01');
CREATE TRIGGER stamp BEFORE INSERT ON log FOR EACH ROW BEGIN SET NEW.text = CONCAT(NEW.text, '!'); END;
CREATE PROCEDURE forget(IN n INT) BEGIN DELETE FROM log WHERE id < n; SELECT ';;'; END;
CREATE FUNCTION one() RETURNS INT DETERMINISTIC RETURN 1;
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO BEGIN DELETE FROM log WHERE id = 0; END;`

// schemas numbers those of this process.
var schemas atomic.Int64

// database returns the test's MariaDB as the product sees it, the driver's view
// of it, and new schemas with everything in them.
func database(t *testing.T, count int) (host.MariaDB, *sql.DB, []string) {
	t.Helper()
	socket := os.Getenv("GT06_TEST_MARIADB")
	if socket == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("under CI a MariaDB must run: GT06_TEST_MARIADB is not set")
		}
		t.Skip("no MariaDB: GT06_TEST_MARIADB is not set (make test starts one)")
	}
	db, err := sql.Open("mysql", "root@unix("+socket+")/?multiStatements=true")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	var names []string
	for range count {
		name := fmt.Sprintf("backup_%d_%d", os.Getpid(), schemas.Add(1))
		names = append(names, name)
		exe(t, db, "CREATE DATABASE "+name)
		t.Cleanup(func() { _, _ = db.ExecContext(context.Background(), "DROP DATABASE "+name) })
		c, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err = c.ExecContext(t.Context(), "USE "+name+";"+seed+" USE mysql"); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	defaults := filepath.Join(t.TempDir(), "my.cnf")
	if err := os.WriteFile(defaults, []byte("[client]\nuser=root\nsocket="+socket+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return host.MariaDB{System: host.New(), Defaults: defaults}, db, names
}

func exe(t *testing.T, db *sql.DB, statement string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, db *sql.DB, table string) (n int64) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// at is a clock that gives each backup a name of its own.
func at() Options {
	begin := time.Date(2026, 11, 25, 14, 0, 0, 0, time.UTC)
	return Options{Now: func() time.Time { begin = begin.Add(time.Second); return begin }}
}

// write inserts rows until it is stopped; it returns when there are some.
func write(t *testing.T, db *sql.DB, table string, some int64) (stop func() int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan int64)
	go func() {
		var n int64
		for ctx.Err() == nil {
			if _, err := db.ExecContext(ctx, "INSERT INTO "+table+" (text) VALUES (?)", fmt.Sprint("row ", n)); err != nil {
				continue
			}
			if n++; n == some {
				close(ready)
			}
		}
		done <- n
	}()
	<-ready
	return func() int64 { cancel(); return <-done }
}

func TestDumpUnderWritesIsRestoredWhole(t *testing.T) {
	t.Parallel()
	m, db, names := database(t, 2)
	stop := write(t, db, names[0]+".log", 200)
	place := Dir(t.TempDir())
	before := count(t, db, names[0]+".log")
	got, err := Dump(t.Context(), m, names, place, at())
	if err != nil {
		t.Fatal(err)
	}
	after := count(t, db, names[0]+".log")
	if written := stop(); written < before {
		t.Fatalf("%d rows written", written)
	}
	rows := got.Contents[names[0]].Tables["log"].Rows
	if rows < before || rows > after {
		t.Errorf("%d rows in the dump; %d before, %d after", rows, before, after)
	}
	if len(got.Loose) != 2 || !strings.HasSuffix(got.Loose[0], ".loose (MyISAM)") {
		t.Errorf("tables without a consistent read: %q", got.Loose)
	}
	for _, want := range []string{"trigger stamp", "procedure forget", "function one", "event nightly", "view named", "sequence numbers"} {
		if got.Contents[names[1]].Objects[want] == "" {
			t.Errorf("%s is not in the dump", want)
		}
	}
	v, err := Verify(t.Context(), host.New(), place, got, "")
	if err != nil || !v.Restored || len(v.Differs) > 0 {
		t.Fatalf("%+v, %v", v.Differs, err)
	}
	// What is restored is compared, not only counted: a dump that says
	// something else differs.
	got.Contents[names[0]].Tables["devices"].Data = "other"
	got.Contents[names[1]].Objects["event nightly"] = "other"
	if differs, err := redump(t.Context(), host.New(), place, got); err != nil || len(differs) != 2 {
		t.Errorf("%q, %v", differs, err)
	}
	if sum, err := host.Exec(t.Context(), host.Command{Name: "sha256sum", Args: []string{"-c", got.Name + ".sha256"}, Dir: string(place)}); err != nil || sum.Code != 0 {
		t.Errorf("%+v, %v", sum, err)
	}
}

func TestDumpCutAnywhereIsRefused(t *testing.T) {
	t.Parallel()
	m, _, names := database(t, 1)
	var text bytes.Buffer
	if _, err := dump(t.Context(), m, dumpArgs(names, false), &text); err != nil {
		t.Fatal(err)
	}
	whole := text.Bytes()
	// However it was cut, and whatever status the child left: `false | gzip`
	// leaves 0.
	for n := range whole {
		s := newScanner()
		_, _ = s.Write(whole[:n])
		if s.check() == nil {
			t.Fatalf("the first %d of %d bytes are taken for a dump: …%q", n, len(whole), whole[max(0, n-40):n])
		}
	}
	// In any chunks it is the same dump.
	one, two := newScanner(), newScanner()
	_, _ = one.Write(whole)
	for rest := whole; len(rest) > 0; {
		n := min(len(rest), 1+rand.IntN(50))
		_, _ = two.Write(rest[:n])
		rest = rest[n:]
	}
	if differs := one.contents.Compare(two.contents, true); len(differs) > 0 || two.check() != nil {
		t.Errorf("%q, %v", differs, two.check())
	}
}

func TestDumpKilledLeavesNothing(t *testing.T) {
	t.Parallel()
	m, db, names := database(t, 1)
	exe(t, db, "INSERT INTO "+names[0]+".log (text) SELECT REPEAT('x', 150) FROM seq_1_to_20000")
	place := Dir(t.TempDir())
	for name, lie := range map[string]bool{"and its status says so": false, "and nobody looks at its status": true} {
		for range 4 {
			after := int64(rand.IntN(3_000_000))
			killed := m
			killed.Exec = func(ctx context.Context, c host.Command) (host.Result, error) {
				if c.Name != "mariadb-dump" {
					return host.Exec(ctx, c)
				}
				cmd := exec.CommandContext(ctx, c.Name, c.Args...)
				out, err := cmd.StdoutPipe()
				if err != nil {
					return host.Result{}, err
				}
				if err := cmd.Start(); err != nil {
					return host.Result{}, err
				}
				_, _ = io.CopyN(c.Stdout, out, after)
				_ = cmd.Process.Kill()
				err = cmd.Wait()
				if lie {
					err = nil
				}
				return host.Result{}, err
			}
			if _, err := Dump(t.Context(), killed, names, place, at()); err == nil {
				t.Errorf("killed after %d bytes, %s: taken for a backup", after, name)
			}
		}
	}
	if left, err := os.ReadDir(string(place)); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	// A disk without room is no backup either.
	full := m
	full.Exec = func(ctx context.Context, c host.Command) (host.Result, error) {
		if c.Name == "mariadb-dump" {
			c.Stdout = io.MultiWriter(c.Stdout, &noRoom{left: 100000})
		}
		return host.Exec(ctx, c)
	}
	if _, err := Dump(t.Context(), full, names, place, at()); err == nil {
		t.Error("a place without room took it")
	}
	if left, _ := os.ReadDir(string(place)); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

type noRoom struct{ left int }

func (n *noRoom) Write(p []byte) (int, error) {
	if n.left -= len(p); n.left < 0 {
		return 0, errors.New("no space left on device")
	}
	return len(p), nil
}

func TestDumpOfALoginThatMayNotSeeEverything(t *testing.T) {
	t.Parallel()
	m, db, names := database(t, 1)
	login := fmt.Sprintf("b%d", os.Getpid())
	exe(t, db, fmt.Sprintf("CREATE USER %s@localhost; GRANT SELECT, LOCK TABLES, SHOW VIEW, EVENT ON %s.* TO %[1]s@localhost", login, names[0]))
	t.Cleanup(func() { _, _ = db.ExecContext(context.Background(), "DROP USER "+login+"@localhost") })
	if err := os.WriteFile(m.Defaults, fmt.Appendf(nil, "[client]\nuser=%s\nsocket=%s\n", login, os.Getenv("GT06_TEST_MARIADB")), 0o600); err != nil {
		t.Fatal(err)
	}
	place := Dir(t.TempDir())
	for _, grant := range []string{"", "TRIGGER ON " + names[0] + ".*", "SELECT ON mysql.proc"} {
		if grant != "" {
			exe(t, db, "GRANT "+grant+" TO "+login+"@localhost")
		}
		if _, err := Dump(t.Context(), m, names, place, at()); ops.KindOf(err) != ops.Denied {
			t.Errorf("with %q more a dump of less than everything is taken for whole: %v", grant, err)
		}
	}
	exe(t, db, "GRANT SELECT ON mysql.event TO "+login+"@localhost")
	if _, err := Dump(t.Context(), m, names, place, at()); err != nil {
		t.Error(err)
	}
}

func TestDamageOfAStoredBackupIsFound(t *testing.T) {
	t.Parallel()
	m, _, names := database(t, 1)
	dir := t.TempDir()
	place := Dir(dir)
	got, err := Dump(t.Context(), m, names, place, at())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, got.Name)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(t.Context(), place, got); err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for name, bytes := range map[string][]byte{"a bit": flipped, "half": whole[:len(whole)/2], "one byte": whole[:len(whole)-1], "more": append(slices.Clone(whole), 'x'), "nothing": nil} {
		if err := os.WriteFile(path, bytes, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Check(t.Context(), place, got); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if err := Load(t.Context(), m, place, got, names, "x"); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s was restored: %v", name, err)
		}
	}
	// Wherever it is: some bits make the compressed stream itself impossible.
	for at := 0; at < len(whole); at += max(1, len(whole)/200) {
		flipped := slices.Clone(whole)
		flipped[at] ^= 1 << (at % 8)
		if err := os.WriteFile(path, flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Check(t.Context(), place, got); !errors.Is(err, ErrDamaged) {
			t.Errorf("a bit of byte %d: %v", at, err)
		}
	}
	if list, err := List(t.Context(), place); err != nil || len(list) != 1 || list[0].SHA256 != got.SHA256 {
		t.Errorf("%+v, %v", list, err)
	}
	manifest, err := os.ReadFile(path + ".json")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".json", []byte(strings.Replace(string(manifest), `"format": 1`, `"format": 2`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(t.Context(), place, got.Name); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("a manifest of another version: %v", err)
	}
	if err := os.Remove(path + ".json"); err != nil {
		t.Fatal(err)
	}
	if list, err := List(t.Context(), place); err != nil || len(list) != 0 {
		t.Errorf("without its manifest it counts: %v, %v", list, err)
	}
	if _, err := Read(t.Context(), place, "../../etc/passwd"); err == nil {
		t.Error("a path is taken for a name")
	}
}

func TestRestoreOfOneSchemaLeavesTheOther(t *testing.T) {
	t.Parallel()
	m, db, names := database(t, 2)
	place := Dir(t.TempDir())
	o := at()
	got, err := Dump(t.Context(), m, names, place, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		exe(t, db, "DROP PROCEDURE "+n+".forget; DELETE FROM "+n+".devices; INSERT INTO "+n+".log (text) VALUES ('later'); CREATE TABLE "+n+".later (id INT)")
	}
	if err := Load(t.Context(), m, place, got, names[:1], "mark1"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		of   []string
		mark string
		want bool
	}{{names[:1], "mark1", true}, {names[:1], "mark2", false}, {names, "mark1", false}} {
		if loaded, err := Loaded(t.Context(), m, c.of, c.mark); err != nil || loaded != c.want {
			t.Errorf("%q loaded with %s: %v, %v", c.of, c.mark, loaded, err)
		}
	}
	if differs, err := Compare(t.Context(), m, got, names[:1]); err != nil || len(differs) > 0 {
		t.Errorf("%q, %v", differs, err)
	}
	if differs, err := Compare(t.Context(), m, got, nil); err != nil || len(differs) != 2 {
		t.Errorf("the other schema has no procedure: %q, %v", differs, err)
	}
	if a, b := count(t, db, names[0]+".devices"), count(t, db, names[1]+".devices"); a != 3 || b != 0 {
		t.Errorf("%d and %d devices", a, b)
	}
	if a, b := count(t, db, names[0]+".log"), count(t, db, names[1]+".log"); a != 0 || b != 1 {
		t.Errorf("%d and %d lines", a, b)
	}
	if err := Load(t.Context(), m, place, got, []string{"another"}, ""); err == nil {
		t.Error("a schema that is not there was restored")
	}

	// A much smaller one is refused, unless it is meant; the old ones go.
	exe(t, db, "INSERT INTO "+names[0]+".log (text) SELECT REPEAT('x', 150) FROM seq_1_to_1000")
	if _, err := Dump(t.Context(), m, names, place, o); err != nil {
		t.Fatal(err)
	}
	exe(t, db, "DELETE FROM "+names[0]+".log")
	if _, err := Dump(t.Context(), m, names, place, o); !errors.Is(err, ErrShrunk) {
		t.Errorf("%v", err)
	}
	o.Smaller = true
	last, err := Dump(t.Context(), m, names, place, o)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := place.Prune(t.Context(), MariaDB, last.Source, 1)
	if err != nil || len(gone) != 2 {
		t.Errorf("%q, %v", gone, err)
	}
	if newest, ok, err := Last(t.Context(), place, MariaDB, last.Source); err != nil || !ok || newest.Name != last.Name {
		t.Errorf("%+v, %v, %v", newest, ok, err)
	}
	if files, err := os.ReadDir(string(place)); err != nil || len(files) != 3 {
		t.Errorf("%v, %v", files, err)
	}
}

// TestAKilledBackupLeavesNothing: the file of a writer that was killed goes with
// the next backup, the one of a writer that lives stays.
func TestAKilledBackupLeavesNothing(t *testing.T) {
	t.Parallel()
	place := Dir(t.TempDir())
	if err := os.WriteFile(filepath.Join(string(place), ".new-killed"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	lives, err := place.Create(t.Context(), "one.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	other, err := place.Create(t.Context(), "other.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(lives.Commit(), other.Commit()); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(string(place)); err != nil || len(files) != 2 {
		t.Errorf("%v, %v", files, err)
	}
}

func TestSQLiteUnderWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "gt06.db")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(wal)&_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test's own
	exe(t, db, "CREATE TABLE log (id INTEGER PRIMARY KEY, text TEXT); CREATE INDEX by_text ON log (text)")
	stop := write(t, db, "log", 50)
	place := Dir(filepath.Join(dir, "backups"))
	got, err := CopySQLite(t.Context(), path, place, at())
	if err != nil {
		t.Fatal(err)
	}
	rows := got.Contents["main"].Tables["log"].Rows
	if written := stop(); rows < 50 || rows > written+1 {
		t.Errorf("%d rows of %d", rows, written)
	}
	if v, err := Verify(t.Context(), host.New(), place, got, ""); err != nil || !v.Restored || len(v.Differs) > 0 {
		t.Errorf("%+v, %v", v, err)
	}
	if err := RestoreSQLite(t.Context(), place, got, path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a database that is there: %v", err)
	}
	if err := RestoreSQLite(t.Context(), place, got, filepath.Join(dir, "back.db")); err != nil {
		t.Error(err)
	}
	back, err := sqliteContents(t.Context(), filepath.Join(dir, "back.db"))
	if err != nil || back["main"].Tables["log"].Rows != rows {
		t.Errorf("%+v, %v", back, err)
	}
	if _, err := CopySQLite(t.Context(), filepath.Join(dir, "none.db"), place, at()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a database that is not there: %v", err)
	}
	if err := Load(t.Context(), host.MariaDB{}, place, got, nil, ""); err == nil {
		t.Error("SQLite was loaded into MariaDB")
	}
}

func TestArchiveOfFiles(t *testing.T) {
	t.Parallel()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for path, text := range map[string]string{"app/.env": "DB_PASSWORD=hush", "etc/gt06/gt06.yaml": "listen: :5023\n", "etc/gt06/big": strings.Repeat("x", 100000)} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o750), os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("gt06.yaml", filepath.Join(dir, "etc/gt06/link")); err != nil {
		t.Fatal(err)
	}
	place := Dir(filepath.Join(dir, "backups"))
	paths := []string{dir + "/app/.env", dir + "/etc/gt06", dir + "/none"}
	o := at()
	got, err := Archive(t.Context(), paths, key.Recipient().String(), place, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Archive) != 3 || !strings.Contains(got.Incomplete, "/none is not there") {
		t.Errorf("%+v, %q", got.Archive, got.Incomplete)
	}
	stored, err := os.ReadFile(filepath.Join(string(place), got.Name))
	if err != nil || bytes.Contains(stored, []byte("hush")) || bytes.Contains(stored, []byte("listen")) {
		t.Error("it can be read without the identity")
	}
	if v, err := Verify(t.Context(), host.New(), place, got, ""); err != nil || v.Restored {
		t.Errorf("without the identity only the checksum is proven: %+v, %v", v, err)
	}
	if v, err := Verify(t.Context(), host.New(), place, got, key.String()); err != nil || !v.Restored || len(v.Differs) > 0 {
		t.Errorf("%+v, %v", v, err)
	}
	other, _ := age.GenerateX25519Identity()
	if _, err := Verify(t.Context(), host.New(), place, got, other.String()); err == nil {
		t.Error("another identity reads it")
	}
	out := filepath.Join(dir, "out")
	if err := Extract(t.Context(), place, got, key.String(), out); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(out, dir, "app/.env")); err != nil || string(b) != "DB_PASSWORD=hush" {
		t.Errorf("%q, %v", b, err)
	}
	if to, err := os.Readlink(filepath.Join(out, dir, "etc/gt06/link")); err != nil || to != "gt06.yaml" {
		t.Errorf("%q, %v", to, err)
	}
	if err := Extract(t.Context(), place, got, key.String(), out); err == nil {
		t.Error("it was written over")
	}
	// The end cut off, with a manifest that agrees.
	if err := os.WriteFile(filepath.Join(string(place), got.Name), stored[:len(stored)-20], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Extract(t.Context(), place, got, key.String(), out); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
	if _, err := Archive(t.Context(), paths, "age1nonsense", place, o); err == nil {
		t.Error("encrypted to nobody")
	}
	if _, err := Archive(t.Context(), []string{dir + "/none"}, key.Recipient().String(), place, o); err == nil {
		t.Error("an archive of nothing")
	}
	if _, err := Archive(t.Context(), []string{"relative"}, key.Recipient().String(), place, o); err == nil {
		t.Error("a relative path")
	}
	keys := filepath.Join(dir, "key.txt")
	if err := os.WriteFile(keys, []byte("# created: today\n# public key: x\n"+key.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Identity(keys); err != nil || s != key.String() {
		t.Error(err)
	}
}
