package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gt06/protocol"
	"gt06/protocol/device"
	"gt06/protocol/device/fleet"
	"gt06/server/control"
	"gt06/storage/sqlstore/mariadbtest"
)

// run lets a fleet send in the background.
func run(f *fleet.Fleet) (wait func() fleet.Result) {
	var res fleet.Result
	var wg sync.WaitGroup
	wg.Go(func() { res = f.Run(context.Background()) })
	return func() fleet.Result { wg.Wait(); return res }
}

// least makes a fleet that sends at least for its duration, and until wait is
// called: however long the machine takes for what the test does meanwhile.
func least(opt fleet.Options) (f *fleet.Fleet, wait func() fleet.Result) {
	end := time.Now().Add(opt.Duration)
	opt.Duration = time.Hour
	if opt.Settle == 0 {
		opt.Settle = patience
	}
	f = fleet.New(opt)
	result := run(f)
	return f, func() fleet.Result {
		pause(time.Until(end))
		f.Finish()
		return result()
	}
}

func TestPlainRun(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"sqlite": nil, "mariadb": {"--store", "mariadb"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if args != nil {
				args = append(args, "--dsn", mariadbtest.Schema(t))
			}
			d := newDaemon(t, args...)
			d.start()
			f := fleet.New(fleet.Options{Addr: d.addr, Devices: 50, Rate: 10, Duration: 4 * time.Second, Torn: 0.3})
			res := f.Run(t.Context())
			if res.Lost != 0 || res.Reconnects != 0 {
				t.Errorf("%+v", res)
			}
			d.check(f, res)
			d.stop()
			// The same rows after a start, from the same log.
			d.start()
			d.check(f, res)
		})
	}
}

// Without a keeper connections drop with the process: devices come back and
// send again what was not answered; what was answered is one row.
func TestKillsWithoutAKeeper(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "--keeper", "off")
	d.alone = true
	d.start()
	kills := 10
	if soak() {
		kills = 100
	}
	f, wait := least(fleet.Options{Addr: d.addr, Devices: 50, Rate: 10, Duration: time.Duration(kills) * 500 * time.Millisecond, Torn: 0.3, Redial: 50 * time.Millisecond, Settle: 10 * time.Second})
	for range kills {
		pause(time.Duration(150+rand.IntN(250)) * time.Millisecond)
		d.kill()
		d.start()
	}
	res := wait()
	if res.Lost != 0 {
		t.Errorf("%d frames were never answered", res.Lost)
	}
	d.check(f, res)
}

func pause(d time.Duration) { <-time.After(d) }

// fdatasync fails once: nobody is answered falsely, and what was answered is
// there, in a segment written again.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("strace"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("under CI strace must be installed")
		}
		t.Skip("strace is not installed")
	}
	d := newDaemon(t)
	d.wrap = []string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=5+40"}
	d.start()
	f := fleet.New(fleet.Options{Addr: d.addr, Devices: 20, Rate: 5, Duration: 3 * time.Second, Torn: 0.3})
	res := f.Run(t.Context())
	if !strings.Contains(d.out.String(), "a sync failed") {
		t.Error("no sync failed: the test shows nothing")
	}
	if strings.Contains(d.out.String(), "the log is broken") { // the second attempt failed, too: the server ends
		d.eventually("the server ends", d.ended)
		d.wrap = nil
		d.start()
	}
	d.check(f, res)
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.dir = filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", d.dir, "tmpfs", 0, "size=64m,mode=0700"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("under CI a tmpfs must be mountable: %v", err)
		}
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	defer func() { _ = syscall.Unmount(d.dir, syscall.MNT_DETACH) }()
	d.start()
	f, wait := least(fleet.Options{Addr: d.addr, Devices: 20, Rate: 5, Duration: 14 * time.Second, Redial: 100 * time.Millisecond, Settle: 20 * time.Second})
	pause(2 * time.Second)
	// Somebody else fills the disk.
	filler := filepath.Join(d.dir, "filler")
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &st); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filler, make([]byte, int64(st.Bavail)*st.Bsize-(4<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	full := time.Now()
	var s control.Status
	d.eventually("the server stops reading", func() bool { return d.status(&s) == nil && s.State == "degraded" })
	d.eventually("everybody is hung up", func() bool { return d.status(&s) == nil && s.Connections == 0 })
	if took := time.Since(full); took < 3*time.Second {
		t.Errorf("hung up after %v: a short stall is waited for", took)
	}
	if c, err := net.Dial("tcp", d.addr); err == nil { //nolint:noctx // loopback
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
		_, _ = c.Write(device.Build(device.Login, 999, 0, time.Now()).Bytes)
		if n, err := c.Read(make([]byte, 10)); n > 0 || err == nil {
			t.Error("a login is answered while nothing can be kept")
		}
		_ = c.Close()
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	d.eventually("the server reads again", func() bool { return d.status(&s) == nil && s.State == "ready" && s.Connections > 0 })
	d.check(f, wait())
}

func TestDatabaseThatDies(t *testing.T) {
	t.Parallel()
	db := mariadbtest.Start(t)
	d := newDaemon(t, "--store", "mariadb", "--dsn", db.Schema(t))
	d.start()
	f, wait := least(fleet.Options{Addr: d.addr, Devices: 50, Rate: 10, Duration: 12 * time.Second, Torn: 0.1})
	for range 2 {
		pause(1500 * time.Millisecond)
		db.Kill()
		pause(500 * time.Millisecond)
		db.Restart(t)
		pause(1500 * time.Millisecond)
		_ = db.Process().Signal(syscall.SIGSTOP)
		pause(time.Second)
		_ = db.Process().Signal(syscall.SIGCONT)
	}
	res := wait()
	if res.Lost != 0 || res.Reconnects != 0 || res.Ack.Max > 1000 {
		t.Errorf("the devices noticed: %+v", res)
	}
	d.check(f, res)
}

func TestDatabaseDownForAWholeRun(t *testing.T) {
	t.Parallel()
	db := mariadbtest.Start(t)
	dsn := db.Schema(t)
	db.Kill()
	d := newDaemon(t, "--store", "mariadb", "--dsn", dsn)
	d.start()
	f := fleet.New(fleet.Options{Addr: d.addr, Devices: 50, Rate: 10, Duration: 4 * time.Second})
	res := f.Run(t.Context())
	if res.Lost != 0 || res.Ack.Max > 1000 {
		t.Errorf("the devices noticed: %+v", res)
	}
	var st control.Status
	if err := d.status(&st); err != nil || st.State != "degraded" || st.Store.Lag == 0 {
		t.Errorf("status %+v, %v", st, err)
	}
	d.stop()
	d.start()
	db.Restart(t)
	d.check(f, res)
}

func TestDatabaseConnectionIsCut(t *testing.T) {
	t.Parallel()
	db := mariadbtest.Start(t)
	schema := db.Schema(t)
	tcp := fmt.Sprintf("127.0.0.1:%d", db.Port)
	cutter := mariadbtest.NewCutter(t, rand.Uint64(), "tcp", tcp)
	// The schema is made undisturbed; the rows come through the cutter.
	d := newDaemon(t, "--store", "mariadb", "--dsn", schema)
	d.start()
	d.drained()
	d.stop()
	d.args[3] = strings.Replace(schema, "tcp("+tcp+")", "unix("+cutter.Socket+")", 1)
	d.start()
	f := fleet.New(fleet.Options{Addr: d.addr, Devices: 50, Rate: 20, Duration: 6 * time.Second})
	res := f.Run(t.Context())
	d.stop()
	d.args[3] = schema
	d.start()
	d.check(f, res)
	t.Logf("connections cut: %s", cutter)
	if cutter.Sum() == 0 {
		t.Error("no connection was cut: the test shows nothing")
	}
}

func TestReconnectStorm(t *testing.T) {
	if raceDetector {
		t.Skip("a rate is measured: not with the race detector")
	}
	d := newDaemon(t)
	d.start()
	const devices = 5000
	f := fleet.New(fleet.Options{Addr: d.addr, Devices: devices, Arrival: 3000, Duration: 4 * time.Second, Settle: 2 * time.Second})
	begin := time.Now()
	wait := run(f)
	d.eventually("all 5,000 devices are logged in", func() bool { _, answered := f.Progress(); return answered >= devices })
	t.Logf("all in after %v", time.Since(begin))
	if res := wait(); res.Lost != 0 || res.Reconnects != 0 || res.Refused != 0 {
		t.Errorf("%+v", res)
	}
}

func TestWhatAnOperatorGetsWrong(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	second := func(t *testing.T, want int, says []string, args ...string) {
		t.Helper()
		o := newDaemon(t, args...)
		o.launch()
		if code := o.wait(patience); code != want {
			t.Errorf("exit code %d, want %d", code, want)
		}
		text := o.out.String()
		for _, s := range append(says, "hint: ") {
			if !strings.Contains(text, s) {
				t.Errorf("does not say %q:\n%s", s, text)
			}
		}
		if strings.Contains(text, "s3cretpw") {
			t.Errorf("shows the password:\n%s", text)
		}
	}
	pid := fmt.Sprintf("pid %d", d.cmd.Process.Pid)
	file := filepath.Join(t.TempDir(), "gt06.yaml")
	if err := os.WriteFile(file, []byte("listen: :5023\nlisten_on: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := t.TempDir()
	if err := os.MkdirAll(filepath.Join(newer, "spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(newer, "spool", "0000000001.seg"), append([]byte("GT06SP\x63\x00"), make([]byte, 24)...), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("port taken", func(t *testing.T) { second(t, 20, []string{pid, "gt06d"}, "--listen", d.addr) })
	t.Run("directory taken", func(t *testing.T) { second(t, 5, []string{pid}, "--data-dir", d.dir) })
	t.Run("unknown key", func(t *testing.T) { second(t, 2, []string{file + ":2", "listen_on"}, "--config", file) })
	t.Run("unknown flag", func(t *testing.T) { second(t, 2, []string{"--nonsense"}, "--nonsense") })
	t.Run("directory not writable", func(t *testing.T) { second(t, 21, []string{"/proc/gt06"}, "--data-dir", "/proc/gt06") })
	t.Run("newer log", func(t *testing.T) { second(t, 23, []string{"version"}, "--data-dir", newer) })
	t.Run("bad dsn", func(t *testing.T) {
		second(t, 2, []string{"dsn"}, "--store", "mariadb", "--dsn", "user:s3cretpw@nonsense")
	})
	t.Run("wrong password", func(t *testing.T) {
		db := mariadbtest.Start(t)
		second(t, 22, []string{"nobody"}, "--store", "mariadb", "--dsn", strings.Replace(db.Schema(t), "gt06:"+mariadbtest.Password+"@", "nobody:s3cretpw@", 1))
	})
}

func TestUnreachableDatabaseIsSaidWithoutThePassword(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "--store", "mariadb", "--dsn", "user:s3cretpw@tcp("+freeHost()+":3306)/gt06")
	d.start()
	var st control.Status
	d.eventually("status says why", func() bool { return d.status(&st) == nil && st.Store.LastError != "" })
	if st.State != "degraded" || strings.Contains(fmt.Sprint(st), "s3cretpw") {
		t.Errorf("status %+v", st)
	}
	d.stop()
	text := d.out.String()
	if strings.Contains(text, "s3cretpw") || !strings.Contains(text, "database") {
		t.Errorf("output:\n%s", text)
	}
}

func TestFramesOfTheDocumentsThroughTheSocket(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a test's own
	var dec protocol.Decoder
	var m protocol.Message
	for n := range 9 {
		f := device.Build(device.Kind(n), 1, n, time.Now())
		dec.Decode(&m, f.Bytes, protocol.Session{})
		want := protocol.AppendAnswer(nil, &m, f.Bytes, time.Now())
		for i := range f.Bytes { // byte by byte
			if _, err := c.Write(f.Bytes[i : i+1]); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]byte, len(want))
		_ = c.SetReadDeadline(time.Now().Add(patience))
		for at := 0; at < len(want); {
			k, err := c.Read(got[at:])
			if err != nil {
				t.Fatalf("kind %d: %v", n, err)
			}
			at += k
		}
		if m.Kind != protocol.KindTimeRequest && string(got) != string(want) {
			t.Errorf("kind %d: answer %x, want %x", n, got, want)
		}
	}
}
