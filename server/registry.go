package server

import (
	"net/netip"
	"sync"

	"gt06/protocol"
)

// Registry knows the current connection of each device. The newest login wins,
// but only after its first valid frame: a login alone proves nothing. A twin
// (the same IMEI alive on two connections) is answered on both and never
// fought, because each would come back and the other be closed again.
//
// The lock is taken at the first valid frame after a login and at the end of a
// connection, never per frame.
type Registry struct {
	mu    sync.Mutex
	byID  map[protocol.IMEI]*Session
	fresh map[protocol.IMEI]struct{} // devices the operator does not know yet
	limit int                        // of fresh
}

func newRegistry(limit int) *Registry {
	return &Registry{byID: map[protocol.IMEI]*Session{}, fresh: map[protocol.IMEI]struct{}{}, limit: limit}
}

// enter makes s the current connection of its device and returns the one it
// replaces, or nil.
func (r *Registry) enter(s *Session) *Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.byID[s.device.IMEI]
	if old == s {
		return nil
	}
	r.byID[s.device.IMEI] = s
	s.current.Store(true)
	if old != nil {
		old.current.Store(false)
	}
	return old
}

// adopt enters a connection of another process, which may come in any order:
// the newest of two of a device is its current one.
func (r *Registry) adopt(s *Session) {
	if !s.state.has(stateVerified) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.byID[s.device.IMEI]
	if old != nil && old.id > s.id {
		return
	}
	r.byID[s.device.IMEI] = s
	s.current.Store(true)
	if old != nil {
		old.current.Store(false)
	}
}

// current returns the current connection of a device, or nil.
func (r *Registry) current(imei protocol.IMEI) *Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[imei]
}

// leave forgets s if it is the current connection of imei.
func (r *Registry) leave(imei protocol.IMEI, s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byID[imei] == s {
		delete(r.byID, imei)
	}
	s.current.Store(false)
}

// admit says whether a device that the operator does not know may come in
// beside those that are known, and whether it is a new one: their number is
// limited, for anybody can invent IMEIs.
func (r *Registry) admit(imei protocol.IMEI, known int) (fresh, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, again := r.fresh[imei]; again {
		return false, true
	}
	if known+len(r.fresh) >= r.limit {
		return false, false
	}
	r.fresh[imei] = struct{}{}
	return true, true
}

// forget takes back an admission.
func (r *Registry) forget(imei protocol.IMEI) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.fresh, imei)
}

// review forgets the fresh devices that are known by now.
func (r *Registry) review(d Directory) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for imei := range r.fresh {
		if _, known := d.Device(imei); known {
			delete(r.fresh, imei)
		}
	}
}

// Online is one device that is connected now.
type Online struct {
	IMEI   protocol.IMEI
	Conn   uint64
	Remote netip.AddrPort
	Heard  int64 // Unix seconds; 0: taken over and not heard since
}

// Online lists the devices with a current connection.
func (r *Registry) Online() []Online {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Online, 0, len(r.byID))
	for imei, s := range r.byID {
		list = append(list, Online{IMEI: imei, Conn: s.id, Remote: s.peer, Heard: s.heard.Load()})
	}
	return list
}

// Len returns how many devices have a current connection.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.byID)
}

// reclaim makes s current again when the connection that replaced it is gone.
func (r *Registry) reclaim(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byID[s.device.IMEI] == nil {
		r.byID[s.device.IMEI] = s
		s.current.Store(true)
	}
}
