package protocol

import (
	"bytes"
	"fmt"
)

// Range is a run of bytes of a frame and what they mean: a line of the
// annotated dump.
type Range struct {
	Offset, Len int
	Name        string
	Value       string
	Unit        string
}

// said is the value of a field that does not say it itself: what it added, or
// its bytes.
func said(added []Attribute, b []byte) string {
	switch len(added) {
	case 0:
		return fmt.Sprintf("%x", b)
	case 1:
		_, value, _ := bytes.Cut(AppendAttributes(nil, added), []byte(":"))
		return string(value[:len(value)-1])
	}
	return string(AppendAttributes(nil, added))
}

// Explain decodes a frame as Decode does and names every byte of it, from the
// same layouts.
func (d *Decoder) Explain(frame []byte, s Session) []Range {
	var m Message
	var ranges []Range
	c := cursor{}
	c.trace = func(r Range) {
		// Fields that run into the checksum are shown as far as the content goes.
		if r.Len = min(r.Len, c.base+len(c.b)-r.Offset); r.Len > 0 {
			ranges = append(ranges, r)
		}
	}
	c.decode(&m, frame, s)
	if c.base == 0 {
		return []Range{{Offset: 0, Len: len(frame), Name: "rubbish", Value: fmt.Sprintf("%x", frame)}}
	}
	head := []Range{
		{Offset: 0, Len: 2, Name: "header"},
		{Offset: 2, Len: c.base - 3, Name: "length", Value: fmt.Sprintf("%d", c.length)},
		{Offset: c.base - 1, Len: 1, Name: "type", Value: fmt.Sprintf("0x%02x %s", c.typ, find(m.Extended, c.typ, c.length, c.group).name)},
	}
	end := c.base
	if n := len(ranges); n > 0 {
		end = ranges[n-1].Offset + ranges[n-1].Len
	}
	content := c.base + len(c.b)
	if end < content {
		ranges = append(ranges, Range{Offset: end, Len: content - end, Name: "not decoded", Value: fmt.Sprintf("%x", frame[end:content])})
	}
	for _, t := range []struct {
		name string
		size int
	}{{"serial", 2}, {"checksum", 2}, {"tail", 2}} {
		if t.name != "tail" && m.Has&HasCRC == 0 || content+t.size > len(frame) {
			continue
		}
		r := Range{Offset: content, Len: t.size, Name: t.name}
		switch t.name {
		case "serial":
			r.Value = fmt.Sprintf("%d", m.Serial)
		case "checksum":
			r.Value = "right"
			if !m.CRCOK {
				r.Value = fmt.Sprintf("wrong, should be %04x", CRC(frame[2:content]))
			}
		}
		ranges = append(ranges, r)
		content += t.size
	}
	if content < len(frame) {
		ranges = append(ranges, Range{Offset: content, Len: len(frame) - content, Name: "behind the frame", Value: fmt.Sprintf("%x", frame[content:])})
	}
	return append(head, ranges...)
}
