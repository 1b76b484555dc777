package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"gt06/cmd/internal/config"
	"gt06/server/control"
	"gt06/storage"
	"gt06/storage/sink"
	"gt06/storage/sink/jetstream"
	"gt06/storage/sink/mirror"
	"gt06/storage/sink/table"
	"gt06/storage/sink/webhook"
	"gt06/storage/spool"
)

// way is what a sink sends to, and what keeps its cursor there; nil: a file.
type way struct {
	kind, address string
	receiver      sink.Receiver
	cursor        sink.Cursor
}

// wayOf makes what a sink sends to; nothing is dialed yet.
func (a *app) wayOf(s *config.Sink) (w way, err error) {
	types := make([]sink.Type, 0, len(s.Events))
	for _, name := range s.Events {
		if !slices.Contains(sink.Types(), sink.Type(name)) {
			return w, fmt.Errorf("sinks: %q: events has %q: it can have %v", s.Name, name, sink.Types())
		}
		types = append(types, sink.Type(name))
	}
	events := sink.NewEncoder(a.node, types)
	switch {
	case s.Webhook != nil:
		h := s.Webhook
		opt := webhook.Options{URL: h.URL, Format: webhook.Format(h.Format), Timeout: time.Duration(h.Timeout), Token: string(h.Token), Events: events}
		if h.Secret != "" {
			opt.Secret = []byte(h.Secret)
		}
		w, err = way{"webhook", host(h.URL), webhook.New(opt), nil}, webhook.Check(opt)
	case s.NATS != nil:
		n := s.NATS
		opt := jetstream.Options{URL: n.URL, Stream: n.Stream, Subject: n.Subject, Credentials: n.CredentialsFile, Timeout: time.Duration(n.Timeout), Events: events}
		first, _, _ := strings.Cut(n.URL, ",")
		w, err = way{"nats", host(first), jetstream.New(opt), nil}, jetstream.Check(opt)
	case s.Table != nil:
		w, err = a.tableOf(s)
	case s.Mirror != nil:
		w, err = a.mirrorOf(s)
	}
	if err != nil {
		return w, fmt.Errorf("sinks: %q: %s: %w", s.Name, w.kind, err)
	}
	return w, nil
}

// host is what the greeting shows of an address: the path may be a secret.
func host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func (a *app) tableOf(s *config.Sink) (w way, err error) {
	w.kind = "table"
	m, err := table.Parse(s.Table.Text)
	switch {
	case err != nil:
		return w, fmt.Errorf("%s: %w", s.Table.Mapping, err)
	case len(s.Events) > 0:
		return w, errors.New("events belong in the mapping")
	}
	opt := table.Options{
		Name: s.Name, DSN: string(s.Table.DSN), Mapping: m, File: filepath.Join(a.cfg.DataDir, "sinks", s.Name+".table"),
		Generation: func() uint64 { return a.spool.Generation() }, First: a.first,
		Events: sink.NewEncoder(a.node, m.Events), Failpoint: a.fail, Logger: a.log, Registerer: a.reg,
	}
	if err := table.Check(opt); err != nil {
		return w, err
	}
	t, err := table.New(opt)
	if err != nil {
		return w, err
	}
	w.address, w.receiver, w.cursor = m.Table, t, t
	return w, nil
}

func (a *app) mirrorOf(s *config.Sink) (w way, err error) {
	w.kind, w.address = "mirror", s.Mirror.Address
	opt := mirror.Options{Name: s.Name, Address: s.Mirror.Address, Timeout: time.Duration(s.Mirror.Timeout), Connections: s.Mirror.Connections, Registerer: a.reg}
	if len(s.Events) > 0 {
		return w, errors.New("it sends frames, not events")
	}
	if err := mirror.Check(opt); err != nil {
		return w, err
	}
	w.receiver, err = mirror.New(opt)
	return w, err
}

// first is where this server's own part of the log begins.
func (a *app) first() storage.Position { return storage.At(a.spool.First(), 0) }

// checkSinks says what is wrong with the settings of sinks, nil: nothing.
func checkSinks(cfg *config.Config) error {
	probe := &app{cfg: *cfg, reg: prometheus.NewRegistry()}
	for i := range cfg.Sinks {
		w, err := probe.wayOf(&cfg.Sinks[i])
		if err != nil {
			return err
		}
		_ = w.receiver.Close() // nothing was opened
	}
	return nil
}

// makeSinks prepares the sinks of the configuration.
func (a *app) makeSinks() error {
	for i := range a.cfg.Sinks {
		c := &a.cfg.Sinks[i]
		w, err := a.wayOf(c)
		if err != nil {
			return err
		}
		start := a.first()
		if c.Start == "oldest" {
			start = 0
		}
		if w.cursor == nil {
			w.cursor = sink.FileCursor(filepath.Join(a.cfg.DataDir, "sinks"), c.Name)
		}
		s, err := sink.New(sink.Options{
			Name: c.Name, Kind: w.kind, Node: a.node, Log: a.rowLog(), Start: start, Receiver: w.receiver,
			Cursor: w.cursor, Failpoint: a.fail, Logger: a.log, Registerer: a.reg,
		})
		if err != nil {
			return err
		}
		a.sinks = append(a.sinks, s)
		a.sinkLines += fmt.Sprintf("sink      %s: %s\n", c.Name, w.address)
	}
	return nil
}

// runSinks sends until the context ends. A sink that ends before is no reason
// to end the server: status says it.
func (a *app) runSinks(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range a.sinks {
		wg.Go(func() {
			if err := s.Run(ctx); err != nil {
				a.log.Error("a sink has ended", zap.String("sink", s.Status().Name), zap.Error(err))
			}
		})
	}
	wg.Wait()
}

// sinkStatus is what status says of the sinks, and what is wrong with them.
func (a *app) sinkStatus() (list []control.Sink, reasons []string) {
	list = make([]control.Sink, 0, len(a.sinks))
	for _, s := range a.sinks {
		st := s.Status()
		c := control.Sink{
			Name: st.Name, Kind: st.Kind, State: string(st.State), Lag: st.Lag, OldestS: st.Oldest.Seconds(), Sent: st.Sent, Missed: st.Missed, LastError: st.LastError, Counts: st.Counts,
		}
		list = append(list, c)
		if c.State == control.SinkStuck || c.State == control.SinkStopped {
			reasons = append(reasons, fmt.Sprintf("sink %s is %s: %s", st.Name, st.State, st.LastError))
		}
	}
	return list, reasons
}

// rowLog is the log as the store and the sinks read it.
func (a *app) rowLog() rowLog { return rowLog{a.spool, filepath.Join(a.cfg.DataDir, "spool"), a.log} }

// rowLog is the log as those want it who read it behind the devices.
type rowLog struct {
	*spool.Writer
	dir string
	log *zap.Logger
}

// Read implements sqlstore.Log and sink.Log.
func (l rowLog) Read(from storage.Position) sink.Reader {
	r := spool.NewReader(l.dir, from)
	r.Damaged = func(e *spool.CorruptionError) {
		l.log.Error("the log is damaged: what can be read goes on", zap.Error(e), zap.Uint32("segment", e.Segment))
	}
	return r
}
