package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"gt06/server/control"
)

type source struct {
	state string
	err   error
}

func (s source) Status(context.Context) control.Status {
	return control.Status{State: s.state, Reasons: []string{"because"}, PID: 7}
}

func (s source) Devices(context.Context) ([]control.Device, error) {
	return []control.Device{{IMEI: "490154203237518"}}, s.err
}

func (s source) Validate(context.Context) (control.Validation, error) {
	return control.Validation{OK: true}, s.err
}

func get(t *testing.T, src Source, method, host, path string) (int, string) {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "gt06_test_total", Help: "A test."}))
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	r.Host = host
	w := httptest.NewRecorder()
	New(src, reg).Handler.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestPages(t *testing.T) {
	t.Parallel()
	good, bad := source{state: "ready"}, source{state: "degraded", err: errors.New("away")}
	for _, c := range []struct {
		src    source
		path   string
		code   int
		says   string
		isJSON bool
	}{
		{good, "/", 200, "/metrics", false},
		{good, "/healthz", 200, "ok", false},
		{bad, "/healthz", 200, "ok", false},
		{good, "/readyz", 200, "ready", false},
		{bad, "/readyz", 503, "degraded: because", false},
		{good, "/metrics", 200, "gt06_test_total 0", false},
		{good, "/api/status", 200, `"pid":7`, true},
		{bad, "/api/status", 200, `"state":"degraded"`, true},
		{good, "/api/devices", 200, "490154203237518", true},
		{bad, "/api/devices", 503, "away", false},
		{good, "/api/validate", 200, `"ok":true`, true},
		{bad, "/api/validate", 503, "away", false},
		{good, "/nothing", 404, "", false},
	} {
		code, text := get(t, c.src, http.MethodGet, "127.0.0.1:8023", c.path)
		if code != c.code || !strings.Contains(text, c.says) || c.isJSON && !json.Valid([]byte(text)) {
			t.Errorf("%s: %d %q, want %d with %q", c.path, code, text, c.code, c.says)
		}
	}
}

func TestNobodyElseAsks(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]int{"127.0.0.1:8023": 200, "localhost:8023": 200, "[::1]:8023": 200, "localhost": 200, "evil.example:8023": 403, "10.0.0.1": 403, "": 403} {
		if code, _ := get(t, source{state: "ready"}, http.MethodGet, host, "/api/status"); code != want {
			t.Errorf("host %q: %d, want %d", host, code, want)
		}
	}
	if code, _ := get(t, source{}, http.MethodPost, "localhost", "/api/status"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", code)
	}
}
