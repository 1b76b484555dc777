// Package vectortest reads the frames of real devices and what the most used
// server makes of them (the vectors beside the repository), for tests.
package vectortest

import (
	"bufio"
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
)

// root finds the module: it is one of the parents.
func root() string {
	for d := ".."; len(d) < 30; d = filepath.Join("..", d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d
		}
	}
	return "no module"
}

// Built calls each with the frames of the kinds that no vector has: their
// expected values were computed apart from the decoder.
func Built(t testing.TB, each func(line []byte)) {
	t.Helper()
	f, err := os.Open(filepath.Join(root(), "testdata", "frames", "built.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines(t, f, each)
}

// Lines calls each with every line of one of the files. They lie beside the
// repository, or where GT06_VECTORS says; without them the test is skipped, and
// under CI it fails.
func Lines(t testing.TB, name string, each func(line []byte)) {
	t.Helper()
	dir := os.Getenv("GT06_VECTORS")
	if dir == "" {
		dir = filepath.Join(root(), "..", "shared", "vectors")
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("under CI the vectors must be there: %v", err)
		}
		t.Skipf("no vectors: %v", err)
	}
	lines(t, f, each)
}

func lines(t testing.TB, f *os.File, each func(line []byte)) {
	t.Helper()
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

// Vector is a frame and what Traccar makes of it.
type Vector struct {
	ID            string          `json:"id"`
	Hex           string          `json:"hex"`
	Header        string          `json:"header"`
	Type          string          `json:"type"`
	Model         string          `json:"model"`
	Expected      Expected        `json:"expected"`
	Response      []string        `json:"response"`
	TimeDependent bool            `json:"response_time_dependent"`
	NeedsLogin    json.RawMessage `json:"needs_login"`
}

// Expected is what comes of a frame: an error, a login, or a position.
type Expected struct {
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

// Decoded is an object of `gt06ctl decode --json`.
type Decoded struct {
	Type       string           `json:"type"`
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

// Differences compares every field that the vector expects.
func Differences(v *Vector, got *Decoded) (diff []string) {
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
		case !Near(*got.Latitude, p.Latitude), !Near(*got.Longitude, p.Longitude), math.Abs(*got.Speed-p.Speed*1.852) > 1e-4, !Near(*got.Course, p.Course), *got.Valid != p.Valid:
			note("fix", []float64{*got.Latitude, *got.Longitude, *got.Speed, *got.Course}, []float64{p.Latitude, p.Longitude, p.Speed * 1.852, p.Course})
		}
		if !equalTime(got.FixTime, p.FixTime) {
			note("fix_time", got.FixTime, p.FixTime)
		}
	}
	if !Near(got.Altitude, p.Altitude) {
		note("altitude", got.Altitude, p.Altitude)
	}
	if !Near(got.Accuracy, p.Accuracy) {
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
		if g, ok := got.Attributes[key]; !ok || !Equal(g, w) {
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

// Near compares numbers that went through text.
func Near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(a), math.Abs(b)) }

// Equal compares values of an attribute.
func Equal(a, b any) bool {
	x, okX := a.(float64)
	y, okY := b.(float64)
	if okX && okY {
		return Near(x, y)
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
				if v != nil && !Equal(got[key], v) {
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
