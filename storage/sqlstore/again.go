package sqlstore

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"gt06/protocol"
	"gt06/storage"
)

// Item is a record of the log and where it ends there.
type Item struct {
	Record storage.Record
	End    storage.Position
}

// Redone is what Again did.
type Redone struct {
	Frames   int // decoded again
	Left     int // frames that left the quarantine
	Remained int // frames that are or stay in quarantine
	Refused  int // frames whose rows the database refuses still
}

// Again decodes records once more and stores what they say today. Rows that are
// there are replaced, so nothing is doubled; a frame that was in quarantine and
// can be decoded now leaves it. The cursor is not touched.
func (s *Store) Again(ctx context.Context, decoder *protocol.Decoder, photos Photos, items []Item) (done Redone, err error) {
	w := &Writer{s: s, decoder: decoder, photos: photos, caps: newCaps(Caps{}), known: map[protocol.IMEI]device{}, touched: map[protocol.IMEI]int64{}, replace: true}
	return w.again(ctx, items)
}

func (w *Writer) again(ctx context.Context, items []Item) (done Redone, err error) {
	done, err = w.redo(ctx, items)
	if err == nil || w.s.d.fault(err) != faultData {
		return done, err
	}
	if len(items) == 1 {
		return Redone{Frames: 1, Refused: 1}, nil
	}
	for _, half := range [][]Item{items[:len(items)/2], items[len(items)/2:]} {
		part, err := w.again(ctx, half)
		done.Frames, done.Left, done.Remained, done.Refused = done.Frames+part.Frames, done.Left+part.Left, done.Remained+part.Remained, done.Refused+part.Refused
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// redo is one transaction of it.
func (w *Writer) redo(ctx context.Context, items []Item) (done Redone, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var b batch
	b.rows.Reset()
	clear(w.touched)
	var good []any
	for i := range items {
		before := len(b.rows.Quarantined)
		w.add(&b, &items[i])
		if len(b.rows.Quarantined) == before {
			good = append(good, int64(items[i].End))
		}
	}
	done = Redone{Frames: b.rows.Frames, Remained: len(b.rows.Quarantined)}
	tx, err := w.s.db.BeginTxx(ctx, nil)
	if err != nil {
		return Redone{}, err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it says so
	if _, _, err := w.apply(ctx, tx, &b.rows); err != nil {
		return Redone{}, err
	}
	if len(good) > 0 {
		query, args, err := sqlx.In("DELETE FROM quarantined_frames WHERE spool_position IN (?)", good)
		if err != nil {
			return Redone{}, err
		}
		res, err := tx.ExecContext(ctx, query, args...)
		if err != nil {
			return Redone{}, fmt.Errorf("empty quarantined_frames: %w", err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return Redone{}, err
		}
		done.Left = int(n)
	}
	return done, tx.Commit()
}

// Quarantined is a row of quarantined_frames.
type Quarantined struct {
	ID         int64            `json:"id"`
	IMEI       string           `json:"imei"` // "": the connection had not logged in
	ReceivedAt time.Time        `json:"received_at"`
	Position   storage.Position `json:"position"`
	Hex        string           `json:"hex"`
	Reason     string           `json:"reason"`
}

// Quarantine returns frames in quarantine, the newest first: one by its id, or
// the last ones when id is 0.
func (s *Store) Quarantine(ctx context.Context, id int64, most int) ([]Quarantined, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rows, err := s.db.QueryxContext(ctx, "SELECT id, imei, received_at, spool_position, frame, reason FROM quarantined_frames WHERE ? = 0 OR id = ? ORDER BY id DESC LIMIT ?", id, id, most)
	if err != nil {
		return nil, s.classify(err)
	}
	defer rows.Close() //nolint:errcheck // Err is asked
	list := []Quarantined{}
	for rows.Next() {
		var q Quarantined
		var imei sql.NullString
		var at any
		var frame []byte
		if err := rows.Scan(&q.ID, &imei, &at, &q.Position, &frame, &q.Reason); err != nil {
			return nil, err
		}
		q.IMEI, q.ReceivedAt, q.Hex = imei.String, moment(at), hex.EncodeToString(frame)
		list = append(list, q)
	}
	return list, errors.Join(rows.Err())
}

// QuarantineReason says how many frames are in quarantine for a reason.
type QuarantineReason struct {
	Reason      string
	Frames      int64
	First, Last string // received, RFC 3339
}

// QuarantineReasons returns the most frequent reasons.
func (s *Store) QuarantineReasons(ctx context.Context) ([]QuarantineReason, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rows, err := s.db.QueryxContext(ctx, "SELECT reason, COUNT(*), MIN(received_at), MAX(received_at) FROM quarantined_frames GROUP BY reason ORDER BY COUNT(*) DESC LIMIT 100")
	if err != nil {
		return nil, s.classify(err)
	}
	defer rows.Close() //nolint:errcheck // Err is asked
	var list []QuarantineReason
	for rows.Next() {
		var r QuarantineReason
		var first, last any
		if err := rows.Scan(&r.Reason, &r.Frames, &first, &last); err != nil {
			return nil, err
		}
		r.First, r.Last = moment(first).Format(time.RFC3339), moment(last).Format(time.RFC3339)
		list = append(list, r)
	}
	return list, s.classify(rows.Err())
}
