package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	sqlite3 "modernc.org/sqlite/lib"

	"gt06/protocol"
	"gt06/storage"
	"gt06/storage/logtest"
	"gt06/storage/powertest"
	"gt06/storage/sqlstore"
	"gt06/storage/sqlstore/mariadbtest"
)

// times is how often a fault loop runs: GT06_SOAK=1 is the long form.
func times(short, long int) int {
	if os.Getenv("GT06_SOAK") != "" {
		return long
	}
	return short
}

func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test's
}

// more adds a few records to a log, or enough of them to be loaded as text.
func more(log *logtest.Log, r *rand.Rand) {
	have, n := int(log.Durable()), 1+r.IntN(40)
	if r.IntN(20) == 0 {
		n = 800 + r.IntN(800)
	}
	log.Add(mixed(have, have+n)...)
}

// someBatch is a size of batches: that all fits into one, or that the next is
// read while one is stored, as text or not.
func someBatch(r *rand.Rand) int { return []int{0, 30, 600}[r.IntN(3)] }

// ending is how a life of SQLite ends.
type ending int

const (
	power ending = iota // what was not synced is there, or is not, or is torn
	death               // of the process, by SIGKILL: what was written is there
	fault               // one operation fails, and none after it
	endings
)

func (e ending) String() string { return [endings]string{"power", "death", "fault"}[e] }

// TestSQLiteIsCut takes the power, the process or one operation of the disk from
// SQLite, in front of any write, sync, truncation, creation or removal of its
// files: nothing of the log is lost or there twice. What the writer released
// stays released: the log may have dropped it.
func TestSQLiteIsCut(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	want := map[ending]int{power: times(100, 1000), death: times(50, 5000), fault: times(50, 5000)}
	root := t.TempDir()
	var b *box
	met, undone, lives := map[ending]int{}, 0, 0
	for {
		var left []ending // a life may be over before its end is due
		for kind := range endings {
			if met[kind] < want[kind] {
				left = append(left, kind)
			}
		}
		if len(left) == 0 {
			break
		}
		if lives > 3*(want[power]+want[death]+want[fault]) {
			t.Fatalf("%v of %v in %d lives: the test shows nothing", met, want, lives)
		}
		if lives%50 == 0 {
			if b != nil {
				b.whole()
			}
			b = newBox(t, r, filepath.Join(root, fmt.Sprint(lives)))
		}
		kind := left[r.IntN(len(left))]
		before := b.log.Durable()
		if b.life(kind, fmt.Sprintf("%d-%s", lives, kind)) {
			met[kind]++
		}
		if b.cursor() < before {
			undone++
		}
		lives++
	}
	b.whole()
	t.Logf("%v in %d lives; %d times the log had to fill a gap", met, lives, undone)
}

// TestReleasedIsDurable: a process dies between the writes of a commit and its
// sync, so that the next one finds a transaction that the disk may not have.
// It must be made certain before the log hears of it.
func TestReleasedIsDurable(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	root := t.TempDir()
	found := 0
	b := newBox(t, r, root)
	for n := range 30 {
		b.at = fmt.Sprint(n)
		b.disk.left = 0
		b.process(fault, 1)
		b.epoch++
		*b.disk = sqliteDisk{Disk: b.disk.Disk, dir: b.dir, syncs: true, left: 1 + n%3}
		b.disk.happens = func() int32 { b.disk.dead = true; return sqlite3.SQLITE_IOERR }
		b.process(death, 1)
		died := b.disk.met
		b.epoch++
		*b.disk = sqliteDisk{Disk: b.disk.Disk, dir: b.dir}
		s, err := sqlstore.Open(t.Context(), b.options())
		if err != nil {
			t.Fatal(err)
		}
		w := s.Writer(sqlstore.WriterOptions{Log: b.log, Node: "node", Epoch: b.epoch, Decoder: &protocol.Decoder{}, Batch: someBatch(b.r)})
		if err := w.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if died && w.Status().Begin == b.log.Durable() {
			found++
		}
		after := filepath.Join(root, fmt.Sprintf("%d-after", n))
		b.disk.Cut(t, after, func() {})
		_ = s.Close()
		b.start(after)
		b.cursor()
	}
	b.whole()
	if found == 0 {
		t.Error("no process died between write and sync: the test shows nothing")
	}
}

// box is a machine with a log and SQLite.
type box struct {
	t     *testing.T
	r     *rand.Rand
	root  string
	dir   string
	disk  *sqliteDisk
	log   *logtest.Log
	epoch int64
	at    string // for messages
}

func newBox(t *testing.T, r *rand.Rand, root string) *box {
	t.Helper()
	b := &box{t: t, r: r, root: root, log: logtest.NewLog()}
	b.start(filepath.Join(root, "0"))
	return b
}

// start is the machine that finds a directory.
func (b *box) start(dir string) {
	b.t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.t.Fatal(err)
	}
	_ = os.RemoveAll(b.dir)
	b.dir = dir
	b.disk = &sqliteDisk{Disk: powertest.New(b.t, dir, b.r, 0), dir: dir}
	watch(b.t, b.disk)
}

func (b *box) options() sqlstore.Options {
	return sqlstore.Options{Kind: sqlstore.SQLite, Dir: b.dir, Now: func() time.Time { return base.Add(time.Hour) }}
}

// life is a process that opens the database, stores and closes it, and to which
// something happens on the way. It reports whether it did.
func (b *box) life(kind ending, name string) bool {
	b.t.Helper()
	b.at = name
	b.epoch++
	after := filepath.Join(b.root, name)
	d := b.disk
	*d = sqliteDisk{Disk: d.Disk, dir: d.dir, left: 1 + b.r.IntN([]int{30, 100, 400}[b.r.IntN(3)])}
	d.happens = map[ending]func() int32{
		power: func() int32 { d.CutNow(b.t, after); return sqlite3.SQLITE_IOERR },
		death: func() int32 { d.dead = true; return sqlite3.SQLITE_IOERR },
		fault: func() int32 {
			return []int32{sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_IOERR_FSYNC}[b.r.IntN(3)]
		},
	}[kind]
	b.process(kind, 1+b.r.IntN(4))
	if kind == power {
		if !d.met {
			d.Cut(b.t, after, func() {})
		}
		b.start(after)
	}
	return d.met
}

// process opens, stores some additions to the log and closes.
func (b *box) process(kind ending, additions int) {
	b.t.Helper()
	d := b.disk
	// goesOn says whether somebody who met an error is there to try again.
	goesOn := func(what string, err error) bool {
		b.t.Helper()
		if !d.met {
			b.t.Fatalf("%s: %s: %v, and nothing happened", b.at, what, err)
		}
		return kind == fault
	}
	s, err := sqlstore.Open(context.Background(), b.options())
	if err != nil && goesOn("open", err) {
		s, err = sqlstore.Open(context.Background(), b.options())
		if err != nil {
			b.t.Fatalf("%s: open again: %v", b.at, err)
		}
	}
	if err != nil {
		return
	}
	defer s.Close() //nolint:errcheck // it may be dead
	b.kept(s)
	w := s.Writer(sqlstore.WriterOptions{Log: b.log, Node: "node", Epoch: b.epoch, Decoder: &protocol.Decoder{}, Batch: someBatch(b.r)})
	for n := range 1 + additions {
		if n > 0 {
			more(b.log, b.r)
		}
		for err := w.Drain(context.Background()); err != nil; err = w.Drain(context.Background()) {
			if !goesOn("drain", err) {
				return
			}
		}
	}
}

// kept asks that the database did not forget what it once said is in it.
func (b *box) kept(s *sqlstore.Store) {
	b.t.Helper()
	_, pos, err := s.Cursor(context.Background(), "node")
	if err != nil {
		if b.disk.met {
			return
		}
		b.t.Fatalf("%s: %v", b.at, err)
	}
	if released := b.log.Released(); pos < released {
		b.t.Fatalf("%s: the database is at %d, and %d was released: the log may have dropped what is lost", b.at, pos, released)
	}
}

// cursor is where the log stands in the database as it is now.
func (b *box) cursor() storage.Position {
	b.t.Helper()
	b.disk.left, b.disk.dead = 0, false
	s, err := sqlstore.Open(context.Background(), b.options())
	if err != nil {
		b.t.Fatalf("%s: %v", b.at, err)
	}
	defer s.Close() //nolint:errcheck // read only
	b.kept(s)
	_, pos, err := s.Cursor(context.Background(), "node")
	if err != nil {
		b.t.Fatalf("%s: %v", b.at, err)
	}
	return pos
}

// whole stores what is left, and asks that all is there, once.
func (b *box) whole() {
	b.t.Helper()
	b.cursor()
	s, err := sqlstore.Open(context.Background(), b.options())
	if err != nil {
		b.t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // a test's own
	drain(b.t, s, b.log, b.epoch+1)
	db, err := sqlx.Open("sqlite", "file:"+b.dir+"/gt06.db")
	if err != nil {
		b.t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // read only
	var state string
	if err := db.Get(&state, "PRAGMA integrity_check"); err != nil || state != "ok" {
		b.t.Errorf("integrity_check: %s, %v", state, err)
	}
	whole(b.t, db, int(b.log.Durable()))
}

// TestMariaDBIsCut cuts the connection to MariaDB at any byte of either
// direction, in front of a commit, while it is under way, and behind its effect
// with the reply lost, and kills the server (soak): nothing of the log is lost
// or there twice.
func TestMariaDBIsCut(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	want := times(100, 10_000)
	var server *mariadbtest.Server
	var dsn string
	if want > 1000 {
		server = mariadbtest.Start(t)
		dsn = strings.Replace(server.Schema(t), fmt.Sprintf("tcp(127.0.0.1:%d)", server.Port), "unix("+server.Socket+")", 1)
	} else {
		dsn = mariadbtest.Schema(t)
	}
	_, rest, _ := strings.Cut(dsn, "unix(")
	socket, _, _ := strings.Cut(rest, ")")
	p := mariadbtest.NewCutter(t, r.Uint64(), "unix", socket)
	opt := sqlstore.Options{Kind: sqlstore.MariaDB, DSN: dsn, Now: func() time.Time { return base.Add(time.Hour) }}
	undisturbed := openStore(t, opt)
	opt.DSN = strings.Replace(dsn, socket, p.Socket, 1)
	var s *sqlstore.Store
	eventually(t, func() bool {
		var err error
		s, err = sqlstore.Open(context.Background(), opt)
		return err == nil
	}, func() string { return "open: " + p.String() })
	defer s.Close() //nolint:errcheck // its connections are cut
	log := logtest.NewLog()
	var w *sqlstore.Writer
	for n := 0; p.Sum() < want; n++ {
		if w == nil || r.IntN(10) == 0 { // another process
			w = s.Writer(sqlstore.WriterOptions{Log: log, Node: "node", Epoch: int64(n), Decoder: &protocol.Decoder{}, Batch: someBatch(r)})
		}
		more(log, r)
		if server != nil && r.IntN(want/100) == 0 {
			server.Kill()
			if err := w.Drain(context.Background()); err == nil {
				t.Error("a dead server stored something")
			}
			server.Restart(t)
		}
		deadline := time.Now().Add(2 * time.Minute)
		for err := w.Drain(context.Background()); err != nil; err = w.Drain(context.Background()) {
			if errors.Is(err, sqlstore.ErrFenced) || time.Now().After(deadline) {
				t.Fatalf("after %s: %v", p, err)
			}
		}
	}
	drain(t, undisturbed, log, 1<<40)
	db, err := sqlx.Open("mysql", dsn+"?parseTime=true")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // read only
	whole(t, db, int(log.Durable()))
	t.Logf("%d records, connections cut: %s", log.Durable(), p)
	for _, kind := range mariadbtest.Kinds {
		if p.Of(kind) < want/100 {
			t.Errorf("%s: %d times: the test shows nothing", kind, p.Of(kind))
		}
	}
}
