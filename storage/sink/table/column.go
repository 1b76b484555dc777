package table

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"gt06/storage/sink"
)

// ErrMapping means that the table is not as the mapping needs it.
var ErrMapping = errors.New("gt06/table: the mapping does not fit the table")

// column is a column of the real table.
type column struct {
	name, kind, full string // kind is int, full int(10) unsigned
	null, fallback   bool   // may be NULL; has a default, or makes its value itself
	made             bool   // nobody may write it
	length           sql.NullFloat64
	precision        sql.NullInt64
	scale            sql.NullInt64
	fraction         sql.NullInt64 // digits behind the second
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// columns reads what the table has. It must be one that takes part in
// transactions: otherwise a kill could double a row.
func (m *Mapping) columns(ctx context.Context, db querier) ([]column, error) {
	schema, table := m.schema()
	var engine, user string
	err := db.QueryRowContext(ctx, "SELECT COALESCE(engine, table_type), CURRENT_USER() FROM information_schema.tables WHERE table_schema = COALESCE(NULLIF(?, ''), DATABASE()) AND table_name = ?", schema, table).Scan(&engine, &user)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%w: there is no table %s, or this user may not see it: GRANT SELECT, INSERT, UPDATE ON %s", ErrMapping, m.Table, m.quoted())
	}
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(engine, "InnoDB") {
		return nil, fmt.Errorf("%w: %s is %s, which knows no transactions: ALTER TABLE %s ENGINE=InnoDB", ErrMapping, m.Table, engine, m.quoted())
	}
	rows, err := db.QueryContext(ctx, `SELECT column_name, LOWER(data_type), LOWER(column_type), is_nullable = 'YES', column_default IS NOT NULL AND column_default <> 'NULL' OR extra LIKE '%auto_increment%',
		is_generated <> 'NEVER', character_maximum_length, numeric_precision, numeric_scale, datetime_precision
		FROM information_schema.columns WHERE table_schema = COALESCE(NULLIF(?, ''), DATABASE()) AND table_name = ? ORDER BY ordinal_position`, schema, table)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err is asked
	var list []column
	for rows.Next() {
		var c column
		if err := rows.Scan(&c.name, &c.kind, &c.full, &c.null, &c.fallback, &c.made, &c.length, &c.precision, &c.scale, &c.fraction); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, rows.Err()
}

// bound is a column that is written, and with what.
type bound struct {
	column
	field    sink.Field
	fallback any // where an event does not have the field; nil: NULL
	constant any // instead of a field
}

// bind puts mapping and table together, or says everything that does not fit.
func (m *Mapping) bind(ctx context.Context, db querier) (list []bound, err error) {
	have, err := m.columns(ctx, db)
	if err != nil {
		return nil, err
	}
	var wrong []string
	names := make([]string, 0, len(have))
	for _, c := range have {
		names = append(names, c.name)
		o, mapped := m.Columns[c.name]
		constant, fixed := m.Constants[c.name]
		switch {
		case !mapped && !fixed:
			if !c.null && !c.fallback && !c.made {
				wrong = append(wrong, c.name+" is NOT NULL and has no default: give it a field or a constant")
			}
		case c.made:
			wrong = append(wrong, c.name+" is computed by the table: leave it out")
		case fixed:
			list = append(list, bound{column: c, constant: constant})
		default:
			f, _ := m.field(o.Field)
			if why := c.fits(f); why != "" {
				wrong = append(wrong, fmt.Sprintf("%s %s cannot be %s: %s", c.name, c.full, f.Name, why))
			}
			if f.Optional && !c.null && o.Default == nil {
				wrong = append(wrong, fmt.Sprintf("%s is NOT NULL and an event can be without %s: add it to require, or give a default: {field: %s, default: …}", c.name, f.Name, f.Name))
			}
			list = append(list, bound{column: c, field: f, fallback: o.Default})
		}
	}
	for _, c := range append(slices.Sorted(maps.Keys(m.Columns)), slices.Sorted(maps.Keys(m.Constants))...) {
		if !slices.Contains(names, c) {
			wrong = append(wrong, fmt.Sprintf("there is no column %s: it has %s", c, strings.Join(names, ", ")))
		}
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("%w: %s: %s", ErrMapping, m.Table, strings.Join(wrong, "; "))
	}
	return list, nil
}

// integers are the bytes of the kinds of whole numbers.
//
//nolint:gochecknoglobals // read-only table
var integers = map[string]int{"tinyint": 1, "smallint": 2, "mediumint": 3, "int": 4, "bigint": 8}

// fits returns why a column cannot hold a field, "": it can.
func (c *column) fits(f sink.Field) (why string) {
	if f.Class == "" {
		return "" // an attribute: the row tells
	}
	size, whole := integers[c.kind]
	switch {
	case whole:
		return c.fitsWhole(f, size)
	case c.kind == "decimal":
		return c.fitsDecimal(f)
	case c.kind == "float" || c.kind == "double":
		if f.Class == sink.ClassNumber || f.Class == sink.ClassBool {
			return ""
		}
	case c.kind == "datetime" || c.kind == "timestamp" || c.kind == "date":
		if f.Class == sink.ClassTime {
			return ""
		}
	case c.length.Valid && c.kind != "enum" && c.kind != "set": // text and bytes
		return c.fitsText(f)
	case c.kind == "enum" || c.kind == "set":
		if f.Class == sink.ClassText {
			return "" // the row tells
		}
	}
	return "it is " + string(f.Class)
}

func (c *column) fitsWhole(f sink.Field, size int) string {
	high := math.Pow(2, float64(8*size-1)) - 1
	low := -high - 1
	if strings.Contains(c.full, "unsigned") {
		low, high = 0, 2*high+1
	}
	need := f
	switch {
	case f.Name == "latitude" || f.Name == "longitude":
		return "it would be whole degrees"
	case f.Name == "imei":
		need.Low, need.High = 0, 1e15-1
	case f.Name == "fix_hash":
		need.Low, need.High = 0, math.MaxUint64
	case f.Class == sink.ClassTime:
		need.Low, need.High = 0, math.MaxInt32
	case f.Class != sink.ClassNumber && f.Class != sink.ClassBool:
		return "it is " + string(f.Class)
	}
	if need.Low < low || need.High > high {
		return fmt.Sprintf("it holds %.0f to %.0f, and values go from %.0f to %.0f", low, high, need.Low, need.High)
	}
	return ""
}

func (c *column) fitsDecimal(f sink.Field) string {
	const exact = 4 // digits of a degree: 11 m
	before := math.Pow10(int(c.precision.Int64 - c.scale.Int64))
	switch {
	case f.Class == sink.ClassDigits && c.precision.Int64-c.scale.Int64 >= int64(f.High):
		return ""
	case f.Class != sink.ClassNumber && f.Class != sink.ClassBool:
		return "it is " + string(f.Class)
	case max(math.Abs(f.Low), math.Abs(f.High)) >= before:
		return fmt.Sprintf("it holds values below %.0f, and they go from %.0f to %.0f", before, f.Low, f.High)
	case (f.Name == "latitude" || f.Name == "longitude") && c.scale.Int64 < exact:
		return fmt.Sprintf("it keeps %d digits of a degree, and %d are 11 metres", c.scale.Int64, exact)
	}
	return ""
}

func (c *column) fitsText(f sink.Field) string {
	longest := f.High
	switch f.Class {
	case sink.ClassTime:
		longest = float64(len("2006-01-02 15:04:05"))
	case sink.ClassObject:
		longest = 2
	case sink.ClassNumber, sink.ClassBool:
		longest = 1
	case sink.ClassText, sink.ClassDigits:
	}
	if c.length.Float64 < longest {
		return fmt.Sprintf("it is too short: values have up to %.0f characters", longest)
	}
	return ""
}
