package sqlstore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
)

// The values of devices.status.
const (
	StatusAllowed     = "allowed"
	StatusQuarantined = "quarantined" // answered and stored, up to Caps.Quarantined rows
	StatusBlocked     = "blocked"     // refused
)

// DeviceChange is what an operator says of one device; nil leaves a column as
// it is.
type DeviceChange struct {
	IMEI      string
	Status    *string
	Name      *string // "": none
	Model     *string // "": none
	UTCOffset *int32  // seconds east of UTC
	OwnOffset bool    // the device's own offset again
}

// Change writes what an operator says of devices, all of it or nothing, and
// registers those that are not there. It returns how many those were.
func (s *Store) Change(ctx context.Context, list []DeviceChange) (registered int, err error) {
	const tries = 5
	ctx, cancel := context.WithTimeout(ctx, 4*timeout)
	defer cancel()
	for range tries { // the writer locks rows of the same table
		registered, err = s.changeAll(ctx, list)
		if err == nil || s.d.fault(err) != faultRetry || !sleep(ctx, 20*time.Millisecond) {
			break
		}
	}
	return registered, s.classify(err)
}

func (s *Store) changeAll(ctx context.Context, list []DeviceChange) (registered int, err error) {
	tx, err := s.db.BeginTxx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it says so
	for i := range list {
		n, err := s.change(ctx, tx, &list[i])
		if err != nil {
			return 0, fmt.Errorf("device %s: %w", list[i].IMEI, err)
		}
		registered += n
	}
	return registered, tx.Commit()
}

func (s *Store) change(ctx context.Context, tx *sqlx.Tx, c *DeviceChange) (registered int, err error) {
	now := s.opt.Now().UTC().Format("2006-01-02 15:04:05.000000")
	// The writer may register the same device at this moment.
	insert := s.d.merge([]byte("INSERT INTO devices (imei, status, created_at, updated_at) VALUES (?, ?, ?, ?)"), "imei", "imei")
	res, err := tx.ExecContext(ctx, string(insert), c.IMEI, StatusAllowed, now, now)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	if err != nil {
		return 0, err
	}
	registered = int(n)
	set, args := []string{"updated_at = ?"}, []any{now}
	text := func(column string, v *string) {
		switch {
		case v == nil:
		case *v == "":
			set = append(set, column+" = NULL")
		default:
			set, args = append(set, column+" = ?"), append(args, *v)
		}
	}
	text("status", c.Status)
	text("name", c.Name)
	text("model", c.Model)
	switch {
	case c.OwnOffset:
		set = append(set, "utc_offset_s = NULL")
	case c.UTCOffset != nil:
		set, args = append(set, "utc_offset_s = ?"), append(args, *c.UTCOffset)
	}
	_, err = tx.ExecContext(ctx, "UPDATE devices SET "+strings.Join(set, ", ")+" WHERE imei = ?", append(args, c.IMEI)...)
	return registered, err
}
