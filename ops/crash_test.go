package ops

import (
	"errors"
	"fmt"
	"testing"
)

// killed is what the failpoint throws in place of the process's end.
var errKilled = errors.New("killed")

// dying runs f until the n-th passage of a point; alive says it got to its end.
func dying(s *Session, point string, n int, f func() error) (alive bool, err error) {
	passed := 0
	die := func(at string) {
		if passed++; at == point && passed == n {
			panic(errKilled)
		}
		if at != point {
			passed--
		}
	}
	s.Failpoint, s.Journals.Failpoint = die, die
	defer func() {
		s.Failpoint, s.Journals.Failpoint = nil, nil
		if r := recover(); r != nil && r != errKilled { //nolint:errorlint // the same value
			panic(r)
		} else if r != nil {
			alive, err = false, nil
		}
	}()
	return true, f()
}

// TestDeathAfterEachRecord ends the program after each record of a whole
// change, and between each effect and its record, and resumes: every effect is
// there once, and the journal holds.
func TestDeathAfterEachRecord(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{false, true} {
		for _, point := range []string{"record", "did"} {
			for n := 1; ; n++ {
				m := newMemory()
				s := host(t, m, "ops1")
				w := newWorld()
				if fails {
					w.fails["fix"] = errTest
				}
				book := Runbook{Name: "test", Steps: func(Params) []Step {
					last := w.step("terminate", Cloud)
					last.Always = true
					return []Step{w.step("rescue", Cloud), w.step("fix", Guest), w.step("check", Read), last}
				}}
				books := func(string) (Runbook, bool) { return book, true }
				whole := func() error {
					c := opened(t, s, m)
					if err := apply(t, s, c.ID, book); err != nil {
						return err
					}
					return nil
				}
				alive, err := dying(s, point, n, whole)
				if alive {
					if (err != nil) != fails {
						t.Fatalf("fails %v: %v", fails, err)
					}
					if n < 3 {
						t.Fatalf("only %d passages of %s", n, point)
					}
					break
				}
				name := fmt.Sprintf("fails %v, death at %s %d", fails, point, n)
				list, err := s.Journals.List()
				if err != nil || len(list) != 1 {
					t.Fatalf("%s: %v, %v", name, list, err)
				}
				c := list[0]
				m.facts.Snapshot = m.snapshot(c.ID, c.Action)
				if c.Unfinished != "" {
					err = s.Resume(t.Context(), c.ID, books, Undecided)
				} else if w.effects["terminate"] == 0 {
					err = apply(t, s, c.ID, book)
				}
				if failed := err != nil; failed && (!fails || KindOf(err) != StepFailed) {
					t.Errorf("%s: %v", name, err)
				}
				want := map[string]int{"rescue": 1, "fix": 1, "check": 1, "terminate": 1}
				if fails {
					want["fix"], want["check"] = 0, 0
				}
				for id, times := range want {
					if w.effects[id] != times {
						t.Errorf("%s: %s happened %d times, want %d", name, id, w.effects[id], times)
					}
				}
				if v, err := s.Journals.Verify(t.Context()); err != nil || v.Copies < v.Records-1 {
					t.Errorf("%s: journal %+v, %v", name, v, err)
				}
				if j, err := s.Look(t.Context(), c.ID); err != nil || j.Change().Unfinished != "" {
					t.Errorf("%s: not ended: %v, %v", name, j.Change(), err)
				}
			}
		}
	}
}
