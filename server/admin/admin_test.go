package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"gt06/server/control"
)

type source struct{ state string }

func (s source) Status(context.Context) control.Status {
	return control.Status{State: s.state, Reasons: []string{"because"}, PID: 7}
}

func (s source) Devices() []control.Device { return []control.Device{{IMEI: "490154203237518"}} }

func (s source) Validate() control.Validation { return control.Validation{OK: true} }

const secret = "a token of the tests"

func serve(src Source, token string) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "gt06_test_total", Help: "A test."}))
	board := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		say(w, http.StatusOK, "the page")
	})
	return New(Options{Source: src, Registry: reg, Board: board, Token: token}).Handler
}

func get(t *testing.T, src Source, method, host, path string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	r.Host = host
	w := httptest.NewRecorder()
	serve(src, "").ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestPages(t *testing.T) {
	t.Parallel()
	good, bad := source{state: "ready"}, source{state: "degraded"}
	for _, c := range []struct {
		src    source
		path   string
		code   int
		says   string
		isJSON bool
	}{
		{good, "/", 200, "the page", false},
		{good, "/healthz", 200, "ok", false},
		{bad, "/healthz", 200, "ok", false},
		{good, "/readyz", 200, "ready", false},
		{bad, "/readyz", 503, "degraded: because", false},
		{good, "/metrics", 200, "gt06_test_total 0", false},
		{good, "/api/status", 200, `"pid":7`, true},
		{bad, "/api/status", 200, `"state":"degraded"`, true},
		{good, "/api/devices", 200, "490154203237518", true},
		{good, "/api/validate", 200, `"ok":true`, true},
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

func TestToken(t *testing.T) {
	t.Parallel()
	h := serve(source{state: "degraded"}, secret)
	ask := func(method, target, body string, change func(*http.Request)) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
		r.Host = "gt06.example" // any name does: the token proves more
		if body != "" {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		if change != nil {
			change(r)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	bearer := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	}
	for _, c := range []struct {
		what, method, target, body string
		change                     func(*http.Request)
		code                       int
		says                       string
	}{
		{"nothing", "GET", "/api/status", "", nil, 401, "Bearer"},
		{"nothing, metrics", "GET", "/metrics", "", nil, 401, "Bearer"},
		{"nothing, page", "GET", "/", "", nil, 303, ""},
		{"life needs none", "GET", "/healthz", "", nil, 200, "ok"},
		{"readiness needs none, and gives no reasons", "GET", "/readyz", "", nil, 503, "degraded\n"},
		{"readiness with it", "GET", "/readyz", "", bearer(secret), 503, "degraded: because"},
		{"the token", "GET", "/api/status", "", bearer(secret), 200, `"pid":7`},
		{"the token, page", "GET", "/", "", bearer(secret), 200, "the page"},
		{"another", "GET", "/api/status", "", bearer(secret + "x"), 401, ""},
		{"none at all", "GET", "/api/status", "", bearer(""), 401, ""},
		{"the token where the cookie belongs", "GET", "/api/status", "", func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "gt06", Value: secret}) }, 401, ""},
		{"a link with another token", "GET", "/?token=x", "", nil, 303, ""},
		{"the form", "GET", "/login", "", nil, 200, `type="password"`},
		{"the form, wrong", "POST", "/login", "token=x", nil, 401, "not the token"},
		{"the form from elsewhere", "POST", "/login", "token=" + url.QueryEscape(secret), func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403, ""},
		{"a login is no other method", "PUT", "/login", "", nil, 405, ""},
		{"nothing can be changed", "POST", "/api/status", "", bearer(secret), 405, ""},
	} {
		w := ask(c.method, c.target, c.body, c.change)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s: %d %q, want %d with %q", c.what, w.Code, w.Body, c.code, c.says)
		}
		if strings.Contains(w.Body.String(), secret) || w.Header().Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: headers %v", c.what, w.Header())
		}
	}
	for what, w := range map[string]*httptest.ResponseRecorder{
		"a login": ask("POST", "/login", "token="+url.QueryEscape(secret), nil),
		"a link":  ask("GET", "/?token="+url.QueryEscape(secret), "", nil),
	} {
		cookies := w.Result().Cookies()
		if w.Code != 303 || w.Header().Get("Location") != "/" || len(cookies) != 1 {
			t.Fatalf("%s: %d %v", what, w.Code, w.Header())
		}
		c := cookies[0]
		if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || strings.Contains(c.Value, secret) {
			t.Errorf("%s: cookie %v", what, c)
		}
		if w := ask("GET", "/api/status", "", func(r *http.Request) { r.AddCookie(c) }); w.Code != 200 {
			t.Errorf("%s: the cookie is not taken: %d", what, w.Code)
		}
	}
}
