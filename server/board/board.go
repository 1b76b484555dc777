// Package board is the page an operator looks at: the three checks of the SOP,
// the fleet as a table and on a map, the last day of a device, its frames with
// every byte named, and the rates of half an hour. It is embedded, asks nobody
// else for anything, and changes nothing.
//
// What it shows comes from three sources: Fleet (what was stored of each
// device, and who is connected), Rates (half an hour of counters) and judge
// (the checks, computed here and nowhere else). The page takes all of it from
// one stream of server-sent events (stream.go); a device's track and frames are
// asked for when somebody looks at them (device.go).
package board

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"gt06/protocol"
	"gt06/server"
	"gt06/server/control"
)

// Source is what the board needs to know of the server and its database.
type Source interface {
	Status(context.Context) control.Status
	Online() []server.Online
	Totals() server.Totals
	// Troubles names what connections and frames show to be wrong with devices,
	// each a word of a closed set.
	Troubles() map[protocol.IMEI][]string
	// Upgrades returns the newest upgrades, the oldest first.
	Upgrades() ([]control.Upgrade, error)
	// Track returns the fixes of a device in a time, the oldest first, at most
	// so many of the newest.
	Track(ctx context.Context, imei string, from, to time.Time, most int) ([]Point, error)
	// Frames reads the log backwards from a position, 0: its end, and returns
	// the newest frames of a device, the newest first. It gives up after a
	// while; what it returns says where it stopped.
	Frames(ctx context.Context, imei string, before uint64, most int) (Frames, error)
}

// Options of a Board.
type Options struct {
	Settings
	Source Source
	Began  time.Time
	// Tiles is the URL of map tiles, {z} {x} {y}; "": outlines of the countries
	// only, and no request leaves the page's own server.
	Tiles, Attribution string
	Logger             *zap.Logger
}

// Board is the page and what it shows.
type Board struct {
	Fleet *Fleet
	opt   Options
	rates *Rates
	page  map[string]asset

	reading chan struct{} // one reads the log at a time

	mu      sync.Mutex
	viewers map[*viewer]struct{}
	told    streamState // what all viewers know; zero while there are none
	alarms  []Alarm     // the newest last
	untold  []Alarm     // of them, what the viewers have not heard of
	ended   bool
	stop    chan struct{}
	looking atomic.Int32
}

const (
	push       = 2 * time.Second // a page hears this often what changed
	soon       = push / 8        // and of alarms
	maxViewers = 64
)

// KeptAlarms is how many of the last alarms are shown.
const KeptAlarms = 100

// New makes a board.
func New(opt Options) *Board {
	return &Board{
		Fleet: newFleet(), opt: opt, page: load(), rates: newRates(min(5*time.Second, opt.Window/10)), reading: make(chan struct{}, 1),
		viewers: map[*viewer]struct{}{}, stop: make(chan struct{}),
	}
}

// Open goes on with the rates in a file, where they outlive the process. It is
// for the owner: who served before does not write any more.
func (b *Board) Open(path string) {
	if err := b.rates.open(path); err != nil {
		b.opt.Logger.Warn("the rates of the board begin anew", zap.Error(err))
	}
}

// Validate makes the three checks.
func (b *Board) Validate() control.Validation {
	now := time.Now()
	f := b.Fleet.facts(b.opt.Source.Online(), b.opt.Settings, b.opt.Began, now)
	f.accepted, f.rated = b.rates.accepted(b.opt.Window, b.opt.Source.Totals().Accepted, now)
	return judge(f)
}

// Devices lists the fleet by IMEI.
func (b *Board) Devices() []control.Device {
	b.Fleet.trouble(b.opt.Source.Troubles())
	list := b.Fleet.list(b.opt.Source.Online(), time.Now(), b.opt.Settings, b.opt.Began)
	slices.SortFunc(list, func(a, c control.Device) int { return strings.Compare(a.IMEI, c.IMEI) })
	return list
}

// Stored takes what a transaction of the database stored.
func (b *Board) Stored(n *News) {
	b.Fleet.Stored(n, time.Now())
	if len(n.Alarms) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.alarms = last(append(b.alarms, n.Alarms...))
	if len(b.viewers) > 0 {
		b.untold = last(append(b.untold, n.Alarms...))
	}
}

// last keeps what is shown: of a database that catches up after hours, the
// newest alarms only.
func last(list []Alarm) []Alarm { return slices.Clone(list[max(0, len(list)-KeptAlarms):]) }

// tellAlarms hands the new alarms to the pages.
func (b *Board) tellAlarms() {
	b.mu.Lock()
	list := b.untold
	b.untold = nil
	b.mu.Unlock()
	if len(list) > 0 {
		b.broadcast(eventOf("alarm", list))
	}
}

// Remember takes the alarms that were stored before this process began, the
// oldest first.
func (b *Board) Remember(list []Alarm) {
	b.Fleet.Stored(&News{Alarms: list}, time.Now())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.alarms = last(append(list, b.alarms...))
}

// Run notes the rates and tells the pages what changes, until the context
// ends. The pages then connect to whoever serves next.
func (b *Board) Run(ctx context.Context) {
	defer b.end()
	step, tick, quick := time.NewTicker(b.rates.step), time.NewTicker(push), time.NewTicker(soon)
	defer step.Stop()
	defer tick.Stop()
	defer quick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-step.C:
			st := b.opt.Source.Status(ctx)
			b.rates.note(b.opt.Source.Totals(), Gauges{Connections: st.Connections, LogBytes: st.Spool.Bytes, Lag: st.Store.Lag}, now)
		case <-quick.C:
			b.tellAlarms()
		case now := <-tick.C:
			b.mu.Lock()
			told := b.told
			b.mu.Unlock()
			if told.turn == 0 || b.looking.Load() == 0 { // nobody is there, or the first gets all there is
				continue
			}
			events := b.changes(ctx, &told, now)
			b.mu.Lock()
			b.told = told
			b.mu.Unlock()
			b.broadcast(events)
		}
	}
}

func (b *Board) end() {
	b.mu.Lock()
	if !b.ended {
		b.ended = true
		close(b.stop)
	}
	b.mu.Unlock()
	_ = b.rates.Close()
}
