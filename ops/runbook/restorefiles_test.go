package runbook_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gt06/ops"
	"gt06/ops/cloud"
	"gt06/ops/cloud/fake"
	"gt06/ops/runbook"
)

// session is an operator's of a site, with everything but a terminal.
func session(t *testing.T, site fake.Site) (*ops.Session, runbook.Site) {
	t.Helper()
	dir := t.TempDir()
	config, err := ops.ParseConfig([]byte(site.Config(dir)))
	if err != nil {
		t.Fatal(err)
	}
	c, err := cloud.Open(t.Context(), cloud.Options{Region: site.Region, Endpoint: site.Endpoint})
	if err != nil {
		t.Fatal(err)
	}
	backend, err := runbook.Backend(c, config)
	if err != nil {
		t.Fatal(err)
	}
	return &ops.Session{
		Config: config, Backend: backend, Out: io.Discard, Gate: &ops.SnapshotGate{Facts: backend.Facts, Config: config}, Confirm: ops.Confirm{Yes: true},
		Journals: &ops.Journals{Dir: config.Journal.Dir, Mirror: backend.Mirror, Anchor: backend.Anchor, Actor: ops.Actor{User: "ravi", Host: "laptop"}, Now: time.Now},
	}, runbook.Site{Cloud: c, Config: config}
}

// approve reads the plan and does it.
func approve(t *testing.T, s *ops.Session, id string, book ops.Runbook) error {
	t.Helper()
	p, err := s.Plan(t.Context(), id, book)
	if err != nil {
		return err
	}
	s.Confirm.Plan = p.Hash()
	return s.Apply(t.Context(), id, book)
}

// TestRestoreFiles copies files out of a real ext4 image, as a volume made of
// the snapshot; the temporary volume is gone afterwards, also when the copy
// fails.
func TestRestoreFiles(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("loop devices and mounts take root")
	}
	work := t.TempDir()
	sh := func(format string, args ...any) string {
		t.Helper()
		out, err := exec.CommandContext(context.Background(), "sh", "-ec", fmt.Sprintf(format, args...)).CombinedOutput() //nolint:gosec // a test's own
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	image := filepath.Join(work, "image")
	sh("mkdir -p %[1]s/tree/etc/nginx %[1]s/tree/var/www; echo 'APP_KEY=x' >%[1]s/tree/var/www/.env; echo conf >%[1]s/tree/etc/nginx/a.conf; ln -s a.conf %[1]s/tree/etc/nginx/b.conf; truncate -s 64M %[2]s; mkfs.ext4 -q -d %[1]s/tree %[2]s", work, image)
	loop := sh("losetup --find --show %s", image)
	t.Cleanup(func() {
		_ = exec.CommandContext(context.Background(), "losetup", "-d", loop).Run() //nolint:gosec // a test's own
	})
	execute := func(ctx context.Context, argv []string, each func(string)) (int, error) {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // the script under test
		cmd.Env = append(os.Environ(), "RESTORE_DEVICE="+loop, "RESTORE_MOUNT="+filepath.Join(work, "mount"))
		out, err := cmd.CombinedOutput()
		for line := range strings.Lines(string(out)) {
			each(strings.TrimSpace(line))
		}
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return exit.ExitCode(), nil
		}
		return 0, err
	}

	a := fake.New()
	t.Cleanup(a.Close)
	site := a.Production()
	s, at := session(t, site)
	c, err := s.Open(t.Context(), ops.Other, "the environment file is gone")
	if err != nil {
		t.Fatal(err)
	}
	current := func(context.Context) (ops.Change, error) { return c, nil }
	if err := approve(t, s, c.ID, at.SnapshotCreate(nil)); err != nil {
		t.Fatal(err)
	}
	files := func(paths ...string) ops.Runbook {
		return at.RestoreFiles(execute, filepath.Join(work, "restore"), "", paths, current)
	}
	if err := approve(t, s, c.ID, files("/var/www/.env")); ops.KindOf(err) != ops.Refused || !strings.Contains(err.Error(), "mounted where this runs") {
		t.Errorf("from another machine: %v", err)
	}
	a.On = site.Instance
	for _, path := range []string{"etc", "/", "/etc/../etc", "/etc/"} {
		if err := approve(t, s, c.ID, files(path)); ops.KindOf(err) != ops.Usage {
			t.Errorf("%q: %v", path, err)
		}
	}
	if err := approve(t, s, c.ID, files("/var/www/.env", "/etc/nginx")); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(work, "restore", c.ID)
	sh("cd %s && test \"$(cat var/www/.env)\" = APP_KEY=x && test \"$(readlink etc/nginx/b.conf)\" = a.conf && sha256sum --quiet -c MANIFEST.sha256 && test $(wc -l <MANIFEST.sha256) = 2", target)
	gone := func() {
		t.Helper()
		if left := a.Volumes(map[string]string{cloud.TagRole: cloud.RoleTemp}); len(left) != 0 {
			t.Errorf("temporary volumes %+v", left)
		}
	}
	gone()
	if err := approve(t, s, c.ID, files("/var/www/.env", "/not/there")); ops.KindOf(err) != ops.StepFailed || !strings.Contains(err.Error(), "not in the snapshot") {
		t.Errorf("a path that is not there: %v", err)
	}
	gone()
	sh("! mountpoint -q %s/mount", work)
}
