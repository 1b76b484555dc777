package webhook_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gt06/protocol/device"
	"gt06/storage"
	"gt06/storage/sink"
	"gt06/storage/sink/webhook"
)

// request is what a receiver saw.
type request struct {
	header http.Header
	body   []byte
}

// receiver answers as it is told and remembers.
type receiver struct {
	*httptest.Server
	mu  sync.Mutex
	got []request
}

func newReceiver(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *receiver {
	t.Helper()
	rec := &receiver{}
	rec.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // who hangs up has not sent it
		}
		rec.mu.Lock()
		n := len(rec.got)
		rec.got = append(rec.got, request{r.Header.Clone(), body})
		rec.mu.Unlock()
		if answer != nil {
			answer(n, w, r)
		}
	}))
	t.Cleanup(rec.Close)
	return rec
}

func (r *receiver) all() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

var base = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)

// batch is records of one device, of the kinds given.
func batch(kinds ...device.Kind) *sink.Batch {
	b := &sink.Batch{From: 1, To: storage.Position(1 + len(kinds)), Key: "node-1-2"}
	for i, k := range kinds {
		at := base.Add(time.Duration(i) * time.Second)
		b.Items = append(b.Items, sink.Item{
			End:    storage.Position(100 + i),
			Record: storage.Record{Device: device.IMEI(1), ReceivedAt: at.UnixMicro(), Model: "GT06N", Input: device.Build(k, 1, i, at).Bytes},
		})
	}
	return b
}

func options(url string) webhook.Options {
	return webhook.Options{URL: url, Format: webhook.FormatNative, Timeout: 2 * time.Second, Events: sink.NewEncoder("node", nil)}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	opt := options(rec.URL + "/gt06")
	opt.Secret, opt.Token = []byte("s3cret"), "t0ken"
	w := webhook.New(opt)
	defer w.Close() //nolint:errcheck // a test's own
	for range 2 {
		if err := w.Send(t.Context(), batch(device.Location, device.Alarm, device.Heartbeat)); err != nil {
			t.Fatal(err)
		}
	}
	got := rec.all()
	if len(got) != 2 {
		t.Fatalf("%d requests", len(got))
	}
	for _, r := range got {
		h := r.header
		if h.Get("Idempotency-Key") != "node-1-2" || h.Get("Authorization") != "Bearer t0ken" || h.Get("Content-Type") != "application/json" {
			t.Errorf("header %v", h)
		}
		at, v1, _ := strings.Cut(strings.TrimPrefix(h.Get("Gt06-Signature"), "t="), ",v1=")
		if v1 == "" || v1 != webhook.Signature([]byte("s3cret"), at, r.body) || v1 == webhook.Signature([]byte("other"), at, r.body) {
			t.Errorf("signature %q", h.Get("Gt06-Signature"))
		}
		var events []struct{ ID, Type, IMEI string }
		if err := json.Unmarshal(r.body, &events); err != nil {
			t.Fatal(err)
		}
		var types []string
		for _, e := range events {
			types = append(types, e.Type)
			if !strings.HasPrefix(e.ID, "node-6") || e.IMEI != device.IMEI(1).String() {
				t.Errorf("%+v", e)
			}
		}
		if want := []string{"position", "position", "alarm", "heartbeat"}; !slices.Equal(types, want) {
			t.Errorf("events %v, want %v", types, want)
		}
	}
	if string(got[0].body) != string(got[1].body) {
		t.Errorf("the same batch was sent as\n%s\n%s", got[0].body, got[1].body)
	}
}

func TestNothingToSendIsNoRequest(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, nil)
	opt := options(rec.URL)
	opt.Events = sink.NewEncoder("node", []sink.Type{sink.TypeAlarm})
	w := webhook.New(opt)
	defer w.Close() //nolint:errcheck // a test's own
	if err := w.Send(t.Context(), batch(device.Location, device.Heartbeat)); err != nil || len(rec.all()) != 0 {
		t.Errorf("%v, %d requests", err, len(rec.all()))
	}
}

// Each way of not taking a batch has its kind, and no error shows the URL: its
// path may be a secret.
func TestKindsOfErrors(t *testing.T) {
	t.Parallel()
	elsewhere := newReceiver(t, nil)
	status := func(code int, header ...string) func(int, http.ResponseWriter, *http.Request) {
		return func(_ int, w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			_, _ = w.Write([]byte("because"))
		}
	}
	for name, now := range map[string]struct {
		answer func(int, http.ResponseWriter, *http.Request)
		kind   sink.Kind
		after  time.Duration
	}{
		"it fails":          {status(500), sink.KindServer, 0},
		"it wants a pause":  {status(429, "Retry-After", "7"), sink.KindBusy, 7 * time.Second},
		"it is overloaded":  {status(503), sink.KindBusy, 0},
		"it does not want":  {status(422), sink.KindRejected, 0},
		"it sends us on":    {status(307, "Location", elsewhere.URL), sink.KindRedirect, 0},
		"it hangs":          {func(_ int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, sink.KindTimeout, 0},
		"it hangs up":       {func(int, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, sink.KindConnect, 0},
		"it is not a 2xx":   {status(304), sink.KindRedirect, 0},
		"it promises a lot": {status(404, "Content-Length", "7"), sink.KindRejected, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := newReceiver(t, now.answer)
			opt := options(rec.URL + "/hooks/pathsecret")
			opt.Timeout = 300 * time.Millisecond
			w := webhook.New(opt)
			defer w.Close() //nolint:errcheck // a test's own
			err := w.Send(t.Context(), batch(device.Location))
			e, ok := errors.AsType[*sink.Error](err)
			if !ok || e.Kind != now.kind || e.After != now.after || strings.Contains(err.Error(), "pathsecret") {
				t.Errorf("%#v", err)
			}
		})
	}
	t.Run("nobody is there", func(t *testing.T) {
		t.Parallel()
		rec := newReceiver(t, nil)
		rec.Close()
		w := webhook.New(options(rec.URL))
		err := w.Send(t.Context(), batch(device.Location))
		if e, ok := errors.AsType[*sink.Error](err); !ok || e.Kind != sink.KindConnect {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if n := len(elsewhere.all()); n != 0 {
			t.Errorf("a redirect was followed %d times", n)
		}
	})
}

func TestEndOfContextEndsARequest(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, func(_ int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	opt := options(rec.URL)
	opt.Timeout = time.Minute
	w := webhook.New(opt)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := w.Send(ctx, batch(device.Location)); err == nil || time.Since(begin) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
}

// A request as Traccar's forward.type=json makes it, one a position; after a
// failure the next call goes on where it stopped.
func TestTraccar(t *testing.T) {
	t.Parallel()
	rec := newReceiver(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	opt := options(rec.URL)
	opt.Format = webhook.FormatTraccar
	w := webhook.New(opt)
	defer w.Close() //nolint:errcheck // a test's own
	b := batch(device.Location, device.Heartbeat, device.Alarm, device.Cells)
	if err := w.Send(t.Context(), b); err == nil {
		t.Fatal("a failure is no success")
	}
	if err := w.Send(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	got := rec.all()
	var keys []string
	for _, r := range got {
		keys = append(keys, r.header.Get("Idempotency-Key"))
	}
	if want := []string{"node-64-0", "node-66-0", "node-66-0"}; !slices.Equal(keys, want) {
		t.Fatalf("keys %v, want %v: what has a fix, the failed one again", keys, want)
	}
	var first, alarm struct {
		Position map[string]any
		Device   map[string]any
	}
	if err := errors.Join(json.Unmarshal(got[0].body, &first), json.Unmarshal(got[2].body, &alarm)); err != nil {
		t.Fatal(err)
	}
	want := device.Build(device.Location, 1, 0, base)
	p := first.Position
	if knots := p["speed"].(float64); knots < want.Place.SpeedKMH/1.852-0.001 || knots > want.Place.SpeedKMH/1.852+0.001 || want.Place.SpeedKMH == 0 {
		t.Errorf("speed %v knots, the device said %v km/h", knots, want.Place.SpeedKMH)
	}
	if p["latitude"] != want.Place.Latitude || p["longitude"] != want.Place.Longitude || p["valid"] != true || p["protocol"] != "gt06" || p["fixTime"] != "2026-11-24T10:00:00.000+00:00" {
		t.Errorf("position %v, want %+v", p, want.Place)
	}
	if first.Device["uniqueId"] != device.IMEI(1).String() || first.Device["model"] != "GT06N" || p["deviceId"] != first.Device["id"] || first.Device["positionId"] != p["id"] {
		t.Errorf("device %v, position %v", first.Device, p)
	}
	// The keys that Traccar's own bodies have and receivers ask for.
	for _, key := range []string{
		"id", "attributes", "deviceId", "protocol", "serverTime", "deviceTime", "fixTime", "outdated", "valid",
		"latitude", "longitude", "altitude", "speed", "course", "address", "accuracy", "network",
	} {
		if _, ok := p[key]; !ok {
			t.Errorf("position has no %s, only %v", key, slices.Sorted(maps.Keys(p)))
		}
	}
	if a := alarm.Position["attributes"].(map[string]any)["alarm"]; a == nil || a == "" {
		t.Errorf("attributes of an alarm: %v", alarm.Position["attributes"])
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for url, says := range map[string]string{
		"https://crm.example/gt06":      "",
		"http://127.0.0.1:8080":         "",
		"ftp://crm.example":             "scheme",
		"crm.example/gt06":              "scheme",
		"https://":                      "host",
		"https://user:pw@crm.example/x": "token_file",
		"http://[::1":                   "cannot be read",
	} {
		err := webhook.Check(options(url))
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "pw")) {
			t.Errorf("%s: %v, want %q", url, err, says)
		}
	}
	o := options("https://crm.example")
	o.Format = "xml"
	if err := webhook.Check(o); err == nil || !strings.Contains(err.Error(), "traccar") {
		t.Error(err)
	}
}
