package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

// Device is a row of devices with where it was last.
type Device struct {
	IMEI      string
	Name      string
	Model     string
	UTCOffset *int32 // seconds; the operator's
	Status    string
	LastSeen  time.Time // zero: never
	FixTime   time.Time // of latest_positions; zero: none
	HasFix    bool      // the row has a place
	Latitude  float64
	Longitude float64
	SpeedKMH  float64
	Course    float64
}

// EachDevice calls do with every device, by IMEI. The device is the next call's,
// too; those of a model, or of a status, share the string: who keeps all of them
// keeps few.
func (s *Store) EachDevice(ctx context.Context, do func(*Device)) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rows, err := s.db.QueryxContext(ctx, `SELECT d.imei, d.name, d.model, d.utc_offset_s, d.status, d.last_seen_at, l.received_at, l.fix_time, l.latitude, l.longitude, l.speed_kmh, l.course
		FROM devices d LEFT JOIN latest_positions l ON l.device_id = d.id ORDER BY d.imei`)
	if err != nil {
		return s.classify(err)
	}
	defer rows.Close() //nolint:errcheck // Err is asked
	words := map[string]string{}
	shared := func(word string) string {
		if _, known := words[word]; !known {
			words[word] = word
		}
		return words[word]
	}
	var d Device
	var name, model sql.NullString
	var offset sql.NullInt32
	var seen, received, fix any
	var latitude, longitude, speed, course sql.NullFloat64
	for rows.Next() {
		if err := rows.Scan(&d.IMEI, &name, &model, &offset, &d.Status, &seen, &received, &fix, &latitude, &longitude, &speed, &course); err != nil {
			return err
		}
		d.Name, d.Model, d.Status, d.UTCOffset = name.String, shared(model.String), shared(d.Status), nil
		if offset.Valid {
			d.UTCOffset = new(offset.Int32)
		}
		d.LastSeen, d.FixTime = moment(seen), moment(fix)
		if at := moment(received); at.After(d.LastSeen) { // last_seen_at is written rarely
			d.LastSeen = at
		}
		d.HasFix = latitude.Valid && longitude.Valid
		d.Latitude, d.Longitude, d.SpeedKMH, d.Course = latitude.Float64, longitude.Float64, speed.Float64, course.Float64
		do(&d)
	}
	return rows.Err()
}

// LastFix returns how fast a device was at its last fix, and when that was. ok
// is false when there is none.
func (s *Store) LastFix(ctx context.Context, imei string) (kmh float64, at time.Time, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var speed sql.NullFloat64
	var fix any
	err = s.db.QueryRowxContext(ctx, "SELECT l.speed_kmh, l.fix_time FROM latest_positions l JOIN devices d ON d.id = l.device_id WHERE d.imei = ?", imei).Scan(&speed, &fix)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, at, false, nil
	}
	return speed.Float64, moment(fix), err == nil && speed.Valid, s.classify(err)
}

// Command is a row of device_commands.
type Command struct {
	IMEI      string `json:"imei"`
	Command   string `json:"command"`
	By        string `json:"requested_by"` // "": nobody knows
	Flag      uint32 `json:"flag"`
	SentAt    string `json:"sent_at"`
	Reply     string `json:"reply"`
	RepliedAt string `json:"replied_at"` // "": not yet
}

// Sent says whether a command with a flag was sent to a device.
func (s *Store) Sent(ctx context.Context, imei string, flag uint32) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var n int
	err := s.db.GetContext(ctx, &n, "SELECT COUNT(*) FROM device_commands c JOIN devices d ON d.id = c.device_id WHERE d.imei = ? AND c.flag = ?", imei, flag)
	return n > 0, s.classify(err)
}

// Commands returns what was sent to a device, the newest first.
func (s *Store) Commands(ctx context.Context, imei string, most int) ([]Command, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	rows, err := s.db.QueryxContext(ctx, `SELECT d.imei, c.command, COALESCE(c.requested_by, ''), c.flag, c.sent_at, c.reply, c.replied_at FROM device_commands c JOIN devices d ON d.id = c.device_id
		WHERE d.imei = ? ORDER BY c.sent_at DESC, c.id DESC LIMIT ?`, imei, most)
	if err != nil {
		return nil, s.classify(err)
	}
	defer rows.Close() //nolint:errcheck // Err is asked
	list := []Command{}
	for rows.Next() {
		var c Command
		var sent, replied any
		var reply sql.NullString
		if err := rows.Scan(&c.IMEI, &c.Command, &c.By, &c.Flag, &sent, &reply, &replied); err != nil {
			return nil, err
		}
		c.Reply = reply.String
		if t := moment(sent); !t.IsZero() {
			c.SentAt = t.Format(time.RFC3339)
		}
		if t := moment(replied); !t.IsZero() {
			c.RepliedAt = t.Format(time.RFC3339)
		}
		list = append(list, c)
	}
	return list, rows.Err()
}

// moment reads a time column: MariaDB gives times, SQLite text.
func moment(v any) time.Time {
	switch v := v.(type) {
	case time.Time:
		return v.UTC()
	case []byte:
		return moment(string(v))
	case string:
		t, err := time.Parse(time.DateTime, v) // with a fraction or without
		if err != nil {
			return time.Time{}
		}
		return t
	}
	return time.Time{}
}

// Stored is one row of a table, as far as a ledger can be compared with it.
type Stored struct {
	Table     string    `json:"table"`
	IMEI      string    `json:"imei"`
	Kind      string    `json:"kind,omitempty"`
	Time      time.Time `json:"time"`
	Protocol  int       `json:"protocol,omitempty"`
	Serial    int       `json:"serial,omitempty"`
	Latitude  float64   `json:"latitude,omitempty"`
	Longitude float64   `json:"longitude,omitempty"`
	SpeedKMH  float64   `json:"speed_kmh,omitempty"`
	Course    float64   `json:"course,omitempty"`
	Alarm     string    `json:"alarm,omitempty"`
}

// Rows returns what is stored of devices, received at or after a time.
func (s *Store) Rows(ctx context.Context, imeis []string, since time.Time) ([]Stored, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*timeout)
	defer cancel()
	var all []Stored
	const step = 500
	for len(imeis) > 0 {
		part := imeis[:min(len(imeis), step)]
		imeis = imeis[len(part):]
		for _, q := range []struct{ table, columns, time string }{
			{"positions", "t.kind, t.fix_time, t.protocol, t.serial, t.latitude, t.longitude, t.speed_kmh, t.course, t.alarm", "received_at"},
			{"alarms", "'', t.fix_time, 0, 0, t.latitude, t.longitude, 0, 0, t.alarm", "received_at"},
			{"heartbeats", "'', t.received_at, 0, 0, 0, 0, 0, 0, ''", "received_at"},
			{"device_events", "t.kind, t.received_at, 0, 0, 0, 0, 0, 0, ''", "received_at"},
			{"quarantined_frames", "'', t.received_at, 0, 0, 0, 0, 0, 0, ''", "received_at"},
		} {
			from := " FROM " + q.table + " t JOIN devices d ON d.id = t.device_id"
			if q.table == "quarantined_frames" {
				from = " FROM quarantined_frames t JOIN devices d ON d.imei = t.imei"
			}
			query, args, err := sqlx.In("SELECT d.imei, "+q.columns+from+" WHERE d.imei IN (?) AND t."+q.time+" >= ?", part, since.UTC().Format(time.DateTime))
			if err != nil {
				return nil, err
			}
			if all, err = s.scan(ctx, all, q.table, query, args); err != nil {
				return nil, s.classify(err)
			}
		}
	}
	return all, nil
}

func (s *Store) scan(ctx context.Context, all []Stored, table, query string, args []any) ([]Stored, error) {
	rows, err := s.db.QueryxContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", table, err)
	}
	defer rows.Close() //nolint:errcheck // Err is asked
	for rows.Next() {
		r := Stored{Table: table}
		var at any
		var kind, alarm sql.NullString
		var latitude, longitude, speed, course sql.NullFloat64
		if err := rows.Scan(&r.IMEI, &kind, &at, &r.Protocol, &r.Serial, &latitude, &longitude, &speed, &course, &alarm); err != nil {
			return nil, err
		}
		r.Kind, r.Alarm, r.Time = kind.String, alarm.String, moment(at)
		r.Latitude, r.Longitude, r.SpeedKMH, r.Course = latitude.Float64, longitude.Float64, speed.Float64, course.Float64
		all = append(all, r)
	}
	return all, rows.Err()
}
