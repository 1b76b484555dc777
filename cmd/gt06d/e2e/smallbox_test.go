package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gt06/protocol/device/fleet"
	"gt06/server/control"
)

// Server and keeper in a cgroup of 128 MiB with 5,000 devices: they stay up.
func TestASmallBox(t *testing.T) {
	const root, limit, devices = "/sys/fs/cgroup/memory", 128 << 20, 5000
	dir := filepath.Join(root, fmt.Sprintf("gt06-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // a cgroup
		t.Skipf("no memory cgroup of version 1 can be made, so nothing is shown here: %v", err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if err := os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte(strconv.Itoa(limit)), 0o600); err != nil {
		t.Skipf("the memory of a cgroup cannot be limited, so nothing is shown here: %v", err)
	}
	number := func(name string) int {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		return n
	}
	d := newDaemon(t)
	t.Cleanup(func() { d.kill(); d.killKeeper() }) // before the cgroup goes
	d.startKeeper()
	enter := filepath.Join(dir, "cgroup.procs")
	if err := os.WriteFile(enter, []byte(strconv.Itoa(d.keep.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	d.wrap = []string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, enter}
	d.start()
	var st control.Status
	if err := d.status(&st); err != nil || st.Memory.From != "cgroup" || st.Memory.Limit != limit/5*4 {
		t.Errorf("the heap is bounded by %d from %q, want four fifths of the cgroup's: %v", st.Memory.Limit, st.Memory.From, err)
	}
	pid := d.serving()
	f := fleet.New(fleet.Options{Addr: d.addr, Devices: devices, Rate: 0.2, Arrival: 1500, Duration: 14 * time.Second, Settle: 10 * time.Second})
	res := f.Run(t.Context())
	if d.ended() || d.serving() != pid || res.Lost > 0 || res.Reconnects > 0 || res.Refused > 0 {
		t.Errorf("%+v", res)
	}
	if err := d.status(&st); err != nil || st.State != "ready" && len(st.Reasons) > 0 {
		t.Errorf("%+v, %v", st, err)
	}
	t.Logf("%d devices in %d MiB: server %.1f MiB resident, cgroup %.1f MiB at most (page cache and keeper included), limit reached %d times",
		devices, limit>>20, float64(st.Memory.Resident)/(1<<20), float64(number("memory.max_usage_in_bytes"))/(1<<20), number("memory.failcnt"))
	d.check(f, res)
}
