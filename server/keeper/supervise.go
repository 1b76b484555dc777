package keeper

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// steady is how long a server must have served to be started again at once.
	steady = time.Second
	// slowest is the longest pause between two starts.
	slowest = 5 * time.Second
)

// supervisor starts the server again where no systemd does.
type supervisor struct {
	wake    func()
	args    []string // args[0] is the program
	env     []string
	wanted  bool // the last end was not announced
	left    bool // the last server ended on purpose
	gaveUp  bool // the grace is over
	running bool
	since   time.Time // of the last SERVING
	pause   time.Duration
	due     time.Time
	exited  chan struct{}
}

// command remembers how to start the server: count, arguments and environment,
// each ended by NUL.
func (s *supervisor) command(payload []byte) {
	parts := bytes.Split(bytes.TrimSuffix(payload, []byte{0}), []byte{0})
	n, err := strconv.Atoi(string(parts[0]))
	if err != nil || n < 1 || n >= len(parts) {
		return
	}
	list := make([]string, 0, len(parts)-1)
	for _, p := range parts[1:] {
		list = append(list, string(p))
	}
	s.args, s.env = list[:n], list[n:]
}

func (s *supervisor) serves() {
	s.wanted, s.left, s.gaveUp, s.since = false, false, false, time.Now()
}

func (s *supervisor) ended(onPurpose bool) {
	s.left, s.wanted = onPurpose, !onPurpose
	if time.Since(s.since) > steady {
		s.pause = 0
	}
	s.due = time.Now().Add(s.pause)
}

// supervise starts the server when it is due and reports whether the keeper
// has nothing left to do.
func (k *Keeper) supervise() (done bool) {
	if !k.opt.Supervise {
		return false
	}
	s := &k.child
	if s.exited != nil {
		select {
		case <-s.exited:
			s.exited, s.running = nil, false
			if k.serving == nil && !s.left { // it ended before it served
				s.wanted = true
				s.due = time.Now().Add(s.pause)
			}
		default:
		}
	}
	if len(k.held) == 0 && k.serving == nil && len(k.clients) == 0 && (s.left || s.gaveUp && !s.wanted) {
		return true
	}
	if !s.wanted || s.running || k.serving != nil || len(s.args) == 0 || time.Now().Before(s.due) {
		return false
	}
	s.pause = min(max(2*s.pause, 50*time.Millisecond), slowest)
	k.start()
	return false
}

// start runs the server in a session of its own group with our standard
// streams.
func (k *Keeper) start() {
	s := &k.child
	p, err := os.StartProcess(s.args[0], s.args, &os.ProcAttr{
		Env: s.env, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Sys: &unix.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		k.opt.Log("start %s: %v", s.args[0], err)
		s.due = time.Now().Add(s.pause)
		return
	}
	k.opt.Log("the server ended unannounced: started again, pid %d", p.Pid)
	s.running, s.wanted = true, false
	exited := make(chan struct{})
	s.exited = exited
	go func() {
		_, _ = p.Wait()
		close(exited)
		s.wake()
	}()
}
