package event_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"gt06/protocol"
	"gt06/storage"
	"gt06/storage/event"
)

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// fix is a location that says at and was received at received.
func fix(at, received time.Time, latitude, longitude float64, archived bool) storage.Record {
	c := []byte{byte(at.Year() - 2000), byte(at.Month()), byte(at.Day()), byte(at.Hour()), byte(at.Minute()), byte(at.Second()), 0xc9}
	c = binary.BigEndian.AppendUint32(c, uint32(latitude*1_800_000))
	c = binary.BigEndian.AppendUint32(c, uint32(longitude*1_800_000))
	c = append(c, 50, 0x14, 0x20, 0x01, 0xcc, 0x00, 0x28, 0x7d, 0x00, 0x1f, 0x71, 1, 0, 0)
	if archived {
		c[len(c)-1] = 1
	}
	return storage.Record{Device: 0x490154203237518, ReceivedAt: received.UnixMicro(), Input: protocol.AppendFrame(nil, 0x22, c, 1)}
}

func rows(t *testing.T, records ...storage.Record) []event.Position {
	t.Helper()
	var r event.Rows
	r.Reset()
	var m protocol.Message
	var d protocol.Decoder
	for i := range records {
		d.Decode(&m, records[i].Input, protocol.Session{IMEI: records[i].Device, UTCOffset: records[i].UTCOffset})
		event.Build(&r, &records[i], storage.Position(i+1), &m)
	}
	if len(r.Positions) != len(records) {
		t.Fatalf("%d positions of %d records", len(r.Positions), len(records))
	}
	return r.Positions
}

func TestTimesThatCannotBe(t *testing.T) {
	t.Parallel()
	const weeks = 1024 * 7 * 24 * time.Hour
	for name, c := range map[string]struct {
		off      time.Duration
		archived bool
		want     time.Duration // of the row, from the receipt
		source   event.TimeSource
		flag     string
	}{
		"right":                                {-3 * time.Second, false, -3 * time.Second, event.FromGPS, ""},
		"a minute ahead":                       {time.Minute, false, time.Minute, event.FromGPS, ""},
		"an old upload":                        {-50 * time.Hour, true, -50 * time.Hour, event.FromGPS, ""},
		"an old upload that does not say so":   {-6 * time.Hour, false, -6 * time.Hour, event.FromGPS, ""},
		"more than a day ahead":                {25 * time.Hour, false, 0, event.FromServer, "implausible"},
		"a day ahead":                          {24 * time.Hour, false, 24 * time.Hour, event.FromGPS, ""},
		"weeks counted from zero":              {-weeks - 2*time.Second, false, -2 * time.Second, event.FromGPS, "rollover"},
		"weeks counted from zero, of archives": {-weeks - 20*time.Hour, true, -20 * time.Hour, event.FromGPS, "rollover"},
		"nearly weeks from zero":               {-weeks - 25*time.Hour, false, 0, event.FromServer, "implausible"},
		"before the first device":              {-20 * 365 * 24 * time.Hour, false, 0, event.FromServer, "implausible"},
		"local time of Kolkata":                {330*time.Minute - 5*time.Second, false, 330*time.Minute - 5*time.Second, event.FromGPS, "zone +05:30"},
		"local time of Kathmandu":              {345 * time.Minute, false, 345 * time.Minute, event.FromGPS, "zone +05:45"},
		"ahead by no quarter":                  {337 * time.Minute, false, 337 * time.Minute, event.FromGPS, ""},
		"further than any zone":                {14*time.Hour + 15*time.Minute, false, 14*time.Hour + 15*time.Minute, event.FromGPS, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := rows(t, fix(now.Add(c.off), now, 22, 72, c.archived))[0]
			var attributes struct{ TimeFlag string }
			if err := json.Unmarshal(p.Attributes, &attributes); err != nil {
				t.Fatal(err)
			}
			if got := time.Unix(p.FixTime, 0).Sub(now); got != c.want || p.Source != c.source || attributes.TimeFlag != c.flag {
				t.Errorf("%v %s %q, want %v %s %q", got, p.Source, attributes.TimeFlag, c.want, c.source, c.flag)
			}
		})
	}
}

// judge shows each record to one Judge: what may be the latest, and the
// problems at the end.
func judge(t *testing.T, records ...storage.Record) (latest string, problems []event.Problem) {
	t.Helper()
	var j event.Judge
	list := rows(t, records...)
	for i := range list {
		mark := "-"
		if j.Look(&list[i]) {
			mark = "+"
		}
		latest += mark
	}
	return latest, j.Problems()
}

func TestPlacesThatCannotBeReached(t *testing.T) {
	t.Parallel()
	at := func(n int, latitude, longitude float64) storage.Record {
		then := now.Add(time.Duration(n) * 30 * time.Second)
		return fix(then, then, latitude, longitude, false)
	}
	for name, c := range map[string]struct {
		records []storage.Record
		latest  string
		jumps   int
	}{
		"a drive":                       {[]storage.Record{at(0, 22, 72), at(1, 22.005, 72), at(2, 22.01, 72.01)}, "+++", 0},
		"one jump to China and back":    {[]storage.Record{at(0, 22, 72), at(1, 22.5, 114), at(2, 22.001, 72)}, "+-+", 1},
		"three fixes there are right":   {[]storage.Record{at(0, 22, 72), at(1, 22.5, 114), at(2, 22.5, 114.001), at(3, 22.501, 114), at(4, 22.502, 114)}, "+--++", 3},
		"jumps that disagree":           {[]storage.Record{at(0, 22, 72), at(1, 40, 114), at(2, 10, 20), at(3, 60, 10), at(4, 22, 72)}, "+---+", 3},
		"a ship, or a night on a plane": {[]storage.Record{at(0, 22, 72), at(1800, 22.5, 114)}, "++", 0},
		"over the date line":            {[]storage.Record{at(0, 0.1, 179.999), at(1, 0.1, 179.999)}, "++", 0},
		"nowhere":                       {[]storage.Record{at(0, 22, 72), at(1, 0, 0), at(2, 22, 72.001)}, "+-+", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			latest, problems := judge(t, c.records...)
			jumps := 0
			for _, p := range problems {
				if p.Kind == event.ProblemJump {
					jumps = p.Count
				}
			}
			if latest != c.latest || jumps != c.jumps {
				t.Errorf("%s with %d jumps, want %s with %d", latest, jumps, c.latest, c.jumps)
			}
		})
	}
}

func TestAnUploadOfTheNightIsNoJump(t *testing.T) {
	t.Parallel()
	live := fix(now, now, 22, 72, false)
	late := fix(now.Add(-8*time.Hour), now.Add(time.Minute), 40, 10, true)
	if latest, problems := judge(t, live, late, fix(now.Add(2*time.Minute), now.Add(2*time.Minute), 22.001, 72, false)); latest != "+++" || problems != nil {
		t.Errorf("%s %+v", latest, problems)
	}
}

func TestClocksOnLocalTime(t *testing.T) {
	t.Parallel()
	every := func(n int, off, pace time.Duration, offset int32, archived bool) (list []storage.Record) {
		for i := range n {
			then := now.Add(time.Duration(i) * pace)
			r := fix(then.Add(off), then, 22, 72, archived)
			r.UTCOffset = offset
			list = append(list, r)
		}
		return list
	}
	for name, c := range map[string]struct {
		records []storage.Record
		zone    string
	}{
		"Kolkata":                            {every(4, 330*time.Minute, time.Minute, 0, false), "+05:30"},
		"New York":                           {every(4, -5*time.Hour, time.Minute, 0, false), "-05:00"},
		"UTC, and the login said Beijing":    {every(4, 0, time.Minute, 8*3600, false), "+00:00"},
		"two fixes":                          {every(2, 330*time.Minute, time.Minute, 0, false), ""},
		"all at once":                        {every(9, 330*time.Minute, time.Second, 0, false), ""},
		"archives":                           {every(9, -5*time.Hour, time.Minute, 0, true), ""},
		"mended":                             {append(every(9, 330*time.Minute, time.Minute, 0, false), every(9, 330*time.Minute, time.Minute, 330*60, false)...), ""},
		"a late upload does not change that": {append(every(4, 330*time.Minute, time.Minute, 0, false), fix(now.Add(-5000*time.Second), now, 22, 72, false)), "+05:30"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, problems := judge(t, c.records...)
			got := ""
			for _, p := range problems {
				if p.Kind == event.ProblemZone {
					got = event.Zone(p.Zone)
				}
			}
			if got != c.zone {
				t.Errorf("zone %q, want %q: %+v", got, c.zone, problems)
			}
		})
	}
}

// A device whose clock was hours ahead is on the map again as soon as the
// clock is right.
func TestALatestPositionFromTheFutureIsReplaced(t *testing.T) {
	t.Parallel()
	ahead := fix(now.Add(330*time.Minute), now, 22, 72, false)
	right := fix(now.Add(time.Minute), now.Add(time.Minute), 22.001, 72, false)
	if latest, _ := judge(t, ahead, right, fix(now.Add(2*time.Minute), now.Add(2*time.Minute), 22.5, 114, false)); latest != "++-" {
		t.Errorf("%s: the second fix must be the new measure", latest)
	}
}

func ExampleZone() {
	fmt.Println(event.Zone(19800), event.Zone(-12600))
	// Output: +05:30 -03:30
}
