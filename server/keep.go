package server

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"gt06/protocol"
)

// Keeper holds a duplicate of each connection for the time in which nobody
// serves (server/keeper). Its calls never block for long; they may come from
// any loop.
type Keeper interface {
	// Ready says whether a connection may be accepted now.
	Ready() bool
	// Register comes before the connection is watched, Drop before its
	// descriptor is closed.
	Register(id uint64, fd int, blob []byte)
	Update(id uint64, blob []byte)
	Drop(id uint64)
}

// NoKeeper keeps nothing: connections end with the process.
type NoKeeper struct{}

// Ready implements Keeper.
func (NoKeeper) Ready() bool { return true }

// Register implements Keeper.
func (NoKeeper) Register(uint64, int, []byte) {}

// Update implements Keeper.
func (NoKeeper) Update(uint64, []byte) {}

// Drop implements Keeper.
func (NoKeeper) Drop(uint64) {}

// declare tells the keeper who logged in, before anything of the batch is
// written: a successor must not answer these frames as a stranger's.
func (l *loop) declare() {
	for _, s := range l.ready {
		if s.batch.login {
			l.s.cfg.Keeper.Update(s.id, s.blob())
		}
	}
}

// The blob is what the keeper holds beside a descriptor:
//
//	+-----------+---------+--------+--------------+---------+--------+--------------+-------+
//	| version 1 | flags 1 | imei 8 | utc offset 4 | addr 16 | port 2 | model size 1 | model |
//	+-----------+---------+--------+--------------+---------+--------+--------------+-------+
//
// Little-endian. flags: 1 = the device sent a valid frame behind its login, 2 =
// addr is from a PROXY header, which is released when anything is. An
// unknown version is refused: its connection is closed.
const (
	blobVersion  = 1
	blobVerified = 1
	blobProxied  = 2
	blobSize     = 1 + 1 + 8 + 4 + 16 + 2 + 1
	blobModel    = 64
)

var errBlob = errors.New("gt06/server: what the keeper holds is of another version")

// blob encodes what a successor must know of the session and cannot read from
// kernel or log.
func (s *Session) blob() []byte {
	flags := byte(0)
	if s.state.has(stateVerified) {
		flags |= blobVerified
	}
	if s.state.has(stateBehindProxy) {
		flags |= blobProxied
	}
	addr := s.peer.Addr().As16()
	model := s.device.Model[:min(len(s.device.Model), blobModel)]
	b := append(make([]byte, 0, blobSize+len(model)), blobVersion, flags)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.device.IMEI))
	b = binary.LittleEndian.AppendUint32(b, uint32(s.device.UTCOffset))
	b = append(b, addr[:]...)
	b = binary.LittleEndian.AppendUint16(b, s.peer.Port())
	b = append(b, byte(len(model)))
	return append(b, model...)
}

// setBlob is the reverse of blob.
func (s *Session) setBlob(b []byte) error {
	if len(b) < blobSize || b[0] != blobVersion || len(b) != blobSize+int(b[blobSize-1]) {
		return errBlob
	}
	s.state.clear(stateVerified | stateBehindProxy)
	if b[1]&blobVerified != 0 {
		s.state.set(stateVerified)
	}
	if b[1]&blobProxied != 0 {
		s.state.set(stateBehindProxy)
	}
	s.device = protocol.Session{
		IMEI: protocol.IMEI(binary.LittleEndian.Uint64(b[2:])), UTCOffset: int32(binary.LittleEndian.Uint32(b[10:])),
		Model: string(b[blobSize:]),
	}
	s.peer = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[14:30])).Unmap(), binary.LittleEndian.Uint16(b[30:]))
	return nil
}
