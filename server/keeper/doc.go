// Package keeper holds the device port and a duplicate of every device
// connection, so that a server can die without one of them noticing
// (HANDOVER.md section 2). The keeper never reads from, writes to or accepts a
// device and understands nothing of what it keeps. It has one thread and no
// dependency beyond x/sys, because what does little ends seldom.
//
// # Messages
//
// A client talks to it over SOCK_SEQPACKET; a message is one packet. Integers
// are little-endian. Unknown types are ignored; another version ends the
// conversation.
//
//	+-----------+--------+------+---------+
//	| version 1 | type 1 | id 8 | payload |   and descriptors (SCM_RIGHTS)
//	+-----------+--------+------+---------+
//
//	to the keeper
//	R register   id of a connection, 0: the listener; payload: blob; one descriptor
//	U update     id; payload: blob
//	D drop       id
//	N renew      what is not registered again before S is dropped at S
//	M mark       id: settled position of the log
//	S serving    this client serves from now on: its end starts the grace
//	C command    payload: NUL-separated count of arguments, arguments, environment
//	L leave      this client ends on purpose: nobody starts it again
//	X release    close everything, at once
//	F fetch      send all that is held, then changes as they come
//	A ack        one batch was taken
//	Y sync       answered behind everything that came before it
//
//	from the keeper
//	B batch      id: n; payload: n times id 8, blob size 2, blob; n descriptors
//	E end        id: how many are held; payload: mark 8; the batches are complete
//	R U D        changes made by others, to who fetched and does not serve
//	y synced     id: how many are held; payload: mark 8
//
// # Rules
//
// F and Y are answered when the queue of every client was read to its end, that
// of a dead one too: its last register would be overtaken otherwise. At most
// window batches are on their way, because descriptors in flight are limited
// (ETOOMANYREFS). A client whose descriptors do not arrive whole (MSG_CTRUNC)
// is cut: it must learn that it is not registered.
//
// The grace begins at the end of file of the client that served, and ends with
// the next S. Nobody in time: everything is shut down and closed, once.
// Devices without an answer for 5 s hang up anyway and keep their data.
package keeper

import "encoding/binary"

const (
	version = 1
	head    = 10
	// perMessage is how many descriptors one message carries (SCM_MAX_FD).
	perMessage = 253
	// window is how many batches are sent ahead of their acks.
	window = 4
	// MaxBlob is the most a connection may keep, in bytes.
	MaxBlob = 256
	// maxMessage holds a full batch, and a command with its environment.
	maxMessage = 128 << 10
	// Listener is the id of the device port.
	Listener = 0
)

const (
	msgRegister = 'R'
	msgUpdate   = 'U'
	msgDrop     = 'D'
	msgRenew    = 'N'
	msgMark     = 'M'
	msgServing  = 'S'
	msgCommand  = 'C'
	msgLeave    = 'L'
	msgRelease  = 'X'
	msgFetch    = 'F'
	msgAck      = 'A'
	msgSync     = 'Y'
	msgBatch    = 'B'
	msgEnd      = 'E'
	msgSynced   = 'y'
)

var le = binary.LittleEndian //nolint:gochecknoglobals // a name

// message encodes the head of a message.
func message(typ byte, id uint64) []byte {
	return le.AppendUint64([]byte{version, typ}, id)
}
