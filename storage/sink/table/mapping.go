package table

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a zone is named, and must be known on any machine

	"go.yaml.in/yaml/v3"

	"gt06/storage/sink"
)

// version is the mapping's format that this program reads.
const version = 1

// What a table does with a row that a unique key of it has already.
const (
	duplicateIgnore = "ignore" // the one that is there stays
	duplicateUpdate = "update" // its mapped columns are replaced
	duplicateError  = "error"  // the row is refused
)

// Mapping says which events are the rows of a table, and which of their fields
// its columns. The zero value is not usable: Parse makes one.
type Mapping struct {
	Version     int               `yaml:"version"`
	Table       string            `yaml:"table"`
	Events      []sink.Type       `yaml:"events"`
	Require     []string          `yaml:"require"`
	Zone        string            `yaml:"zone"`
	OnDuplicate string            `yaml:"on_duplicate"`
	Columns     map[string]origin `yaml:"columns"`
	Constants   map[string]any    `yaml:"constants"`

	zone *time.Location
}

// origin is where a column's value comes from: a field, or a field and what
// stands for it where an event has none.
type origin struct {
	Field   string `yaml:"field"`
	Default any    `yaml:"default"`
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (o *origin) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&o.Field)
	}
	type plain origin
	return n.Decode((*plain)(o))
}

// name is one of a table or a column: anything that quoting makes safe.
var name = regexp.MustCompile("^[^`\\x00-\\x1f.]{1,64}$")

// extra are the fields besides those of a type.
//
//nolint:gochecknoglobals // read-only table
var extra = []sink.Field{
	{Name: "frame", Class: sink.ClassText},
	{Name: "model", Class: sink.ClassText, High: 64, Optional: true},
	{Name: "speed_knots", Class: sink.ClassNumber, High: 138, Optional: true},
}

// attribute begins the name of a field of an event's attributes.
const attribute = "attributes."

// Parse reads a mapping. It says all that can be wrong without the table.
func Parse(text []byte) (*Mapping, error) {
	m := &Mapping{}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(m); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if m.Version != version {
		return nil, fmt.Errorf("version is %d: this program reads %d", m.Version, version)
	}
	if m.OnDuplicate == "" {
		m.OnDuplicate = duplicateError
	}
	parts := strings.Split(m.Table, ".")
	switch {
	case len(parts) > 2 || !name.MatchString(parts[0]) || !name.MatchString(parts[len(parts)-1]):
		return nil, fmt.Errorf("table is %q: it is TABLE or SCHEMA.TABLE", m.Table)
	case !slices.Contains([]string{duplicateIgnore, duplicateUpdate, duplicateError}, m.OnDuplicate):
		return nil, fmt.Errorf("on_duplicate is %q: it can be ignore, update or error", m.OnDuplicate)
	case len(m.Events) == 0:
		return nil, fmt.Errorf("events names none: it can have %v", sink.Types())
	case len(m.Columns) == 0:
		return nil, errors.New("columns names none")
	}
	for _, e := range m.Events {
		if !slices.Contains(sink.Types(), e) {
			return nil, fmt.Errorf("events has %q: it can have %v", e, sink.Types())
		}
	}
	var err error
	if m.zone, err = time.LoadLocation(m.Zone); err != nil || m.Zone == "" || m.Zone == "Local" {
		return nil, fmt.Errorf("zone is %q: name one as Asia/Kolkata, or UTC", m.Zone)
	}
	for _, column := range slices.Sorted(maps.Keys(m.Columns)) {
		if err := m.column(column); err != nil {
			return nil, err
		}
	}
	for column := range m.Constants {
		if _, both := m.Columns[column]; both || !name.MatchString(column) {
			return nil, fmt.Errorf("constants: %q is no name, or in columns, too", column)
		}
	}
	for _, f := range m.Require {
		if _, ok := m.field(f); !ok {
			return nil, fmt.Errorf("require: %q is no field of %v", f, m.Events)
		}
	}
	return m, nil
}

func (m *Mapping) column(column string) error {
	o := m.Columns[column]
	if !name.MatchString(column) {
		return fmt.Errorf("columns: %q is no name", column)
	}
	if _, ok := m.field(o.Field); !ok {
		return fmt.Errorf("columns: %s: %q is no field of %v: it can be %s, frame, model, speed_knots or attributes.NAME",
			column, o.Field, m.Events, strings.Join(sink.FieldNames(m.Events), ", "))
	}
	return nil
}

// field returns what is known of a field: of several types the weakest.
func (m *Mapping) field(name string) (f sink.Field, ok bool) {
	if strings.HasPrefix(name, attribute) && len(name) > len(attribute) {
		return sink.Field{Name: name, Optional: true}, true
	}
	for _, e := range extra {
		if e.Name == name {
			return e, true
		}
	}
	missing := false
	for _, t := range m.Events {
		fields := sink.Fields(t)
		i := slices.IndexFunc(fields, func(f sink.Field) bool { return f.Name == name })
		if i < 0 {
			missing = true
			continue
		}
		f, ok, missing = fields[i], true, missing || fields[i].Optional
	}
	f.Optional = missing && !slices.Contains(m.Require, name)
	return f, ok
}

// quoted returns the table's name as SQL.
func (m *Mapping) quoted() string {
	parts := strings.Split(m.Table, ".")
	for i := range parts {
		parts[i] = quote(parts[i])
	}
	return strings.Join(parts, ".")
}

func quote(name string) string { return "`" + name + "`" }

// schema returns the schema and the name of the table; an empty schema is the
// connection's.
func (m *Mapping) schema() (schema, table string) {
	if before, after, ok := strings.Cut(m.Table, "."); ok {
		return before, after
	}
	return "", m.Table
}
