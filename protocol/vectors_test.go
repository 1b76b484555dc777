package protocol_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"gt06/protocol"
)

// vectors opens one of the files with frames of real devices and what is to
// come of them. They lie beside the repository; without them the test is
// skipped, and under CI it fails.
func vectors(t *testing.T, name string, each func(line []byte)) {
	t.Helper()
	dir := os.Getenv("GT06_VECTORS")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "vectors")
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("under CI the vectors must be there: %v", err)
		}
		t.Skipf("no vectors: %v", err)
	}
	defer f.Close() //nolint:errcheck // read only
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, 1<<22)
	for scan.Scan() {
		each(scan.Bytes())
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
}

type vector struct {
	ID            string          `json:"id"`
	Hex           string          `json:"hex"`
	Header        string          `json:"header"`
	Type          string          `json:"type"`
	Model         string          `json:"model"`
	Expected      expected        `json:"expected"`
	Response      []string        `json:"response"`
	TimeDependent bool            `json:"response_time_dependent"`
	NeedsLogin    json.RawMessage `json:"needs_login"`
}

type expected struct {
	Error    json.RawMessage `json:"error"`
	IMEI     string          `json:"login_imei"`
	Offset   *int32          `json:"session_utc_offset_seconds"`
	Position *struct {
		DeviceTime *time.Time     `json:"deviceTime"`
		FixTime    *time.Time     `json:"fixTime"`
		Outdated   bool           `json:"outdated"`
		Valid      bool           `json:"valid"`
		Latitude   float64        `json:"latitude"`
		Longitude  float64        `json:"longitude"`
		Altitude   float64        `json:"altitude"`
		Speed      float64        `json:"speed_knots"`
		Course     float64        `json:"course"`
		Accuracy   float64        `json:"accuracy"`
		Attributes map[string]any `json:"attributes"`
		Network    *struct {
			Cells []map[string]any `json:"cells"`
			WiFi  []map[string]any `json:"wifi"`
		} `json:"network"`
	} `json:"position"`
}

type decoded struct {
	Protocol   int              `json:"protocol"`
	IMEI       string           `json:"imei"`
	Offset     *int32           `json:"utc_offset"`
	DeviceTime *time.Time       `json:"device_time"`
	FixTime    *time.Time       `json:"fix_time"`
	Valid      *bool            `json:"valid"`
	Latitude   *float64         `json:"latitude"`
	Longitude  *float64         `json:"longitude"`
	Altitude   float64          `json:"altitude"`
	Speed      *float64         `json:"speed_kmh"`
	Course     *float64         `json:"course"`
	Accuracy   float64          `json:"accuracy"`
	Cells      []map[string]any `json:"cells"`
	WiFi       []map[string]any `json:"wifi"`
	Alarms     []string         `json:"alarms"`
	Attributes map[string]any   `json:"attributes"`
	Reply      []string         `json:"reply"`
	Error      string           `json:"error"`
}

// decode goes the way of `gt06ctl decode --json`.
func decode(t *testing.T, v *vector) decoded {
	t.Helper()
	frame, err := hex.DecodeString(v.Hex)
	if err != nil {
		t.Fatal(err)
	}
	var m protocol.Message
	var d protocol.Decoder
	s := protocol.Session{Model: v.Model}
	d.Decode(&m, frame, s)
	answers := protocol.AppendAnswer(nil, &m, frame, time.Unix(0, 0))
	var got decoded
	if err := json.Unmarshal(protocol.AppendJSON(nil, &m, s, answers), &got); err != nil {
		t.Fatalf("%s: %v", v.ID, err)
	}
	return got
}

// differences compares every field that the vector expects.
func differences(v *vector, got *decoded) (diff []string) {
	note := func(name string, got, want any) {
		diff = append(diff, fmt.Sprintf("%s: got %v, want %v", name, got, want))
	}
	if !v.TimeDependent && !slices.Equal(got.Reply, v.Response) {
		note("reply", got.Reply, v.Response)
	}
	if v.Expected.IMEI != "" && got.IMEI != v.Expected.IMEI {
		note("imei", got.IMEI, v.Expected.IMEI)
	}
	if v.Expected.Offset != nil && (got.Offset == nil || *got.Offset != *v.Expected.Offset) {
		note("utc_offset", got.Offset, *v.Expected.Offset)
	}
	p := v.Expected.Position
	if p == nil {
		return diff
	}
	if !equalTime(got.DeviceTime, p.DeviceTime) {
		note("device_time", got.DeviceTime, p.DeviceTime)
	}
	if p.Outdated {
		if got.Latitude != nil {
			note("latitude", *got.Latitude, "no fix")
		}
	} else {
		switch {
		case got.Latitude == nil:
			note("fix", "none", p.Latitude)
		case !near(*got.Latitude, p.Latitude), !near(*got.Longitude, p.Longitude), math.Abs(*got.Speed-p.Speed*1.852) > 1e-4, !near(*got.Course, p.Course), *got.Valid != p.Valid:
			note("fix", []float64{*got.Latitude, *got.Longitude, *got.Speed, *got.Course}, []float64{p.Latitude, p.Longitude, p.Speed * 1.852, p.Course})
		}
		if !equalTime(got.FixTime, p.FixTime) {
			note("fix_time", got.FixTime, p.FixTime)
		}
	}
	if !near(got.Altitude, p.Altitude) {
		note("altitude", got.Altitude, p.Altitude)
	}
	if !near(got.Accuracy, p.Accuracy) {
		note("accuracy", got.Accuracy, p.Accuracy)
	}
	want := p.Attributes
	alarms, _ := want["alarm"].(string)
	if strings.Join(got.Alarms, ",") != alarms {
		note("alarms", got.Alarms, alarms)
	}
	if n, ok := want["type"].(float64); ok && int(n) != got.Protocol {
		note("protocol", got.Protocol, n)
	}
	delete(want, "alarm")
	delete(want, "type")
	for key, w := range want {
		if g, ok := got.Attributes[key]; !ok || !equal(g, w) {
			note(key, g, w)
		}
	}
	for key, g := range got.Attributes {
		if _, ok := want[key]; !ok {
			note(key, g, "nothing")
		}
	}
	var cells, wifi []map[string]any
	if p.Network != nil {
		cells, wifi = p.Network.Cells, p.Network.WiFi
	}
	if !equalList(got.Cells, cells) {
		note("cells", got.Cells, cells)
	}
	if !equalList(got.WiFi, wifi) {
		note("wifi", got.WiFi, wifi)
	}
	sort.Strings(diff)
	return diff
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(a), math.Abs(b)) }

func equal(a, b any) bool {
	x, okX := a.(float64)
	y, okY := b.(float64)
	if okX && okY {
		return near(x, y)
	}
	return reflect.DeepEqual(a, b)
}

func equalTime(a, b *time.Time) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Equal(*b)
}

func equalList(a, b []map[string]any) bool {
	if len(a) != len(b) {
		return false
	}
	for _, want := range b { // their order means nothing
		if !slices.ContainsFunc(a, func(got map[string]any) bool {
			for key, v := range want {
				if v != nil && !equal(got[key], v) {
					return false
				}
			}
			return true
		}) {
			return false
		}
	}
	return true
}

// later are the kinds that a later version decodes: they are kept and answered
// as unknown ones, so their answers may be those of unknown frames.
func later(v *vector) bool {
	switch v.Header + v.Type {
	case "78780x24", "78780x31", "78780x32", "78780x33", "78780x34", "78780x35", "78780x39", "78780x40", "78780x41", "78780x61", "78780x95", "78780xa9", "78780xb2", "78780xf3",
		"79790x32", "79790x33", "79790x34", "79790x38", "79790x36", "79790x41", "79790x66", "79790x70", "79790x8c", "79790xf1", "79790xf2":
		return true
	}
	return false
}

func runVectors(t *testing.T, file string) {
	t.Helper()
	var all, good, postponed, refused int
	vectors(t, file, func(line []byte) {
		var v vector
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if v.Type == "" {
			frame, _ := hex.DecodeString(v.Hex)
			v.Header = v.Hex[:4]
			at := 3
			if v.Header != "7878" {
				at = 4
			}
			v.Type = fmt.Sprintf("%#02x", frame[at])
		}
		all++
		if later(&v) {
			postponed++
			return
		}
		got := decode(t, &v)
		if len(v.Expected.Error) > 0 && !bytes.Equal(v.Expected.Error, []byte("null")) {
			// Traccar gives up and closes. Ours answers and says what is wrong.
			refused++
			return
		}
		if strings.Contains(got.Error, "date") {
			// Traccar rolls impossible dates over; ours gives no time.
			refused++
			if got.FixTime != nil {
				t.Errorf("%s: a fix time from an impossible date", v.ID)
			}
			return
		}
		if diff := differences(&v, &got); len(diff) > 0 {
			t.Errorf("%s %s %s %s\n\t%s\n\terror %q", v.ID, v.Header, v.Type, v.Hex, strings.Join(diff, "\n\t"), got.Error)
			return
		}
		good++
	})
	t.Logf("%s: %d of %d equal, %d on purpose different, %d of kinds that come later", file, good, all, refused, postponed)
}

func TestCaptures(t *testing.T)  { runVectors(t, "captures.jsonl") }
func TestGenerated(t *testing.T) { runVectors(t, "generated.jsonl") }
