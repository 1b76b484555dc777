package main

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gt06/cmd/internal/config"
	"gt06/server/control"
)

// reasons says why the server is not well, though it serves: what will stop it
// is said before it does.
func (a *app) reasons(lag int64) (list []string) {
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	const mib = 1 << 20
	s := a.spool.Stats()
	if s.Free < s.Left+s.Left/4 && s.Free >= s.Left { // below that the log says it itself
		say("room is short: %d MiB free on the disk, reading stops at %d MiB (disk.min_free)", s.Free/mib, s.Left/mib)
	}
	if s.Waiting > s.Most/2 {
		say("the log is filling up: %d MiB are not in the database yet, reading stops at %d MiB (spool.max_bytes)", s.Waiting/mib, s.Most/mib)
	}
	if more := a.trend.growing(); more > 0 {
		say("the store falls behind: %d records wait, %d more each minute", lag, more)
	}
	if n, most := a.server.Connections(), a.most; n >= most-most/10 {
		say("%d of %d connections are open, more will be refused: raise the descriptor limit (LimitNOFILE) or limits.connections", n, most)
	}
	if back := a.clock.back(time.Now()); back > 0 {
		say("the clock of this machine went back by %v: times of receipt are wrong until it is right", back)
	}
	if time.Now().Before(earliest) {
		say("the clock of this machine says %s: it is not set", time.Now().Format(time.DateTime))
	}
	if a.cfg.Clock.MustSync && synchronised() == "no" {
		say("the clock of this machine is not synchronised (clock.must_sync): timedatectl status")
	}
	if p := a.policy(); p.Policy == config.PolicyAllow && !p.Enforced {
		say("the policy allow is not enforced: the devices were never read from the database")
	}
	return list
}

// earliest is before this program was written: a clock that says so was never
// set.
//
//nolint:gochecknoglobals // a constant
var earliest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// synchronised asks the kernel whether something disciplines its clock.
func synchronised() string {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		return "unknown" // a sandbox may forbid the question
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		return "no"
	}
	return "yes"
}

// clock notices when the wall clock goes back.
type clock struct {
	mu     sync.Mutex
	latest time.Time
}

// note takes the time every second.
func (c *clock) note(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now = now.Round(0) // without the monotonic reading
	if now.After(c.latest) {
		c.latest = now
	}
}

// back returns by how much the clock is behind what it once said; less than a
// minute is nothing.
func (c *clock) back(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.latest.Sub(now.Round(0)); d > time.Minute {
		return d.Truncate(time.Second)
	}
	return 0
}

// trend notices when the store falls behind for minutes on end.
type trend struct {
	mu   sync.Mutex
	lags [4]int64 // at the last minutes, the newest first
}

// note takes the lag every minute.
func (t *trend) note(lag int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	copy(t.lags[1:], t.lags[:])
	t.lags[0] = lag
}

// growing returns by how many records a minute the lag has grown over the last
// three; 0: it did not in one of them, or is small.
func (t *trend) growing() int64 {
	const small = 10_000
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := 1; i < len(t.lags); i++ {
		if t.lags[i-1] <= t.lags[i] || t.lags[0] < small {
			return 0
		}
	}
	return (t.lags[0] - t.lags[len(t.lags)-1]) / int64(len(t.lags)-1)
}

// health fills what Status says of clock and memory.
func (a *app) health(st *control.Status) {
	st.Clock.Synchronised = synchronised()
	st.Memory = a.memory
	st.Memory.Resident = resident()
	st.Reasons = append(st.Reasons, a.reasons(st.Store.Lag)...)
}
