package server

import (
	"sync"
	"time"

	"gt06/protocol"
)

// TroubleKind is what is wrong with how a device connects. The refusals have
// the words of their CloseReason.
type TroubleKind string

// The kinds that are no refusal.
const (
	TroubleTwin     TroubleKind = "twin"     // speaks on two connections at a time
	TroubleFlapping TroubleKind = "flapping" // logs in again and again
)

// Trouble is what a device had, how often and when last, since this process
// began.
type Trouble struct {
	IMEI   protocol.IMEI
	Kind   TroubleKind
	Count  int
	Last   time.Time
	Remote string // where it came from last
	Other  string // of a twin, the other address
}

// troubles remembers the last ones in a ring of fixed size: the oldest is
// forgotten first.
type troubles struct {
	mu   sync.Mutex
	at   map[troubleKey]int
	ring []Trouble
	next int
}

type troubleKey struct {
	imei protocol.IMEI
	kind TroubleKind
}

const troublesMost = 2048

// note counts one.
func (t *troubles) note(tr *Trouble) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := troubleKey{tr.IMEI, tr.Kind}
	if i, ok := t.at[key]; ok {
		tr.Count = t.ring[i].Count + 1
		t.ring[i] = *tr
		return
	}
	tr.Count = 1
	if t.at == nil {
		t.at = map[troubleKey]int{}
	}
	if len(t.ring) < troublesMost {
		t.at[key] = len(t.ring)
		t.ring = append(t.ring, *tr)
		return
	}
	old := &t.ring[t.next]
	delete(t.at, troubleKey{old.IMEI, old.Kind})
	*old = *tr
	t.at[key] = t.next
	t.next = (t.next + 1) % troublesMost
}

func (t *troubles) list() []Trouble {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Trouble(nil), t.ring...)
}

// Troubles lists what devices had since this process began, as far as it is
// remembered: refused ones apart from those that came in, so that who invents
// IMEIs pushes out no real device's.
func (s *Server) Troubles() []Trouble {
	return append(s.devices.list(), s.refused.list()...)
}

// trouble notes one of a device on a connection.
func (s *Server) trouble(list *troubles, imei protocol.IMEI, kind TroubleKind, on *Session, other string) {
	list.note(&Trouble{IMEI: imei, Kind: kind, Last: s.cfg.Now(), Remote: on.peer.String(), Other: other})
}
