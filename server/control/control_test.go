package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func serve(t *testing.T, handlers map[string]Handler) Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	s, err := Serve(path, handlers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return Client{Path: path}
}

func TestCall(t *testing.T) {
	t.Parallel()
	c := serve(t, map[string]Handler{
		"echo": func(_ context.Context, args json.RawMessage, _ func(any) error) (any, error) { return args, nil },
		"refuse": func(context.Context, json.RawMessage, func(any) error) (any, error) {
			return nil, &Error{Text: "no", Code: 5}
		},
		"fail": func(context.Context, json.RawMessage, func(any) error) (any, error) { return nil, errors.New("broken") },
	})
	var out map[string]int
	if err := c.Call(t.Context(), "echo", map[string]int{"a": 7}, &out); err != nil || out["a"] != 7 {
		t.Errorf("got %v, %v", out, err)
	}
	for verb, want := range map[string]Error{"refuse": {Text: "no", Code: 5}, "fail": {Text: "broken", Code: 1}, "nothing": {Text: `this server does not know "nothing"`, Code: 2}} {
		got, ok := errors.AsType[*Error](c.Call(t.Context(), verb, nil, &out))
		if !ok || got.Text != want.Text || got.Code != want.Code {
			t.Errorf("%s: got %v, want %v", verb, got, want)
		}
	}
	if err := (Client{Path: c.Path + "x"}).Call(t.Context(), "echo", nil, &out); !errors.Is(err, ErrNoServer) {
		t.Errorf("without a server: %v", err)
	}
}

func TestStreamEndsWithItsClient(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	c := serve(t, map[string]Handler{"count": func(ctx context.Context, _ json.RawMessage, send func(any) error) (any, error) {
		defer close(ended)
		for n := 0; ctx.Err() == nil; n++ {
			if err := send(n); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}})
	enough := errors.New("enough")
	n := 0
	err := c.Stream(t.Context(), "count", nil, func(b json.RawMessage) error {
		if string(b) != fmt.Sprint(n) {
			t.Errorf("event %s at place %d", b, n)
		}
		if n++; n == 100 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the server goes on for a client that left")
	}
}

func TestWhatAStrangerSends(t *testing.T) {
	t.Parallel()
	c := serve(t, nil)
	for line, want := range map[string]string{
		"hello\n":                               "not JSON",
		`{"version":99,"verb":"status"}` + "\n": "version 99",
		`{"version":1,"verb":"status","later":1}` + "\n": "does not know",
	} {
		conn, err := net.Dial("unix", c.Path) //nolint:noctx // local
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
		var r Reply
		if err := json.NewDecoder(conn).Decode(&r); err != nil || !strings.Contains(r.Error, want) {
			t.Errorf("%q: got %+v, %v; want %q", line, r, err, want)
		}
		_ = conn.Close()
	}
}

func TestASuccessorReplacesTheSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	name := func(n int) map[string]Handler {
		return map[string]Handler{"who": func(context.Context, json.RawMessage, func(any) error) (any, error) { return n, nil }}
	}
	for n := range 3 { // nobody removes a dead server's socket
		if _, err := Serve(path, name(n)); err != nil {
			t.Fatal(err)
		}
		var got int
		if err := (Client{Path: path}).Call(t.Context(), "who", nil, &got); err != nil || got != n {
			t.Errorf("server %d answers, %v; want %d", got, err, n)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestPathsAreShortAndNeverShared(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", "")
	a, errA := Path("/var/lib/" + strings.Repeat("long", 50))
	b, errB := Path("/var/lib/" + strings.Repeat("long", 49))
	if errA != nil || errB != nil || a == b || len(a) > 107 {
		t.Errorf("%q %v, %q %v", a, errA, b, errB)
	}
	t.Setenv("RUNTIME_DIRECTORY", "/run/"+strings.Repeat("x", 100))
	if p, err := Path("/"); err == nil {
		t.Errorf("%q is longer than a socket's path can be", p)
	}
}

func TestEvidenceOfAChange(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	good := Change{ID: "c-20261122-01", Snapshot: "snap-1", CheckedAt: "2026-11-22T11:59:00Z", Head: "sha256:" + strings.Repeat("0a", 32)}
	if err := good.Check(now); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(c *Change){
		"no change":   func(c *Change) { c.ID = "yes" },
		"no snapshot": func(c *Change) { c.Snapshot = "" },
		"no head":     func(c *Change) { c.Head = "sha256:0" },
		"no time":     func(c *Change) { c.CheckedAt = "" },
		"old":         func(c *Change) { c.CheckedAt = "2026-11-22T11:49:00Z" },
		"of tomorrow": func(c *Change) { c.CheckedAt = "2026-11-23T12:00:00Z" },
	} {
		c := good
		spoil(&c)
		if c.Check(now) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A stuck sink degrades a server and sends nobody away; anything else beside it
// does.
func TestServes(t *testing.T) {
	t.Parallel()
	stuck := []Sink{{Name: "a", State: SinkStuck}, {Name: "b", State: "ok"}}
	for name, now := range map[string]struct {
		st   Status
		want bool
	}{
		"ready":                      {Status{State: "ready"}, true},
		"the store is down":          {Status{State: "degraded", Reasons: []string{"store"}}, false},
		"a sink is stuck":            {Status{State: "degraded", Reasons: []string{"sink a"}, Sinks: stuck}, true},
		"a sink and the store":       {Status{State: "degraded", Reasons: []string{"store", "sink a"}, Sinks: stuck}, false},
		"draining with a stuck sink": {Status{State: "draining", Reasons: []string{"sink a"}, Sinks: stuck}, false},
	} {
		if got := now.st.Serves(); got != now.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Of a directory of another user the socket is the system's; of ours it is ours.
func TestFind(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Log("root looks in one place only")
	}
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("RUNTIME_DIRECTORY", "")
	own := t.TempDir()
	path, err := Path(own)
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{own: path, filepath.Join(own, "not"): ""} {
		got, err := Find(dir)
		if err != nil || want != "" && got != want || want == "" && strings.HasPrefix(got, system+"/") != (os.Geteuid() == 0) {
			t.Errorf("%s: %s, %v", dir, got, err)
		}
	}
	if got, err := Find("/"); err != nil || !strings.HasPrefix(got, system+"/") { // root's
		t.Errorf("%s, %v", got, err)
	}
}
