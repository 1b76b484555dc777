package board

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"gt06/protocol"
	"gt06/protocol/device"
	"gt06/server"
	"gt06/server/control"
)

// source is a server of the tests' making.
type source struct {
	mu       sync.Mutex
	online   []server.Online
	accepted uint64
	upgrades []control.Upgrade
}

func (s *source) Status(context.Context) control.Status {
	return control.Status{State: "ready", PID: 7, Reasons: []string{}, Store: control.StoreInfo{Lag: 3}}
}

func (s *source) Online() []server.Online {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.online)
}

func (s *source) Totals() server.Totals { return totals(s.accepted) }

func (s *source) Troubles() map[protocol.IMEI][]string { return nil }

func (s *source) Upgrades() ([]control.Upgrade, error) { return s.upgrades, nil }

func (s *source) Track(_ context.Context, imei string, from, to time.Time, most int) ([]Point, error) {
	if imei != device.IMEI(1).String() {
		return nil, nil
	}
	return []Point{{Time: from, Latitude: 1}, {Time: to, Latitude: float64(most)}}, nil
}

func (s *source) Frames(_ context.Context, imei string, before uint64, most int) (Frames, error) {
	return Frames{Frames: []Frame{{Position: before, Kind: imei}}, Before: uint64(most)}, nil
}

func newBoard(t *testing.T, src *source) *Board {
	t.Helper()
	b := New(Options{
		Settings: Settings{10 * time.Minute, 5 * time.Minute}, Source: src, Began: time.Now().Add(-time.Hour), Logger: zap.NewNop(),
	})
	b.Open(filepath.Join(t.TempDir(), "rates"))
	return b
}

func TestFleet(t *testing.T) {
	t.Parallel()
	f, now := newFleet(), time.Now()
	s, began := Settings{10 * time.Minute, 5 * time.Minute}, now.Add(-time.Hour)
	one, two := device.IMEI(1), device.IMEI(2)
	fix := func(imei protocol.IMEI, at time.Time, latitude float64) Fix {
		return Fix{IMEI: imei, Time: at.Unix(), Latitude: latitude, Longitude: 20, SpeedKMH: 50}
	}
	problems := func(imei protocol.IMEI) string {
		for _, d := range f.list(nil, now, s, began) {
			if d.IMEI == imei.String() {
				return strings.Join(d.Problems, ",")
			}
		}
		return "no such device"
	}
	peer := netip.MustParseAddrPort("192.0.2.1:4711")
	low, full, off := int64(10), int64(90), false
	table := func(list ...Known) {
		err := f.Learn(func(learn func(*Known)) error {
			for i := range list {
				learn(&list[i])
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	table(Known{IMEI: one.String(), Name: "van", Status: "allowed", Seen: now.Add(-time.Hour), Fix: fix(one, now.Add(-time.Hour), 10)}, Known{IMEI: two.String(), Status: "blocked"})
	if got := problems(one) + " " + problems(two); got != "silent silent,no fix,blocked" {
		t.Errorf("from the database: %q", got)
	}
	// It speaks, says that it drives, and stays where the database had it.
	f.Stored(&News{Seen: map[protocol.IMEI]int64{one: now.UnixMicro()}, Fixes: []Fix{fix(one, now, 10)}, Beats: []Beat{{IMEI: one, Battery: &low, Ignition: &off}}}, now)
	if got := problems(one); got != "frozen,battery low" {
		t.Errorf("a frozen place: %q", got)
	}
	f.Stored(&News{Fixes: []Fix{fix(one, now, 11), fix(one, now.Add(-time.Minute), 5)}, Beats: []Beat{{IMEI: one, Battery: &full}}}, now)
	list := f.list([]server.Online{{IMEI: one, Remote: peer, Heard: now.Unix()}}, now, s, began)
	i := slices.IndexFunc(list, func(d control.Device) bool { return d.IMEI == one.String() })
	if d := list[i]; !d.Online || d.Remote != peer.String() || *d.Latitude != 11 || *d.Battery != 90 || *d.Ignition || d.Name != "van" || len(d.Problems) > 0 {
		t.Errorf("%+v", d)
	}
	// A fix of the future gives way to one of today.
	f.Stored(&News{Fixes: []Fix{fix(one, now.Add(time.Hour), 12)}}, now)
	f.Stored(&News{Fixes: []Fix{fix(one, now, 13)}}, now)
	if got := f.devices[one].place.latitude; got != 13 {
		t.Errorf("it is at %v", got)
	}
	f.trouble(map[protocol.IMEI][]string{one: {"twin", "zone"}, two: {"blocked"}})
	if got := problems(one) + " " + problems(two); got != "twin,zone silent,no fix,blocked" {
		t.Errorf("troubles: %q", got)
	}
	f.trouble(nil)
	if got := problems(one); got != "" {
		t.Errorf("troubles are over: %q", got)
	}
	// Only who changed is shown.
	shown := func(after uint64, online ...server.Online) (n int, turn uint64) {
		turn = f.each(online, after, func(*vehicle) { n++ })
		return n, turn
	}
	_, turn := shown(0)
	n, turn := shown(turn)
	if n != 0 {
		t.Errorf("%d devices changed, nobody did", n)
	}
	n, turn = shown(turn, server.Online{IMEI: two, Heard: now.Unix()})
	if n != 1 {
		t.Errorf("%d devices changed, one connected", n)
	}
	if n, turn = shown(turn, server.Online{IMEI: two, Heard: now.Unix()}); n != 0 {
		t.Errorf("%d devices changed, the same is connected", n)
	}
	if n, _ = shown(turn); n != 1 {
		t.Errorf("%d devices changed, one hung up", n)
	}
	// A table that is not read to its end says of nobody that he is gone.
	if err := f.Learn(func(func(*Known)) error { return io.ErrUnexpectedEOF }); !errors.Is(err, io.ErrUnexpectedEOF) || problems(two) == "no such device" {
		t.Errorf("half a table: %v, %q", err, problems(two))
	}
	// Who is gone from the database is forgotten.
	table(Known{IMEI: one.String(), Status: "allowed"})
	if got := problems(two); got != "no such device" {
		t.Errorf("a deleted device: %q", got)
	}
}

// events reads the named events of a stream until stop says so.
func events(t *testing.T, body io.Reader, stop func(name, data string) bool) {
	t.Helper()
	scan := bufio.NewScanner(body)
	scan.Buffer(nil, 1<<24)
	name := ""
	for scan.Scan() {
		if v, ok := strings.CutPrefix(scan.Text(), "event: "); ok {
			name = v
		}
		if v, ok := strings.CutPrefix(scan.Text(), "data: "); ok {
			if !json.Valid([]byte(v)) || v == "null" {
				t.Fatalf("%s: %s", name, v)
			}
			if stop(name, v) {
				return
			}
		}
	}
	t.Fatal("the stream ended")
}

func TestStream(t *testing.T) {
	t.Parallel()
	src := &source{online: []server.Online{{IMEI: device.IMEI(1), Heard: time.Now().Unix()}}, upgrades: []control.Upgrade{{Result: "upgraded"}}}
	b := newBoard(t, src)
	b.rates.note(src.Totals(), Gauges{}, time.Now())
	srv := httptest.NewServer(b.Handler())
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { b.Run(ctx) })
	get := func(path string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	all := get("/api/events")
	defer all.Body.Close() //nolint:errcheck // a test's own
	only := get("/api/events?only=alarm")
	defer only.Body.Close() //nolint:errcheck // a test's own
	var names []string
	events(t, all.Body, func(name, data string) bool {
		names = append(names, name)
		if name == "devices" && !strings.Contains(data, device.IMEI(1).String()) {
			t.Errorf("devices: %s", data)
		}
		return name == "alarm"
	})
	if want := []string{"hello", "status", "checks", "upgrades", "devices", "rates", "alarm"}; !slices.Equal(names, want) {
		t.Errorf("first came %v, want %v", names, want)
	}
	// An alarm comes at once, the rest when it changes.
	begin := time.Now()
	b.Stored(&News{Alarms: []Alarm{{IMEI: device.IMEI(2).String(), Alarm: "vibration"}}})
	for _, r := range []io.Reader{all.Body, only.Body} {
		events(t, r, func(name, data string) bool { return name == "alarm" && strings.Contains(data, "vibration") })
	}
	if took := time.Since(begin); took > push {
		t.Errorf("an alarm took %v", took)
	}
	events(t, all.Body, func(name, data string) bool {
		return name == "devices" && strings.Contains(data, device.IMEI(2).String())
	})
	// A database that catches up does not flood the pages.
	many := make([]Alarm, 1000)
	for i := range many {
		many[i] = Alarm{IMEI: device.IMEI(2).String(), Alarm: "late"}
	}
	for range 20 {
		b.Stored(&News{Alarms: slices.Clone(many)})
	}
	events(t, only.Body, func(name, data string) bool {
		if n := strings.Count(data, "late"); n > KeptAlarms {
			t.Errorf("%d alarms at once", n)
		}
		return name == "alarm"
	})
	// The pages go when the server ends.
	cancel()
	wg.Wait()
	if _, err := io.Copy(io.Discard, all.Body); err != nil {
		t.Errorf("the end of the stream: %v", err)
	}
	late := get("/api/events")
	defer late.Body.Close() //nolint:errcheck // a test's own
	if late.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("behind the end: %d", late.StatusCode)
	}
}

func TestWhoDoesNotReadIsHungUp(t *testing.T) {
	t.Parallel()
	b := newBoard(t, &source{})
	v := &viewer{ch: make(chan []event, 1)}
	if !b.join(v) {
		t.Fatal("not let in")
	}
	for range 2 {
		b.broadcast(eventOf("alarm", "x"))
	}
	<-v.ch
	if _, open := <-v.ch; open || b.looking.Load() != 0 {
		t.Error("it still gets events")
	}
	for range maxViewers {
		if !b.join(&viewer{ch: make(chan []event)}) {
			t.Fatal("not let in")
		}
	}
	if b.join(&viewer{}) {
		t.Error("one too many is let in")
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	b := newBoard(t, &source{})
	b.opt.Tiles = "https://{s}.tiles.example/{z}/{x}/{y}.png"
	h := b.Handler()
	imei := device.IMEI(1).String()
	for _, c := range []struct {
		path string
		code int
		says string
	}{
		{"/", 200, "<title>"},
		{"/vendor/leaflet.js", 200, "Leaflet 1.9.4"},
		{"/page/vendor/leaflet.js", 404, ""},
		{"/../board.go", 404, ""},
		{"/api/devices/" + imei + "/track", 200, `"latitude":20000`},
		{"/api/devices/" + imei + "/track?from=2026-02-01T00:00:00Z", 200, `"time":"2026-02-01T00:00:00Z"`},
		{"/api/devices/" + imei + "/track?from=yesterday", 400, "from is no time"},
		{"/api/devices/" + device.IMEI(2).String() + "/track", 200, "[]"},
		{"/api/devices/abc/track", 400, ""},
		{"/api/devices/" + imei + "/frames?before=9&most=3", 200, `"before":3`},
		{"/api/devices/" + imei + "/frames?before=x", 400, "before"},
		{"/api/devices/x/frames", 400, ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+c.path, nil))
		if w.Code == http.StatusMovedPermanently || w.Code == http.StatusTemporaryRedirect { // a path that climbs
			w.Code = http.StatusNotFound
		}
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s: %d %.200q, want %d with %q", c.path, w.Code, w.Body, c.code, c.says)
		}
		if c.path == "/" {
			if policy := w.Header().Get("Content-Security-Policy"); !strings.Contains(policy, "img-src 'self' data: https://*.tiles.example;") || strings.Count(policy, "http") != 1 {
				t.Errorf("policy %q", policy)
			}
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/app.css", nil)
	r.Header.Set("If-None-Match", b.page["/app.css"].tag)
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusNotModified {
		t.Errorf("a page that did not change: %d", w.Code)
	}
}

// The table is read each minute: what has not changed is no garbage.
func TestLearningWhatIsKnownAllocatesNothing(t *testing.T) {
	f := newFleet()
	known := make([]Known, 1000)
	for n := range known {
		known[n] = Known{IMEI: device.IMEI(n).String(), Name: "van", Model: "NT20", Status: "allowed", Seen: time.Unix(1, 0)}
	}
	each := func(learn func(*Known)) error {
		for n := range known {
			learn(&known[n])
		}
		return nil
	}
	look := func() {
		if err := f.Learn(each); err != nil {
			t.Error(err)
		}
	}
	if look(); len(f.devices) != len(known) {
		t.Fatalf("%d devices", len(f.devices))
	}
	if n := testing.AllocsPerRun(10, look); n > 10 {
		t.Errorf("%.0f allocations for %d devices", n, len(known))
	}
}
