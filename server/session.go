package server

import (
	"net/netip"
	"sync/atomic"

	"gt06/protocol"
)

// Session is all of a device connection. Everything but heard and current
// belongs to the loop it lives on; what must survive this process is rebuilt
// from kernel and log (HANDOVER.md section 2).
type Session struct {
	id   uint64
	fd   int
	slot int32 // in the loop's table
	home *loop
	peer netip.AddrPort

	device  protocol.Session // as the next frame is decoded
	in, out uint64           // stream offsets: input released, answers recorded

	owing *debt // nil: nothing

	batch *batchState // while it is in one
	state sessionState

	early  uint8 // frames before a login
	due    int64 // microseconds on the server's clock: see pace
	opened int64 // milliseconds on the server's clock
	since  int64 // when the wait began that state says (half frame, unsent)

	heard   atomic.Int64 // Unix seconds of the last input; 0: none in this process
	current atomic.Bool  // registered as the connection of its IMEI
}

// batchState is what one batch does to a session. Nothing of it counts before
// the records are appended: until then it can be thrown away and done again.
// It is the batch's and not the session's because few of many sessions are in
// one at a time.
type batchState struct {
	device   protocol.Session // before the batch
	input    int              // bytes parsed, to be released
	answer   int              // answer bytes in records of this batch
	first    int              // its first record in the batch
	records  int
	frames   int    // valid frames behind a login
	login    bool   // the device named itself
	commands int    // downlinks in the batch
	held     []byte // what is held after the batch
	close    CloseReason
}

// debt is what goes on with a session from one batch to the next. Few have one.
type debt struct {
	// held is half a frame that had to be taken out of the kernel: see hold.
	held []byte
	// unsent are answer bytes the kernel did not take. While there are any, the
	// connection is not read: a device that does not read is not served more.
	unsent []byte
	// pos is where in the log the oldest record of both is.
	pos uint64
}

func (s *Session) held() []byte {
	if s.owing == nil {
		return nil
	}
	return s.owing.held
}

func (s *Session) unsent() []byte {
	if s.owing == nil {
		return nil
	}
	return s.owing.unsent
}

// sessionState are the flags of a session.
type sessionState uint16

const (
	stateQueued      sessionState = 1 << iota // in the batch that is being collected
	stateAgain                                // has input the next batch must look at
	stateHangUp                               // the device ended its side: read to the end, then close
	stateUrgent                               // urgent data was seen: the kernel stops reads at its mark
	stateHalf                                 // half a frame waits
	stateLong                                 // its frame is longer than a look
	stateVerified                             // sent a valid frame after its login
	stateFramed                               // a whole frame has come
	stateUnplaced                             // taken over; where its streams stand is not known yet
	statePaced                                // brought more than its share and is not read for a while
	stateTwin                                 // was found to be one of two
	stateFlapping                             // logged in too often
	stateProxy                                // a PROXY header must come first
	stateBehindProxy                          // one came: peer is from it
)

func (s sessionState) has(f sessionState) bool { return s&f != 0 }
func (s *sessionState) set(f sessionState)     { *s |= f }
func (s *sessionState) clear(f sessionState)   { *s &^= f }
func (s *sessionState) take(f sessionState) bool {
	had := s.has(f)
	s.clear(f)
	return had
}

// loggedIn says whether the device has named itself.
func (s *Session) loggedIn() bool { return s.device.IMEI != 0 }

// failed says whether nothing came of the connection: no login, or one too many
// and no frame behind it.
func (s *Session) failed() bool {
	return !s.loggedIn() || s.state.has(stateFlapping) && !s.state.has(stateVerified)
}
