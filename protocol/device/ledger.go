package device

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"
)

// Entry is one frame in the ledger: what a device knows of it.
type Entry struct {
	Device   int
	Kind     Kind
	Serial   uint16
	Sent     time.Time // written in whole, the last time
	Answered time.Time // zero: not yet
	Tries    int       // how often it was written in whole
	Place    Place
}

// Ledger is what one device sent and what it was answered, outside the
// server's reach (RELIABILITY.md section 6). It belongs to one goroutine.
type Ledger struct {
	Entries    []Entry
	pending    []int // entries that wait for an answer on this connection, in order
	Sent       int   // frames written in whole, again ones too
	Answers    int
	Duplicated int // a second answer to one receipt
	OutOfOrder int
	Strange    int            // answers that no frame asked for
	Commands   map[uint32]int // commands received, by the server's flag
}

// Wrote notes that a frame left in whole on the present connection, and
// returns its entry. again is the entry of a frame sent before, or -1.
func (l *Ledger) Wrote(device int, f *Frame, at time.Time, again int) int {
	l.Sent++
	if again < 0 {
		l.Entries = append(l.Entries, Entry{Device: device, Kind: f.Kind, Serial: f.Serial, Place: f.Place})
		again = len(l.Entries) - 1
	}
	e := &l.Entries[again]
	e.Sent = at
	e.Tries++
	if f.Kind.Answered() {
		l.pending = append(l.pending, again)
	}
	return again
}

// Dropped notes the end of a connection and returns the entries without an
// answer, which a device sends again.
func (l *Ledger) Dropped() []int {
	open := slices.Clone(l.pending)
	l.pending = l.pending[:0]
	return slices.DeleteFunc(open, func(i int) bool { return !l.Entries[i].Answered.IsZero() })
}

// Pending returns how many frames wait for an answer on this connection.
func (l *Ledger) Pending() int { return len(l.pending) }

// Answer notes an answer and returns the entry it is for and how long it took.
// An answer names its frame by type and serial; a time answer carries no
// serial.
func (l *Ledger) Answer(answer []byte, at time.Time) (entry int, took time.Duration, ok bool) {
	if typ := answer[3]; typ == 0x80 && len(answer) > 9 {
		if l.Commands == nil {
			l.Commands = map[uint32]int{}
		}
		l.Commands[binary.BigEndian.Uint32(answer[5:])]++
		return 0, 0, false
	}
	l.Answers++
	typ, serial := answer[3], binary.BigEndian.Uint16(answer[len(answer)-6:])
	for i, n := range l.pending {
		e := &l.Entries[n]
		if e.Kind.Type() != typ || e.Kind != TimeRequest && e.Serial != serial {
			continue
		}
		if i > 0 {
			l.OutOfOrder++
		}
		l.pending = slices.Delete(l.pending, i, i+1)
		if e.Answered.IsZero() {
			e.Answered = at
		}
		return n, at.Sub(e.Sent), true
	}
	for i := len(l.Entries) - 1; i >= 0 && i > len(l.Entries)-1000; i-- {
		if e := &l.Entries[i]; e.Kind.Type() == typ && e.Serial == serial && !e.Answered.IsZero() {
			l.Duplicated++
			return i, 0, false
		}
	}
	l.Strange++
	return 0, 0, false
}

// Lost returns how many frames asked for an answer and have none.
func (l *Ledger) Lost() int {
	lost := 0
	for i := range l.Entries {
		if l.Entries[i].Kind.Answered() && l.Entries[i].Answered.IsZero() {
			lost++
		}
	}
	return lost
}

// Row is a stored fix, as a database shows it.
type Row struct {
	IMEI  string
	Kind  string // location, alarm, lbs, wifi
	Place Place
	Has   bool // has coordinates
}

// Report compares ledgers and rows.
type Report struct {
	Rows     int // rows of positions with a place
	Expected int // distinct fixes that were answered
	Merged   int // fixes received again and not stored again
	Missing  int // answered and no row
	Doubled  int // more than one row
	Foreign  int // a row that nobody sent
	Wrong    int // a row whose fields differ
	First    string
}

// OK says that nothing is missing, doubled, foreign or wrong.
func (r Report) OK() bool { return r.Missing+r.Doubled+r.Foreign+r.Wrong == 0 }

func (r *Report) note(format string, args ...any) {
	if r.First == "" {
		r.First = fmt.Sprintf(format, args...)
	}
}

// Compare checks invariants 1 to 3 of RELIABILITY.md section 6 on the fixes:
// each one that was answered is exactly one row with equal fields, and no row
// is there that no device sent. A fix that was not answered may be a row or
// not.
func Compare(ledgers []*Ledger, rows []Row) Report {
	type key struct {
		imei string
		kind string
		at   int64
		lat  int64
		lon  int64
	}
	micro := func(v float64) int64 { return int64(math.Round(v * 1e7)) }
	of := func(imei, kind string, p *Place) key {
		return key{imei, kind, p.Time.Unix(), micro(p.Latitude), micro(p.Longitude)}
	}
	var r Report
	stored := map[key]int{}
	fields := map[key]*Place{}
	for i := range rows {
		if !rows[i].Has {
			continue
		}
		r.Rows++
		k := of(rows[i].IMEI, rows[i].Kind, &rows[i].Place)
		stored[k]++
		fields[k] = &rows[i].Place
	}
	sent := map[key]bool{}
	for _, l := range ledgers {
		for i := range l.Entries {
			e := &l.Entries[i]
			if !e.Kind.Fix() {
				continue
			}
			kind := "location"
			if e.Kind == Alarm {
				kind = "alarm"
			}
			k := of(IMEI(e.Device).String(), kind, &e.Place)
			again := sent[k]
			sent[k] = true
			n := stored[k]
			if e.Tries > 1 && n > 0 {
				r.Merged += e.Tries - 1
			}
			if e.Answered.IsZero() || again {
				continue
			}
			r.Expected++
			switch p := fields[k]; {
			case n == 0:
				r.Missing++
				r.note("device %d, serial %d of %v was answered and is no row", e.Device, e.Serial, e.Place.Time)
			case n > 1:
				r.Doubled++
				r.note("device %d, serial %d has %d rows", e.Device, e.Serial, n)
			case math.Abs(p.SpeedKMH-e.Place.SpeedKMH) > 1e-6 || math.Abs(p.Course-e.Place.Course) > 1e-6:
				r.Wrong++
				r.note("device %d, serial %d: row %+v, sent %+v", e.Device, e.Serial, *p, e.Place)
			}
		}
	}
	for k := range stored {
		if !sent[k] {
			r.Foreign++
			r.note("row %+v was never sent", k)
		}
	}
	return r
}
