package server

import (
	"net/netip"
	"sync"
	"time"
)

// Limits bound what devices and strangers can use. Zero values mean the
// defaults of DefaultLimits; of the numbers below a negative one means no
// limit.
type Limits struct {
	Connections    int           // open at a time; more are closed at once
	UnknownDevices int           // an IMEI nobody has registered comes in while fewer devices than this are known
	Login          time.Duration // from accept to the login
	Frame          time.Duration // half a frame, plus a second for each 256 bytes of it
	Idle           time.Duration // no input at all
	Write          time.Duration // answers not taken

	Accepts             int // a second, in all; more wait in the kernel's queue
	NetworkAccepts      int // a second and network; more are closed at once
	FailedLogins        int // a minute, in all; then only networks that a device has come from are let in
	NetworkFailedLogins int // a minute and network; then nobody of it is let in
	AddressDevices      int // IMEIs nobody has registered, an hour and address
	DeviceLogins        int // a minute and device; more are flapping: flagged, not refused
	Frames              int // a second and connection; more wait in the kernel
}

// DefaultLimits are the deadlines of RELIABILITY.md section 5: a tracker logs
// in at once and sends a heartbeat every 3 to 5 minutes. The budgets are so
// large that a fleet behind one carrier's network meets none of them when it
// comes back all at once. A device that was away brings what it kept: 2000
// frames at once and 200 a second are more than its radio can send.
func DefaultLimits() Limits {
	return Limits{
		Connections: 100_000, UnknownDevices: 50_000,
		Login: 10 * time.Second, Frame: 10 * time.Second, Idle: 10 * time.Minute, Write: 10 * time.Second,
		Accepts: 5000, NetworkAccepts: 2000, FailedLogins: 30_000, NetworkFailedLogins: 3000, AddressDevices: 25_000, DeviceLogins: 5, Frames: 100,
	}
}

func (l *Limits) defaults() {
	d := DefaultLimits()
	l.Connections = orDefault(l.Connections, d.Connections)
	l.UnknownDevices = orDefault(l.UnknownDevices, d.UnknownDevices)
	l.Login = orDefault(l.Login, d.Login)
	l.Frame = orDefault(l.Frame, d.Frame)
	l.Idle = orDefault(l.Idle, d.Idle)
	l.Write = orDefault(l.Write, d.Write)
	l.Accepts = orDefault(l.Accepts, d.Accepts)
	l.NetworkAccepts = orDefault(l.NetworkAccepts, d.NetworkAccepts)
	l.FailedLogins = orDefault(l.FailedLogins, d.FailedLogins)
	l.NetworkFailedLogins = orDefault(l.NetworkFailedLogins, d.NetworkFailedLogins)
	l.AddressDevices = orDefault(l.AddressDevices, d.AddressDevices)
	l.DeviceLogins = orDefault(l.DeviceLogins, d.DeviceLogins)
	l.Frames = orDefault(l.Frames, d.Frames)
}

const (
	// tableSize is how many networks, addresses or devices a budget knows.
	tableSize = 8192
	// storm is how many seconds' worth of accepts may come at once: a fleet
	// comes back after an outage.
	storm = 10
	// trust is how long a network is known for a device that came from it.
	trust = 24 * time.Hour

	second, minute, hour = 1e3, 60e3, 3600e3 // milliseconds
)

// admission is who may come in. The lock is taken at an accept, a login and a
// failed one, never per frame.
type admission struct {
	mu       sync.Mutex
	turns    budget // accepts, one key
	accepts  budget // by network
	failures budget // by network
	all      budget // failed logins, one key
	proven   table  // networks a device came from, and when
	devices  budget // unknown IMEIs, by address
	logins   budget // by IMEI
	surges   table  // devices, and until when they have brought what is due
}

func newAdmission(l *Limits) *admission {
	return &admission{
		turns:    newBudget(ways, l.Accepts*storm, storm*second),
		accepts:  newBudget(tableSize, l.NetworkAccepts*storm, storm*second),
		failures: newBudget(tableSize, l.NetworkFailedLogins, minute),
		all:      newBudget(ways, l.FailedLogins, minute),
		proven:   newTable(tableSize),
		devices:  newBudget(tableSize, l.AddressDevices, hour),
		logins:   newBudget(tableSize, l.DeviceLogins, minute),
		surges:   newTable(tableSize),
	}
}

// refuses says whether an address may not connect now, and why.
func (a *admission) refuses(from netip.Addr, now int64) (refusal, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := network(from)
	if a.failures.spent(n, now) {
		return refusedNetworkFailures, true
	}
	if a.all.spent(0, now) {
		if b, known := a.proven.find(n); !known || now-b.at > trust.Milliseconds() {
			return refusedFailures, true
		}
	}
	if !a.accepts.take(n, now) {
		return refusedNetwork, true
	}
	return 0, false
}

// full says whether no more connection may be accepted at all now.
func (a *admission) full(now int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.turns.spent(0, now)
}

// accepted counts a connection.
func (a *admission) accepted(now int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turns.take(0, now)
}

// failed counts a connection that failed.
func (a *admission) failed(from netip.Addr, now int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failures.take(network(from), now)
	a.all.take(0, now)
}

// proved notes that a device came from an address.
func (a *admission) proved(from netip.Addr, now int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := network(from)
	b, _ := a.proven.find(n)
	*b = bucket{key: n, at: max(now, 1)}
}

// stranger says whether one more unknown IMEI may come from an address.
func (a *admission) stranger(from netip.Addr, now int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.devices.take(host(from), now)
}

// flaps counts a login of a device and says whether there are too many.
func (a *admission) flaps(imei uint64, now int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.logins.take(imei, now)
}

// owes notes until when, in milliseconds, a device has brought what is due, and
// returns until when it had before; 0: nothing is known of it.
func (a *admission) owes(imei uint64, until int64) (before int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, known := a.surges.find(imei)
	if known {
		before = b.at
	}
	*b = bucket{key: imei, at: max(before, until, 1)}
	return before
}
