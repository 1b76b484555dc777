// Package admin is the HTTP side of the server: metrics, health, and the same
// answers as the control socket, to be read only.
package admin

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gt06/server/control"
)

// Source answers what the pages show.
type Source interface {
	Status(context.Context) control.Status
	Devices() []control.Device
	Validate() control.Validation
}

// Options of a Server.
type Options struct {
	Source   Source
	Registry *prometheus.Registry
	Board    http.Handler // the page, and what it asks for
	Token    string       // who may ask; "": who asks by a loopback name
}

// Server is the HTTP server of the admin address.
type Server struct {
	http.Server
	open atomic.Int64 // connections
}

// Drain answers who is connected and then ends, for a server whose successor
// accepts from the same socket by now. http's own Shutdown hangs up on a
// request that it has accepted and not yet read.
func (s *Server) Drain(ctx context.Context, ln net.Listener) {
	_ = ln.Close()
	s.SetKeepAlivesEnabled(false)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.open.Load() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// New returns the server of the admin address. It can be read only.
func New(o Options) *Server {
	src := o.Source
	mux := http.NewServeMux()
	guard := &access{token: o.Token, next: mux}
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		st := src.Status(r.Context())
		if st.Serves() {
			say(w, http.StatusOK, "ready\n")
			return
		}
		text := st.State
		if o.Token == "" || guard.allowed(r) { // a balancer need not know why
			text += ": " + strings.Join(st.Reasons, "; ")
		}
		say(w, http.StatusServiceUnavailable, text+"\n")
	})
	mux.HandleFunc("GET /api/status", func(w http.ResponseWriter, r *http.Request) { reply(w, src.Status(r.Context())) })
	mux.HandleFunc("GET /api/devices", func(w http.ResponseWriter, _ *http.Request) { reply(w, src.Devices()) })
	mux.HandleFunc("GET /api/validate", func(w http.ResponseWriter, _ *http.Request) { reply(w, src.Validate()) })
	mux.Handle("GET /", o.Board)
	s := &Server{}
	s.Server = http.Server{
		Handler: guard, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 60 * time.Second, IdleTimeout: 60 * time.Second, MaxHeaderBytes: 16 << 10,
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				s.open.Add(1)
			case http.StateClosed, http.StateHijacked:
				s.open.Add(-1)
			case http.StateActive, http.StateIdle:
			}
		},
	}
	return s
}

func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text))
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
