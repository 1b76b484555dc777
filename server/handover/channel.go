package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The old and the new server of an upgrade talk over a socketpair
// (SOCK_SEQPACKET), a JSON object a packet. Unknown members are ignored;
// another version is refused.
//
//	old → new   {"version":1,"type":"hello","schema":2}
//	new → old   {"version":1,"type":"warm","pid":7,"program":"1.2.0","generation":9}
//	            {"version":1,"type":"refuse","reason":"…"}
//	old → new   {"version":1,"type":"free"}
//	new → old   {"version":1,"type":"serving","moved":9998,"dropped":0,"generation":9}
//	            {"version":1,"type":"beat"}   all through the probation
type message struct {
	Version    int    `json:"version"`
	Type       string `json:"type"`
	Schema     int64  `json:"schema,omitempty"`
	PID        int    `json:"pid,omitempty"`
	Program    string `json:"program,omitempty"`
	Generation uint64 `json:"generation,omitempty"`
	Moved      int    `json:"moved,omitempty"`
	Dropped    int    `json:"dropped,omitempty"`
	Reason     string `json:"reason,omitempty"`
}

const (
	channelVersion = 1
	typeHello      = "hello"
	typeWarm       = "warm"
	typeRefuse     = "refuse"
	typeFree       = "free"
	typeServing    = "serving"
	typeBeat       = "beat"
)

var (
	errSilent = errors.New("no word in time")
	errGone   = errors.New("the other server is gone")
)

// channel is one end of it.
type channel struct{ fd int }

func newChannel() (own channel, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return channel{-1}, nil, os.NewSyscallError("socketpair", err)
	}
	return channel{pair[0]}, os.NewFile(uintptr(pair[1]), "handover"), nil
}

func (c channel) send(m message) error {
	m.Version = channelVersion
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	for {
		err := unix.Sendmsg(c.fd, b, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// receive waits for one message.
func (c channel) receive(within time.Duration) (message, error) {
	end := time.Now().Add(within)
	for {
		poll := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(max(0, time.Until(end).Milliseconds())))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return message{}, os.NewSyscallError("poll", err)
		case n == 0:
			return message{}, errSilent
		}
		return c.take()
	}
}

// take reads the message that is there. ECONNRESET comes once, before what the
// other side sent last, when that side ended with something unread.
func (c channel) take() (m message, err error) {
	b := make([]byte, 8<<10)
	n, _, err := unix.Recvfrom(c.fd, b, unix.MSG_DONTWAIT)
	for errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNRESET) {
		n, _, err = unix.Recvfrom(c.fd, b, unix.MSG_DONTWAIT)
	}
	if err != nil || n == 0 {
		return m, errGone
	}
	if err := json.Unmarshal(b[:n], &m); err != nil {
		return m, fmt.Errorf("a message that is no JSON: %w", err)
	}
	if m.Version != channelVersion {
		return m, fmt.Errorf("the other server speaks version %d of the upgrade, this one %d", m.Version, channelVersion)
	}
	return m, nil
}

func (c channel) close() { _ = unix.Close(c.fd) }
