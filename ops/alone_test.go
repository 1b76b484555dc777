package ops

import (
	"io"
	"path/filepath"
	"testing"
	"time"
)

// single is a machine without a cloud, as gt06ctl starts on it.
func single(t *testing.T, dir string) *Session {
	t.Helper()
	c, err := WithoutCloud()
	if err != nil {
		t.Fatal(err)
	}
	c.Journal.Dir, c.Lock.File = filepath.Join(dir, "journal"), filepath.Join(dir, "lock")
	return &Session{Config: c, Out: io.Discard, Journals: &Journals{Dir: c.Journal.Dir, Actor: Actor{User: "ravi", Host: "box"}, Now: time.Now}}
}

// TestAlone: a runbook on a machine without a cloud, killed after each record and
// given again: each effect is there once, the change is closed, the journal
// holds. Where there are snapshots it refuses.
func TestAlone(t *testing.T) {
	t.Parallel()
	const reason = "tests of one machine"
	for _, point := range []string{"record", "did"} {
		for n := 1; ; n++ {
			dir, w := t.TempDir(), newWorld()
			do := func(s *Session) error {
				p, err := s.Preview(t.Context(), w.book())
				if err != nil {
					return err
				}
				s.Confirm = Confirm{Yes: true, Plan: p.Hash()}
				return s.Alone(t.Context(), Refactor, reason, w.book())
			}
			s := single(t, dir)
			alive, err := dying(s, point, n, func() error { return do(s) })
			if err != nil {
				t.Fatalf("%s %d: %v", point, n, err)
			}
			s = single(t, dir)
			want := 1
			if !alive {
				list, err := s.Journals.List()
				if err == nil && len(list) > 0 && list[0].Unfinished == "" && !list[0].LastEffect.IsZero() {
					want = 2 // it had ended: given again it is done again
				}
				if err := do(s); err != nil {
					t.Fatalf("%s %d, given again: %v", point, n, err)
				}
			}
			for _, id := range []string{"one", "two", "three"} {
				if w.effects[id] != want {
					t.Errorf("%s %d: %s happened %d times, want %d", point, n, id, w.effects[id], want)
				}
			}
			list, err := s.Journals.List()
			if err != nil || len(list) == 0 || list[len(list)-1].Status != Closed {
				t.Errorf("%s %d: %+v, %v", point, n, list, err)
			}
			if _, err := s.Journals.Verify(t.Context()); err != nil {
				t.Errorf("%s %d: %v", point, n, err)
			}
			if alive {
				break
			}
		}
	}
	s := single(t, t.TempDir())
	if err := s.Alone(t.Context(), Refactor, reason, newWorld().book()); KindOf(err) != Declined {
		t.Errorf("nobody confirmed: %v", err)
	}
	s.Config.AWS.InstanceID = testInstance
	if err := s.Alone(t.Context(), Refactor, reason, newWorld().book()); KindOf(err) != Refused {
		t.Errorf("past the gate: %v", err)
	}
}
