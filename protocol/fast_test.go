package protocol

import (
	"encoding/hex"
	"reflect"
	"testing"
	"time"
)

// plain are frames that the fast path takes.
var plain = []string{
	"78781f120b081d112e10cf027ac7eb0c46584900148f01cc00287d001fb8000380810d0a",
	"787822220f0c1d023305c9027ac8180c46586000140001cc00287d001f71000001000820860d0a",
	"78780a134004040001000fdcee0d0a",
	"787825160b0b0f0e241dcf027ac8870c4657e60014020901cc00287d001f726506040101003656a40d0a",
	"787829a0170c1f173b3bca027ac7eb0c4658490014cc01cc000000287d000000000001fb800100000001a0b10d0a", // the table's, with its block
	"787825260b0b0f0e241dcf027ac8870c4657e600d4020901cc00287d001f726506040101003656a40d0a",
}

// both decodes by what is written by hand, into a Message that was used, and by
// the table, field by field.
func both(frame []byte, s Session) (quick bool, a, b Message) {
	filled(&a)
	var d Decoder
	if quick = fast(&a, frame, &s); !quick {
		d.Decode(&a, frame, s)
	}
	c := cursor{trace: func(Range) {}}
	c.decode(&b, frame, s)
	a.scratch, b.scratch = nil, nil
	return quick, a, b
}

// filled sets every field of a Message.
func filled(m *Message) {
	v := reflect.ValueOf(m).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		switch v.Type().Field(i).Name {
		case "scratch":
			continue
		case "echo":
			m.echo = 7
			continue
		case "seen":
			m.seen = ^uint64(0)
			continue
		}
		fill(f)
	}
}

func fill(f reflect.Value) {
	switch f.Kind() {
	case reflect.Slice:
		f.Set(reflect.MakeSlice(f.Type(), 3, 3))
	case reflect.Struct:
		for _, g := range f.Fields() {
			fill(g)
		}
	case reflect.String:
		f.SetString("old")
	case reflect.Bool:
		f.SetBool(true)
	case reflect.Float64:
		f.SetFloat(1)
	default:
		if f.CanInt() {
			f.SetInt(1)
		} else {
			f.SetUint(1)
		}
	}
}

// same compares without telling empty slices from none.
func same(a, b *Message) bool {
	x, y := *a, *b
	for _, m := range []*Message{&x, &y} {
		m.Cells, m.WiFi, m.Alarms, m.Attributes = append([]Cell{}, m.Cells...), append([]AccessPoint{}, m.WiFi...), append([]Alarm{}, m.Alarms...), append([]Attribute{}, m.Attributes...)
	}
	return reflect.DeepEqual(x, y)
}

func TestFastPathIsTaken(t *testing.T) {
	t.Parallel()
	taken := 0
	for _, h := range plain {
		frame, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		quick, a, b := both(frame, Session{UTCOffset: 3600})
		if quick {
			taken++
		}
		if !same(&a, &b) {
			t.Errorf("%s:\n%+v\n%+v", h, a, b)
		}
	}
	if taken != 4 { // 0x16 and 0xA0 are not of them
		t.Errorf("%d of the frames are taken", taken)
	}
}

func FuzzFastEqualsTable(f *testing.F) {
	for _, h := range plain {
		b, _ := hex.DecodeString(h)
		f.Add(b, int32(19800), byte(0), byte(0))
		f.Add(b, int32(-3600), byte(20), byte(0xff))
	}
	f.Fuzz(func(t *testing.T, frame []byte, offset int32, at, v byte) {
		if len(frame) > 0 {
			frame[int(at)%len(frame)] ^= v
		}
		if len(frame) > 5 && len(frame) < 260 { // keep it a whole frame
			frame[0], frame[1], frame[2] = 0x78, 0x78, byte(len(frame)-5)
		}
		if _, a, b := both(frame, Session{UTCOffset: offset}); !same(&a, &b) {
			t.Errorf("%x:\n%+v\n%+v", frame, a, b)
		}
	})
}

// The civil date agrees with the library's for each day of the century.
func TestCivil(t *testing.T) {
	t.Parallel()
	for at := time.Date(2000, 1, 1, 1, 2, 3, 0, time.UTC); at.Year() < 2100; at = at.AddDate(0, 0, 1) {
		if got, ok := civil(at.Year()-2000, int(at.Month()), at.Day(), 1, 2, 3); !ok || got != at.Unix() {
			t.Fatalf("%v: %d, %v, want %d", at, got, ok, at.Unix())
		}
	}
	for _, c := range []struct {
		hour, minute, second int
		ok                   bool
	}{{0, 0, 0, true}, {23, 59, 59, true}, {24, 0, 0, false}, {0, 60, 0, false}, {0, 0, 60, false}} {
		if got, ok := civil(0, 1, 1, c.hour, c.minute, c.second); ok != c.ok || ok && got != 946684800+int64(c.hour*3600+c.minute*60+c.second) {
			t.Errorf("%+v: %d, %v", c, got, ok)
		}
	}
	for _, bad := range [][3]int{{1, 2, 29}, {0, 2, 30}, {0, 4, 31}, {0, 0, 1}, {0, 13, 1}, {0, 1, 0}, {100, 1, 1}, {3, 1, 32}} {
		if _, ok := civil(bad[0], bad[1], bad[2], 0, 0, 0); ok {
			t.Errorf("%v is a date", bad)
		}
	}
}
