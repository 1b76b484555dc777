package bench

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sys/unix"

	"gt06/protocol/device"
	"gt06/server/control"
	"gt06/storage"
	"gt06/storage/spool"
)

// schema makes an empty schema and returns its name and the way to end it.
func (b *bench) schema() (db *sql.DB, name string, drop func(), err error) {
	db, err = sql.Open("mysql", "root@unix("+b.opt.Socket+")/?multiStatements=false")
	if err != nil {
		return nil, "", nil, err
	}
	name = fmt.Sprintf("gt06_bench_%d", time.Now().UnixNano())
	if _, err := db.ExecContext(b.ctx, "CREATE DATABASE "+name); err != nil {
		return nil, "", nil, errors.Join(err, db.Close())
	}
	return db, name, func() {
		_, _ = db.ExecContext(context.WithoutCancel(b.ctx), "DROP DATABASE "+name)
		_ = db.Close()
	}, nil
}

func (b *bench) dsn(schema string) []string {
	return []string{"--store", "mariadb", "--dsn", "root@unix(" + b.opt.Socket + ")/" + schema}
}

// durably compares the whole server, which answers after fdatasync while the
// rows keep pace in MariaDB, with itself without log and database, and with the
// C reference. A run counts until its last row is committed.
func (b *bench) durably() error {
	if b.opt.Socket == "" {
		b.say("no MariaDB: --mariadb names none")
		return nil
	}
	d := time.Duration(b.pick(6000, 1000)) * time.Millisecond
	const devices = 1000
	var whole, kept, bare, floor []float64
	var spent string
	for range b.pick(5, 1) {
		g, rows, err := b.rowsKeepPace(devices, d)
		if err != nil {
			return err
		}
		whole, kept, spent = append(whole, g.perSecond), append(kept, rows), g.spent
		if g, err = b.loop(b.bare, devices, 0, d/2); err != nil {
			return err
		}
		bare = append(bare, g.perSecond)
		if b.newReference != nil {
			if g, err = b.loop(b.newReference, devices, 0, d/2); err != nil {
				return err
			}
			floor = append(floor, g.perSecond)
		}
	}
	b.durable = median(whole)
	ratio := median(kept) / median(bare)
	b.note(Figure{Name: "durable frames a second, answered", Value: median(whole), Unit: "/s", Reference: "without log and database", Beside: median(bare)})
	b.note(Figure{Name: "durable frames a second, rows in MariaDB", Value: median(kept), Unit: "/s", Reference: "without log and database", Beside: median(bare), Goal: ">= 0.8 x", Met: atLeast(ratio, .8), Note: spent})
	if len(floor) > 0 {
		b.note(Figure{Name: "the same, beside C", Value: median(kept), Unit: "/s", Reference: "C, epoll only", Beside: median(floor)})
	}
	return nil
}

func (b *bench) rowsKeepPace(devices int, d time.Duration) (g one, rows float64, err error) {
	_, name, drop, err := b.schema()
	if err != nil {
		return g, 0, err
	}
	defer drop()
	t, err := b.full("", b.dsn(name)...)
	if err != nil {
		return g, 0, err
	}
	defer t.stop()
	if err := b.caughtUp(t); err != nil {
		return g, 0, err
	}
	maria, err := b.database()
	if err != nil {
		return g, 0, err
	}
	begin, server, database, own := time.Now(), t.cpu(), used(maria), used(os.Getpid())
	if g, err = b.drive(t, devices, 0, d); err != nil {
		return g, 0, err
	}
	frames := g.perSecond * d.Seconds()
	if err := b.caughtUp(t); err != nil {
		return g, 0, err
	}
	took := time.Since(begin).Seconds()
	each := func(seconds float64) string { return round(seconds * 1e6 / frames) }
	g.spent = fmt.Sprintf("processor time a frame: server %s, MariaDB %s, devices %s of %s us on %d cores",
		each(t.cpu()-server), each(used(maria)-database), each(used(os.Getpid())-own), each(took*float64(runtime.NumCPU())), runtime.NumCPU())
	return g, frames / took, nil
}

// database returns the process behind the socket.
func (b *bench) database() (pid int, err error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: b.opt.Socket})
	if err != nil {
		return 0, err
	}
	defer conn.Close() //nolint:errcheck // nothing was said
	peer, err := control.Peer(conn)
	if err != nil {
		return 0, err
	}
	return int(peer.Pid), nil
}

// caughtUp waits until all that is in the log is in the database.
func (b *bench) caughtUp(t *target) error {
	var last error
	err := b.until(10*time.Minute, "the database has all rows", func() bool {
		lag, err := t.lag(b.ctx)
		last = err
		return err == nil && lag == 0
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// latency sends at half of what the whole server can do, whatever it does, and
// compares the answers' p99 with that of fdatasync alone on the same disk.
func (b *bench) latency() error {
	rate, args := b.durable/2, []string(nil)
	if b.opt.Socket != "" {
		_, name, drop, err := b.schema()
		if err != nil {
			return err
		}
		defer drop()
		args = b.dsn(name)
	}
	const devices = 1000
	if rate == 0 {
		t, err := b.full("", args...)
		if err != nil {
			return err
		}
		g, err := b.drive(t, devices, 0, 2*time.Second)
		t.stop()
		if err != nil {
			return err
		}
		rate = g.perSecond / 2
	}
	var ours, raw, alone, p50, p999 []float64
	d := time.Duration(b.pick(8000, 1000)) * time.Millisecond
	for range b.pick(7, 1) {
		p99, err := b.fdatasync()
		if err != nil {
			return err
		}
		raw = append(raw, p99)
		waits, err := b.waits(devices, rate, d, args...)
		if err != nil {
			return err
		}
		ours, p50, p999 = append(ours, percentile(waits, .99)), append(p50, percentile(waits, .5)), append(p999, percentile(waits, .999))
		if waits, err = b.waits(devices, rate, d/2, noDatabase...); err != nil {
			return err
		}
		alone = append(alone, percentile(waits, .99))
	}
	limit, sync := 2*median(raw)+5, round(median(raw))
	const reference, goal = "2 x fdatasync p99 + 5 ms", "<= 1 x"
	b.note(Figure{
		Name: "answer p99, open loop at half of saturation", Value: median(ours), Unit: "ms", Reference: reference, Beside: limit, Goal: goal, Met: atMost(median(ours), limit),
		Note: fmt.Sprintf("%s frames/s; p50 %s, p99.9 %s ms; fdatasync p99 %s ms", round(rate), round(median(p50)), round(median(p999)), sync),
	})
	b.note(Figure{
		Name: "the same, durable, the database away", Value: median(alone), Unit: "ms", Reference: reference, Beside: limit, Goal: goal, Met: atMost(median(alone), limit),
		Note: "what the database takes of the same cores and disk is the difference",
	})
	return nil
}

// waits returns how long each answer took, in ms, of devices that send at a
// rate.
func (b *bench) waits(devices int, rate float64, d time.Duration, args ...string) ([]float32, error) {
	t, err := b.full("", args...)
	if err != nil {
		return nil, err
	}
	defer t.stop()
	l, err := b.paced(t, devices, rate, d)
	if err != nil {
		return nil, err
	}
	return l.waits, nil
}

func (b *bench) paced(t *target, devices int, rate float64, d time.Duration) (*load, error) {
	l, err := newLoad(t.addr, devices)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if _, err := l.connect(256); err != nil {
		return nil, err
	}
	return l, l.pace(rate, d)
}

// fdatasync returns the p99 of appending 4 KiB and syncing it, in ms.
func (b *bench) fdatasync() (float64, error) {
	f, err := os.CreateTemp(b.dir, "sync-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // a temporary file
	defer f.Close()           //nolint:errcheck // a temporary file
	var ms []float32
	page := make([]byte, 4096)
	for range b.pick(2000, 200) {
		begin := time.Now()
		if _, err := f.Write(page); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		ms = append(ms, float32(time.Since(begin).Microseconds())/1000)
	}
	return percentile(ms, .99), nil
}

// rows drains a full log into MariaDB and then lets the database load the same
// rows from text, in transactions of the size it likes best.
func (b *bench) rows() error {
	if b.opt.Socket == "" {
		return nil
	}
	n := b.pick(800_000, 40_000)
	var ours, theirs []float64
	for range b.pick(3, 1) {
		o, l, err := b.drained(n)
		if err != nil {
			return err
		}
		ours, theirs = append(ours, o), append(theirs, l)
	}
	b.note(Figure{
		Name: "rows a second from a full log", Value: median(ours), Unit: "/s", Reference: "LOAD DATA of the same rows", Beside: median(theirs),
		Goal: ">= 0.8 x", Met: atLeast(median(ours)/median(theirs), .8),
	})
	return nil
}

func (b *bench) drained(n int) (ours, theirs float64, err error) {
	db, name, drop, err := b.schema()
	if err != nil {
		return 0, 0, err
	}
	defer drop()
	dir, err := os.MkdirTemp(b.dir, "rows-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	if err := fillFixes(filepath.Join(dir, "spool"), n, 1000, time.Now().Add(-24*time.Hour), time.Second); err != nil {
		return 0, 0, err
	}
	took, err := b.drain(dir, name)
	if err != nil {
		return 0, 0, err
	}
	var have int
	if err := db.QueryRowContext(b.ctx, "SELECT COUNT(*) FROM "+name+".positions").Scan(&have); err != nil || have != n {
		return 0, 0, fmt.Errorf("%d of %d rows: %w", have, n, err)
	}
	load, err := b.loadData(db, name)
	return float64(n) / took.Seconds(), float64(n) / load.Seconds(), err
}

// drain starts a server over a log and returns how long it took from the first
// row to the last.
func (b *bench) drain(dir, schema string) (time.Duration, error) {
	begin := time.Now()
	t, err := b.full(dir, append(b.dsn(schema), "--keeper", "off")...)
	if err != nil {
		return 0, err
	}
	t.dir = "" // the caller's
	defer t.stop()
	err = b.caughtUp(t)
	return time.Since(begin), err
}

// fillFixes writes a log of n fixes of devices, in the order of time, each
// device's steps apart.
func fillFixes(dir string, n, devices int, from time.Time, apart time.Duration) error {
	w, err := spool.Open(spool.Options{Dir: dir, MaxBytes: 16 << 30, MinFree: 1, Retention: 1000 * time.Hour})
	if err != nil {
		return err
	}
	batch := make([]*storage.Record, 0, 500)
	for i := range n {
		dev, step := i%devices, i/devices
		at := from.Add(time.Duration(step) * apart)
		f := device.Build(device.Location, dev, step, at)
		batch = append(batch, &storage.Record{
			Conn: 1<<40 | uint64(dev+1), InputEnd: uint64(step+1) * uint64(len(f.Bytes)), ReceivedAt: at.UnixMicro(), Device: device.IMEI(dev), Input: f.Bytes,
		})
		if len(batch) == cap(batch) || i == n-1 {
			if _, err := w.Append(batch); err != nil {
				return errors.Join(err, w.Close())
			}
			batch = batch[:0]
		}
	}
	return w.Close()
}

// loadData times LOAD DATA of the rows of positions into a table like it.
func (b *bench) loadData(db *sql.DB, schema string) (time.Duration, error) {
	const portion = 4000
	rows, err := db.QueryContext(b.ctx, "SELECT * FROM "+schema+".positions ORDER BY received_at")
	if err != nil {
		return 0, err
	}
	defer rows.Close() //nolint:errcheck // Err is asked
	columns, err := rows.Columns()
	if err != nil {
		return 0, err
	}
	values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	escape := strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`)
	var parts []*bytes.Buffer
	for k := 0; rows.Next(); k++ {
		if k%portion == 0 {
			parts = append(parts, &bytes.Buffer{})
		}
		if err := rows.Scan(into...); err != nil {
			return 0, err
		}
		part := parts[len(parts)-1]
		for i := range values {
			text := `\N`
			if values[i].Valid {
				text = escape.Replace(values[i].String)
			}
			part.WriteString(text)
			part.WriteByte("\t\n"[boolean(i == len(values)-1)])
		}
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	for _, q := range []string{"SET SESSION time_zone = '+00:00'", "CREATE TABLE " + schema + ".loaded LIKE " + schema + ".positions"} {
		if _, err := db.ExecContext(b.ctx, q); err != nil {
			return 0, err
		}
	}
	begin := time.Now()
	for _, part := range parts {
		mysql.RegisterReaderHandler("part", func() io.Reader { return part })
		if _, err := db.ExecContext(b.ctx, "LOAD DATA LOCAL INFILE 'Reader::part' INTO TABLE "+schema+".loaded CHARACTER SET utf8mb4 ("+strings.Join(columns, ", ")+")"); err != nil {
			return 0, err
		}
	}
	took := time.Since(begin)
	var missing int
	err = db.QueryRowContext(b.ctx, "SELECT (SELECT COUNT(*) FROM "+schema+".positions) - (SELECT COUNT(*) FROM "+schema+".loaded)").Scan(&missing)
	if err == nil && missing != 0 {
		err = fmt.Errorf("LOAD DATA left out %d rows", missing)
	}
	return took, err
}

func boolean(v bool) int {
	if v {
		return 1
	}
	return 0
}
