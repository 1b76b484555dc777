package table

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gt06/storage/sink"
)

// knot is how many km/h a knot has.
const knot = 1.852

// row is an event as the table gets it.
type row struct {
	event *sink.Event
	args  []any
}

// rows makes rows of events, and counts those that are none of this table's.
func (m *Mapping) rows(events []sink.Event, columns []bound) (list []row, left int, err error) {
	for i := range events {
		e := &events[i]
		values, err := m.values(e)
		if err != nil {
			return nil, 0, fmt.Errorf("event %s: %w", e.ID, err)
		}
		if m.lacks(values) {
			left++
			continue
		}
		r := row{event: e, args: make([]any, 0, len(columns))}
		for j := range columns {
			r.args = append(r.args, columns[j].value(values, m.zone))
		}
		list = append(list, r)
	}
	return list, left, nil
}

// values returns what an event has, by the names of fields: nil is nothing.
// Numbers are json.Number, times time.Time.
func (m *Mapping) values(e *sink.Event) (map[string]any, error) {
	values := map[string]any{}
	d := json.NewDecoder(strings.NewReader(string(e.JSON)))
	d.UseNumber()
	if err := d.Decode(&values); err != nil {
		return nil, err
	}
	for _, f := range sink.Fields(e.Type) {
		text, ok := values[f.Name].(string)
		if !ok || f.Class != sink.ClassTime {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return nil, err
		}
		values[f.Name] = at
	}
	if of, ok := values["attributes"].(map[string]any); ok {
		for k, v := range of {
			values[attribute+k] = v
		}
	}
	if n, ok := values["speed_kmh"].(json.Number); ok {
		if kmh, err := n.Float64(); err == nil {
			values["speed_knots"] = json.Number(strconv.FormatFloat(kmh/knot, 'f', 4, 64))
		}
	}
	values["frame"] = hex.EncodeToString(e.Record.Input)
	if e.Record.Model != "" && e.Type != sink.TypeCommand {
		values["model"] = e.Record.Model
	}
	return values, nil
}

func (m *Mapping) lacks(values map[string]any) bool {
	for _, f := range m.Require {
		if values[f] == nil {
			return true
		}
	}
	return false
}

// value returns what is written to a column, as placeholder has it.
func (b *bound) value(values map[string]any, zone *time.Location) any {
	if b.field.Name == "" {
		return b.constant
	}
	switch v := values[b.field.Name].(type) {
	case nil:
		return b.fallback
	case bool:
		if v {
			return 1
		}
		return 0
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if f, err := v.Float64(); err == nil && !b.text() {
			return f
		}
		return v.String()
	case time.Time:
		return b.moment(v, zone)
	case string:
		return v
	default:
		text, err := json.Marshal(v)
		if err != nil {
			return b.fallback
		}
		return string(text)
	}
}

// text says whether a column holds characters.
func (c *column) text() bool { return c.length.Valid }

// moment writes a time: a TIMESTAMP is a moment whatever the zone of the
// connection (see placeholder), all others are the clock of the mapping's zone.
func (c *column) moment(at time.Time, zone *time.Location) any {
	digits := int(c.fraction.Int64)
	if _, whole := integers[c.kind]; whole {
		return at.Unix()
	}
	if c.kind == "timestamp" {
		return strconv.FormatInt(at.Unix(), 10) + fraction(at, digits)
	}
	if c.kind == "date" {
		return at.In(zone).Format(time.DateOnly)
	}
	return at.In(zone).Format(time.DateTime) + fraction(at, digits)
}

func fraction(at time.Time, digits int) string {
	if digits == 0 {
		return ""
	}
	return fmt.Sprintf(".%09d", at.Nanosecond())[:1+digits]
}

// placeholder is what stands for a value in the statement.
func (c *column) placeholder() string {
	if c.kind == "timestamp" {
		return "FROM_UNIXTIME(?)"
	}
	return "?"
}

// insert returns the statement for so many rows.
func (m *Mapping) insert(columns []bound, rows int) string {
	names, places, updates := make([]string, 0, len(columns)), make([]string, 0, len(columns)), make([]string, 0, len(columns))
	for i := range columns {
		q := quote(columns[i].name)
		names, places = append(names, q), append(places, columns[i].placeholder())
		updates = append(updates, q+" = VALUES("+q+")")
	}
	one := "(" + strings.Join(places, ", ") + ")"
	s := "INSERT INTO " + m.quoted() + " (" + strings.Join(names, ", ") + ") VALUES " + one + strings.Repeat(", "+one, rows-1)
	switch m.OnDuplicate {
	case duplicateIgnore: // never with IGNORE, which hides errors
		s += " ON DUPLICATE KEY UPDATE " + names[0] + " = " + m.quoted() + "." + names[0]
	case duplicateUpdate:
		s += " ON DUPLICATE KEY UPDATE " + strings.Join(updates, ", ")
	}
	return s
}
