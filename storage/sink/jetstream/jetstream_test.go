package jetstream_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"gt06/protocol/device"
	"gt06/storage"
	"gt06/storage/sink"
	"gt06/storage/sink/jetstream"
)

// server is a nats-server on a port of the loopback, that may die.
type server struct {
	t    *testing.T
	addr string
	dir  string
	conf string
	cmd  *exec.Cmd
}

func start(t *testing.T, conf string) *server {
	t.Helper()
	if _, err := exec.LookPath("nats-server"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("under CI nats-server must be installed")
		}
		t.Skip("nats-server is not installed")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, addr: ln.Addr().String(), dir: t.TempDir(), conf: conf}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	s.run()
	t.Cleanup(s.kill)
	return s
}

func (s *server) run() {
	s.t.Helper()
	_, port, _ := net.SplitHostPort(s.addr)
	args := []string{"-a", "127.0.0.1", "-p", port, "-js", "-sd", s.dir}
	if s.conf != "" {
		path := filepath.Join(s.dir, "nats.conf")
		if err := os.WriteFile(path, []byte(s.conf), 0o600); err != nil {
			s.t.Fatal(err)
		}
		args = append(args, "-c", path)
	}
	s.cmd = exec.Command("nats-server", args...) //nolint:noctx // killed by the test
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	limit := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if c, err := net.Dial("tcp", s.addr); err == nil { //nolint:noctx // loopback
			_ = c.Close()
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			s.t.Fatal("nats-server does not listen")
		}
	}
}

// kill is kill -9.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// messages returns what is in the stream.
func (s *server) messages(stream string) (subjects, ids []string) {
	s.t.Helper()
	conn, err := nats.Connect("nats://" + s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	js, err := natsjs.New(conn)
	if err != nil {
		s.t.Fatal(err)
	}
	st, err := js.Stream(s.t.Context(), stream)
	if err != nil {
		s.t.Fatal(err)
	}
	info, err := st.Info(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for n := info.State.FirstSeq; n <= info.State.LastSeq; n++ {
		m, err := st.GetMsg(s.t.Context(), n)
		if err != nil {
			s.t.Fatal(err)
		}
		subjects = append(subjects, m.Subject)
		ids = append(ids, m.Header.Get("Nats-Msg-Id"))
	}
	return subjects, ids
}

func (s *server) options() jetstream.Options {
	return jetstream.Options{URL: "nats://" + s.addr, Stream: "GT06", Subject: "gt06", Timeout: 5 * time.Second, Events: sink.NewEncoder("node", nil)}
}

func batch(n int) *sink.Batch {
	b := &sink.Batch{Key: "k"}
	for i := range n {
		kind := []device.Kind{device.Location, device.Heartbeat, device.Alarm}[i%3]
		at := time.Date(2026, 11, 24, 10, 0, i, 0, time.UTC)
		b.Items = append(b.Items, sink.Item{End: storage.Position(100 + i), Record: storage.Record{Device: device.IMEI(1), ReceivedAt: at.UnixMicro(), Input: device.Build(kind, 1, i, at).Bytes}})
	}
	return b
}

func TestEachEventIsInTheStreamOnce(t *testing.T) {
	t.Parallel()
	s := start(t, "")
	p := jetstream.New(s.options())
	defer p.Close() //nolint:errcheck // a test's own
	const items = 600
	for range 2 { // the second time nobody knows that the first succeeded
		if err := p.Send(t.Context(), batch(items)); err != nil {
			t.Fatal(err)
		}
	}
	subjects, ids := s.messages("GT06")
	if want := items + items/3; len(ids) != want {
		t.Errorf("%d messages, want %d: an alarm is a position, too", len(ids), want)
	}
	if subjects[0] != "gt06.position."+device.IMEI(1).String() || ids[0] != "node-64-0" {
		t.Errorf("the first is %s %s", subjects[0], ids[0])
	}
	if slices.Sort(ids); len(slices.Compact(ids)) != len(subjects) {
		t.Error("an id is there twice")
	}
}

func TestServerThatDies(t *testing.T) {
	t.Parallel()
	s := start(t, "")
	p := jetstream.New(s.options())
	defer p.Close() //nolint:errcheck // a test's own
	if err := p.Send(t.Context(), batch(30)); err != nil {
		t.Fatal(err)
	}
	s.kill()
	var err error
	for range 2 {
		begin := time.Now()
		err = p.Send(t.Context(), batch(60))
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("that the server is gone is noticed after %v", took)
		}
		if e, ok := errors.AsType[*sink.Error](err); !ok || e.Kind != sink.KindConnect {
			t.Errorf("%v", err)
		}
	}
	if !strings.Contains(err.Error(), s.addr) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%q does not say who refuses", err)
	}
	s.run()
	limit := time.Now().Add(20 * time.Second)
	for err := p.Send(t.Context(), batch(60)); err != nil; err = p.Send(t.Context(), batch(60)) {
		if time.Now().After(limit) {
			t.Fatal(err)
		}
	}
	if _, ids := s.messages("GT06"); len(ids) != 80 {
		t.Errorf("%d messages, want 80", len(ids))
	}
}

// Who has made a stream of other subjects, or lets us not in, is told.
func TestRefusals(t *testing.T) {
	t.Parallel()
	kind := func(err error) sink.Kind {
		e, _ := errors.AsType[*sink.Error](err)
		if e == nil {
			return ""
		}
		return e.Kind
	}
	t.Run("no right to connect", func(t *testing.T) {
		t.Parallel()
		s := start(t, "authorization {user: u, password: p}\n")
		p := jetstream.New(s.options())
		if err := p.Send(t.Context(), batch(1)); kind(err) != sink.KindRejected {
			t.Error(err)
		}
	})
	t.Run("the subject is another stream's", func(t *testing.T) {
		t.Parallel()
		s := start(t, "")
		p := jetstream.New(s.options())
		defer p.Close() //nolint:errcheck // a test's own
		if err := p.Send(t.Context(), batch(1)); err != nil {
			t.Fatal(err)
		}
		opt := s.options()
		opt.Stream = "OTHER"
		o := jetstream.New(opt)
		if err := o.Send(t.Context(), batch(1)); kind(err) != sink.KindRejected || !strings.Contains(err.Error(), "OTHER") {
			t.Error(err)
		}
	})
}

func TestCheck(t *testing.T) {
	t.Parallel()
	good := jetstream.Options{URL: "nats://a:4222,tls://b:4222", Stream: "GT06", Subject: "fleet.gt06"}
	if err := jetstream.Check(good); err != nil {
		t.Error(err)
	}
	for says, change := range map[string]func(*jetstream.Options){
		"scheme":           func(o *jetstream.Options) { o.URL = "http://a" },
		"credentials_file": func(o *jetstream.Options) { o.URL = "nats://user:hidden@a" },
		"host":             func(o *jetstream.Options) { o.URL = "nats://" },
		"stream":           func(o *jetstream.Options) { o.Stream = "a.b" },
		"subject":          func(o *jetstream.Options) { o.Subject = "a.>" },
	} {
		o := good
		change(&o)
		if err := jetstream.Check(o); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", says, err)
		}
	}
}
