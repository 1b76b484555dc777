package runbook

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gt06/ops"
)

// TestRescueScript runs the script of the rescue instance on prepared root
// volumes: locked out by modes, by a lost key, by a file without a last line
// break; and ones it must not touch.
func TestRescueScript(t *testing.T) {
	t.Parallel()
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx ravi@laptop"
	passwd := fmt.Sprintf("root:x:0:0::/root:/bin/sh\nubuntu:x:%d:%d::/home/ubuntu:/bin/bash\n", os.Getuid(), os.Getgid())
	for name, c := range map[string]struct {
		passwd, keys string
		prepare      func(t *testing.T, dir string)
		said, want   string
	}{
		"modes": {passwd, "old\n", func(t *testing.T, dir string) {
			t.Helper()
			for path, mode := range map[string]os.FileMode{"home/ubuntu": 0o777, "home/ubuntu/.ssh": 0o777, "home/ubuntu/.ssh/authorized_keys": 0o666} {
				if err := os.Chmod(filepath.Join(dir, path), mode); err != nil {
					t.Fatal(err)
				}
			}
		}, "done", "old\n" + key + "\n"},
		"no line break": {passwd, "old", nil, "done", "old\n" + key + "\n"},
		"there already": {passwd, key + "\n", nil, "done", key + "\n"},
		"all lost": {passwd, "", func(t *testing.T, dir string) {
			t.Helper()
			if err := os.RemoveAll(filepath.Join(dir, "home/ubuntu/.ssh")); err != nil {
				t.Fatal(err)
			}
		}, "done", key + "\n"},
		"no user": {"root:x:0:0::/root:/bin/sh\n", "old\n", nil, "failed: no user ubuntu", "old\n"},
		"a link": {passwd, "old\n", func(t *testing.T, dir string) {
			t.Helper()
			file := filepath.Join(dir, "home/ubuntu/.ssh/authorized_keys")
			if err := os.Rename(file, filepath.Join(dir, "elsewhere")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(dir, "elsewhere"), file); err != nil {
				t.Fatal(err)
			}
		}, "authorized_keys is a link", "old\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, console := t.TempDir(), filepath.Join(t.TempDir(), "console")
			file := filepath.Join(dir, "home/ubuntu/.ssh/authorized_keys")
			for _, d := range []string{"etc", "home/ubuntu/.ssh"} {
				if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for path, text := range map[string]string{filepath.Join(dir, "etc/passwd"): c.passwd, file: c.keys} {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.prepare != nil {
				c.prepare(t, dir)
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", RescueScript("ubuntu", key)) //nolint:gosec // the script under test
			cmd.Env = append(os.Environ(), "RESCUE_MOUNT="+dir, "RESCUE_CONSOLE="+console)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			said, err := os.ReadFile(console)
			if err != nil || !strings.Contains(string(said), c.said) {
				t.Errorf("it said %q, %v", said, err)
			}
			got, err := os.ReadFile(file)
			if err != nil || string(got) != c.want {
				t.Errorf("keys %q, %v", got, err)
			}
			if c.said != "done" {
				return
			}
			for path, want := range map[string]os.FileMode{"home/ubuntu/.ssh": 0o700, "home/ubuntu/.ssh/authorized_keys": 0o600} {
				if i, err := os.Stat(filepath.Join(dir, path)); err != nil || i.Mode().Perm() != want {
					t.Errorf("%s: %v, %v", path, i.Mode(), err)
				}
			}
			if i, err := os.Stat(filepath.Join(dir, "home/ubuntu")); err != nil || i.Mode().Perm()&0o022 != 0 {
				t.Errorf("home: %v, %v", i.Mode(), err)
			}
		})
	}
}

// TestRescueRefusesWhatIsNoKey: what goes into the script cannot end a quote.
func TestRescueRefusesWhatIsNoKey(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"-----BEGIN OPENSSH PRIVATE KEY-----", "ssh-ed25519 AAAA'; rm -rf /; '", "command=\"x\" ssh-ed25519 AAAA", "ssh-ed25519 AAAA a\nssh-ed25519 BBBB b"} {
		if _, err := (Site{}).Rescue("ubuntu", key).Discover(t.Context()); ops.KindOf(err) != ops.Usage {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, user := range []string{"", "root'; x", "../x", "Ubuntu"} {
		if _, err := (Site{}).Rescue(user, "").Discover(t.Context()); ops.KindOf(err) != ops.Usage {
			t.Errorf("%q: %v", user, err)
		}
	}
}
