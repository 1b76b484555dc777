package host

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHold: nothing is written while the database is held, everything after;
// the lock ends with what is done under it, also when that fails.
func TestHold(t *testing.T) {
	t.Parallel()
	m := mariadb(t, "gt06_hold")
	if _, err := m.Query(t.Context(), "CREATE TABLE gt06_hold.t (a INT)"); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("no snapshot")
	for _, fails := range []error{nil, broken} {
		written := make(chan error, 1)
		held, err := m.Hold(t.Context(), func() error {
			go func() {
				_, err := m.Query(context.Background(), "INSERT INTO gt06_hold.t VALUES (1)")
				written <- err
			}()
			select {
			case err := <-written:
				t.Errorf("a row was written under the lock: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
			return fails
		})
		if !errors.Is(err, fails) || held < 100*time.Millisecond {
			t.Errorf("held %v, %v", held, err)
		}
		if err := <-written; err != nil {
			t.Errorf("after the lock: %v", err)
		}
	}
	gone := MariaDB{System: m.System, Defaults: filepath.Join(t.TempDir(), "none.cnf")}
	if _, err := gone.Hold(t.Context(), func() error { t.Error("done without a lock"); return nil }); err == nil || !strings.Contains(err.Error(), "hold the database") {
		t.Errorf("no database: %v", err)
	}
}
