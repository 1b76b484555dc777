package board

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The stream of /api/events. Each event is a line of JSON; ?only=alarm,checks
// leaves the others out.
//
//	hello     what does not change while this server lives; first
//	status    /api/status
//	checks    /api/validate
//	devices   rows that changed, each an array in the order of hello.device
//	rates     samples, each an array in the order of hello.rates
//	upgrades  the newest upgrades, the oldest first
//	alarm     alarms, as they are stored
//
// Who connects gets all of it once, then what changes. A page that cannot take
// it fast enough is hung up: it comes back and gets all again.

// hello is the first event.
type hello struct {
	PID         int      `json:"pid"`
	Generation  uint64   `json:"generation"`
	NowMS       int64    `json:"now_ms"`
	SilentS     float64  `json:"silent_s"`
	Device      []string `json:"device"`
	Rates       []string `json:"rates"`
	StepS       float64  `json:"step_s"`
	SpanS       float64  `json:"span_s"`
	Tiles       string   `json:"tiles,omitempty"`
	Attribution string   `json:"attribution,omitempty"`
}

//nolint:gochecknoglobals // the order of AppendRow
var deviceColumns = []string{"imei", "name", "model", "status", "online", "seen", "fix", "latitude", "longitude", "speed", "course", "ignition", "battery", "alarm", "alarm_at", "problems"}

// viewer is one open stream.
type viewer struct {
	only map[string]bool // nil: all
	ch   chan []event
}

// event is one event, ready to be sent.
type event struct {
	name string
	text []byte
}

func eventOf(name string, v any) []event {
	data, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return []event{{name, frame(name, data)}}
}

func frame(name string, data []byte) []byte {
	b := make([]byte, 0, len(name)+len(data)+16)
	b = append(append(append(b, "event: "...), name...), "\ndata: "...)
	return append(append(b, data...), "\n\n"...)
}

// streamState is what a page has been told.
type streamState struct {
	turn     uint64
	rated    int64 // Unix milliseconds of the newest sample
	upgrades int64
}

// changes makes the events of what is new since the state; a new state gives
// all there is.
func (b *Board) changes(ctx context.Context, s *streamState, now time.Time) []event {
	st := b.opt.Source.Status(ctx)
	events := append(eventOf("status", st), eventOf("checks", b.Validate())...)
	if list, err := b.opt.Source.Upgrades(); err == nil && (s.turn == 0 || int64(len(list)) != s.upgrades) {
		s.upgrades = int64(len(list))
		events = append(events, eventOf("upgrades", list)...)
	}
	b.Fleet.trouble(b.opt.Source.Troubles())
	rows := []byte{'['}
	turn := b.Fleet.each(b.opt.Source.Online(), s.turn, func(d *vehicle) {
		rows = append(d.appendRow(rows, b.Fleet.turn, now, b.opt.Settings, b.opt.Began), ',')
	})
	if len(rows) > 1 || s.turn == 0 {
		events = append(events, event{"devices", frame("devices", closeList(rows))})
	}
	s.turn = turn
	if samples := b.rates.since(s.rated, now); len(samples) > 0 {
		s.rated = samples[len(samples)-1].At
		list := []byte{'['}
		for _, sample := range samples {
			list = append(sample.appendRow(list), ',')
		}
		events = append(events, event{"rates", frame("rates", closeList(list))})
	}
	return events
}

func closeList(b []byte) []byte {
	if b[len(b)-1] == ',' {
		b = b[:len(b)-1]
	}
	return append(b, ']')
}

func (s *Sample) appendRow(b []byte) []byte {
	b = strconv.AppendInt(append(b, '['), s.At, 10)
	for _, v := range s.Values {
		if b = append(b, ','); math.IsNaN(float64(v)) {
			b = append(b, "null"...)
			continue
		}
		b = strconv.AppendFloat(b, float64(v), 'g', 6, 64)
	}
	return append(b, ']')
}

// appendRow appends a device in the order of deviceColumns. Times are Unix
// seconds, what is not known is null.
func (d *vehicle) appendRow(b []byte, turn uint64, now time.Time, s Settings, began time.Time) []byte {
	text := func(s string) {
		q, _ := json.Marshal(s)
		b = append(append(b, q...), ',')
	}
	number := func(known bool, v float64) {
		if known {
			b = strconv.AppendFloat(b, v, 'f', -1, 64)
		} else {
			b = append(b, "null"...)
		}
		b = append(b, ',')
	}
	flag := func(v said) { number(v != unsaid, map[said]float64{yes: 1}[v]) }
	b = append(b, '[')
	text(d.imei.String())
	text(d.name)
	text(d.of.Value().model)
	text(d.of.Value().status)
	flag(map[bool]said{true: yes, false: no}[d.online == turn])
	number(d.seen > 0, float64(d.seen))
	p, has := &d.place, d.place.at > 0
	number(has, float64(p.at))
	number(has, p.latitude)
	number(has, p.longitude)
	number(has, p.speedKMH)
	number(has, p.course)
	flag(d.ignition)
	number(d.battery >= 0, float64(d.battery))
	last := d.has().alarm
	text(last.name)
	text(last.at)
	text(strings.Join(d.problems(now, s, began), ","))
	b[len(b)-1] = ']'
	return b
}

// broadcast hands events to every page. Who has not taken the last ones for so
// long is hung up: its channel is closed.
func (b *Board) broadcast(events []event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for v := range b.viewers {
		select {
		case v.ch <- events:
		default:
			b.leave(v)
		}
	}
}

// leave forgets a viewer; the lock is held.
func (b *Board) leave(v *viewer) {
	if _, ok := b.viewers[v]; ok {
		delete(b.viewers, v)
		b.looking.Add(-1)
		close(v.ch)
		if len(b.viewers) == 0 {
			b.told = streamState{}
		}
	}
}

// join enters a viewer, unless there are too many or the server ends.
func (b *Board) join(v *viewer) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended || len(b.viewers) >= maxViewers {
		return false
	}
	b.viewers[v] = struct{}{}
	b.looking.Add(1)
	return true
}

func (b *Board) recent() []Alarm {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Alarm{}, b.alarms...)
}

// stream serves /api/events.
func (b *Board) stream(w http.ResponseWriter, r *http.Request) {
	const waiting = 16 // pushes a slow page may be behind: half a minute
	v := &viewer{ch: make(chan []event, waiting)}
	if only := r.URL.Query().Get("only"); only != "" {
		v.only = map[string]bool{}
		for name := range strings.SplitSeq(only, ",") {
			v.only[name] = true
		}
	}
	if !b.join(v) {
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many pages are open, or the server ends", http.StatusServiceUnavailable)
		return
	}
	defer func() {
		b.mu.Lock()
		b.leave(v)
		b.mu.Unlock()
	}()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(w)
	_ = out.SetReadDeadline(time.Time{})
	send := func(events []event) error {
		var text bytes.Buffer
		for _, e := range events {
			if v.only == nil || v.only[e.name] {
				text.Write(e.text)
			}
		}
		if text.Len() == 0 {
			text.WriteString(":\n\n") // who is gone is noticed
		}
		_ = out.SetWriteDeadline(time.Now().Add(15 * time.Second))
		if _, err := w.Write(text.Bytes()); err != nil {
			return err
		}
		return out.Flush()
	}
	// What is stored between the snapshot and the first push is in both: rows
	// say how things are, not what happened.
	if send(b.snapshot(r.Context())) != nil {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case <-b.stop:
			return
		case events, ok := <-v.ch:
			if !ok || send(events) != nil {
				return
			}
		}
	}
}

func (b *Board) snapshot(ctx context.Context) []event {
	st := b.opt.Source.Status(ctx)
	events := eventOf("hello", hello{
		PID: st.PID, Generation: st.Generation, NowMS: time.Now().UnixMilli(), SilentS: b.opt.Silent.Seconds(),
		Device: deviceColumns, Rates: append([]string{"at"}, b.rates.columns...), StepS: b.rates.step.Seconds(), SpanS: span.Seconds(),
		Tiles: b.opt.Tiles, Attribution: b.opt.Attribution,
	})
	var told streamState
	events = append(events, b.changes(ctx, &told, time.Now())...)
	b.mu.Lock()
	if b.told.turn == 0 {
		b.told = told
	}
	b.mu.Unlock()
	return append(events, eventOf("alarm", b.recent())...)
}
