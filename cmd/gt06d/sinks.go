package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"gt06/cmd/internal/config"
	"gt06/server/control"
	"gt06/storage"
	"gt06/storage/sink"
	"gt06/storage/sink/jetstream"
	"gt06/storage/sink/webhook"
	"gt06/storage/spool"
)

// receiver makes what a sink sends to; nothing is dialed yet.
func receiver(s *config.Sink, node string) (kind string, r sink.Receiver, err error) {
	types := make([]sink.Type, 0, len(s.Events))
	for _, name := range s.Events {
		if !slices.Contains(sink.Types(), sink.Type(name)) {
			return "", nil, fmt.Errorf("sinks: %q: events has %q: it can have %v", s.Name, name, sink.Types())
		}
		types = append(types, sink.Type(name))
	}
	events := sink.NewEncoder(node, types)
	switch {
	case s.Webhook != nil:
		w := s.Webhook
		opt := webhook.Options{URL: w.URL, Format: webhook.Format(w.Format), Timeout: time.Duration(w.Timeout), Token: string(w.Token), Events: events}
		if w.Secret != "" {
			opt.Secret = []byte(w.Secret)
		}
		kind, r, err = "webhook", webhook.New(opt), webhook.Check(opt)
	case s.NATS != nil:
		n := s.NATS
		opt := jetstream.Options{URL: n.URL, Stream: n.Stream, Subject: n.Subject, Credentials: n.CredentialsFile, Timeout: time.Duration(n.Timeout), Events: events}
		kind, r, err = "nats", jetstream.New(opt), jetstream.Check(opt)
	}
	if err != nil {
		return "", nil, fmt.Errorf("sinks: %q: %s: %w", s.Name, kind, err)
	}
	return kind, r, nil
}

// checkSinks says what is wrong with the settings of sinks, nil: nothing.
func checkSinks(cfg *config.Config) error {
	for i := range cfg.Sinks {
		if _, _, err := receiver(&cfg.Sinks[i], ""); err != nil {
			return err
		}
	}
	return nil
}

// makeSinks prepares the sinks of the configuration.
func (a *app) makeSinks() error {
	for i := range a.cfg.Sinks {
		c := &a.cfg.Sinks[i]
		kind, r, err := receiver(c, a.node)
		if err != nil {
			return err
		}
		start := storage.At(a.spool.First(), 0)
		if c.Start == "oldest" {
			start = 0
		}
		s, err := sink.New(sink.Options{
			Name: c.Name, Kind: kind, Node: a.node, Log: a.rowLog(), Start: start, Receiver: r,
			Cursor: sink.FileCursor(filepath.Join(a.cfg.DataDir, "sinks"), c.Name), Failpoint: a.fail, Logger: a.log, Registerer: a.reg,
		})
		if err != nil {
			return err
		}
		a.sinks = append(a.sinks, s)
	}
	return nil
}

// sinkLines is what the greeting says of the sinks.
func (a *app) sinkLines() (lines string) {
	for i := range a.cfg.Sinks {
		c := &a.cfg.Sinks[i]
		var address string
		if c.Webhook != nil {
			address = c.Webhook.URL
		} else {
			address, _, _ = strings.Cut(c.NATS.URL, ",")
		}
		if u, err := url.Parse(address); err == nil { // the path may be a secret
			lines += fmt.Sprintf("sink      %s: %s://%s\n", c.Name, u.Scheme, u.Host)
		}
	}
	return lines
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
			Name: st.Name, Kind: st.Kind, State: string(st.State), Lag: st.Lag, OldestS: st.Oldest.Seconds(), Sent: st.Sent, Missed: st.Missed, LastError: st.LastError,
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
