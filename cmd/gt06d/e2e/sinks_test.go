package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"gt06/protocol/device"
	"gt06/protocol/device/fleet"
	"gt06/server/control"
	"gt06/storage/sink/webhook"
)

const sinkSecret = "a s3cret of the webhook"

// receiverVariable makes a test binary the receiver of a webhook that appends to
// the file it names; receiverAddress is where it listens.
const (
	receiverVariable = "GT06_TEST_RECEIVER"
	receiverAddress  = "GT06_TEST_RECEIVER_ADDR"
)

// receive is a small HTTP server that keeps what it takes in a file before it
// says so, and has bad days: it fails, hangs, and hangs up with what it has
// taken. It may be killed at any time.
func receive(path, addr string) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	var n atomic.Int64
	handler := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		at, v1, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Gt06-Signature"), "t="), ",v1=")
		if v1 != webhook.Signature([]byte(sinkSecret), at, body) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		mood := n.Add(1) % 11
		switch mood {
		case 4:
			w.WriteHeader(http.StatusInternalServerError)
			return
		case 7:
			<-r.Context().Done() // until the other side has had enough
			return
		}
		line := append([]byte(r.Header.Get("Idempotency-Key")+" "), body...)
		if _, err := f.Write(append(line, '\n')); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if mood == 2 {
			panic(http.ErrAbortHandler) // taken, and nobody hears of it
		}
	}
	srv := &http.Server{Addr: addr, Handler: http.HandlerFunc(handler), ReadHeaderTimeout: 5 * time.Second}
	panic(srv.ListenAndServe())
}

// victim is a process that is killed and started again.
type victim struct {
	t    *testing.T
	addr string
	run  func() *exec.Cmd
	cmd  *exec.Cmd
}

func (v *victim) start() {
	v.t.Helper()
	v.cmd = v.run()
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := v.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(v.kill)
	limit := time.Now().Add(20 * time.Second)
	for {
		if c, err := net.Dial("tcp", v.addr); err == nil { //nolint:noctx // loopback
			_ = c.Close()
			return
		}
		if time.Now().After(limit) {
			v.t.Fatalf("%s does not listen on %s", v.cmd.Path, v.addr)
		}
		pause(10 * time.Millisecond)
	}
}

func (v *victim) kill() {
	if v.cmd != nil {
		_ = v.cmd.Process.Kill()
		_ = v.cmd.Wait()
		v.cmd = nil
	}
}

// httpReceiver starts a receiver; got returns what it has taken, by key.
func httpReceiver(t *testing.T) (v *victim, got func() []taken) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "taken")
	v = &victim{t: t, addr: freeHost() + ":8080"}
	v.run = func() *exec.Cmd {
		cmd := exec.Command(self) //nolint:noctx // killed by the test
		cmd.Env = append(os.Environ(), receiverVariable+"="+path, receiverAddress+"="+v.addr)
		return cmd
	}
	v.start()
	return v, func() (list []taken) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() //nolint:errcheck // read only
		scan := bufio.NewScanner(f)
		scan.Buffer(nil, 64<<20)
		for scan.Scan() {
			key, body, _ := bytes.Cut(scan.Bytes(), []byte(" "))
			r := taken{key: string(key), body: string(body)}
			if err := json.Unmarshal(body, &r.events); err != nil {
				t.Fatalf("%v in %.100q", err, body) // a line is one write
			}
			list = append(list, r)
		}
		return list
	}
}

// taken is a request that was taken.
type taken struct {
	key, body string
	events    []sent
}

// sent is an event, as far as the ledger knows of it.
type sent struct {
	ID, Type, IMEI, Kind string
	FixTime              time.Time `json:"fix_time"`
	Latitude, Longitude  *float64
	SpeedKMH             float64 `json:"speed_kmh"`
	Course               float64
}

// settings writes the configuration of a server with sinks.
func settings(t *testing.T, sinks string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gt06.yaml")
	if err := os.WriteFile(path, []byte("upgrade: {probation: 200ms}\nsinks:\n"+sinks), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--config", path}
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// caughtUp waits until no sink has anything to send. A lag is counted once a
// second, so it must stay at nothing for longer.
func (d *daemon) caughtUp() {
	d.t.Helper()
	var st control.Status
	var since time.Time
	if !d.eventuallyOr(patience, func() bool {
		behind := d.status(&st) != nil || len(st.Sinks) == 0
		for _, s := range st.Sinks {
			behind = behind || s.State != "ok" || s.Lag != 0
		}
		if behind || since.IsZero() {
			since = time.Now()
		}
		return !behind && time.Since(since) > 2500*time.Millisecond
	}) {
		d.t.Fatalf("the sinks do not catch up: %+v", st.Sinks)
	}
}

// ledger compares events, each there once, with what devices were answered.
func ledger(t *testing.T, f *fleet.Fleet, events []sent) {
	t.Helper()
	rows := make([]device.Row, 0, len(events))
	for i := range events {
		e := &events[i]
		if e.Type == "quarantined" {
			t.Errorf(broken+"a frame in quarantine: %+v", e)
		}
		if e.Type != "position" {
			continue
		}
		r := device.Row{IMEI: e.IMEI, Kind: e.Kind, Place: device.Place{Time: e.FixTime, SpeedKMH: e.SpeedKMH, Course: e.Course}}
		if e.Latitude != nil {
			r.Has, r.Place.Latitude, r.Place.Longitude = true, *e.Latitude, *e.Longitude
		}
		rows = append(rows, r)
	}
	rep := device.Compare(f.Ledgers(), rows)
	t.Logf("%d events, %d positions of them, %d fixes answered", len(events), rep.Rows, rep.Expected)
	if !rep.OK() || rep.Expected == 0 {
		t.Errorf(broken+"ledger and events differ: %+v", rep)
	}
}

// murder kills both sides and upgrades, under load.
func (d *daemon) murder(v *victim, rounds int) {
	d.t.Helper()
	for i := range rounds {
		pause(time.Duration(200+rand.IntN(300)) * time.Millisecond)
		v.kill()
		pause(time.Duration(50+rand.IntN(300)) * time.Millisecond)
		v.start()
		pause(time.Duration(100+rand.IntN(300)) * time.Millisecond)
		d.kill()
		d.start()
		if i%2 == 1 {
			if u, code := d.upgrade(); code != 0 || u.Result != control.Upgraded {
				d.t.Errorf("exit code %d, %+v", code, u)
			}
		}
	}
}

// A receiver that fails, hangs, lies about what it took and is killed, a server
// that is killed and upgraded: every event arrives, and what arrives again has
// the key it had.
func TestWebhookEveryEventUnderItsKey(t *testing.T) {
	t.Parallel()
	v, got := httpReceiver(t)
	d := newDaemon(t, settings(t, fmt.Sprintf("  - name: crm\n    webhook: {url: 'http://%s/gt06', secret_file: %s, timeout: 500ms}\n", v.addr, secretFile(t, sinkSecret)))...)
	d.start()
	rounds := 4
	if soak() {
		rounds = 40
	}
	f, wait := least(fleet.Options{Addr: d.addr, Devices: 50, Rate: 10, Duration: time.Duration(rounds) * 2 * time.Second, Torn: 0.2, Redial: 50 * time.Millisecond, Settle: 10 * time.Second})
	d.murder(v, rounds)
	res := wait()
	d.check(f, res)
	d.caughtUp()
	bodies := map[string]string{}
	owner := map[string]string{}
	var events []sent
	again := 0
	for _, r := range got() {
		if body, seen := bodies[r.key]; seen {
			again++
			if body != r.body {
				t.Errorf("key %s had two bodies:\n%.300s\n%.300s", r.key, body, r.body)
			}
			continue
		}
		bodies[r.key] = r.body
		for _, e := range r.events {
			if other, seen := owner[e.ID]; seen {
				t.Errorf("event %s under the keys %s and %s", e.ID, other, r.key)
			}
			owner[e.ID] = r.key
		}
		events = append(events, r.events...)
	}
	t.Logf("%d batches, %d of them came again", len(bodies), again)
	if again == 0 {
		t.Error("nothing came twice: the test shows nothing")
	}
	ledger(t, f, events)
	if out := d.out.String(); strings.Contains(out, sinkSecret) || !strings.Contains(out, "sink      crm: http://"+v.addr+"\n") {
		t.Error("the secret is in the log, or where the sink sends to is not")
	}
}

// natsServer starts a nats-server with JetStream.
func natsServer(t *testing.T) *victim {
	t.Helper()
	path, err := exec.LookPath("nats-server")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("under CI nats-server must be installed")
		}
		t.Skip("nats-server is not installed")
	}
	host, dir := freeHost(), t.TempDir()
	v := &victim{t: t, addr: host + ":4222", run: func() *exec.Cmd {
		return exec.Command(path, "-a", host, "-p", "4222", "-js", "-sd", dir) //nolint:noctx // killed by the test
	}}
	v.start()
	return v
}

// stream returns the ids and events in a stream.
func stream(t *testing.T, addr string) (ids []string, events []sent) {
	t.Helper()
	conn, err := nats.Connect("nats://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	c, err := js.OrderedConsumer(t.Context(), "GT06", jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := c.Next(jetstream.FetchMaxWait(2 * time.Second))
		if err != nil {
			return ids, events
		}
		var e sent
		if err := json.Unmarshal(m.Data(), &e); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.Headers().Get("Nats-Msg-Id"))
		events = append(events, e)
	}
}

// Both sides killed: each event is in the stream exactly once.
func TestNATSEveryEventOnce(t *testing.T) {
	t.Parallel()
	v := natsServer(t)
	d := newDaemon(t, settings(t, fmt.Sprintf("  - name: stream\n    nats: {url: 'nats://%s', timeout: 1s}\n", v.addr))...)
	d.start()
	rounds := 4
	if soak() {
		rounds = 40
	}
	f, wait := least(fleet.Options{Addr: d.addr, Devices: 50, Rate: 10, Duration: time.Duration(rounds) * 2 * time.Second, Torn: 0.2, Redial: 50 * time.Millisecond, Settle: 10 * time.Second})
	d.murder(v, rounds)
	res := wait()
	d.check(f, res)
	d.caughtUp()
	ids, events := stream(t, v.addr)
	for i := range events {
		if ids[i] != events[i].ID {
			t.Fatalf("message %s holds event %s", ids[i], events[i].ID)
		}
	}
	if slices.Sort(ids); len(slices.Compact(slices.Clone(ids))) != len(events) {
		t.Errorf("%d events, %d ids", len(events), len(slices.Compact(ids)))
	}
	ledger(t, f, events)
}

// At each point between the log and the receiver a kill: nothing is lost, and
// what comes again has the same key.
func TestSinkDiesAtEachPoint(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"sink.noted", "sink.sent"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			keys := map[string]int{}
			events := map[string]string{}
			var list []sent
			srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				var batch []sent
				if json.NewDecoder(r.Body).Decode(&batch) != nil {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				key := r.Header.Get("Idempotency-Key")
				keys[key]++
				for _, e := range batch {
					if other, seen := events[e.ID]; !seen {
						list = append(list, e)
					} else if other != key {
						t.Errorf("event %s under the keys %s and %s", e.ID, other, key)
					}
					events[e.ID] = key
				}
			})}
			ln, err := net.Listen("tcp", freeHost()+":8080") //nolint:noctx // loopback
			if err != nil {
				t.Fatal(err)
			}
			go srv.Serve(ln)  //nolint:errcheck // closed by the test
			defer srv.Close() //nolint:errcheck // a test's own
			addr := ln.Addr().String()
			d := newDaemon(t, settings(t, fmt.Sprintf("  - name: crm\n    webhook: {url: 'http://%s/'}\n", addr))...)
			d.start("GT06_FAILPOINT=" + point + ":5")
			f, wait := least(fleet.Options{Addr: d.addr, Devices: 20, Rate: 10, Duration: 3 * time.Second, Redial: 50 * time.Millisecond, Settle: 10 * time.Second})
			d.eventually("it dies", d.ended)
			d.kill()
			d.start()
			res := wait()
			nobodyNoticed(t, &res, 0)
			d.check(f, res)
			d.caughtUp()
			mu.Lock()
			defer mu.Unlock()
			again := 0
			for _, n := range keys {
				again += n - 1
			}
			if want := map[string]int{"sink.noted": 0, "sink.sent": 1}[point]; again != want {
				t.Errorf("%d batches came again, want %d", again, want)
			}
			ledger(t, f, list)
		})
	}
}

// A receiver that hangs and one that is not there cost the devices nothing: two
// servers side by side, one with such sinks, the same fleet for both.
func TestReceiversThatHangDoNotTouchIngest(t *testing.T) {
	ln, err := net.Listen("tcp", freeHost()+":8080") //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // a test's own
	var mu sync.Mutex
	var held []net.Conn
	go func() { // takes connections and never says a word
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			held = append(held, c) // else the collector hangs up
			mu.Unlock()
		}
	}()
	hanging := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(held)
	}
	plain := newDaemon(t)
	plain.start()
	burdened := newDaemon(t, settings(t, fmt.Sprintf("  - name: hangs\n    webhook: {url: 'http://%s/', timeout: 60s}\n  - name: away\n    nats: {url: 'nats://%s:4222'}\n  - name: silent\n    mirror: {address: '%[1]s', timeout: 60s}\n", ln.Addr(), freeHost()))...)
	burdened.start()
	const rounds = 3
	var with, without []float64
	var status control.Status
	var fleets []*fleet.Fleet
	var results []fleet.Result
	for n := range rounds {
		var res [2]fleet.Result
		var wg sync.WaitGroup
		for i, d := range []*daemon{plain, burdened} {
			f := fleet.New(fleet.Options{Addr: d.addr, Devices: 100, Rate: 10, Duration: 4 * time.Second, First: 1000 * n, Seed: uint64(n)})
			if i == 1 {
				fleets = append(fleets, f)
			}
			wg.Go(func() { res[i] = f.Run(context.Background()) })
		}
		wg.Wait()
		for i := range res {
			if res[i].Lost != 0 || res[i].Reconnects != 0 {
				t.Errorf("%+v", res[i])
			}
		}
		results = append(results, res[1])
		without, with = append(without, res[0].Ack.P99), append(with, res[1].Ack.P99)
	}
	if err := burdened.status(&status); err != nil {
		t.Fatal(err)
	}
	slices.Sort(without)
	slices.Sort(with)
	// The best rounds are compared: others on the machine only add.
	t.Logf("p99 of answers, ms, by round: without sinks %.2f, with three that hang %.2f; ratio of the best %.2f", without, with, with[0]/without[0])
	const slack = 10 // ms
	if with[0] > 2*without[0]+slack {
		t.Errorf("devices wait longer: %.2f ms, without sinks %.2f ms", with, without)
	}
	if hanging() == 0 {
		t.Error("nothing hangs: the test shows nothing")
	}
	if why := strings.Join(status.Reasons, " "); status.State != "degraded" || !strings.Contains(why, "sink away is stuck") || !strings.Contains(why, "sink hangs is stuck: no reply") || status.Store.State != "ok" {
		t.Errorf("status %+v", status)
	}
	for i, s := range status.Sinks {
		if s.Lag == 0 || s.OldestS < 5 {
			t.Errorf("sink %d: %+v", i, s)
		}
	}
	if code, text := burdened.get("/readyz"); code != http.StatusOK {
		t.Errorf("a balancer would send the devices away: %d %s", code, text)
	}
	_, scrape := burdened.get("/metrics")
	if got := samples(t, scrape); got[`gt06_sink_lag_records{sink="hangs"}`] == "0" || got[`gt06_sink_errors_total{kind="connect",sink="away"}`] == "0" {
		t.Errorf("the scrape does not tell: %v", got[`gt06_sink_lag_records{sink="hangs"}`])
	}
	for i, f := range fleets {
		burdened.check(f, results[i])
	}
	if u, code := burdened.upgrade(); code != 0 || u.Result != control.Upgraded || u.StallMS > 1000 {
		t.Errorf("an upgrade with a request that hangs: exit code %d, %+v", code, u)
	}
	burdened.eventually("the new server's sinks take over", func() bool {
		return burdened.status(&status) == nil && len(status.Sinks) == 3 && !slices.ContainsFunc(status.Sinks, func(s control.Sink) bool { return s.State == "opening" }) && status.Sinks[0].Lag > 0
	})
	begin := time.Now()
	if _, errs, code := burdened.ctl("stop"); code != 0 {
		t.Errorf("exit code %d, %s", code, errs)
	}
	burdened.eventually("the server ends", func() bool { return burdened.status(&status) != nil })
	if took := time.Since(begin); took > promised(t, 10*time.Second) {
		t.Errorf("with a request that hangs the server took %v to end", took)
	}
}

// What is wrong with sinks is said before anything starts.
func TestSinksThatCannotBe(t *testing.T) {
	t.Parallel()
	for says, text := range map[string]string{
		"one of webhook, nats, table and mirror": "  - {name: a}\n",
		"there twice":                            "  - {name: a, webhook: {url: 'http://x/'}}\n  - {name: a, webhook: {url: 'http://x/'}}\n",
		"scheme":                                 "  - {name: a, webhook: {url: 'gopher://x/'}}\n",
		"unknown key":                            "  - {name: a, webhook: {urll: 'http://x/'}}\n",
		"number 1":                               "  - {name: Äpfel, webhook: {url: 'http://x/'}}\n",
		"no such file":                           "  - {name: a, webhook: {url: 'http://x/', secret_file: /nonexistent}}\n",
		"it can have":                            "  - {name: a, events: [fix], webhook: {url: 'http://x/'}}\n",
		"now or oldest":                          "  - {name: a, start: yesterday, webhook: {url: 'http://x/'}}\n",
		"write HOST:PORT":                        "  - {name: a, mirror: {address: traccar}}\n",
		"frames, not events":                     "  - {name: a, events: [alarm], mirror: {address: 'traccar:5023'}}\n",
		"dsn_file must name":                     "  - {name: a, table: {mapping: /dev/null}}\n",
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "gt06d"), append([]string{"check-config"}, settings(t, text)...)...)
			out, err := cmd.CombinedOutput()
			if err == nil || cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), says) {
				t.Errorf("exit code %d, %s", cmd.ProcessState.ExitCode(), out)
			}
		})
	}
}
