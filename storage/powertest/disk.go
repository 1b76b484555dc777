// Package powertest is a disk whose power is cut, for tests of what must survive
// that: the log and SQLite.
package powertest

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// The errors of a Disk.
var (
	ErrOff  = errors.New("gt06/powertest: the power is off")
	ErrSync = errors.New("gt06/powertest: EIO")
)

// Disk is a disk whose power is cut. What was written lies in files as a page
// cache shows it; what would be found after the cut is made from what was
// synced and a random part of the rest, sector by sector: all of it, none, or
// any between, in any order. The name of a file that was created or removed is
// certain only once its directory was synced. A sync may fail; then what it
// should have kept is as uncertain as if nobody had asked, for good.
//
// Who writes says so: each operation is a function given to Do, in which the
// methods that name a path may be called.
type Disk struct {
	mu      sync.Mutex
	rand    *rand.Rand
	failing float64
	off     bool
	known   map[string]*platter
}

// platter is what is certain of a file.
type platter struct {
	synced  []byte
	named   bool // its name is on the disk
	removed bool // and perhaps still is
	failed  bool // a sync failed: no later one helps
}

// New returns a disk that holds what is in a directory, which need not be
// there: after a cut all of it is certain. Failing is the share of syncs that
// fail.
func New(t testing.TB, dir string, r *rand.Rand, failing float64) *Disk {
	t.Helper()
	d := &Disk{rand: r, failing: failing, known: map[string]*platter{}}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		d.known[path] = &platter{synced: b, named: true}
	}
	return d
}

// Do is one operation, unless the power is off.
func (d *Disk) Do(op func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return ErrOff
	}
	return op()
}

// Created says that a file was made that was not there; in Do.
func (d *Disk) Created(path string) { d.known[path] = &platter{} }

// Synced says that a sync of a file is done, which held now when it began; in
// Do. The sync may have failed.
func (d *Disk) Synced(path string, now []byte) error {
	on := d.known[path]
	if d.rand.Float64() < d.failing {
		on.failed = true
		return ErrSync
	}
	if !on.failed {
		on.synced = now
	}
	return nil
}

// DirSynced says that the names in a directory are certain; in Do.
func (d *Disk) DirSynced(dir string) {
	for path, on := range d.known {
		switch {
		case filepath.Dir(path) != dir:
		case on.removed:
			delete(d.known, path)
		default:
			on.named = true
		}
	}
}

// Removed says that a file was removed; in Do.
func (d *Disk) Removed(path string) {
	if on := d.known[path]; on != nil {
		on.removed = true
	}
}

// Off says whether the power is off.
func (d *Disk) Off() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.off
}

// Trusted says whether no sync has failed: what a killed process wrote may be in
// a page cache that is not written any more.
func (d *Disk) Trusted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.known {
		if p.failed {
			return false
		}
	}
	return true
}

// Cut takes the power and writes what is found afterwards to another directory.
// Certain is called in between: what was promised until then was promised.
func (d *Disk) Cut(t testing.TB, to string, certain func()) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	certain()
	d.CutNow(t, to)
}

// CutNow is Cut in Do.
func (d *Disk) CutNow(t testing.TB, to string) {
	t.Helper()
	d.off = true
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range slices.Sorted(maps.Keys(d.known)) {
		p := d.known[path]
		if !p.named && d.rand.IntN(2) == 0 || p.removed && d.rand.IntN(2) == 0 {
			continue
		}
		now, err := os.ReadFile(path)
		if err != nil { // removed
			now = p.synced
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(path)), d.found(p.synced, now), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// found mixes what is certain with what is not.
func (d *Disk) found(synced, now []byte) []byte {
	const sector = 512
	share := []float64{0, 1, d.rand.Float64()}[d.rand.IntN(3)]
	size := len(synced)
	if grown := len(now) - size; grown > 0 {
		size += d.rand.IntN(grown + 1)
	}
	b := make([]byte, size)
	copy(b, synced)
	for at := 0; at < size; at += sector {
		if end := min(at+sector, size, len(now)); at < end && d.rand.Float64() < share {
			copy(b[at:end], now[at:end])
		}
	}
	return b
}
