package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree makes a directory of logs with everything in it that must stay, and
// what may go.
func tree(t *testing.T) (logs, outside string) {
	t.Helper()
	dir := t.TempDir()
	logs, outside = filepath.Join(dir, "log"), filepath.Join(dir, "outside")
	for _, d := range []string{logs, outside, logs + "/mysql", logs + "/dir.1", logs + "/dir.gz"} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"syslog", "syslog.1", "syslog.2.gz", "auth.log.10", "open.1", "a b.3", "*.4", "-rf.5", ".hidden.6", "x.1.bak", "mysql/slow.1", "mysql/slow.2.gz", "dir.1/inner.1"} {
		write(t, filepath.Join(logs, name), strings.Repeat("x", 10000))
	}
	write(t, outside+"/ibdata1.1", "data")
	write(t, outside+"/twice.1", "data")
	for _, err := range []error{
		os.Symlink(outside+"/ibdata1.1", logs+"/link.1"),
		os.Symlink(outside, logs+"/linkdir.2"),
		os.Symlink("/nowhere", logs+"/dangling.gz"),
		os.Link(outside+"/twice.1", logs+"/twice.1"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return logs, outside
}

func TestCleanupOfLogs(t *testing.T) {
	t.Parallel()
	logs, outside := tree(t)
	open, err := os.Open(logs + "/open.1")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close() //nolint:errcheck // a test's own
	c := Cleanup{System: New(), Guard: Guard{"/var/lib/mysql"}, Logs: logs}
	list, err := c.RotatedLogs()
	if err != nil {
		t.Skipf("as this user: %v", err)
	}
	var names []string
	for _, l := range list {
		names = append(names, l.Name)
		if (l.Bytes == 0) != (l.Name == "twice.1") {
			t.Errorf("%s frees %d bytes", l.Name, l.Bytes)
		}
	}
	slices.Sort(names)
	goes := []string{"*.4", "-rf.5", ".hidden.6", "a b.3", "syslog.1", "syslog.2.gz", "twice.1"}
	if !slices.Equal(names, goes) {
		t.Errorf("%q may go, not %q", names, goes)
	}
	rule := c.Rules()[2]
	if err := rule.Free(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, stays := range []string{
		"syslog", "auth.log.10", "open.1", "x.1.bak", "mysql/slow.1", "mysql/slow.2.gz", "dir.1/inner.1", "dir.gz", "link.1", "linkdir.2", "dangling.gz",
	} {
		if !exists(filepath.Join(logs, stays)) {
			t.Errorf("%s is gone", stays)
		}
	}
	for _, gone := range goes {
		if exists(filepath.Join(logs, gone)) {
			t.Errorf("%s is there", gone)
		}
	}
	for _, stays := range []string{"ibdata1.1", "twice.1"} {
		if b, err := os.ReadFile(filepath.Join(outside, stays)); err != nil || string(b) != "data" {
			t.Errorf("%s: %q, %v", stays, b, err)
		}
	}
	if files, bytes, err := rule.Left(); err != nil || files != 0 || bytes != 0 {
		t.Errorf("%d files of %d bytes are left, %v", files, bytes, err)
	}
}

func TestCleanupNeverInDataDirectories(t *testing.T) {
	t.Parallel()
	logs, outside := tree(t)
	write(t, outside+"/x.1", "data")
	link := filepath.Join(t.TempDir(), "log")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Cleanup{
		"the data directory itself":        {Logs: outside, Guard: Guard{outside}},
		"a directory in it":                {Logs: logs, Guard: Guard{filepath.Dir(logs)}},
		"one that has it inside":           {Logs: logs, Guard: Guard{logs + "/mysql"}},
		"a link to it":                     {Logs: link, Guard: Guard{outside}},
		"a protected link to it":           {Logs: outside, Guard: Guard{link}},
		"MariaDB's default, always":        {Logs: "/var/lib/mysql", Guard: NewGuard()},
		"the home directories":             {Logs: "/home/ubuntu", Guard: NewGuard()},
		"a path that climbs into it":       {Logs: logs + "/../outside", Guard: Guard{outside}},
		"the environment of the CRM":       {Logs: logs + "/.env", Guard: Guard{}},
		"the file system, which has it in": {Logs: "/", Guard: NewGuard()},
	} {
		c.System = New()
		if err := c.Rules()[2].Free(t.Context()); !errors.Is(err, ErrProtected) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !exists(outside + "/x.1") {
		t.Error("data was deleted")
	}
	c := Cleanup{System: New(), Logs: link}
	if _, err := c.RotatedLogs(); err == nil {
		t.Error("a directory of logs that is a link was read")
	}
}

func TestCleanupRulesWithoutTheirProgram(t *testing.T) {
	t.Parallel()
	var ran []string
	c := Cleanup{Logs: t.TempDir(), Days: 7, SnapRetain: 2, System: System{
		LookPath: func(name string) (string, error) {
			if name == "snap" {
				return "", os.ErrNotExist
			}
			return name, nil
		},
		Exec: func(_ context.Context, c Command) (Result, error) {
			ran = append(ran, c.String())
			return Result{}, nil
		},
	}}
	for _, r := range c.Rules() {
		switch {
		case r.Name == "snap":
			if r.Why == "" {
				t.Error("snap is not installed and the rule does not say so")
			}
		case r.Name != "logs":
			if err := r.Free(t.Context()); err != nil || r.Why != "" {
				t.Errorf("%s: %v, %q", r.Name, err, r.Why)
			}
		}
	}
	if want := []string{"apt-get clean", "journalctl --vacuum-time=7d"}; !slices.Equal(ran, want) {
		t.Errorf("%q", ran)
	}
}

func TestJournalVacuum(t *testing.T) {
	t.Parallel()
	s := need(t, "journalctl")
	c := Cleanup{System: s, Journal: t.TempDir(), Days: 7}
	if err := c.Rules()[1].Free(t.Context()); err != nil {
		t.Error(err)
	}
}
