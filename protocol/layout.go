package protocol

import "bytes"

// Protocol numbers that code beside the table knows. These are part of the
// wire format.
const (
	typeLogin     = 0x01
	typeWiFi      = 0x17
	typeWiFi2     = 0x69
	typeCommand   = 0x80
	typeTime      = 0x8a
	typeAddress   = 0x97
	typePhotoData = 0x36
)

// A layout is how the content of one kind of frame is built: named fields in
// their order. The decoder, the annotated dump and the answers all read it.
type layout struct {
	name   string
	kind   Kind
	answer answer
	fields []field
}

// answer is the form in which a frame is answered (PROTOCOL.md sections 2 and
// 13).
type answer uint8

const (
	answerSame      answer = iota // 78 78 05, same type, same serial
	answerNone                    // silence
	answerExtended                // as answerSame in a 79 79 frame
	answerTime                    // six bytes of UTC
	answerAddress                 // 0x97 with an empty address
	answerWiFi                    // 78 78 00, type, the frame's own time; no checksum
	answerPhotoNext               // asks for the next part of a photo, while there is one
	answerPhoto                   // asks for the first part of a photo
)

// field is one item of a layout. read takes it from the content and says what
// it is; the rest tells it what to do.
type field struct {
	read     func(*cursor, *field)
	block    *block // begins with this field
	name     string
	key      string  // attribute
	unit     string  // of the attribute
	scale    float64 // the value is divided by it; 0: the attribute is an integer
	size     uint8   // bytes, or how many, where read leaves it open
	lac, cid uint8   // bytes of these in a cell
	wideMNC  bool    // the network code always has two bytes
	when     when    // and only then is the field there
}

// block is a run of fields that many layouts share. read takes them at once
// where they are plain; where they are not, or are to be shown, it reports false,
// has done nothing, and they are read one by one.
type block struct {
	fields int
	read   func(*cursor) bool
}

// when is a condition on how many bytes of the content are left.
type when struct {
	least uint8
	exact [2]uint8 // either of these, when not zero
}

func (w when) holds(left int) bool {
	if w.exact[0] != 0 {
		return left == int(w.exact[0]) || left == int(w.exact[1])
	}
	return left >= int(w.least)
}

// row chooses a layout. The first row that fits wins.
type row struct {
	header   byte // 0x78, 0x79, 0: either
	min, max int  // length field; 0: any
	model    modelGroup
	layout   layout
}

// modelGroup are models of the operator's attribute that change a layout.
type modelGroup uint8

const (
	anyModel modelGroup = iota
	modelLW             // LW4G and relatives
	modelSeeWorld
	modelNT // NT11 and relatives: source and IMEI first
	modelVL // VL103 and relatives
	modelR11
	modelQH302R
	modelTRX16i // told by the length of its frames
)

//nolint:gochecknoglobals // read-only table
var modelGroups = map[string]modelGroup{
	"SEEWORLD": modelSeeWorld, "R11": modelR11, "QH302R": modelQH302R,
	"NT11": modelNT, "NT20": modelNT, "NT26": modelNT, "NT40": modelNT, "NT46": modelNT, "VL100": modelNT, "XT40": modelNT,
	"VL103": modelVL, "LL303": modelVL, "VL512": modelVL, "G18": modelVL,
}

// groupOf returns the group of an operator's model attribute.
func groupOf(model string) modelGroup {
	if model == "" {
		return anyModel
	}
	var upper [16]byte
	name := upper[:min(len(model), len(upper))]
	for i := range name {
		c := model[i]
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		name[i] = c
	}
	switch {
	case bytes.HasPrefix(name, []byte("LW")):
		return modelLW
	case len(model) > len(upper):
		return anyModel
	}
	return modelGroups[string(name)]
}

//nolint:gochecknoglobals // read-only: what the table has no row for
var (
	unknownBasic    = layout{name: "unknown", kind: KindUnknown, answer: answerSame, fields: left()}
	unknownExtended = layout{name: "unknown", kind: KindUnknown, answer: answerNone, fields: left()}
)

// find returns the layout of a frame.
func find(extended bool, typ byte, length int, group modelGroup) *layout {
	rows := table[typ]
	for i := range rows {
		r := &rows[i]
		if r.header == headerBasic && extended || r.header == headerExtended && !extended {
			continue
		}
		if length < r.min || r.max != 0 && length > r.max {
			continue
		}
		if r.model != anyModel && r.model != group {
			continue
		}
		return &r.layout
	}
	if extended {
		return &unknownExtended
	}
	return &unknownBasic
}
