package protocol

import (
	"fmt"
	"strconv"
	"strings"
)

// Entry is one layout of the table, as the reference shows it.
type Entry struct {
	Type      byte        `json:"-"`
	Number    string      `json:"type"` // 0x22
	Name      string      `json:"name"`
	Kind      string      `json:"kind"`
	Condition string      `json:"condition"` // "": any frame of the type that no entry before it took
	Answer    string      `json:"answer"`
	Fields    []EntryItem `json:"fields"`
}

// EntryItem is one field of it.
type EntryItem struct {
	Name      string  `json:"name"`
	Bytes     string  `json:"bytes"` // a number, or how it is told
	Attribute string  `json:"attribute,omitempty"`
	Unit      string  `json:"unit,omitempty"`
	Divisor   float64 `json:"divisor,omitempty"`
	When      string  `json:"when,omitempty"` // and only then is it there
}

// Known says whether the table has a type, or a server sends it.
func Known(typ byte) bool { return len(table[typ]) > 0 || typ == typeCommand }

// Reference returns the table the decoder works by, in the order in which it
// chooses.
func Reference() (list []Entry) {
	for typ := range table {
		for i := range table[typ] {
			r := &table[typ][i]
			e := Entry{
				Type: byte(typ), Number: fmt.Sprintf("0x%02X", typ), Name: r.layout.name, Kind: r.layout.kind.String(),
				Condition: r.condition(), Answer: answerNames[r.layout.answer],
			}
			for k := range r.layout.fields {
				f := &r.layout.fields[k]
				e.Fields = append(e.Fields, EntryItem{Name: f.name, Bytes: f.width(), Attribute: f.key, Unit: f.unit, Divisor: f.scale, When: f.when.text()})
			}
			list = append(list, e)
		}
	}
	return list
}

//nolint:gochecknoglobals // read-only tables
var (
	answerNames = [...]string{
		answerSame: "78 78 05, type, serial", answerNone: "none", answerExtended: "79 79 00 05, type, serial", answerTime: "time in UTC, serial 0",
		answerAddress: "0x97 with an empty address", answerWiFi: "78 78 00, type, the time of the frame; no checksum", answerPhoto: "0x36: the first part of the photo", answerPhotoNext: "0x36: the next part, while there is one",
	}
	groupNames = [...]string{
		anyModel: "", modelLW: "LW*", modelSeeWorld: "SEEWORLD", modelNT: "NT11 NT20 NT26 NT40 NT46 VL100 XT40", modelVL: "VL103 LL303 VL512 G18",
		modelR11: "R11", modelQH302R: "QH302R",
	}
	// widths are what readers take that are not told a size.
	widths = map[string]int{
		"time": 6, "device time": 6, "satellites": 1, "latitude": 4, "longitude": 4, "course and status": 2, "imei": 8, "time zone and language": 2,
		"terminal information": 1, "battery level": 1, "alarm": 1, "ignition": 1, "altitude": 2, "fence number": 1, "ignition, event, re-upload": 3,
		"ignition, mode, re-upload": 3, "hours, minutes": 3, "hours, seconds": 4, "external voltage, 12 bits": 2, "satellites and signal": 2,
		"battery temperature": 2, "cell voltages": 28, "clocked": 1, "tag, unless zero": 8, "mileage, 10 m": 4, "Benway inputs": 2, "status": 1,
		"temperature, sign and magnitude": 1, "temperature, bit 15 positive": 2, "temperature, 1/100": 2, "charging and motion": 2, "re-upload": 1,
		"alarm, any": 1, "photo size": 4, "photo id": 4,
	}
)

func (w when) text() string {
	switch {
	case w.exact[0] != 0 && w.exact[0] != w.exact[1]:
		return fmt.Sprintf("%d or %d bytes are left", w.exact[0], w.exact[1])
	case w.exact[0] != 0:
		return fmt.Sprintf("%d bytes are left", w.exact[0])
	case w.least > 1:
		return fmt.Sprintf("%d bytes or more are left", w.least)
	case w.least == 1:
		return "something is left"
	}
	return ""
}

func (r *row) condition() string {
	var parts []string
	switch r.header {
	case headerBasic:
		parts = append(parts, "header 78 78")
	case headerExtended:
		parts = append(parts, "header 79 79")
	}
	switch {
	case r.min != 0 && r.min == r.max:
		parts = append(parts, fmt.Sprintf("length 0x%02X", r.min))
	case r.min != 0:
		parts = append(parts, fmt.Sprintf("length from 0x%02X", r.min))
	}
	if r.model != anyModel {
		parts = append(parts, "model "+groupNames[r.model])
	}
	return strings.Join(parts, ", ")
}

// width says how many bytes a field takes.
func (f *field) width() string {
	switch {
	case f.lac > 0:
		mnc := "1 or 2"
		if f.wideMNC {
			mnc = "2"
		}
		each := fmt.Sprintf("mcc 2, mnc %s, lac %d, cid %d", mnc, f.lac, f.cid)
		switch {
		case f.size > 0:
			return fmt.Sprintf("%s, %d times lac %d, cid %d, strength 1", each[:strings.Index(each, ", lac")], f.size, f.lac, f.cid)
		case f.name == "cells":
			return each[:strings.Index(each, ", lac")] + fmt.Sprintf(", count 1, then lac %d, cid %d, strength 1", f.lac, f.cid)
		}
		return each
	case f.size > 0:
		return strconv.Itoa(int(f.size))
	case widths[f.name] > 0:
		return strconv.Itoa(widths[f.name])
	}
	return "as told inside, or the rest"
}

// ReferenceText returns the reference as Markdown; of one type, or of all.
func ReferenceText(only func(typ byte) bool) string {
	var b strings.Builder
	last := -1
	for _, e := range Reference() {
		if only != nil && !only(e.Type) {
			continue
		}
		if int(e.Type) != last {
			fmt.Fprintf(&b, "\n## %s\n", e.Number)
			last = int(e.Type)
		}
		fmt.Fprintf(&b, "\n### %s\n\nkind `%s`; answer: %s", e.Name, e.Kind, e.Answer)
		if e.Condition != "" {
			fmt.Fprintf(&b, "; only when: %s", e.Condition)
		}
		b.WriteString("\n\n```\n")
		line := "|"
		for _, f := range e.Fields {
			item := " " + f.Name
			if _, err := strconv.Atoi(f.Bytes); err == nil {
				item += " " + f.Bytes
			}
			if len(line)+len(item) > 110 {
				b.WriteString(line + "\n")
				line = "|"
			}
			line += item + " |"
		}
		b.WriteString(line + "\n```\n")
		var rows strings.Builder
		for _, f := range e.Fields {
			what := f.Bytes
			if f.Attribute == "" && f.Unit == "" && f.When == "" && widthIsPlain(what) {
				continue
			}
			value := f.Attribute
			if f.Divisor > 1 {
				value += fmt.Sprintf(" = value / %g", f.Divisor)
			}
			fmt.Fprintf(&rows, "| %s | %s | %s | %s | %s |\n", f.Name, what, value, f.Unit, f.When)
		}
		if rows.Len() > 0 {
			b.WriteString("\n| field | bytes | attribute | unit | only when |\n|---|---|---|---|---|\n" + rows.String())
		}
	}
	return b.String()
}

func widthIsPlain(s string) bool {
	_, err := strconv.Atoi(s)
	return err == nil
}
