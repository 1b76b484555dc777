package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"time"
)

// ErrNoDevice means that devices has no row of an IMEI.
var ErrNoDevice = errors.New("gt06/sqlstore: no such device")

// Position is a row of positions; nil is NULL.
type Position struct {
	Time       time.Time
	ReceivedAt time.Time
	Kind       string
	Valid      bool
	Latitude   *float64
	Longitude  *float64
	Altitude   *float64
	SpeedKMH   *float64
	Course     *float64
	Satellites *int64
	Ignition   *bool
	Alarm      string
	Attributes json.RawMessage
}

// positionPage is how many rows are read at a time.
const positionPage = 1000

// Positions gives each the rows of a device with from <= fix_time < to, by
// time, in pages: nobody who reads slowly holds a connection of the database.
// It returns ErrNoDevice, or the error of each.
func (s *Store) Positions(ctx context.Context, imei string, from, to time.Time, each func([]Position) error) error {
	id, err := s.deviceID(ctx, imei)
	if err != nil {
		return err
	}
	// A page ends with a whole second: the next one begins at the second that
	// was cut.
	for size := positionPage; ; {
		rows, err := s.page(ctx, id, from, to, size)
		if err != nil {
			return s.classify(err)
		}
		if len(rows) < size {
			if len(rows) > 0 {
				return each(rows)
			}
			return nil
		}
		last := rows[len(rows)-1].Time
		whole := slices.IndexFunc(rows, func(p Position) bool { return p.Time.Equal(last) })
		if whole == 0 {
			size *= 2 // a second with more rows than a page
			continue
		}
		if err := each(rows[:whole]); err != nil {
			return err
		}
		from = last
	}
}

func (s *Store) deviceID(ctx context.Context, imei string) (id int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = s.db.GetContext(ctx, &id, "SELECT id FROM devices WHERE imei = ?", imei)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, ErrNoDevice
	}
	return id, s.classify(err)
}

func (s *Store) page(ctx context.Context, id int64, from, to time.Time, most int) ([]Position, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rows, err := s.db.QueryxContext(ctx, `SELECT fix_time, received_at, kind, valid, latitude, longitude, altitude, speed_kmh, course, satellites, ignition, COALESCE(alarm, ''), attributes
		FROM positions WHERE device_id = ? AND fix_time >= ? AND fix_time < ? ORDER BY fix_time, kind, fix_hash LIMIT ?`,
		id, from.UTC().Format(time.DateTime), to.UTC().Format(time.DateTime), most)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err is asked
	var list []Position
	for rows.Next() {
		var p Position
		var at, received any
		var attributes string
		if err := rows.Scan(&at, &received, &p.Kind, &p.Valid, &p.Latitude, &p.Longitude, &p.Altitude, &p.SpeedKMH, &p.Course, &p.Satellites, &p.Ignition, &p.Alarm, &attributes); err != nil {
			return nil, err
		}
		p.Time, p.ReceivedAt, p.Attributes = moment(at), moment(received), json.RawMessage(attributes)
		list = append(list, p)
	}
	return list, rows.Err()
}

// Alarm is a row of alarms.
type Alarm struct {
	IMEI       string
	Time       time.Time
	ReceivedAt time.Time
	Alarm      string
	Code       *int64
	Latitude   *float64
	Longitude  *float64
}

// Alarms returns the last alarms of one device, or of all for "", received at or
// after a time, the oldest first.
func (s *Store) Alarms(ctx context.Context, imei string, since time.Time, most int) ([]Alarm, error) {
	where, args := "a.received_at >= ?", []any{since.UTC().Format("2006-01-02 15:04:05.000000")}
	if imei != "" {
		where, args = where+" AND d.imei = ?", append(args, imei)
	}
	return s.alarms(ctx, where, "a.received_at", append(args, most)...)
}

// RecentAlarms returns the last alarms that happened at or after a time, the
// oldest first. It reads the days since then only: Alarms reads them all,
// because what was received late may have happened long ago.
func (s *Store) RecentAlarms(ctx context.Context, since time.Time, most int) ([]Alarm, error) {
	return s.alarms(ctx, "a.fix_time >= ?", "a.fix_time", since.UTC().Format(time.DateTime), most)
}

func (s *Store) alarms(ctx context.Context, where, order string, args ...any) ([]Alarm, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rows, err := s.db.QueryxContext(ctx, `SELECT d.imei, a.fix_time, a.received_at, a.alarm, a.code, a.latitude, a.longitude
		FROM alarms a JOIN devices d ON d.id = a.device_id WHERE `+where+` ORDER BY `+order+` DESC LIMIT ?`, args...)
	if err != nil {
		return nil, s.classify(err)
	}
	defer rows.Close() //nolint:errcheck // Err is asked
	list := []Alarm{}
	for rows.Next() {
		var a Alarm
		var at, received any
		if err := rows.Scan(&a.IMEI, &at, &received, &a.Alarm, &a.Code, &a.Latitude, &a.Longitude); err != nil {
			return nil, err
		}
		a.Time, a.ReceivedAt = moment(at), moment(received)
		list = append(list, a)
	}
	slices.Reverse(list)
	return list, rows.Err()
}
