package server

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
)

// The header of PROXY protocol version 2, with which a balancer in front says
// who is behind it. Numbers are big-endian:
//
//	+--------------+---------------------+---------------------+--------+---------------------------+------+
//	| signature 12 | version 2, command  | family, transport   | size 2 | from, to, ports: 12 or 36 | TLVs |
//	+--------------+---------------------+---------------------+--------+---------------------------+------+
//
// command 0: the balancer's own, a health check; 1: of the address in it.
// family 1: IPv4, 2: IPv6; transport 1: stream. TLVs are passed over.
const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyFixed     = len(proxySignature) + 4
	proxyLongest   = 1 << 10 // of it all; the specification asks for 536
)

var errProxy = errors.New("gt06/server: not a PROXY protocol version 2 header")

// parseProxy reads a header. size is 0 while it is not whole; from is invalid
// when the balancer speaks for itself.
func parseProxy(b []byte) (from netip.AddrPort, size int, err error) {
	if n := min(len(b), len(proxySignature)); !bytes.Equal(b[:n], []byte(proxySignature)[:n]) {
		return from, 0, errProxy
	}
	if len(b) < proxyFixed {
		return from, 0, nil
	}
	command, family := b[12], b[13]
	size = proxyFixed + int(binary.BigEndian.Uint16(b[14:]))
	switch {
	case command>>4 != 2 || command&0xf > 1 || size > proxyLongest:
		return from, 0, errProxy
	case len(b) < size:
		return from, 0, nil
	case command&0xf == 0:
		return from, size, nil
	}
	at := b[proxyFixed:size]
	switch {
	case family == 0x11 && len(at) >= 12:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(at)), binary.BigEndian.Uint16(at[8:])), size, nil
	case family == 0x21 && len(at) >= 36:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(at)).Unmap(), binary.BigEndian.Uint16(at[32:])), size, nil
	}
	return from, 0, errProxy
}

// proxied takes the header from the front of a balancer's connection. The real
// peer is with the keeper before it is released, so that a successor that finds
// input taken knows whom it serves; one that finds none takes it again.
func (l *loop) proxied(s *Session, b []byte) {
	from, size, err := parseProxy(b)
	switch {
	case err != nil:
		s.batch.close = CloseProxy
		return
	case size == 0:
		if s.state.has(stateHangUp) {
			s.batch.close = CloseEOF
		}
		return // its rest comes with an event, or the login's deadline
	}
	if from.IsValid() {
		s.peer = from
	}
	s.state.set(stateBehindProxy)
	l.s.cfg.Keeper.Update(s.id, s.blob())
	if err := release(s.fd, l.work.input, size); err != nil {
		s.batch.close = CloseReset
		return
	}
	s.in = uint64(size)
	s.state.clear(stateProxy)
	if why, refused := l.s.refusesPeer(s.peer.Addr(), l.now); refused {
		l.s.count.refused[why].Add(1)
		s.batch.close = CloseRefused
		return
	}
	l.later(s)
}

// trusted says whether an address is a balancer's.
func (s *Server) trusted(a netip.Addr) bool {
	for _, p := range s.cfg.Proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// refusesPeer asks the budgets, which balancers have none of.
func (s *Server) refusesPeer(a netip.Addr, now int64) (refusal, bool) {
	if s.trusted(a) {
		return 0, false
	}
	return s.admission.refuses(a, now)
}
