package deploy

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// stand is a program that answers what the package asks of gt06d and gt06ctl.
const stand = `#!/bin/sh
case $1 in
man) mkdir -p "$3" && echo ".TH ${0##*/}" > "$3/${0##*/}.1" ;;
*) echo "$0 $*" | sed 's|.*/||' ;;
esac
`

func dpkgDeb(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "dpkg-deb", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("dpkg-deb %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// What the package holds, and that the same input makes the same bytes; what it
// does is shown under a real systemd (cmd/gt06d/e2e).
func TestPackage(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("under CI dpkg-deb must be there")
		}
		t.Skip("dpkg-deb is not installed")
	}
	programs := t.TempDir()
	for _, p := range []string{"gt06d", "gt06ctl"} {
		if err := os.WriteFile(filepath.Join(programs, p), []byte(stand), 0o755); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	build := func(version string) (string, error) {
		out := t.TempDir()
		cmd := exec.CommandContext(context.Background(), "deb/build", version, "amd64", programs, out)
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000", "COMPRESSION=gzip")
		if b, err := cmd.CombinedOutput(); err != nil {
			return string(b), err
		}
		return filepath.Join(out, "gt06_"+version+"_amd64.deb"), nil
	}
	var made [2][]byte
	var path string
	for i := range made {
		var err error
		if path, err = build("1.2~git3"); err != nil {
			t.Fatalf("%v\n%s", err, path)
		}
		if made[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(made[0], made[1]) {
		t.Error("two packages of the same input differ")
	}
	if out, err := build("../1"); err == nil {
		t.Errorf("a version that is a path is taken: %s", out)
	}
	if f := dpkgDeb(t, "-f", path, "Package", "Version", "Architecture", "Depends"); f != "Package: gt06\nVersion: 1.2~git3\nArchitecture: amd64\nDepends: systemd\n" {
		t.Error(f)
	}
	control := t.TempDir()
	dpkgDeb(t, "-e", path, control)
	if b, err := os.ReadFile(filepath.Join(control, "conffiles")); err != nil || string(b) != "/etc/gt06/gt06.yaml\n" {
		t.Errorf("%q, %v", b, err)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		if out, err := exec.CommandContext(t.Context(), "sh", "-n", filepath.Join(control, script)).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", script, out)
		}
		b, err := os.ReadFile(filepath.Join(control, script))
		if err != nil || bytes.Contains(b, []byte("@")) && script == "postinst" {
			t.Errorf("%s: %v: something was not filled in", script, err)
		}
	}
	list := dpkgDeb(t, "-c", path)
	for _, want := range []string{
		"-rwxr-xr-x root/root ./usr/lib/gt06/package/gt06d", "-rwxr-xr-x root/root ./usr/lib/gt06/package/gt06ctl",
		"lrwxrwxrwx root/root ./usr/bin/gt06ctl -> ../lib/gt06/current/gt06ctl", "-rw-r--r-- root/root ./etc/gt06/gt06.yaml",
		"-rw-r--r-- root/root ./usr/lib/systemd/system/gt06d.service", "-rw-r--r-- root/root ./usr/lib/systemd/system/gt06-backup.timer",
		"-rw-r--r-- root/root ./usr/lib/sysctl.d/60-gt06.conf", "-rw-r--r-- root/root ./usr/lib/sysusers.d/gt06.conf",
		"-rw-r--r-- root/root ./usr/share/man/man1/gt06ctl.1.gz", "-rw-r--r-- root/root ./usr/share/bash-completion/completions/gt06ctl",
		"-rw-r--r-- root/root ./usr/share/zsh/vendor-completions/_gt06d", "-rw-r--r-- root/root ./usr/share/fish/vendor_completions.d/gt06ctl.fish",
		"-rw-r--r-- root/root ./usr/share/doc/gt06/examples/laravel/README.md", "-rw-r--r-- root/root ./usr/share/doc/gt06/examples/prometheus/rules.yml",
	} {
		mode, name, _ := strings.Cut(want, " root/root ")
		found := false
		for line := range strings.Lines(list) {
			found = found || strings.HasPrefix(line, mode+" root/root ") && strings.HasSuffix(line, " "+name+"\n")
		}
		if !found {
			t.Errorf("the package has no %s", want)
		}
	}
	if strings.Contains(list, "_test") || strings.Contains(list, ".go\n") || strings.Contains(list, "/var/lib/gt06") {
		t.Errorf("what does not belong into it:\n%s", list)
	}
}
