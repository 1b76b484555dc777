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
	Devices(context.Context) ([]control.Device, error)
	Validate(context.Context) (control.Validation, error)
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

// New returns the server of the admin address. Only GET is answered, and only
// under the name of a loopback address: another host name is a page of
// somebody else that asks through a browser.
func New(src Source, reg *prometheus.Registry) *Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		st := src.Status(r.Context())
		if st.State == "ready" {
			say(w, http.StatusOK, "ready\n")
			return
		}
		say(w, http.StatusServiceUnavailable, st.State+": "+strings.Join(st.Reasons, "; ")+"\n")
	})
	mux.HandleFunc("GET /api/status", func(w http.ResponseWriter, r *http.Request) { reply(w, src.Status(r.Context()), nil) })
	mux.HandleFunc("GET /api/devices", func(w http.ResponseWriter, r *http.Request) {
		list, err := src.Devices(r.Context())
		reply(w, list, err)
	})
	mux.HandleFunc("GET /api/validate", func(w http.ResponseWriter, r *http.Request) {
		v, err := src.Validate(r.Context())
		reply(w, v, err)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		say(w, http.StatusOK, "gt06\n\n/metrics\n/healthz\n/readyz\n/api/status\n/api/devices\n/api/validate\n")
	})
	s := &Server{}
	s.Server = http.Server{
		Handler: local(mux), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
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

func local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if ip := net.ParseIP(strings.Trim(host, "[]")); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "this address answers on loopback only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text))
}

func reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
