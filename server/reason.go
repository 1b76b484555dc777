package server

// CloseReason is why a connection ended. It is the same word in the log, in
// the metric and in `gt06ctl devices`.
type CloseReason uint8

// The reasons. Every end of a connection has exactly one.
const (
	closeNone          CloseReason = iota
	CloseEOF                       // the device closed its side; everything it sent was read
	CloseReset                     // the device or the network reset the connection
	CloseLogin                     // no login within the deadline
	CloseFrame                     // half a frame and nothing more within the deadline
	CloseIdle                      // nothing at all within the deadline
	CloseWrite                     // the device does not read its answers
	CloseNoLogin                   // much input before a login and no frame in it: another protocol
	CloseRoom                      // nothing could be made durable for 4 s
	CloseUrgent                    // an urgent mark inside a frame hides what follows
	CloseReplaced                  // the same IMEI lives on a newer connection and this one is silent
	CloseUnknownMax                // the limit of unknown devices is reached
	CloseBlocked                   // the operator blocked the device
	CloseNotAllowed                // the policy is allow, and nobody allowed the device
	CloseIMEI                      // the login names no device: no digits, or a wrong check digit where that is asked for
	CloseIMEIChanged               // a login of another device on the same connection
	CloseAddressMax                // too many unknown devices from one address
	CloseProxy                     // a balancer's connection without a PROXY header, or a header from somebody else
	CloseRefused                   // the network behind a balancer has used up a budget
	CloseShutdown                  // the server ends
	CloseContradiction             // after a resume kernel and log contradict each other
	CloseReleased                  // an operator stopped the server
	CloseInternal                  // a broken invariant of this program; the log says which
	numReasons
)

//nolint:gochecknoglobals // read-only table
var reasonNames = [numReasons]string{
	"none", "eof", "reset", "login_timeout", "frame_timeout", "idle_timeout", "write_timeout",
	"no_login", "no_room", "urgent", "replaced", "unknown_devices",
	"blocked", "not_allowed", "bad_imei", "imei_changed", "address_devices", "proxy_header", "refused", "shutdown", "contradiction", "released", "internal",
}

// ours says whether a connection ended for a reason of the server or its
// operator: the network it came from is not to blame. Devices that are refused
// come back for ever, and must not shut those out that are beside them.
func (r CloseReason) ours() bool {
	switch r {
	case CloseRoom, CloseShutdown, CloseContradiction, CloseReleased, CloseInternal, CloseRefused, CloseUnknownMax, CloseBlocked, CloseNotAllowed:
		return true
	default:
		return false
	}
}

// String returns the metric label.
func (r CloseReason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return reasonNames[closeNone]
}
