package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"gt06/protocol"
	"gt06/storage"
	"gt06/storage/event"
)

// cursor is where a log stands in the database.
type cursor struct {
	Epoch    int64 `db:"epoch"`
	Position int64 `db:"position"`
}

// errMoved: the cursor in the database is not where the writer believes: a
// commit went through whose reply was lost, or an older database was restored.
var errMoved = errors.New("gt06/sqlstore: the cursor moved")

// statement is rows for a table.
type statement struct {
	table, columns string
	key, column    string // for rows that may be there already
	loadable       bool   // it may have many rows, and none is binary
	rows           int
	fill           func(v *values, row int)
}

// commit writes rows and cursor in one transaction. Nothing of it is there
// after an error, or all of it when the reply to the commit was lost; the
// cursor tells.
func (w *Writer) commit(ctx context.Context, rows *event.Rows, end storage.Position) (merged int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tx, err := w.s.db.BeginTxx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it says so
	have, err := w.lock(ctx, tx)
	if err != nil {
		return 0, err
	}
	if have.Position != int64(w.position) {
		w.moved = storage.Position(have.Position)
		return 0, errMoved
	}
	ids, merged, err := w.apply(ctx, tx, rows)
	if err != nil {
		return 0, err
	}
	w.fail("store.inserted")
	res, err := tx.ExecContext(ctx, "UPDATE ingest_cursors SET epoch = ?, position = ?, merged = merged + ? WHERE node = ? AND shard = 0 AND epoch = ? AND position = ?",
		w.epoch, int64(end), merged, w.node, have.Epoch, have.Position)
	if err != nil {
		return 0, fmt.Errorf("update cursor: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return 0, fmt.Errorf("update cursor: %d rows, want 1: %w", n, errors.Join(err, ErrFenced))
	}
	if err := tx.Commit(); err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	w.fail("store.committed")
	w.learn(ids)
	w.caps.commit()
	w.judges.put(w.judging)
	return merged, nil
}

// apply writes the rows and returns the ids of their devices, and how many rows
// were there already.
func (w *Writer) apply(ctx context.Context, tx *sqlx.Tx, rows *event.Rows) (ids map[protocol.IMEI]int64, merged int64, err error) {
	if ids, err = w.devices(ctx, tx, rows); err != nil {
		return nil, 0, err
	}
	if !w.replace { // an operator asks for a replay
		if err := w.caps.apply(ctx, tx, rows, ids); err != nil {
			return nil, 0, err
		}
	}
	for _, st := range w.statements(rows, ids) {
		n, err := w.insert(ctx, tx, &st)
		if err != nil {
			return nil, 0, fmt.Errorf("insert into %s: %w", st.table, err)
		}
		merged += int64(st.rows) - n
	}
	for i := range rows.Replies {
		if err := w.reply(ctx, tx, &rows.Replies[i], ids[rows.Replies[i].Device]); err != nil {
			return nil, 0, fmt.Errorf("complete device_commands: %w", err)
		}
	}
	if err := w.latest(ctx, tx, rows, ids); err != nil {
		return nil, 0, fmt.Errorf("update latest_positions: %w", err)
	}
	return ids, merged, nil
}

// Cursor returns how far the log of a node is in the database, and under which
// epoch; zeros for one that is not known.
func (s *Store) Cursor(ctx context.Context, node string) (epoch int64, pos storage.Position, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var have cursor
	err = s.db.GetContext(ctx, &have, "SELECT epoch, position FROM ingest_cursors WHERE node = ? AND shard = 0", node)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return have.Epoch, storage.Position(have.Position), s.classify(err)
}

// lock reads the cursor and keeps others from moving it. An older epoch than
// ours is taken over, a newer one fences us. Taking over is a write of its own:
// its commit also makes certain what a process that was killed had written to
// SQLite and not synced, before the log hears that it need not keep it.
func (w *Writer) lock(ctx context.Context, tx *sqlx.Tx) (cursor, error) {
	var have cursor
	err := tx.GetContext(ctx, &have, "SELECT epoch, position FROM ingest_cursors WHERE node = ? AND shard = 0"+w.s.d.forUpdate(), w.node)
	if errors.Is(err, sql.ErrNoRows) {
		_, err = tx.ExecContext(ctx, "INSERT INTO ingest_cursors (node, shard, epoch, position) VALUES (?, 0, ?, 0)", w.node, w.epoch)
		have = cursor{Epoch: w.epoch}
	}
	if err != nil {
		return have, fmt.Errorf("read cursor: %w", err)
	}
	if have.Epoch > w.epoch {
		return have, fmt.Errorf("%w: epoch %d, ours is %d", ErrFenced, have.Epoch, w.epoch)
	}
	if have.Epoch < w.epoch {
		if _, err := tx.ExecContext(ctx, "UPDATE ingest_cursors SET epoch = ? WHERE node = ? AND shard = 0", w.epoch, w.node); err != nil {
			return have, fmt.Errorf("take the cursor over: %w", err)
		}
		have.Epoch = w.epoch
	}
	return have, nil
}

// devices returns the ids of all devices in rows: unknown ones are registered,
// and last_seen_at is written when it is older than seenEvery.
func (w *Writer) devices(ctx context.Context, tx *sqlx.Tx, rows *event.Rows) (map[protocol.IMEI]int64, error) {
	type visit struct {
		id   int64 // 0: not known yet
		imei protocol.IMEI
		seen int64
	}
	ids := make(map[protocol.IMEI]int64, len(rows.Seen))
	var visits []visit
	var unknown []any
	for imei, seen := range rows.Seen {
		known, ok := w.known[imei]
		if ok {
			ids[imei] = known.id
			if seen-known.written < seenEvery.Microseconds() {
				continue
			}
		} else {
			unknown = append(unknown, imei.String())
		}
		visits = append(visits, visit{known.id, imei, seen})
		w.touched[imei] = seen
	}
	slices.SortFunc(visits, func(a, b visit) int { return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.imei, b.imei)) })
	now := w.s.opt.Now().UnixMicro()
	status := StatusAllowed
	if w.confirm != nil && w.confirm() {
		status = StatusQuarantined
	}
	st := statement{table: "devices", columns: "id, imei, status, first_seen_at, last_seen_at, created_at, updated_at", rows: len(visits), fill: func(v *values, i int) {
		d := &visits[i]
		v.open()
		if d.id == 0 {
			v.null()
		} else {
			v.int(d.id) // MariaDB finds a row by its id at half the cost of its IMEI
		}
		v.text(d.imei.String())
		v.text(status)
		v.micros(d.seen)
		v.micros(d.seen)
		v.micros(now)
		v.micros(now)
		v.close()
	}}
	if _, err := w.literal(ctx, tx, &st, w.s.d.touch); err != nil {
		return nil, fmt.Errorf("register devices: %w", err)
	}
	if len(unknown) == 0 {
		return ids, nil
	}
	query, args, err := sqlx.In("SELECT id, imei, status FROM devices WHERE imei IN (?)", unknown)
	if err != nil {
		return nil, err
	}
	var found []struct {
		ID     int64  `db:"id"`
		IMEI   string `db:"imei"`
		Status string `db:"status"`
	}
	if err := tx.SelectContext(ctx, &found, query, args...); err != nil {
		return nil, fmt.Errorf("read devices: %w", err)
	}
	for _, f := range found {
		imei, err := protocol.ParseIMEI(f.IMEI)
		if err != nil {
			return nil, err
		}
		ids[imei] = f.ID
		if f.Status == StatusQuarantined {
			w.caps.hold(imei)
		} else {
			delete(w.caps.held, imei)
		}
	}
	return ids, nil
}

func (w *Writer) statements(rows *event.Rows, ids map[protocol.IMEI]int64) []statement {
	const byReceipt = "device_id, received_at, spool_position"
	return []statement{
		{"positions", "device_id, " + positionColumns, "device_id, fix_time, kind, fix_hash", "device_id", true, len(rows.Positions), func(v *values, i int) {
			v.position(ids[rows.Positions[i].Device], &rows.Positions[i])
		}},
		{"alarms", "device_id, fix_time, alarm, code, received_at, latitude, longitude, fix_hash", "device_id, fix_time, alarm, fix_hash", "device_id", true, len(rows.Alarms), func(v *values, i int) {
			v.alarm(ids[rows.Alarms[i].Device], &rows.Alarms[i])
		}},
		{"heartbeats", byReceipt + ", ignition, charging, blocked, battery_level, rssi, attributes", byReceipt, "device_id", true, len(rows.Heartbeats), func(v *values, i int) {
			v.heartbeat(ids[rows.Heartbeats[i].Device], &rows.Heartbeats[i])
		}},
		{"device_events", byReceipt + ", kind, attributes", byReceipt, "device_id", true, len(rows.Events), func(v *values, i int) {
			v.event(ids[rows.Events[i].Device], &rows.Events[i])
		}},
		{"device_commands", "device_id, command, requested_by, flag, sent_at, spool_position", "device_id, sent_at, spool_position", "device_id", false, len(rows.Commands), func(v *values, i int) {
			v.command(ids[rows.Commands[i].Device], &rows.Commands[i])
		}},
		{"quarantined_frames", "imei, received_at, spool_position, frame, reason", "received_at, spool_position", "reason", false, len(rows.Quarantined), func(v *values, i int) {
			v.quarantined(&rows.Quarantined[i])
		}},
	}
}

// insert returns how many rows are new; the others were there already.
func (w *Writer) insert(ctx context.Context, tx *sqlx.Tx, st *statement) (int64, error) {
	if w.loads(st) {
		return w.loadData(ctx, tx, st)
	}
	return w.literal(ctx, tx, st, func(dst []byte) []byte {
		if w.replace {
			return w.s.d.replace(dst, st.key, strings.Split(st.columns, ", "))
		}
		return w.s.d.merge(dst, st.key, st.column)
	})
}

// literal writes rows as literals, a thousand in a statement: the database
// needs a multiple of its text in memory. It returns how many rows are affected.
func (w *Writer) literal(ctx context.Context, tx *sqlx.Tx, st *statement, end func(dst []byte) []byte) (affected int64, err error) {
	const most = 1000
	for row := 0; row < st.rows; {
		v := values{d: w.s.d, dst: fmt.Appendf(w.sql[:0], "INSERT INTO %s (%s) VALUES ", st.table, st.columns)}
		for stop := min(row+most, st.rows); row < stop; row++ {
			st.fill(&v, row)
		}
		w.sql = end(v.dst[:len(v.dst)-1])
		res, err := tx.ExecContext(ctx, string(w.sql))
		if err != nil {
			return 0, err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return 0, err
		}
		affected += n
	}
	return affected, nil
}

// replyWithin is how long after a command a reply without its flag is taken for
// the reply to it.
const replyWithin = 10 * time.Minute

// reply completes the row of the command that was answered: the one with its
// flag, else the oldest that still waits, because some firmwares send zeros.
func (w *Writer) reply(ctx context.Context, tx *sqlx.Tx, r *event.Reply, device int64) error {
	at := func(t int64) string { return time.UnixMicro(t).UTC().Format("2006-01-02 15:04:05.000000") }
	const open = "SELECT id FROM device_commands WHERE device_id = ? AND reply IS NULL AND sent_at <= ? AND "
	var done int
	if err := tx.GetContext(ctx, &done, "SELECT COUNT(*) FROM device_commands WHERE device_id = ? AND replied_at = ?", device, at(r.ReceivedAt)); err != nil || done > 0 {
		return err // the log is read again
	}
	var id int64
	err := tx.GetContext(ctx, &id, open+"flag = ? ORDER BY sent_at LIMIT 1", device, at(r.ReceivedAt), r.Flag)
	if errors.Is(err, sql.ErrNoRows) {
		err = tx.GetContext(ctx, &id, open+"sent_at >= ? ORDER BY sent_at LIMIT 1", device, at(r.ReceivedAt), at(r.ReceivedAt-replyWithin.Microseconds()))
	}
	if errors.Is(err, sql.ErrNoRows) {
		return nil // nobody asked: it is in device_events
	}
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE device_commands SET reply = ?, replied_at = ? WHERE id = ?", r.Text, at(r.ReceivedAt), id)
	return err
}

// latest moves latest_positions to the newest row of each device that may be
// the latest: what cannot be is kept in positions only.
func (w *Writer) latest(ctx context.Context, tx *sqlx.Tx, rows *event.Rows, ids map[protocol.IMEI]int64) error {
	judges, err := w.judge(ctx, tx, rows, ids)
	if err != nil {
		return err
	}
	newest := map[protocol.IMEI]*event.Position{}
	for i := range rows.Positions {
		p := &rows.Positions[i]
		if p.Believed = judges[p.Device].Look(p); !p.Believed {
			continue
		}
		// The dialects' newest says the same of the row in the database.
		if old := newest[p.Device]; old == nil || p.FixTime >= old.FixTime || !p.Archived && old.FixTime > p.ReceivedAt/1e6 {
			newest[p.Device] = p
		}
	}
	w.judging = judges
	// In the order of their ids, so that two writers do not wait for each other.
	list := slices.SortedFunc(maps.Values(newest), func(a, b *event.Position) int { return cmp.Compare(ids[a.Device], ids[b.Device]) })
	st := statement{table: "latest_positions", columns: "device_id, " + positionColumns, rows: len(list), fill: func(v *values, i int) {
		v.position(ids[list[i].Device], list[i])
	}}
	_, err = w.literal(ctx, tx, &st, func(dst []byte) []byte { return w.s.d.newest(dst, "device_id", latestColumns) })
	return err
}

// judge returns copies of the judges of the devices in rows: they count once
// the transaction does.
func (w *Writer) judge(ctx context.Context, tx *sqlx.Tx, rows *event.Rows, ids map[protocol.IMEI]int64) (map[protocol.IMEI]*event.Judge, error) {
	copies := map[protocol.IMEI]*event.Judge{}
	byID := map[int64]*event.Judge{}
	var unknown []any
	for i := range rows.Positions {
		imei := rows.Positions[i].Device
		if copies[imei] != nil {
			continue
		}
		known, ok := w.judges.get(imei)
		copies[imei] = &known
		if !ok {
			byID[ids[imei]] = &known
			unknown = append(unknown, ids[imei])
		}
	}
	if len(unknown) == 0 {
		return copies, nil
	}
	query, args, err := sqlx.In("SELECT device_id, latitude, longitude, fix_time FROM latest_positions WHERE latitude IS NOT NULL AND device_id IN (?)", unknown)
	if err != nil {
		return nil, err
	}
	found, err := tx.QueryxContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read latest_positions: %w", err)
	}
	defer found.Close() //nolint:errcheck // Err is asked
	for found.Next() {
		var id int64
		var latitude, longitude float64
		var at any
		if err := found.Scan(&id, &latitude, &longitude, &at); err != nil {
			return nil, err
		}
		byID[id].Known(latitude, longitude, moment(at).Unix())
	}
	return copies, found.Err()
}
