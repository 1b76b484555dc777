package logging

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"gt06/cmd/internal/cli"
)

func none(string) string { return "" }

func lines(t *testing.T, text string) (list []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q is no JSON: %v", line, err)
		}
		list = append(list, m)
	}
	return list
}

func TestRepeatsAreThrottledAndCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		logs, err := New(&out, "info", none)
		if err != nil {
			t.Fatal(err)
		}
		other := logs.Main.With(zap.Int("loop", 1)) // counts together
		for i := range 500 {
			logs.Main.Warn("a device reconnects", zap.Int("n", i))
			other.Warn("a device reconnects", zap.Int("n", i))
		}
		logs.Main.Error("a device reconnects") // another level is another message
		logs.Main.Info("rare")
		if got := lines(t, out.String()); len(got) != throttleBurst+2 {
			t.Fatalf("%d lines: %s", len(got), out.String())
		}
		out.Reset()
		time.Sleep(throttleSpan + time.Second) //nolint:forbidigo // virtual time
		synctest.Wait()
		got := lines(t, out.String())
		if len(got) != 1 || got[0]["dropped"] != float64(1000-throttleBurst) || got[0]["of"] != "a device reconnects" || got[0]["level"] != "warn" {
			t.Fatalf("what was left out is not said: %s", out.String())
		}
		out.Reset()
		logs.Main.Warn("a device reconnects")
		if got := lines(t, out.String()); len(got) != 1 {
			t.Errorf("after the span: %s", out.String())
		}
		time.Sleep(throttleSpan + time.Second) //nolint:forbidigo // virtual time
	})
}

func TestSyncSaysWhatWasLeftOut(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logs, err := New(&out, "info", none)
	if err != nil {
		t.Fatal(err)
	}
	for range throttleBurst + 7 {
		logs.Main.Info("again")
	}
	_ = logs.Main.Sync()
	got := lines(t, out.String())
	if last := got[len(got)-1]; last["dropped"] != float64(7) {
		t.Errorf("%v", last)
	}
}

func TestATraceIsWhole(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logs, err := New(&out, "error", none)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		logs.Trace.Info("frame", zap.Any("frame", json.RawMessage(`{"type":"login"}`)))
	}
	logs.Main.Info("below the level")
	got := lines(t, out.String())
	if len(got) != 100 || got[0]["logger"] != "trace" || got[0]["frame"].(map[string]any)["type"] != "login" {
		t.Errorf("%d lines, %v", len(got), got[0])
	}
}

// The journal is a socket whose device and inode JOURNAL_STREAM names; a file
// does as well.
func TestTheJournalReadsPriorities(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "journal")) //nolint:gosec // a test's own
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a test's own
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	env := func(k string) string {
		if k == "JOURNAL_STREAM" {
			return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
		}
		return ""
	}
	logs, err := New(f, "debug", env)
	if err != nil {
		t.Fatal(err)
	}
	logs.Main.Debug("d")
	logs.Main.Info("i")
	logs.Main.Warn("two\nlines")
	logs.Main.With(zap.String("k", "v")).Error("e")
	_, _ = fmt.Fprintf(ForPeople(f, env), "gt06d: wrong\nhint: mend it\n")
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for line := range strings.Lines(string(b)) {
		seen = append(seen, line[:3])
		if strings.Contains(line[3:], "{") {
			lines(t, line[3:])
		}
	}
	if got := strings.Join(seen, ""); got != "<7><6><4><3><3><3>" {
		t.Errorf("%s in\n%s", got, b)
	}
	if Journal(f, none) || Journal(&bytes.Buffer{}, env) || cli.Terminal(f) || cli.Colours(f, none) {
		t.Error("something else is taken for the journal or a terminal")
	}
}

func TestATerminalGetsTextThatCannotSteerIt(t *testing.T) {
	t.Parallel()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminal: %v", err)
	}
	defer master.Close() //nolint:errcheck // a test's own
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminal: %v", err)
	}
	defer tty.Close() //nolint:errcheck // a test's own
	read := func() string {
		b := make([]byte, 4096)
		n, err := master.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	for colour, env := range map[bool]func(string) string{true: none, false: func(k string) string {
		if k == "NO_COLOR" {
			return "1"
		}
		return ""
	}} {
		logs, err := New(tty, "info", env)
		if err != nil {
			t.Fatal(err)
		}
		logs.Main.Warn("from a device", zap.String("text", "a\x1b[31mb\u009b2Jc\x7f"))
		got := read()
		if strings.Contains(strings.TrimPrefix(got, "{"), "\x1b[31mb") || strings.ContainsAny(got, "\u009b\x7f") || !strings.Contains(got, "from a device") {
			t.Errorf("%q", got)
		}
		if strings.Contains(got, "\x1b[") != colour {
			t.Errorf("colour is not %v: %q", colour, got)
		}
	}
}

func TestLevelsAreNamed(t *testing.T) {
	t.Parallel()
	if _, err := New(&bytes.Buffer{}, "loud", none); err == nil || !strings.Contains(err.Error(), "debug, info, warn or error") {
		t.Errorf("%v", err)
	}
}
