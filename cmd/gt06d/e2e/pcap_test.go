package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gt06/protocol/device/fleet"
)

// What tcpdump sees of a fleet decodes to the frames that were sent and
// answered.
func TestCaptureOfAFleet(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("tcpdump"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("under CI tcpdump must be installed")
		}
		t.Skip("tcpdump is not installed")
	}
	d := newDaemon(t)
	d.start()
	file := filepath.Join(t.TempDir(), "fleet.pcap")
	host, _, _ := strings.Cut(d.addr, ":")
	dump := exec.CommandContext(context.Background(), "tcpdump", "-i", "lo", "-U", "--immediate-mode", "-B", "65536", "-Z", "root", "-w", file, "host", host, "and", "port", "5023")
	dump.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said strings.Builder
	dump.Stderr = &said
	if err := dump.Start(); err != nil {
		t.Fatal(err)
	}
	d.eventually("tcpdump listens", func() bool { st, err := os.Stat(file); return err == nil && st.Size() > 0 })
	f := fleet.New(fleet.Options{Addr: d.addr, Devices: 10, Rate: 10, Duration: 2 * time.Second, Torn: 0.5})
	res := f.Run(t.Context())
	pause(500 * time.Millisecond)
	_ = dump.Process.Signal(syscall.SIGINT)
	if err := dump.Wait(); err != nil {
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close() //nolint:errcheck // read only
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "gt06ctl"), "decode", "--pcap", "--json")
	cmd.Stdin = in
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	up, down, strange := 0, 0, 0
	for line := range strings.Lines(string(out)) {
		var v struct {
			Up    bool
			IMEI  string
			Frame struct {
				Type   string
				CRCOK  bool     `json:"crc_ok"`
				Lat    *float64 `json:"latitude"`
				Device string   `json:"imei"`
			}
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		switch {
		case !v.Frame.CRCOK || v.IMEI == "" || v.Up && v.Frame.Type == "location" && v.Frame.Lat == nil:
			strange++
		case v.Up:
			up++
		default:
			down++
		}
	}
	if int64(up) != res.Sent || int64(down) != res.Answered || strange != 0 {
		t.Errorf("%d of %d frames, %d of %d answers, %d strange; tcpdump: %s", up, res.Sent, down, res.Answered, strange, said.String())
	}
	d.check(f, res)
}
