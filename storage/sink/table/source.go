package table

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"gt06/protocol"
	"gt06/storage/event"
	"gt06/storage/mariadb"
)

// Source reads the table of a mapping the other way: its rows are history.
type Source struct {
	m      *Mapping
	db     *sql.DB
	key    string
	reads  []reading
	name   string
	source string
}

// reading is a column that is read, and the field it is.
type reading struct {
	column
	field string
}

// The reasons why a row is no position.
const (
	reasonIMEI  = "no IMEI"
	reasonTime  = "no time"
	reasonPlace = "no place"
)

// fixFields are what a position is made of.
//
//nolint:gochecknoglobals // read-only table
var fixFields = []string{
	"imei", "fix_time", "latitude", "longitude", "received_at", "speed_kmh", "speed_knots", "course", "altitude", "satellites", "attributes.sat", "ignition", "attributes.ignition", "valid",
}

// Open compares the mapping with the table and prepares to read it.
func Open(ctx context.Context, dsn string, m *Mapping) (s *Source, err error) {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, mariadb.ErrDSN
	}
	db, err := mariadb.Open(dsn, nil)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	s = &Source{m: m, db: db}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	schema, table := m.schema()
	if schema == "" {
		schema = cfg.DBName
	}
	s.source = schema + "." + table + " of " + cfg.Addr
	sum := sha256.Sum256([]byte(s.source))
	s.name = hex.EncodeToString(sum[:12])
	return s, nil
}

// Name is what the progress of an import of this table is kept under, Source
// what people are shown.
func (s *Source) Name() string { return s.name }

// Source is the table and where it is.
func (s *Source) Source() string { return s.source }

// Close ends the connection.
func (s *Source) Close() error { return s.db.Close() }

func (s *Source) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, mariadb.Timeout)
	defer cancel()
	have, err := s.m.columns(ctx, s.db)
	if err != nil {
		return err
	}
	for _, c := range have {
		o, mapped := s.m.Columns[c.name]
		if mapped && slices.Contains(fixFields, o.Field) {
			if f, _ := s.m.field(o.Field); c.fits(f) != "" {
				return fmt.Errorf("%w: %s %s cannot be %s: %s", ErrMapping, c.name, c.full, f.Name, c.fits(f))
			}
			s.reads = append(s.reads, reading{c, o.Field})
		}
	}
	for _, f := range fixFields[:4] {
		if !slices.ContainsFunc(s.reads, func(r reading) bool { return r.field == f }) {
			return fmt.Errorf("%w: no column of %s is %s: history needs one", ErrMapping, s.m.Table, f)
		}
	}
	schema, table := s.m.schema()
	var keys int
	var key, kind sql.NullString
	err = s.db.QueryRowContext(ctx, `SELECT COUNT(*), MAX(k.column_name), MAX(c.data_type) FROM information_schema.key_column_usage k JOIN information_schema.columns c
		ON c.table_schema = k.table_schema AND c.table_name = k.table_name AND c.column_name = k.column_name
		WHERE k.constraint_name = 'PRIMARY' AND k.table_schema = COALESCE(NULLIF(?, ''), DATABASE()) AND k.table_name = ?`, schema, table).Scan(&keys, &key, &kind)
	if err != nil {
		return err
	}
	if _, whole := integers[strings.ToLower(kind.String)]; keys != 1 || !whole {
		return fmt.Errorf("%w: %s has no primary key of one whole number: in whose order could it be read", ErrMapping, s.m.Table)
	}
	s.key = quote(key.String)
	return nil
}

// Count returns how many rows there are behind a key.
func (s *Source) Count(ctx context.Context, after int64) (n int64, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+s.m.quoted()+" WHERE "+s.key+" > ?", after).Scan(&n)
	return n, err
}

// Read returns the next rows behind a key, none at the end.
func (s *Source) Read(ctx context.Context, after int64, most int) (list []event.Foreign, err error) {
	ctx, cancel := context.WithTimeout(ctx, mariadb.Timeout)
	defer cancel()
	names := []string{s.key}
	for _, r := range s.reads {
		q := quote(r.name)
		if r.kind == "timestamp" { // a moment, in whatever zone the session is
			q = "UNIX_TIMESTAMP(" + q + ")"
		}
		names = append(names, q)
	}
	rows, err := s.db.QueryContext(ctx, "SELECT "+strings.Join(names, ", ")+" FROM "+s.m.quoted()+" WHERE "+s.key+" > ? ORDER BY "+s.key+" LIMIT ?", after, most)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err is asked
	for rows.Next() {
		f := event.Foreign{}
		values := make([]any, len(s.reads))
		places := []any{&f.Key}
		for i := range values {
			places = append(places, &values[i])
		}
		if err := rows.Scan(places...); err != nil {
			return nil, err
		}
		f.Fix, f.Refused = s.fix(values)
		list = append(list, f)
	}
	return list, rows.Err()
}

// fix makes a position of what a row says, or says why not.
func (s *Source) fix(values []any) (f event.Fix, refused string) {
	f.Valid = true
	place := 0
	for i, r := range s.reads {
		if r.field == "fix_time" || r.field == "received_at" {
			at, ok := s.moment(&r.column, values[i])
			switch {
			case r.field == "received_at":
				f.ReceivedAt = at.UnixMicro()
			case ok:
				f.FixTime = at.Unix()
			}
			continue
		}
		text, ok := said(values[i])
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(text, 64)
		number := err == nil
		switch r.field {
		case "imei":
			f.Device = imei(text)
		case "latitude":
			f.Latitude = n
			if number && n >= -90 && n <= 90 {
				place++
			}
		case "longitude":
			f.Longitude = n
			if number && n >= -180 && n <= 180 {
				place++
			}
		case "speed_kmh":
			f.SpeedKMH = n
		case "speed_knots":
			f.SpeedKMH = n * knot
		case "course":
			f.Course = n
		case "altitude":
			f.Altitude = &n
		case "satellites", "attributes.sat":
			whole := int64(n)
			f.Satellites = &whole
		case "ignition", "attributes.ignition":
			on := n != 0
			f.Ignition = &on
		case "valid":
			f.Valid = n != 0
		}
	}
	if f.ReceivedAt <= 0 {
		f.ReceivedAt = f.FixTime * 1e6
	}
	switch {
	case f.Device == 0:
		return f, reasonIMEI
	case f.FixTime <= 0:
		return f, reasonTime
	case place != 2:
		return f, reasonPlace
	}
	return f, ""
}

// said returns a value as text, false: NULL.
func said(v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "", false
	case []byte:
		return string(v), true
	default:
		return fmt.Sprint(v), true
	}
}

// imei reads one as tables keep it: a number has lost its leading zeros.
func imei(text string) protocol.IMEI {
	const digits = 15
	text = strings.TrimLeft(strings.TrimSpace(text), "0")
	if text == "" {
		return 0
	}
	id, err := protocol.ParseIMEI(strings.Repeat("0", max(0, digits-len(text))) + text)
	if err != nil {
		return 0
	}
	return id
}

// moment reads a time as the column keeps it, false: there is none.
func (s *Source) moment(c *column, v any) (at time.Time, ok bool) {
	if t, is := v.(time.Time); is { // the clock of the mapping's zone
		return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), s.m.zone), !t.IsZero()
	}
	text, ok := said(v)
	if !ok {
		return at, false
	}
	if _, whole := integers[c.kind]; whole || c.kind == "timestamp" {
		n, err := strconv.ParseFloat(text, 64)
		return time.UnixMicro(int64(n * 1e6)), err == nil && n > 0
	}
	at, err := time.ParseInLocation(time.DateTime, text, s.m.zone)
	return at, err == nil
}
