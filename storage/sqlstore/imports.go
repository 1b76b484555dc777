package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"gt06/protocol"
	"gt06/storage/event"
)

// Progress is how far an import is; it is kept with the rows.
type Progress struct {
	Last    int64            // key of the last row
	Read    int64            // rows
	Written int64            // rows of positions they became
	There   int64            // whose fix was there already
	Refused map[string]int64 // by reason
}

// Importer brings the history of somebody else's table into positions. It
// belongs to one goroutine.
type Importer struct {
	w        *Writer
	rows     event.Rows
	name     string
	source   string
	oldest   int64 // fixes before it would be dropped soon
	progress Progress
}

// The reasons of the store itself. A database can say anything: what is beyond
// mostReasons is counted together.
const (
	reasonOld    = "older than retention.rows"
	reasonOthers = "refused by the database for other reasons"
	mostReasons  = 20
)

// Importer goes on where an import of a name ended, or begins one. Source is
// what people are shown of it.
func (s *Store) Importer(ctx context.Context, name, source string) (*Importer, error) {
	w := &Writer{
		s: s, caps: newCaps(Caps{Quarantined: math.MaxInt32, Nameless: math.MaxInt32}), known: map[protocol.IMEI]device{}, touched: map[protocol.IMEI]int64{},
	}
	i := &Importer{w: w, name: name, source: source, oldest: s.opt.Now().Add(-s.opt.Retention).Unix()}
	return i, i.resume(ctx)
}

// Progress returns how far it is.
func (i *Importer) Progress() Progress { return i.progress }

// resume reads how far the import is.
func (i *Importer) resume(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	p := Progress{Last: math.MinInt64, Refused: map[string]int64{}}
	var refused string
	err := i.w.s.db.QueryRowxContext(ctx, "SELECT last_key, rows_read, rows_written, rows_there, refused FROM history_imports WHERE name = ?", i.name).
		Scan(&p.Last, &p.Read, &p.Written, &p.There, &refused)
	if errors.Is(err, sql.ErrNoRows) {
		i.progress = p
		return nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(refused), &p.Refused)
	}
	i.progress = p
	return i.w.s.classify(err)
}

// Restart forgets how far the import is: what is there already is found again.
func (i *Importer) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if _, err := i.w.s.db.ExecContext(ctx, "DELETE FROM history_imports WHERE name = ?", i.name); err != nil {
		return i.w.s.classify(err)
	}
	return i.resume(ctx)
}

// Store brings rows over and notes how far it is, in one transaction; rows that
// the database refuses are found by halving. After an error nothing is lost or
// doubled: Importer goes on where the last transaction ended.
func (i *Importer) Store(ctx context.Context, rows []event.Foreign) error {
	const retries = 10
	var err error
	for try := range retries { // the writer of what devices send locks rows of the same tables
		if err = i.commit(ctx, rows); i.w.s.d.fault(err) != faultRetry || errors.Is(err, errMoved) || !sleep(ctx, time.Duration(try+1)*20*time.Millisecond) {
			break
		}
	}
	if err == nil || errors.Is(err, errMoved) || i.w.s.d.fault(err) != faultData {
		return i.w.s.classify(err)
	}
	if len(rows) == 1 {
		rows[0].Refused = "refused by the database: " + err.Error()
		return i.Store(ctx, rows)
	}
	if err := i.Store(ctx, rows[:len(rows)/2]); err != nil {
		return err
	}
	return i.Store(ctx, rows[len(rows)/2:])
}

func (i *Importer) commit(ctx context.Context, rows []event.Foreign) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tx, err := i.w.s.db.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it says so
	if err := i.lock(ctx, tx); err != nil {
		return err
	}
	next := i.progress
	next.Refused = maps.Clone(i.progress.Refused)
	next.Last, next.Read = rows[len(rows)-1].Key, next.Read+int64(len(rows))
	good := make([]*event.Fix, 0, len(rows))
	for j := range rows {
		r := &rows[j]
		if r.Refused == "" && r.Fix.FixTime < i.oldest {
			r.Refused = reasonOld
		}
		if r.Refused == "" {
			good = append(good, &r.Fix)
			continue
		}
		if _, known := next.Refused[r.Refused]; !known && len(next.Refused) >= mostReasons {
			r.Refused = reasonOthers
		}
		next.Refused[r.Refused]++
	}
	have, err := i.there(ctx, tx, good)
	if err != nil {
		return err
	}
	i.rows.Reset()
	clear(i.w.touched)
	for _, f := range good {
		if have.has(f) {
			next.There++
			i.rows.Seen[f.Device] = max(i.rows.Seen[f.Device], f.ReceivedAt)
			continue
		}
		have.add(f.Device, f.FixTime, f.Latitude, f.Longitude)
		i.rows.History(f)
	}
	written := len(i.rows.Positions)
	ids, merged, err := i.w.apply(ctx, tx, &i.rows)
	if err != nil {
		return err
	}
	next.Written, next.There = next.Written+int64(written)-merged, next.There+merged
	if err := i.note(ctx, tx, &next); err != nil {
		return err
	}
	i.w.fail("import.inserted")
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	i.w.learn(ids)
	i.w.judges.put(i.w.judging)
	i.progress = next
	return nil
}

// lock keeps a second import of the same table from going on beside this one.
func (i *Importer) lock(ctx context.Context, tx *sqlx.Tx) error {
	var last int64
	err := tx.QueryRowxContext(ctx, "SELECT last_key FROM history_imports WHERE name = ?"+i.w.s.d.forUpdate(), i.name).Scan(&last)
	if errors.Is(err, sql.ErrNoRows) {
		last = math.MinInt64
		_, err = tx.ExecContext(ctx, "INSERT INTO history_imports (name, source, last_key, refused, updated_at) VALUES (?, ?, ?, '{}', ?)", i.name, i.source, last, i.now())
	}
	if err == nil && last != i.progress.Last {
		return errMoved
	}
	return err
}

func (i *Importer) now() string {
	return i.w.s.opt.Now().UTC().Format("2006-01-02 15:04:05.000000")
}

func (i *Importer) note(ctx context.Context, tx *sqlx.Tx, p *Progress) error {
	refused, err := json.Marshal(p.Refused)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE history_imports SET last_key = ?, rows_read = ?, rows_written = ?, rows_there = ?, refused = ?, updated_at = ? WHERE name = ?",
		p.Last, p.Read, p.Written, p.There, string(refused), i.now(), i.name)
	return err
}

// places are the coordinates that a device has in a second.
type places map[placeKey][][2]float64

type placeKey struct {
	device protocol.IMEI
	second int64
}

// same is how far two copies of a place may be from each other, degrees: tables
// keep fewer digits than frames have. It is a metre.
const same = 1e-5

func (p places) add(device protocol.IMEI, second int64, latitude, longitude float64) {
	k := placeKey{device, second}
	p[k] = append(p[k], [2]float64{latitude, longitude})
}

func (p places) has(f *event.Fix) bool {
	for _, at := range p[placeKey{f.Device, f.FixTime}] {
		if math.Abs(at[0]-f.Latitude) <= same && math.Abs(at[1]-f.Longitude) <= same {
			return true
		}
	}
	return false
}

// there reads which fixes of the same devices and times are in positions: a
// frame that both servers received is not stored twice.
func (i *Importer) there(ctx context.Context, tx *sqlx.Tx, fixes []*event.Fix) (places, error) {
	have := places{}
	span := map[protocol.IMEI][2]int64{}
	var imeis []any
	for _, f := range fixes {
		s, ok := span[f.Device]
		if !ok {
			s = [2]int64{f.FixTime, f.FixTime}
			imeis = append(imeis, f.Device.String())
		}
		span[f.Device] = [2]int64{min(s[0], f.FixTime), max(s[1], f.FixTime)}
	}
	if len(imeis) == 0 {
		return have, nil
	}
	query, args, err := sqlx.In("SELECT id, imei FROM devices WHERE imei IN (?)", imeis)
	if err != nil {
		return nil, err
	}
	var known []struct {
		ID   int64  `db:"id"`
		IMEI string `db:"imei"`
	}
	if err := tx.SelectContext(ctx, &known, query, args...); err != nil {
		return nil, fmt.Errorf("read devices: %w", err)
	}
	const together = 100 // ranges in one question
	for len(known) > 0 {
		n := min(len(known), together)
		ranges, byID := make([]string, 0, n), map[int64]protocol.IMEI{}
		for _, d := range known[:n] {
			imei, err := protocol.ParseIMEI(d.IMEI)
			if err != nil {
				return nil, err
			}
			at := func(t int64) string { return time.Unix(t, 0).UTC().Format(time.DateTime) }
			byID[d.ID] = imei
			ranges = append(ranges, fmt.Sprintf("device_id = %d AND fix_time BETWEEN '%s' AND '%s'", d.ID, at(span[imei][0]), at(span[imei][1])))
		}
		if err := i.read(ctx, tx, strings.Join(ranges, " OR "), byID, have); err != nil {
			return nil, err
		}
		known = known[n:]
	}
	return have, nil
}

func (i *Importer) read(ctx context.Context, tx *sqlx.Tx, where string, byID map[int64]protocol.IMEI, have places) error {
	rows, err := tx.QueryxContext(ctx, "SELECT device_id, fix_time, latitude, longitude FROM positions WHERE latitude IS NOT NULL AND ("+where+")")
	if err != nil {
		return fmt.Errorf("read positions: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err is asked
	for rows.Next() {
		var id int64
		var at any
		var latitude, longitude float64
		if err := rows.Scan(&id, &at, &latitude, &longitude); err != nil {
			return err
		}
		have.add(byID[id], moment(at).Unix(), latitude, longitude)
	}
	return rows.Err()
}
