package ops

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAJournalThatWasTamperedWithIsFound(t *testing.T) {
	t.Parallel()
	cut := func(b []byte, n int) []byte { // without the last n lines
		lines := bytes.SplitAfter(b, []byte("\n"))
		return bytes.Join(lines[:len(lines)-1-n], nil)
	}
	cases := map[string]func(path string, b []byte) error{
		"a byte altered": func(p string, b []byte) error {
			return os.WriteFile(p, bytes.Replace(b, []byte("percent"), []byte("perzent"), 1), 0o600)
		},
		"a space added": func(p string, b []byte) error {
			return os.WriteFile(p, bytes.Replace(b, []byte(`"rc":0`), []byte(`"rc": 0`), 1), 0o600)
		},
		"a member added": func(p string, b []byte) error {
			return os.WriteFile(p, bytes.Replace(b, []byte(`"rc":0`), []byte(`"x":1,"rc":0`), 1), 0o600)
		},
		"a record removed":  func(p string, b []byte) error { return os.WriteFile(p, b[bytes.IndexByte(b, '\n')+1:], 0o600) },
		"the last cut off":  func(p string, b []byte) error { return os.WriteFile(p, cut(b, 1), 0o600) },
		"the last cut half": func(p string, b []byte) error { return os.WriteFile(p, b[:len(b)-10], 0o600) },
		"two swapped": func(p string, b []byte) error {
			lines := bytes.SplitAfter(b, []byte("\n"))
			lines[1], lines[2] = lines[2], lines[1]
			return os.WriteFile(p, bytes.Join(lines, nil), 0o600)
		},
		"the file removed": func(p string, _ []byte) error { return os.Remove(p) },
		"another version": func(p string, b []byte) error {
			return os.WriteFile(p, bytes.Replace(b, []byte(`{"v":1`), []byte(`{"v":2`), 1), 0o600)
		},
		"the head removed": func(p string, _ []byte) error { return os.Remove(strings.TrimSuffix(p, ".jsonl") + ".head") },
		"the head of long ago": func(p string, _ []byte) error {
			return os.WriteFile(strings.TrimSuffix(p, ".jsonl")+".head", []byte("1 sha256:0\n"), 0o600)
		},
	}
	for name, tamper := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMemory()
			s := host(t, m, "ops1")
			s.Backend.Mirror, s.Backend.Anchor, s.Journals.Mirror, s.Journals.Anchor = nil, nil, nil, nil // the file alone must tell
			c := opened(t, s, m)
			for range 3 {
				if err := s.Note(t.Context(), c.ID, KindNote, 0, map[string]string{"text": "looked"}); err != nil {
					t.Fatal(err)
				}
			}
			if v, err := s.Journals.Verify(t.Context()); err != nil || v.Records != 4 {
				t.Fatalf("%+v, %v", v, err)
			}
			path := filepath.Join(s.Journals.Dir, c.ID+".jsonl")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := tamper(path, b); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Journals.List(); name != "the file removed" && KindOf(err) != JournalBroken {
				t.Errorf("list: %v", err)
			}
			if _, err := s.Journals.Open(t.Context(), c.ID); KindOf(err) != JournalBroken {
				t.Errorf("open: %v", err)
			}
		})
	}
}

// TestRemovedWhole: file and head are gone, or cut off together; the next
// change, the copy and the tag tell.
func TestRemovedWhole(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := host(t, m, "ops1")
	c := opened(t, s, m)
	if err := s.Close(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	second := opened(t, s, m)
	for _, name := range []string{c.ID + ".jsonl", c.ID + ".head"} {
		if err := os.Remove(filepath.Join(s.Journals.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	mirror := s.Journals.Mirror
	s.Journals.Mirror, s.Journals.Anchor = nil, nil
	if _, err := s.Journals.Verify(t.Context()); KindOf(err) != JournalBroken || !strings.Contains(err.Error(), second.ID+" follows it") {
		t.Errorf("the next change names it: %v", err)
	}
	for _, name := range []string{second.ID + ".jsonl", second.ID + ".head"} {
		if err := os.Remove(filepath.Join(s.Journals.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s.Journals.Anchor = m
	if _, err := s.Journals.Verify(t.Context()); KindOf(err) != JournalBroken {
		t.Errorf("the tag names it: %v", err)
	}
	s.Journals.Mirror = mirror
	if v, err := s.Journals.Verify(t.Context()); err != nil || v.Fetched != 3 {
		t.Errorf("the copy brings it back: %+v, %v", v, err)
	}
}

// TestAfterARestoreOfTheRootVolume: the files are of before; the copies are
// not, and the journal goes on where it was.
func TestAfterARestoreOfTheRootVolume(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := host(t, m, "ops1")
	c := opened(t, s, m)
	old := t.TempDir()
	if err := os.CopyFS(old, os.DirFS(s.Journals.Dir)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.Note(t.Context(), c.ID, KindNote, 0, map[string]string{"text": "looked"}); err != nil {
			t.Fatal(err)
		}
	}
	s.Journals.Dir = old
	if err := s.Note(t.Context(), c.ID, KindNote, 0, map[string]string{"text": "after"}); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Journals.Verify(t.Context()); err != nil || v.Records != 5 || v.Copies != 5 {
		t.Errorf("%+v, %v", v, err)
	}
	// Another host has nothing, and goes on in the same change.
	other := host(t, m, "laptop")
	if err := other.Note(t.Context(), c.ID, KindNote, 0, map[string]string{"text": "from home"}); err != nil {
		t.Fatal(err)
	}
	third := host(t, m, "bastion")
	if v, err := third.Journals.Verify(t.Context()); err != nil || v.Fetched != 6 {
		t.Errorf("on a host that has nothing: %+v, %v", v, err)
	}
	// The first one, which did not see that, must not write another history.
	if err := s.Note(t.Context(), c.ID, KindNote, 0, map[string]string{"text": "again"}); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Journals.Verify(t.Context()); err != nil || v.Records != 7 {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestSecretsStayOutOfTheJournal(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := host(t, m, "ops1")
	c := opened(t, s, m)
	if err := s.Note(t.Context(), c.ID, KindNote, 0, map[string]string{
		"db_password": "hunter2", "APP_KEY": "hunter2", "api-token": "hunter2", "client.secret": "hunter2",
		"env": "DB_PASSWORD=hunter2 A=1", "argv": "mysqldump -u root -phunter2 crm", "flag": "x --token hunter2", "json": `{"Secret": "hunter2"}`, "dsn": "mysql://u:hunter2@db/x",
		"plain": "mkdir -p /restore, find -print, port: 5023",
	}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(s.Journals.Dir, c.ID+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("hunter2")) {
		t.Errorf("a secret is in %s", b)
	}
	if !bytes.Contains(b, []byte("mkdir -p /restore, find -print, port: 5023")) {
		t.Errorf("harmless text is gone: %s", b)
	}
	for _, line := range m.puts {
		if bytes.Contains(line, []byte("hunter2")) {
			t.Errorf("a secret is in the copy %s", line)
		}
	}
	if st, err := os.Stat(filepath.Join(s.Journals.Dir, c.ID+".jsonl")); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", st, err)
	}
}

// TestTheDiskIsFull: what brings people here. A record that does not fit leaves
// no trace, one whose head does not fit is owed it; room made, it goes on.
func TestTheDiskIsFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root mounts a small disk")
	}
	m := newMemory()
	s := host(t, m, "ops1")
	if err := os.Mkdir(s.Journals.Dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", s.Journals.Dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no small disk: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(s.Journals.Dir, unix.MNT_DETACH) })
	c := opened(t, s, m)
	ballast := filepath.Join(s.Journals.Dir, "ballast")
	refused := 0
	for size := 60 << 10; size > 0; size -= 4 << 10 { // full, then room for ever more
		_ = os.Remove(ballast)
		_ = os.WriteFile(ballast, make([]byte, size), 0o600)
		for range 3 {
			if err := s.Note(t.Context(), c.ID, KindNote, 0, map[string]string{"text": strings.Repeat("x", 1500)}); err != nil {
				refused++
			}
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := s.Note(t.Context(), c.ID, KindNote, 0, map[string]string{"text": "there is room"}); err != nil {
		t.Fatal(err)
	}
	if v, err := s.Journals.Verify(t.Context()); err != nil || refused == 0 || v.Copies != v.Records {
		t.Errorf("%+v, %v, %d refused", v, err, refused)
	}
	// In one process, too: the head fails, the next record owes it.
	j, err := s.Journals.Open(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	blocked := filepath.Join(s.Journals.Dir, c.ID+".head.new")
	if err := os.Mkdir(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := j.append(t.Context(), Record{Kind: KindNote}); err == nil {
			t.Error("written without a head")
		}
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	if err := j.append(t.Context(), Record{Kind: KindNote}); err != nil {
		t.Error(err)
	}
	if v, err := s.Journals.Verify(t.Context()); err != nil {
		t.Errorf("%+v, %v", v, err)
	}
}
