package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// need returns this machine, and skips a test whose programs are missing; under
// CI they have to be there.
func need(t *testing.T, programs ...string) System {
	t.Helper()
	s := New()
	for _, p := range programs {
		if s.has(p) {
			continue
		}
		if os.Getenv("CI") != "" {
			t.Fatalf("under CI %s must be installed", p)
		}
		t.Skipf("%s is not installed (make test installs it)", p)
	}
	return s
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	r, err := New().run(t.Context(), Command{Name: name, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	return r.Stdout
}

func TestExec(t *testing.T) {
	t.Setenv("GT06_SECRET", "hush")
	r, err := Exec(t.Context(), Command{Name: "sh", Args: []string{"-c", "echo out; echo err >&2; env; exit 3"}, Env: []string{"MORE=1"}})
	if err != nil || r.Code != 3 || r.Stderr != "err\n" || !strings.HasPrefix(r.Stdout, "out\n") {
		t.Fatalf("%+v, %v", r, err)
	}
	if strings.Contains(r.Stdout, "hush") || !strings.Contains(r.Stdout, "MORE=1") || !strings.Contains(r.Stdout, "LC_ALL=C.UTF-8") {
		t.Errorf("environment: %s", r.Stdout)
	}
	if _, err := Exec(t.Context(), Command{Name: "no-such-program"}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a program that is not there: %v", err)
	}
	// A child that dies of a signal is no result: `false | gzip` is how dumps get lost.
	if r, err := Exec(t.Context(), Command{Name: "sh", Args: []string{"-c", "kill -9 $$"}}); err == nil {
		t.Errorf("killed: %+v", r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Exec(ctx, Command{Name: "sleep", Args: []string{"60"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a program that goes on: %v", err)
	}
	big := strings.Repeat("x", kept) + "end"
	if r, err := Exec(t.Context(), Command{Name: "cat", Stdin: strings.NewReader(big)}); err != nil || len(r.Stdout) != kept || !strings.HasSuffix(r.Stdout, "end") {
		t.Errorf("%d bytes kept of a long output, %v", len(r.Stdout), err)
	}
	if _, err := New().run(t.Context(), Command{Name: "sh", Args: []string{"-c", "echo no room >&2; exit 2"}}); err == nil || !strings.Contains(err.Error(), "status 2: no room") {
		t.Errorf("%v", err)
	}
}

func TestExecAsAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	r, err := Exec(t.Context(), Command{Name: "sh", Args: []string{"-c", "id -un; echo $HOME"}, User: "nobody"})
	if err != nil || r.Stdout != "nobody\n/nonexistent\n" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestLoadAndClock(t *testing.T) {
	t.Parallel()
	l, err := New().Load()
	if err != nil || l.CPUs < 1 || l.MemoryTotal < l.MemoryAvailable || l.MemoryAvailable == 0 || l.Uptime <= 0 {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := ReadClock(); err != nil {
		t.Error(err)
	}
	// A procfs of our own: the figures are those of the files.
	proc := t.TempDir()
	write(t, proc+"/loadavg", "9.50 1.00 0.50 1/100 4711\n")
	write(t, proc+"/meminfo", "MemTotal: 1000 kB\nMemAvailable: 50 kB\n")
	write(t, proc+"/stat", "cpu 0 0 0 0\nbtime 1700000000\n")
	l, err = System{Proc: proc}.Load()
	if err != nil || l.One != 9.5 || l.MemoryTotal != 1000<<10 || l.MemoryAvailable != 50<<10 {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestListenersNameTheirHolders(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // closed below
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's own
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	list, err := New().Listeners()
	if err != nil {
		t.Fatal(err)
	}
	holders, taken := HoldersOf(list, port)
	if !taken || len(holders) != 1 || holders[0].PID != os.Getpid() {
		t.Fatalf("%v, %v", holders, taken)
	}
	if self, _ := os.Executable(); holders[0].Exe != self {
		t.Errorf("program %s, not %s", holders[0].Exe, self)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if list, err = New().Listeners(); err != nil {
		t.Fatal(err)
	}
	if holders, taken := HoldersOf(list, port); taken {
		t.Errorf("a closed port is held by %v", holders)
	}
}

func TestListenerOfAnotherNamespaceIsNotOurs(t *testing.T) {
	if os.Getenv("GT06_TEST_LISTEN") != "" { // the child, in a network of its own
		if _, err := net.Listen("tcp4", ":5023"); err != nil { //nolint:noctx // until it is killed
			t.Fatal(err)
		}
		fmt.Fprintln(os.Stderr, "ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	t.Parallel()
	s := need(t, "unshare")
	cmd := exec.CommandContext(t.Context(), "unshare", "--net", os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "GT06_TEST_LISTEN=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	if _, err := fmt.Fscanln(out, new(string)); err != nil {
		t.Skip("no network namespace can be made here")
	}
	list, err := s.Listeners()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(l Listener) bool { return l.Namespace != "" && l.Addr.Port() == 5023 })
	if i < 0 || len(list[i].Holders) != 1 {
		t.Fatalf("not seen: %v", list)
	}
	if holders, _ := HoldersOf(list, 5023); slices.ContainsFunc(holders, func(p Process) bool { return p.PID == list[i].Holders[0].PID }) {
		t.Error("it counts as ours")
	}
}

func TestUnitWithoutSystemd(t *testing.T) {
	t.Parallel()
	s := System{
		LookPath: func(string) (string, error) { return "/bin/systemctl", nil },
		Exec: func(context.Context, Command) (Result, error) {
			return Result{Code: 1, Stderr: "System has not been booted with systemd as init system (PID 1). Can't operate.\nFailed to connect to bus: Host is down\n"}, nil
		},
	}
	if u, err := s.Unit(t.Context(), "mariadb"); err != nil || u.State != NoSystemd || u.Active() {
		t.Errorf("%+v, %v", u, err)
	}
	s.Exec = func(_ context.Context, c Command) (Result, error) {
		if slices.Contains(c.Args, "mysql") {
			return Result{Stdout: "MainPID=12\nLoadState=loaded\nActiveState=active\n"}, nil
		}
		return Result{Stdout: "MainPID=0\nLoadState=not-found\nActiveState=inactive\n"}, nil
	}
	if u, err := s.Unit(t.Context(), "mariadb", "mysql"); err != nil || u.Name != "mysql" || !u.Active() || u.MainPID != 12 {
		t.Errorf("%+v, %v", u, err)
	}
}

// image makes a disk image with one ext4 partition of 40 MiB from 1 MiB on and
// returns it with its loop device over the partition.
func image(t *testing.T, s System, megabytes int64) (img string, loop func(size int64) string) {
	t.Helper()
	img = filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, megabytes<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := s.run(t.Context(), Command{Name: "sfdisk", Args: []string{"-q", img}, Stdin: bytes.NewBufferString("label: gpt\nstart=2048, size=81920\n")}); err != nil {
		t.Fatal(err)
	}
	var device string
	detach := func() {
		if device != "" {
			_, _ = s.run(context.Background(), Command{Name: "losetup", Args: []string{"-d", device}})
		}
	}
	t.Cleanup(detach)
	return img, func(size int64) string {
		detach()
		r, err := s.run(t.Context(), Command{Name: "losetup", Args: []string{"-f", "--show", "-o", "1048576", "--sizelimit", fmt.Sprint(size), img}})
		if err != nil {
			t.Skipf("no loop devices here: %v", err)
		}
		device = strings.TrimSpace(r.Stdout)
		return device
	}
}

func TestGrowPartitionAndFilesystem(t *testing.T) {
	s := need(t, "growpart", "sfdisk", "losetup", "resize2fs", "e2fsck", "mkfs.ext4", "debugfs")
	if os.Geteuid() != 0 {
		t.Skip("loop devices need root")
	}
	img, loop := image(t, s, 64)
	device := loop(40 << 20)
	must(t, "mkfs.ext4", "-q", device)
	keep := filepath.Join(t.TempDir(), "keep")
	write(t, keep, "what was there")
	must(t, "debugfs", "-w", "-R", "write "+keep+" keep", device)

	// The volume grows; then the partition; then the file system.
	if err := os.Truncate(img, 128<<20); err != nil {
		t.Fatal(err)
	}
	disk := Partition{Device: img + "1", Disk: img, Number: 1, Type: "ext4"}
	if can, err := s.Growable(t.Context(), disk); err != nil || !can {
		t.Errorf("it can grow: %v, %v", can, err)
	}
	if grown, err := s.GrowPartition(t.Context(), disk); err != nil || !grown {
		t.Fatalf("grown %v, %v", grown, err)
	}
	if grown, err := s.GrowPartition(t.Context(), disk); err != nil || grown {
		t.Fatalf("the second time: grown %v, %v; growpart's status 1 with NOCHANGE is no failure", grown, err)
	}
	if can, err := s.Growable(t.Context(), disk); err != nil || can {
		t.Errorf("it can grow on: %v, %v", can, err)
	}
	device = loop(120 << 20)
	before := fsBlocks(t, device)
	part := Partition{Device: device, Disk: device, Type: "ext4"}
	for range 2 {
		if err := s.GrowFilesystem(t.Context(), part); err != nil {
			t.Fatal(err)
		}
	}
	if after := fsBlocks(t, device); after <= 2*before {
		t.Errorf("%d blocks became %d", before, after)
	}
	if got := must(t, "debugfs", "-R", "cat keep", device); got != "what was there" {
		t.Errorf("the file says %q", got)
	}
	if size, err := BlockSize(device); err != nil || size != 120<<20 {
		t.Errorf("size %d, %v", size, err)
	}
	if _, err := s.GrowPartition(t.Context(), Partition{Disk: filepath.Join(t.TempDir(), "none"), Number: 1}); err == nil {
		t.Error("a disk that is not there was grown")
	}
	if err := s.GrowFilesystem(t.Context(), Partition{Device: device, Type: "btrfs"}); err == nil {
		t.Error("an unknown file system was grown")
	}
	if grown, err := s.GrowPartition(t.Context(), Partition{Disk: device}); err != nil || grown {
		t.Errorf("a disk without partitions: %v, %v", grown, err)
	}
}

func fsBlocks(t *testing.T, device string) (n int) {
	t.Helper()
	for line := range strings.Lines(must(t, "debugfs", "-R", "stats", device)) {
		if rest, ok := strings.CutPrefix(line, "Block count:"); ok {
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

func TestGrowMountedNeedsTheRight(t *testing.T) {
	t.Parallel()
	if ok, err := capable(capSysResource); err != nil || ok {
		t.Skip("this process may grow a mounted file system")
	}
	called := false
	s := New()
	s.Exec = func(context.Context, Command) (Result, error) { called = true; return Result{}, nil }
	err := s.GrowFilesystem(t.Context(), Partition{Device: "/dev/x1", Type: "ext4", Mount: "/"})
	if err == nil || called || !strings.Contains(err.Error(), "CAP_SYS_RESOURCE") {
		t.Errorf("%v, called %v", err, called)
	}
}

func TestPartitionOfRoot(t *testing.T) {
	t.Parallel()
	p, err := New().PartitionOf("/")
	if err != nil {
		t.Skipf("the root of this machine is on no block device: %v", err)
	}
	if p.Device == "" || p.Disk == "" || p.Type == "" || !exists(p.Device) {
		t.Errorf("%+v", p)
	}
	if _, err := New().PartitionOf("/no/such/mount"); err == nil {
		t.Error("found")
	}
	// A partition of an NVMe disk, in a sysfs and procfs of our own.
	dir := t.TempDir()
	part := dir + "/sys/devices/pci/nvme0/nvme0n1/nvme0n1p1"
	for _, d := range []string{part, dir + "/sys/dev/block", dir + "/proc/7"} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	write(t, part+"/partition", "1\n")
	if err := errors.Join(os.Symlink(part, dir+"/sys/dev/block/259:1"), os.Symlink("7", dir+"/proc/self")); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/proc/7/mountinfo", "25 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw,discard\n")
	p, err = System{Proc: dir + "/proc", Sys: dir + "/sys"}.PartitionOf("/")
	if want := (Partition{Device: "/dev/nvme0n1p1", Disk: "/dev/nvme0n1", Number: 1, Type: "ext4", Mount: "/"}); err != nil || p != want {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestDiskUsage(t *testing.T) {
	t.Parallel()
	u, err := DiskUsage(t.TempDir())
	if err != nil || u.Bytes == 0 || u.BytesPercent() <= 0 || u.BytesPercent() > 100 {
		t.Errorf("%+v, %v", u, err)
	}
	u = Usage{Used: 96, Available: 4, Files: 100, FilesFree: 0}
	if u.BytesPercent() != 96 || u.FilesPercent() != 100 || (Usage{}).FilesPercent() != 0 {
		t.Errorf("%v %v", u.BytesPercent(), u.FilesPercent())
	}
}
