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

// imaged is a machine to which a volume can be lent: an ext4 image on a loop
// device.
type imaged struct {
	*testing.T
	work, loop string
}

func newImage(t *testing.T) *imaged {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices and mounts take root")
	}
	m := &imaged{T: t, work: t.TempDir()}
	image := filepath.Join(m.work, "image")
	m.sh("mkdir -p %[1]s/tree/etc/nginx %[1]s/tree/var/www; echo 'APP_KEY=x' >%[1]s/tree/var/www/.env; echo conf >%[1]s/tree/etc/nginx/a.conf; ln -s a.conf %[1]s/tree/etc/nginx/b.conf; truncate -s 64M %[2]s; mkfs.ext4 -q -d %[1]s/tree %[2]s", m.work, image)
	m.loop = m.sh("losetup --find --show %s", image)
	t.Cleanup(func() {
		_ = exec.CommandContext(context.Background(), "losetup", "-d", m.loop).Run() //nolint:gosec // a test's own
	})
	return m
}

func (m *imaged) sh(format string, args ...any) string {
	m.Helper()
	out, err := exec.CommandContext(context.Background(), "sh", "-ec", fmt.Sprintf(format, args...)).CombinedOutput() //nolint:gosec // a test's own
	if err != nil {
		m.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// execute is the machine's: the script finds the loop device.
func (m *imaged) execute(ctx context.Context, argv []string, each func(string)) (int, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // the script under test
	cmd.Env = append(os.Environ(), "RESTORE_DEVICE="+m.loop, "RESTORE_MOUNT="+filepath.Join(m.work, "mount"))
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		each(strings.TrimSpace(line))
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// restored looks for what the snapshot had, below a directory.
func (m *imaged) restored(target string) {
	m.Helper()
	m.sh("cd %s && test \"$(cat var/www/.env)\" = APP_KEY=x && test \"$(readlink etc/nginx/b.conf)\" = a.conf && sha256sum --quiet -c MANIFEST.sha256 && test $(wc -l <MANIFEST.sha256) = 2", target)
}

// TestRestoreFiles copies files out of a real ext4 image, as a volume made of
// the snapshot; the temporary volume is gone afterwards, also when the copy
// fails.
func TestRestoreFiles(t *testing.T) {
	t.Parallel()
	m := newImage(t)
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
		return at.RestoreFiles(m.execute, filepath.Join(m.work, "restore"), "", paths, current)
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
	m.restored(filepath.Join(m.work, "restore", c.ID))
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
	m.sh("! mountpoint -q %s/mount", m.work)
}

// TestRestoreFilesKilledAndResumed ends gt06ctl after each record and between
// each effect and its record: one volume is made, and that one deleted.
func TestRestoreFilesKilledAndResumed(t *testing.T) {
	t.Parallel()
	m := newImage(t)
	for _, point := range []string{"record", "did"} {
		for n := 1; ; n++ {
			a := fake.New()
			site := a.Production()
			s, at := session(t, site)
			a.On = site.Instance
			c, err := s.Open(t.Context(), ops.Other, "the environment file is gone")
			if err != nil {
				t.Fatal(err)
			}
			if err := approve(t, s, c.ID, at.SnapshotCreate(nil)); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(m.work, "restore", fmt.Sprint(point, n))
			book := func(paths ...string) ops.Runbook {
				return at.RestoreFiles(m.execute, dir, "", paths, func(context.Context) (ops.Change, error) { return c, nil })
			}
			begin := func() error { return approve(t, s, c.ID, book("/var/www/.env", "/etc/nginx")) }
			s.Failpoint = runbook.DieAt(point, n)
			s.Journals.Failpoint = s.Failpoint
			died, err := runbook.Dies(begin)
			if died {
				s, _ = session(t, site)
				s.Config, s.Journals.Dir = at.Config, at.Config.Journal.Dir
				err = s.Resume(t.Context(), c.ID, func(string) (ops.Runbook, bool) { return book(), true }, ops.Undecided)
				if _, none := os.Stat(dir); none != nil && err == nil { // it died before its plan was written
					err = begin()
				}
			}
			if err != nil {
				t.Fatalf("death at %s %d: %v", point, n, err)
			}
			m.restored(filepath.Join(dir, c.ID))
			made, ended, left := a.Changes("ec2:CreateVolume"), a.Changes("ec2:DeleteVolume"), a.Volumes(map[string]string{cloud.TagRole: cloud.RoleTemp})
			if made != 1 || ended != 1 || len(left) != 0 {
				t.Errorf("death at %s %d: %d volumes made, %d deleted, left %+v", point, n, made, ended, left)
			}
			a.Close()
			if !died {
				t.Logf("%d places at %s", n-1, point)
				if n < 5 {
					t.Errorf("only %d passages of %s", n-1, point)
				}
				break
			}
		}
	}
	m.sh("! mountpoint -q %s/mount", m.work)
}
