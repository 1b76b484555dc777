// Package e2e runs the real programs against real faults: kills, a database
// that dies, a disk that fills. Every test ends with the ledger.
package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gt06/protocol/device"
	"gt06/protocol/device/fleet"
	"gt06/server/control"
	"gt06/storage/sqlstore"
)

// programs is where TestMain built gt06d and gt06ctl.
var programs string

func TestMain(m *testing.M) {
	if path := os.Getenv(receiverVariable); path != "" {
		receive(path, os.Getenv(receiverAddress))
	}
	if text := os.Getenv(attackVariable); text != "" {
		attackAs(text)
	}
	dir, err := os.MkdirTemp("", "gt06-e2e-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	build := exec.CommandContext(context.Background(), "go", "build", "-o", dir+"/", "gt06/cmd/gt06d", "gt06/cmd/gt06ctl")
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build: %v\n%s", err, out))
	}
	programs = dir
	m.Run()
}

// soak says whether the long forms run.
func soak() bool { return os.Getenv("GT06_SOAK") != "" }

// output collects what the programs print, in a file: a pipe would end with the
// first of them.
type output struct{ *os.File }

func (o output) String() string {
	b, err := os.ReadFile(o.Name())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// daemon is a gt06d that may be killed and started again.
type daemon struct {
	t     *testing.T
	dir   string
	addr  string
	admin string
	args  []string
	env   []string
	wrap  []string // a program in front, such as strace
	cmd   *exec.Cmd
	out   output
	done  chan struct{} // closed when it ended
	err   error         // how; to be read after done
	keep  *exec.Cmd     // its keeper, nil: none
	// alone: no keeper of the test's; the server decides.
	alone bool
}

// host is a loopback address for one daemon, so that no two tests want the same
// port.
var host = struct {
	process uint8
	next    atomic.Uint32
}{process: uint8(1 + os.Getpid()%250)}

func freeHost() string {
	n := host.next.Add(1)
	return fmt.Sprintf("127.%d.%d.%d", host.process, n>>8, n&0xff)
}

func newDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	out, err := os.OpenFile(filepath.Join(t.TempDir(), "out"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	at := freeHost()
	d := &daemon{t: t, dir: t.TempDir(), addr: at + ":5023", admin: at + ":8023", args: args, out: output{out}}
	t.Cleanup(func() {
		defer out.Close() //nolint:errcheck // a test's own
		d.keepsSecrets()
		d.kill()
		d.killKeeper()
		if t.Failed() {
			t.Logf("the server said:\n%s", d.said())
		}
	})
	return d
}

// said is what the server logged last, without its greetings.
func (d *daemon) said() string {
	var lines []string
	for line := range strings.Lines(d.out.String()) {
		if strings.HasPrefix(line, "{") || strings.HasPrefix(line, "gt06d: ") || strings.HasPrefix(line, "hint: ") || strings.Contains(line, "panic") || strings.HasPrefix(line, "\t") || strings.HasPrefix(line, "goroutine") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-60):], "")
}

// start runs the server until it says ready.
func (d *daemon) start(env ...string) {
	d.t.Helper()
	d.launch(env...)
	d.eventually("ready", func() bool { return d.ready() || d.ended() })
	if d.ended() {
		d.t.Fatalf("the server ended at its start:\n%s", d.out.String())
	}
}

func (d *daemon) ready() bool {
	var st control.Status
	return d.status(&st) == nil && st.PID > 0
}

// startKeeper starts a keeper that starts nothing itself: the tests do.
func (d *daemon) startKeeper() {
	d.t.Helper()
	d.keep = exec.CommandContext(context.Background(), filepath.Join(programs, "gt06d"), "keeper", "--data-dir", d.dir, "--log-level", "debug")
	d.keep.Stdout, d.keep.Stderr = d.out.File, d.out.File
	d.keep.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := d.keep.Start(); err != nil {
		d.t.Fatal(err)
	}
	path := d.runtimeFile("keeper.sock")
	d.eventually("the keeper listens", func() bool { return listens(path) })
}

// listens asks whether somebody listens there: a path outlives a kill.
func listens(path string) bool {
	c, err := net.Dial("unixpacket", path) //nolint:noctx // local
	return err == nil && c.Close() == nil
}

func (d *daemon) runtimeFile(name string) string {
	dir, err := control.RuntimeDir(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

func (d *daemon) killKeeper() {
	if d.keep != nil {
		_ = d.keep.Process.Kill()
		_ = d.keep.Wait()
		d.keep = nil
	}
}

func (d *daemon) launch(env ...string) {
	d.t.Helper()
	if d.keep == nil && !d.alone {
		d.startKeeper()
	}
	args := append(append([]string{}, d.wrap...), filepath.Join(programs, "gt06d"), "--listen", d.addr, "--admin", d.admin, "--data-dir", d.dir, "--log-level", "debug")
	args = append(args, d.args...)
	d.cmd = exec.CommandContext(context.Background(), args[0], args[1:]...)
	d.cmd.Env = append(append(append(os.Environ(), "GT06_DSN_FILE="+d.secret(&d.cmd.Args)), d.env...), env...)
	d.cmd.Stdout, d.cmd.Stderr = d.out.File, d.out.File
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.done = make(chan struct{})
	go func(c *exec.Cmd, done chan struct{}) {
		defer close(done)
		d.err = c.Wait()
	}(d.cmd, d.done)
}

func (d *daemon) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// kill is kill -9.
func (d *daemon) kill() {
	if d.cmd == nil {
		return
	}
	_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL) // its group: a tracer would leave the server alive
	<-d.done
	d.cmd = nil
}

// serving returns the pid of the process that serves: after an upgrade it is
// another one than was started.
func (d *daemon) serving() int {
	d.t.Helper()
	var st control.Status
	d.eventually("somebody serves", func() bool { return d.status(&st) == nil })
	return st.PID
}

// stop is SIGTERM; it must end with 0.
func (d *daemon) stop() {
	d.t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
		if d.err != nil {
			d.t.Errorf("after SIGTERM: %v", d.err)
		}
		d.cmd = nil
	case <-time.After(patience):
		d.t.Error("SIGTERM does not end the server")
		d.kill()
	}
}

// wait returns the exit code.
func (d *daemon) wait(most time.Duration) int {
	d.t.Helper()
	select {
	case <-d.done:
		code := d.cmd.ProcessState.ExitCode()
		d.cmd = nil
		return code
	case <-time.After(most):
		d.t.Fatalf("the server does not end:\n%s", d.out.String())
		return -1
	}
}

func (d *daemon) client() control.Client {
	path, err := control.Path(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	return control.Client{Path: path}
}

func (d *daemon) status(st *control.Status) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return d.client().Call(ctx, "status", nil, st)
}

// broken marks what the suite never runs again in the hope of better: a promise.
const broken = "a promise is broken: "

// patience is how long a condition may take that no time is promised for. It
// costs nothing where it comes true.
const patience = 90 * time.Second

func (d *daemon) eventually(what string, ok func() bool) {
	d.t.Helper()
	if !d.eventuallyOr(patience, ok) {
		d.t.Fatalf("did not happen within %v: %s", patience, what)
	}
}

// promised is a time that the documents promise, on a machine whose cores wait
// for work: more where work waits for them.
func promised(t *testing.T, d time.Duration) time.Duration {
	t.Helper()
	return time.Duration(float64(d) * max(1, 2*busy(t)))
}

// eventuallyOr reports whether it happened.
func (d *daemon) eventuallyOr(most time.Duration, ok func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(most)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			return false
		}
	}
	return true
}

// drained waits until the log is in the database.
func (d *daemon) drained() {
	d.t.Helper()
	var st control.Status
	d.eventually("the log is in the database", func() bool { return d.status(&st) == nil && st.Store.Lag == 0 && st.Store.State == "ok" })
}

// check compares the ledger of a fleet with the rows: what was answered is one
// row, and no row was not sent.
func (d *daemon) check(f *fleet.Fleet, res fleet.Result) device.Report {
	d.t.Helper()
	d.drained()
	var stored []sqlstore.Stored
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := d.client().Call(ctx, "rows", control.RowsArgs{IMEIs: f.IMEIs()}, &stored); err != nil {
		d.t.Fatal(err)
	}
	rows := make([]device.Row, 0, len(stored))
	quarantined := 0
	for i := range stored {
		s := &stored[i]
		if s.Table == "quarantined_frames" {
			quarantined++
		}
		if s.Table != "positions" {
			continue
		}
		rows = append(rows, device.Row{
			IMEI: s.IMEI, Kind: s.Kind, Has: s.Latitude != 0 || s.Longitude != 0,
			Place: device.Place{Time: s.Time, Latitude: s.Latitude, Longitude: s.Longitude, SpeedKMH: s.SpeedKMH, Course: s.Course},
		})
	}
	r := device.Compare(f.Ledgers(), rows)
	b, _ := json.Marshal(res)
	d.t.Logf("%s; rows %d, answered fixes %d, merged %d", b, r.Rows, r.Expected, r.Merged)
	if !r.OK() {
		d.t.Errorf(broken+"ledger and rows differ: %+v", r)
	}
	if res.Duplicated+res.OutOfOrder > 0 {
		d.t.Errorf(broken+"answers twice or out of order: %s", b)
	}
	if quarantined > 0 {
		d.t.Errorf("%d frames in quarantine", quarantined)
	}
	if r.Expected == 0 {
		d.t.Error("no fix was answered: the test shows nothing")
	}
	return r
}
