package sink_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"gt06/protocol/device"
	"gt06/storage"
	"gt06/storage/logtest"
	"gt06/storage/sink"
	"gt06/storage/spool"
)

// delivery is what a receiver was asked to take.
type delivery struct {
	key   string
	items []string
	at    time.Time
}

// memoryReceiver remembers, and says what it is told.
type memoryReceiver struct {
	mu   sync.Mutex
	got  []delivery
	says func(ctx context.Context, n int) error // to the n-th
}

func (r *memoryReceiver) Send(ctx context.Context, b *sink.Batch) error {
	d := delivery{key: b.Key, at: time.Now()}
	for i := range b.Items {
		d.items = append(d.items, hex.EncodeToString(b.Items[i].Record.Input))
	}
	r.mu.Lock()
	n := len(r.got)
	r.got = append(r.got, d)
	says := r.says
	r.mu.Unlock()
	if says == nil {
		return nil
	}
	return says(ctx, n)
}

func (r *memoryReceiver) Close() error { return nil }

func (r *memoryReceiver) all() []delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func record(n int) storage.Record {
	return storage.Record{Conn: 1, Device: device.IMEI(1), ReceivedAt: time.Now().UnixMicro(), Input: device.Build(device.Location, 1, n, time.Now()).Bytes}
}

func newSink(t *testing.T, dir string, log sink.Log, r sink.Receiver, logger *zap.Logger) *sink.Sink {
	t.Helper()
	if logger == nil {
		logger = zap.NewNop()
	}
	s, err := sink.New(sink.Options{
		Name: "crm", Kind: "test", Node: "n", Log: log, Cursor: sink.FileCursor(dir, "crm"), Receiver: r, Logger: logger, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs a sink until stop, which returns what it returned.
func run(t *testing.T, s *sink.Sink) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return sync.OnceValue(func() error { cancel(); return <-done })
}

// What was on its way when a process ended is sent again as it was, whatever
// came since, and nothing twice but that.
func TestBatchIsTheSameAfterAKill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir, log := t.TempDir(), logtest.NewLog()
		hangs := &memoryReceiver{says: func(ctx context.Context, n int) error {
			if n == 0 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}}
		s := newSink(t, dir, log, hangs, nil)
		stop := run(t, s)
		log.Add(record(1), record(2))
		time.Sleep(time.Second) //nolint:forbidigo // virtual
		log.Add(record(3), record(4), record(5))
		time.Sleep(time.Second) //nolint:forbidigo // virtual
		if st := s.Status(); st.State != sink.StateOK || st.Lag != 3 {
			t.Errorf("a second without a reply: %+v", st)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // virtual
		if st := s.Status(); st.State != sink.StateStuck || st.LastError != "no reply for 1m1s" {
			t.Errorf("a minute without a reply: %+v", st)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		log.Add(record(6))
		takes := &memoryReceiver{}
		s = newSink(t, dir, log, takes, nil)
		stop = run(t, s)
		time.Sleep(time.Second) //nolint:forbidigo // virtual
		if st := s.Status(); st.State != sink.StateOK || st.Lag != 0 || st.Sent != 4 {
			t.Errorf("%+v", st)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		before, after := hangs.all(), takes.all()
		if len(before) != 2 || len(after) != 2 || before[1].key != after[0].key || !slices.Equal(before[1].items, after[0].items) {
			t.Fatalf("sent %+v, then %+v", before, after)
		}
		if len(before[0].items) != 2 || len(after[0].items) != 3 || len(after[1].items) != 1 || before[0].key == after[0].key || after[0].key == after[1].key {
			t.Errorf("sent %+v, then %+v", before, after)
		}
	})
}

// The waits of a sink whose receiver fails grow, and status says how long.
func TestReceiverThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := logtest.NewLog()
		begin := time.Now()
		fails := &memoryReceiver{says: func(_ context.Context, n int) error {
			switch {
			case time.Since(begin) > 5*time.Minute:
				return nil
			case n == 3:
				return &sink.Error{Kind: sink.KindBusy, Err: errors.New("later"), After: time.Minute}
			}
			return &sink.Error{Kind: sink.KindServer, Err: errors.New("no")}
		}}
		core, said := observer.New(zap.InfoLevel)
		s := newSink(t, t.TempDir(), log, fails, zap.New(core))
		stop := run(t, s)
		log.Add(record(1))
		time.Sleep(5 * time.Second) //nolint:forbidigo // virtual
		if st := s.Status(); st.State != sink.StateFailing || st.Lag != 1 {
			t.Errorf("after 5 s: %+v", st)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // virtual
		if st := s.Status(); st.State != sink.StateStuck || st.LastError == "" || st.Oldest < time.Minute {
			t.Errorf("after a minute: %+v", st)
		}
		time.Sleep(6 * time.Minute) //nolint:forbidigo // virtual
		if st := s.Status(); st.State != sink.StateOK || st.LastError != "" || st.Lag != 0 || st.Oldest != 0 {
			t.Errorf("at the end: %+v", st)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		got := fails.all()
		if pause := got[4].at.Sub(got[3].at); pause < time.Minute {
			t.Errorf("asked to wait a minute, it came back after %v", pause)
		}
		for i := 5; i < len(got); i++ {
			if pause := got[i].at.Sub(got[i-1].at); pause > 30*time.Second {
				t.Errorf("pause %d: %v", i, pause)
			}
		}
		if len(got) > 30 {
			t.Errorf("tried %d times in five minutes", len(got))
		}
		lines := map[string]int{}
		for _, e := range said.All() {
			lines[e.Level.String()]++
		}
		if lines["warn"] != 1 || lines["error"] != 1 || lines["info"] != 1 {
			t.Errorf("the log says %v: a fault is said when it begins, when it lasts and when it ends", lines)
		}
	})
}

// A sink that lags behind what the log keeps loses what is gone, knows how much
// and says it while it happens.
func TestRecordsThatAreGoneAreCounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var later atomic.Bool
	w, err := spool.Open(spool.Options{
		Dir: filepath.Join(dir, "spool"), SegmentBytes: 64 << 10, MaxBytes: 64 << 20, MinFree: 1, Logger: zap.NewNop(), Retention: time.Hour,
		Now: func() time.Time {
			if later.Load() {
				return time.Now().Add(2 * time.Hour)
			}
			return time.Now()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close() //nolint:errcheck // a test's own
	log := spoolLog{w, filepath.Join(dir, "spool")}
	var mu sync.Mutex
	open := false
	r := &memoryReceiver{says: func(context.Context, int) error {
		mu.Lock()
		defer mu.Unlock()
		if open {
			return nil
		}
		return errors.New("away")
	}}
	s := newSink(t, dir, log, r, nil)
	stop := run(t, s)
	const all = 8000
	for n := range all / 100 {
		batch := make([]*storage.Record, 0, 100)
		for i := range 100 {
			rec := record(100*n + i)
			batch = append(batch, &rec)
		}
		pos, err := w.Append(batch)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Sync(pos, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if n == all/200 {
			eventually(t, "half is counted", func() bool { return s.Status().Lag == 100*(int64(n)+1) })
		}
	}
	eventually(t, "all is counted", func() bool { return s.Status().Lag == all })
	w.Release(w.Durable())
	later.Store(true)
	eventually(t, "what is gone is said", func() bool { return s.Status().Missed > all/4 })
	if st := s.Status(); int64(st.Missed)+st.Lag != all {
		t.Errorf("%d missed and %d waiting, of %d", st.Missed, st.Lag, all)
	}
	// Another process knows it, too.
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s = newSink(t, dir, log, r, nil)
	stop = run(t, s)
	mu.Lock()
	open = true
	mu.Unlock()
	eventually(t, "the rest is sent", func() bool { st := s.Status(); return st.State == sink.StateOK && st.Lag == 0 && st.Sent > 0 })
	st := s.Status()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, d := range r.all() {
		for _, i := range d.items {
			seen[i] = true
		}
	}
	if int64(st.Missed)+st.Sent != all || st.Sent == 0 {
		t.Errorf("%d missed, %d sent at last, of %d; %d seen", st.Missed, st.Sent, all, len(seen))
	}
}

type spoolLog struct {
	*spool.Writer
	dir string
}

func (l spoolLog) Read(from storage.Position) sink.Reader { return spool.NewReader(l.dir, from) }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("did not happen: %s", what)
		}
	}
}

func TestCursor(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	write := func(t *testing.T, dir string, marks ...sink.Mark) {
		t.Helper()
		c := sink.FileCursor(dir, "x")
		if _, err := c.Load(ctx); !errors.Is(err, sink.ErrNew) {
			t.Fatal(err)
		}
		for _, m := range marks {
			if err := c.Save(ctx, m, true); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	first, second, third := sink.Mark{Sent: 1, Sending: 2}, sink.Mark{Sent: 2, Sending: 5, Missed: 3}, sink.Mark{Sent: 5, Sending: 5, Missed: 4}
	for name, now := range map[string]struct {
		change func(b []byte) []byte
		want   sink.Mark
		err    error
	}{
		"as it was":              {func(b []byte) []byte { return b }, third, nil},
		"the last one is torn":   {func(b []byte) []byte { clear(b[512+30 : 512+44]); return b }, second, nil},
		"the one before is torn": {func(b []byte) []byte { b[20] ^= 1; return b }, third, nil},
		"both are damaged":       {func(b []byte) []byte { b[20] ^= 1; b[532] ^= 1; return b }, sink.Mark{}, sink.ErrDamaged},
		"another file":           {func([]byte) []byte { return []byte("hello") }, sink.Mark{}, sink.ErrDamaged},
		"a newer version":        {func(b []byte) []byte { b[512+6] = 2; return b }, sink.Mark{}, sink.ErrVersion},
		"only zeros":             {func(b []byte) []byte { clear(b); return b }, sink.Mark{}, sink.ErrNew},
		"nothing":                {func([]byte) []byte { return nil }, sink.Mark{}, sink.ErrNew},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, first, second, third)
			path := filepath.Join(dir, "x.cursor")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, now.change(b), 0o600); err != nil {
				t.Fatal(err)
			}
			c := sink.FileCursor(dir, "x")
			defer c.Close() //nolint:errcheck // a test's own
			got, err := c.Load(ctx)
			if !errors.Is(err, now.err) || err == nil && got != now.want {
				t.Fatalf("%+v, %v; want %+v, %v", got, err, now.want, now.err)
			}
			if err != nil {
				return
			}
			next := sink.Mark{Sent: 9, Sending: 9}
			if err := c.Save(ctx, next, false); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Load(ctx); err != nil || got != next {
				t.Errorf("read again: %+v, %v", got, err)
			}
		})
	}
}

// A cursor that is not understood stops the sink, and the reason is seen.
func TestDamagedCursorStopsTheSink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "crm.cursor"), []byte(strings.Repeat("x", 600)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSink(t, dir, logtest.NewLog(), &memoryReceiver{}, nil)
	if err := s.Run(t.Context()); !errors.Is(err, sink.ErrDamaged) {
		t.Error(err)
	}
	if st := s.Status(); st.State != sink.StateStopped || !strings.Contains(st.LastError, "crm.cursor") {
		t.Errorf("%+v", st)
	}
}

// Two processes never send at a time: the second waits for the first.
func TestOneSends(t *testing.T) {
	t.Parallel()
	dir, log := t.TempDir(), logtest.NewLog()
	log.Add(record(1))
	first, second := &memoryReceiver{}, &memoryReceiver{}
	a := newSink(t, dir, log, first, nil)
	stopA := run(t, a)
	eventually(t, "the first sends", func() bool { return a.Status().Sent == 1 })
	b := newSink(t, dir, log, second, nil)
	stopB := run(t, b)
	log.Add(record(2))
	eventually(t, "the first sends on", func() bool { return a.Status().Sent == 2 })
	if st := b.Status(); st.State != sink.StateOpening || len(second.all()) > 0 {
		t.Errorf("the second: %+v, sent %v", st, second.all())
	}
	if err := run(t, newSink(t, dir, log, &memoryReceiver{}, nil))(); err != nil { // one that ends while it waits
		t.Error(err)
	}
	if err := stopA(); err != nil {
		t.Error(err)
	}
	log.Add(record(3))
	eventually(t, "the second goes on", func() bool { return b.Status().Sent == 1 })
	if err := stopB(); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(len(first.all()), len(second.all())); got != "2 1" {
		t.Errorf("batches %s", got)
	}
}
