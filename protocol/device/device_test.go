package device

import (
	"testing"
	"time"

	"gt06/protocol"
)

var at = time.Date(2026, 11, 24, 11, 0, 0, 0, time.UTC)

func TestFramesDecodeToWhatTheySay(t *testing.T) {
	t.Parallel()
	var m protocol.Message
	var d protocol.Decoder
	for kind := range numKinds {
		f := Build(kind, 7, 41, at)
		d.Decode(&m, f.Bytes, protocol.Session{})
		if m.Type != kind.Type() || m.Serial != 42 || !m.CRCOK || m.Error != "" {
			t.Errorf("kind %d: %+v", kind, m)
		}
		if kind == Login && m.IMEI != IMEI(7) {
			t.Errorf("login of %v, want %v", m.IMEI, IMEI(7))
		}
		if kind.Fix() != (m.Has&protocol.HasFix != 0) {
			t.Errorf("kind %d: fix %v", kind, m.Has&protocol.HasFix != 0)
		}
		if kind.Fix() && (m.Latitude != f.Place.Latitude || m.Longitude != f.Place.Longitude || m.SpeedKMH != f.Place.SpeedKMH || m.Course != f.Place.Course || m.FixTime != f.Place.Time.Unix()) {
			t.Errorf("kind %d: %+v, want %+v", kind, m, f.Place)
		}
		answer := protocol.AppendAnswer(nil, &m, f.Bytes, at)
		if kind.Answered() != (len(answer) > 0) {
			t.Errorf("kind %d: answer %x", kind, answer)
		}
	}
}

func TestIMEIsAreDistinctAndRight(t *testing.T) {
	t.Parallel()
	seen := map[protocol.IMEI]bool{}
	for n := range 5000 {
		id := IMEI(n)
		if !id.Valid() || !id.LuhnOK() || seen[id] {
			t.Fatalf("IMEI %d is %v", n, id)
		}
		seen[id] = true
	}
}

// filled makes a ledger of ten answered fixes and the rows they should be.
func filled() (*Ledger, []Row) {
	l := &Ledger{}
	var rows []Row
	for n := range 10 {
		f := Build(Location, 1, n, at.Add(time.Duration(n)*time.Second))
		l.Wrote(1, &f, at, -1)
		if _, _, ok := l.Answer(protocol.AppendFrame(nil, 0x22, nil, f.Serial), at); !ok {
			panic("answer refused")
		}
		rows = append(rows, Row{IMEI: IMEI(1).String(), Kind: "location", Place: f.Place, Has: true})
	}
	return l, rows
}

// A checker that cannot fail is worth nothing: each fault is made up and must
// be found.
func TestCompareFindsEveryFault(t *testing.T) {
	t.Parallel()
	for name, now := range map[string]struct {
		change func(rows []Row) []Row
		found  func(Report) int
	}{
		"nothing":     {func(r []Row) []Row { return r }, func(Report) int { return 1 }},
		"missing":     {func(r []Row) []Row { return r[1:] }, func(r Report) int { return r.Missing }},
		"doubled":     {func(r []Row) []Row { return append(r, r[3]) }, func(r Report) int { return r.Doubled }},
		"foreign":     {func(r []Row) []Row { x := r[0]; x.Place.Latitude++; return append(r, x) }, func(r Report) int { return r.Foreign }},
		"other owner": {func(r []Row) []Row { r[2].IMEI = IMEI(2).String(); return r }, func(r Report) int { return min(r.Missing, r.Foreign) }},
		"wrong speed": {func(r []Row) []Row { r[4].Place.SpeedKMH++; return r }, func(r Report) int { return r.Wrong }},
		"wrong time":  {func(r []Row) []Row { r[4].Place.Time = at.Add(time.Hour); return r }, func(r Report) int { return min(r.Missing, r.Foreign) }},
	} {
		l, rows := filled()
		r := Compare([]*Ledger{l}, now.change(rows))
		if now.found(r) != 1 || r.OK() != (name == "nothing") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestLedgerCountsAnswers(t *testing.T) {
	t.Parallel()
	l := &Ledger{}
	a, b := Build(Location, 1, 0, at), Build(Heartbeat, 1, 1, at)
	l.Wrote(1, &a, at, -1)
	l.Wrote(1, &b, at, -1)
	answer := func(typ byte, serial uint16) { l.Answer(protocol.AppendFrame(nil, typ, nil, serial), at) }
	answer(0x13, 2) // before the first
	answer(0x22, 1)
	answer(0x22, 1) // twice
	answer(0x22, 9) // nobody's
	if l.OutOfOrder != 1 || l.Duplicated != 1 || l.Strange != 1 || l.Lost() != 0 {
		t.Errorf("%+v", l)
	}
	c := Build(Location, 1, 2, at)
	i := l.Wrote(1, &c, at, -1)
	if l.Lost() != 1 {
		t.Errorf("lost %d", l.Lost())
	}
	if again := l.Dropped(); len(again) != 1 || again[0] != i {
		t.Errorf("to be sent again: %v", again)
	}
	l.Wrote(1, &c, at, i)
	answer(0x22, 3)
	if l.Lost() != 0 || l.Entries[i].Tries != 2 || l.Duplicated != 1 {
		t.Errorf("%+v", l)
	}
}
