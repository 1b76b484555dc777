package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"gt06/protocol"
	"gt06/protocol/device"
	"gt06/server/control"
)

// replier is a device that answers commands in its own way.
type replier struct {
	t    *testing.T
	imei string
	c    net.Conn
	// reply makes the frame that answers a command, nil: none.
	reply func(flag uint32, text string) []byte
	done  chan struct{}
}

// oldReply is 0x15, newReply 0x21.
func oldReply(flag uint32, text string) []byte {
	b := append([]byte{byte(4 + len(text))}, binary.BigEndian.AppendUint32(nil, flag)...)
	return protocol.AppendFrame(nil, 0x15, append(append(b, text...), 0, 2), 77)
}

func newReply(flag uint32, text string) []byte {
	b := append(binary.BigEndian.AppendUint32(nil, flag), 2)
	for _, v := range utf16.Encode([]rune(text)) {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return protocol.AppendExtended(nil, 0x21, b, 78)
}

func (d *daemon) replier(n int, reply func(flag uint32, text string) []byte) *replier {
	d.t.Helper()
	c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
	if err != nil {
		d.t.Fatal(err)
	}
	r := &replier{t: d.t, imei: device.IMEI(n).String(), c: c, reply: reply, done: make(chan struct{})}
	for _, f := range []device.Frame{device.Build(device.Login, n, 0, time.Now()), device.Build(device.Heartbeat, n, 1, time.Now())} {
		if _, err := c.Write(f.Bytes); err != nil {
			d.t.Fatal(err)
		}
	}
	go r.run()
	d.t.Cleanup(func() { _ = c.Close(); <-r.done })
	d.eventually("the device is online", func() bool {
		var list []control.Device
		if err := d.client().Call(d.t.Context(), "devices", nil, &list); err != nil {
			return false
		}
		for _, dev := range list {
			if dev.IMEI == r.imei && dev.Online {
				return true
			}
		}
		return false
	})
	return r
}

func (r *replier) run() {
	defer close(r.done)
	var framer protocol.Framer
	buf, have := make([]byte, 4096), 0
	for {
		n, err := r.c.Read(buf[have:])
		have += n
		at := 0
		for at < have {
			cut := framer.Next(buf[at:have], true)
			if cut.Len == 0 {
				break
			}
			if flag, text, ok := protocol.ParseCommand(buf[at+cut.Skip : at+cut.Skip+cut.Len]); ok && r.reply != nil {
				if b := r.reply(flag, text); b != nil {
					_, _ = r.c.Write(b)
				}
			}
			at += cut.Skip + cut.Len
		}
		have = copy(buf, buf[at:have])
		if err != nil {
			return
		}
	}
}

type commandRow struct {
	Command, Reply string
	By             string `json:"requested_by"`
}

// commandRows returns what `gt06ctl commands` lists.
func (d *daemon) commandRows(imei string) (rows []commandRow) {
	d.t.Helper()
	d.drained()
	out, errs, code := d.ctl("commands", imei, "--json")
	if err := json.Unmarshal([]byte(out), &rows); err != nil || code != 0 {
		d.t.Fatalf("exit code %d, %s, %s", code, out, errs)
	}
	me, err := user.Current()
	if err != nil {
		d.t.Fatal(err)
	}
	for _, r := range rows {
		if !strings.HasSuffix(r.By, me.Username) && r.By != "anna ("+me.Username+")" {
			d.t.Errorf("%q was sent by %q", r.Command, r.By)
		}
	}
	return rows
}

func TestCommands(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	d.drained()
	for name, c := range map[string]struct {
		n     int
		reply func(uint32, string) []byte
		args  []string
		code  int
		says  string
		row   string // the reply in the row; "-": no row
	}{
		"the flag comes back":        {1, func(f uint32, s string) []byte { return oldReply(f, "got "+s) }, []string{"STATUS#"}, 0, "got STATUS#", "got STATUS#"},
		"the flag does not":          {2, func(_ uint32, s string) []byte { return oldReply(0, "got "+s) }, []string{"version"}, 0, "got VERSION#", "got VERSION#"},
		"in UTF-16":                  {3, func(f uint32, _ string) []byte { return newReply(f, "电池 98%") }, []string{"status"}, 0, "电池 98%", "电池 98%"},
		"never":                      {4, nil, []string{"reboot", "--wait", "300ms"}, 9, "has not replied", ""},
		"nobody waits":               {5, func(f uint32, _ string) []byte { return oldReply(f, "late") }, []string{"position", "--wait", "0"}, 0, "sent", "late"},
		"with a number":              {6, func(f uint32, s string) []byte { return oldReply(f, s) }, []string{"interval", "30"}, 0, "TIMER,30#", "TIMER,30#"},
		"a wrong number":             {7, nil, []string{"interval", "1"}, 2, "5 to 18000", "-"},
		"no such name":               {8, nil, []string{"fly"}, 2, "no such command", "-"},
		"not allowed":                {9, nil, []string{"SERVER,1,evil.example,5023,0#"}, 13, "commands.allow", "-"},
		"a line break":               {10, nil, []string{"STATUS\r\nRELAY,1#"}, 13, "printable", "-"},
		"an engine, without the yes": {11, nil, []string{"engine-stop"}, 3, "--yes-cut-engine", "-"},
		"an engine nobody has seen":  {12, nil, []string{"RELAY,1#", "--yes-cut-engine"}, 3, "how fast", "-"},
		"what steers terminals":      {13, func(f uint32, _ string) []byte { return oldReply(f, "\x1b[2Jgone\x00") }, []string{"status"}, 0, "�[2Jgone�", "\x1b[2Jgone\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			r := d.replier(c.n, c.reply)
			out, errs, code := d.ctl(append([]string{"send", r.imei}, c.args...)...)
			if code != c.code || !strings.Contains(out+errs, c.says) {
				t.Errorf("exit code %d, %s%s; want %d and %q", code, out, errs, c.code, c.says)
			}
			if c.row == "-" {
				if rows := d.commandRows(r.imei); len(rows) != 0 {
					t.Errorf("rows %+v", rows)
				}
				return
			}
			d.eventually("the row is there", func() bool {
				rows := d.commandRows(r.imei)
				return len(rows) == 1 && rows[0].Reply == c.row
			})
		})
	}
	t.Run("offline, then online", func(t *testing.T) {
		imei := device.IMEI(20).String()
		if _, errs, code := d.ctl("send", imei, "status"); code != 14 {
			t.Errorf("exit code %d, %s", code, errs)
		}
		r := d.replier(20, func(f uint32, _ string) []byte { return oldReply(f, "here") })
		if out, errs, code := d.ctl("send", r.imei, "status"); code != 0 || !strings.Contains(out, "here") {
			t.Errorf("exit code %d, %s%s", code, out, errs)
		}
	})
	t.Run("queued, over a kill", func(t *testing.T) {
		imei := device.IMEI(24).String()
		if out, errs, code := d.ctl("send", imei, "status", "--queue", "1m"); code != 0 || !strings.Contains(out, "waits for it") {
			t.Errorf("exit code %d, %s%s", code, out, errs)
		}
		if _, errs, code := d.ctl("send", imei, "engine-stop", "--queue", "1m", "--yes-cut-engine"); code != 3 {
			t.Errorf("an engine cut is kept for later: exit code %d, %s", code, errs)
		}
		d.kill()
		d.start()
		r := d.replier(24, func(f uint32, _ string) []byte { return oldReply(f, "at last") })
		d.eventually("the command is sent and answered", func() bool {
			rows := d.commandRows(r.imei)
			return len(rows) == 1 && rows[0].Reply == "at last"
		})
		d.kill()
		d.start()
		pause(2500 * time.Millisecond)
		if rows := d.commandRows(r.imei); len(rows) != 1 {
			t.Errorf("rows %+v", rows)
		}
	})
	t.Run("captured", func(t *testing.T) {
		r := d.replier(25, nil)
		file := filepath.Join(t.TempDir(), "device.pcap")
		go func() {
			for n := range 20 {
				pause(50 * time.Millisecond)
				_, _ = r.c.Write(device.Build(device.Location, 25, 2+n, time.Now()).Bytes)
			}
		}()
		if out, errs, code := d.ctl("capture", r.imei, "--for", "1500ms", "--out", file); code != 0 {
			t.Errorf("exit code %d, %s%s", code, out, errs)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "gt06ctl"), "decode", "--pcap", "--json")
		cmd.Stdin = bytes.NewReader(b)
		out, err := cmd.Output()
		if err != nil || strings.Count(string(out), `"type":"location"`) < 10 || strings.Count(string(out), `"up":false`) < 10 {
			t.Errorf("%v, %s", err, out)
		}
	})
	t.Run("two at once", func(t *testing.T) {
		r := d.replier(21, func(f uint32, s string) []byte { return oldReply(f, "got "+s) })
		var wg sync.WaitGroup
		for _, text := range []string{"STATUS#", "VERSION#"} {
			wg.Go(func() {
				if out, errs, code := d.ctl("send", r.imei, text); code != 0 || !strings.Contains(out, "got "+text) {
					t.Errorf("%s: exit code %d, %s%s", text, code, out, errs)
				}
			})
		}
		wg.Wait()
	})
	t.Run("an engine that stands, and one that runs", func(t *testing.T) {
		for n, want := range map[int]int{22: 0, 23: 3} {
			r := d.replier(n, func(f uint32, _ string) []byte { return oldReply(f, "DYD=Success!") })
			speed := byte(3)
			if want != 0 {
				speed = 90
			}
			now := time.Now().UTC()
			fix := []byte{byte(now.Year() - 2000), byte(now.Month()), byte(now.Day()), byte(now.Hour()), byte(now.Minute()), byte(now.Second()), 0xcb, 2, 0x7a, 0xc8, 0x18, 0x0c, 0x46, 0x58, 0x60, speed, 0x14, 0, 1, 0xcc, 0, 0x28, 0, 0x7d, 0, 0x1f, 0x71, 1, 0, 0}
			if _, err := r.c.Write(protocol.AppendFrame(nil, 0x22, fix, 5)); err != nil {
				t.Fatal(err)
			}
			pause(200 * time.Millisecond)
			d.drained()
			if out, errs, code := d.ctl("send", r.imei, "engine-stop", "--yes-cut-engine"); code != want {
				t.Errorf("at %d km/h: exit code %d, %s%s", speed, code, out, errs)
			}
		}
	})
}
