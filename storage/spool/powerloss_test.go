package spool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gt06/storage"
)

// faulty is a disk whose operations may fail.
type faulty struct {
	files
	fault func(op string) error
}

func (d faulty) create(path string) (*os.File, error) {
	if err := d.fault("create"); err != nil {
		return nil, err
	}
	return d.files.create(path)
}

func (d faulty) writeAt(f *os.File, b []byte, at int64) error {
	if err := d.fault("write"); err != nil {
		return err
	}
	return d.files.writeAt(f, b, at)
}

func (d faulty) syncData(f *os.File) error {
	if err := d.fault("sync"); err != nil {
		return err
	}
	return d.files.syncData(f)
}

// mortal is a disk whose power is cut. What was written lies in files as a
// page cache shows it; what would be found after the cut is made from what was
// synced and a random part of the rest, sector by sector: all of it, none, or
// any between, in any order. The name of a file that was created or removed is
// certain only once its directory was synced. A sync may fail; then what it
// should have kept is as uncertain as if nobody had asked, for good.
type mortal struct {
	mu      sync.Mutex
	rand    *rand.Rand
	failing float64 // share of syncs that fail
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

var errPower = errors.New("the power is off")

// newMortal knows what a directory holds: after a cut all of it is certain.
func newMortal(t testing.TB, dir string, r *rand.Rand) *mortal {
	t.Helper()
	d := &mortal{rand: r, failing: 0.01, known: map[string]*platter{}}
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

// process is who writes to it, until it is killed.
type process struct {
	files
	*mortal
	dead bool
}

func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
}

// do is one operation, unless the power is off.
func (p *process) do(op func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off || p.dead {
		return errPower
	}
	return op()
}

func (p *process) create(path string) (f *os.File, err error) {
	err = p.do(func() error {
		if f, err = p.files.create(path); err == nil {
			p.known[path] = &platter{}
		}
		return err
	})
	return f, err
}

func (p *process) writeAt(f *os.File, b []byte, at int64) error {
	return p.do(func() error { return p.files.writeAt(f, b, at) })
}

func (p *process) truncate(f *os.File, size int64) error {
	return p.do(func() error { return p.files.truncate(f, size) })
}

func (p *process) allocate(f *os.File, from, to int64) error {
	return p.do(func() error { return p.files.allocate(f, from, to) })
}

func (p *process) sync(f *os.File) error { return p.syncData(f) }

// syncData makes certain what was there when it began, once it is done.
func (p *process) syncData(f *os.File) error {
	var now []byte
	if err := p.do(func() (err error) {
		now, err = os.ReadFile(f.Name())
		return err
	}); err != nil {
		return err
	}
	return p.do(func() error {
		on := p.known[f.Name()]
		if p.rand.Float64() < p.failing {
			on.failed = true
			return errors.New("EIO")
		}
		if !on.failed {
			on.synced = now
		}
		return nil
	})
}

func (p *process) syncDir(dir string) error {
	return p.do(func() error {
		for path, on := range p.known {
			switch {
			case filepath.Dir(path) != dir:
			case on.removed:
				delete(p.known, path)
			default:
				on.named = true
			}
		}
		return nil
	})
}

func (p *process) remove(path string) error {
	return p.do(func() error {
		if on := p.known[path]; on != nil {
			on.removed = true
		}
		return p.files.remove(path)
	})
}

// trusted says whether no sync has failed: the records of a killed owner may be
// in a page cache that is not written any more.
func (d *mortal) trusted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.known {
		if p.failed {
			return false
		}
	}
	return true
}

// cut takes the power and writes what is found afterwards to another directory.
// certain is called in between: what was answered until then was answered.
func (d *mortal) cut(t testing.TB, to string, certain func()) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
	certain()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, p := range d.known {
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
func (d *mortal) found(synced, now []byte) []byte {
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

// TestPowerLoss cuts the power again and again under servers that write, fail to
// sync, and are killed in between: what was answered is there.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	cuts := 100
	if os.Getenv("GT06_SOAK") != "" {
		cuts = 1000
	}
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test's
	t.Logf("seed %d", seed)
	root := t.TempDir()
	answers, later := 0, 0
	var answered map[int]bool
	next := new(atomic.Int64)
	dir := ""
	for n := range cuts {
		if n%10 == 0 { // a new disk: so that old segments need not be read for ever
			_ = os.RemoveAll(dir)
			dir, answered, next = filepath.Join(root, fmt.Sprint(n)), map[int]bool{}, new(atomic.Int64)
		}
		after := filepath.Join(root, fmt.Sprintf("%d-after", n))
		live(t, newMortal(t, dir, r), dir, after, r, answered, next)
		_ = os.RemoveAll(dir)
		dir = after
		found := map[int]bool{}
		list, _ := everything(t, dir)
		for _, k := range list {
			if found[k] || int64(k) >= next.Load() {
				t.Fatalf("cut %d: record %d is there twice, or was never written", n, k)
			}
			found[k] = true
			if !answered[k] {
				later++
			}
		}
		for k := range answered {
			if !found[k] {
				t.Fatalf("cut %d: record %d was answered and is lost; seed %d", n, k, seed)
			}
		}
		answers += len(answered)
		// What is read is answered by the next owner: it must stay.
		for k := range found {
			answered[k] = true
		}
	}
	t.Logf("%d cuts: %d times a record was answered and found, %d times one was found that was not", cuts, answers, later)
	if answers == 0 || later == 0 {
		t.Error("nothing was answered, or nothing was in flight: the test shows nothing")
	}
}

// live is one life of a directory between two cuts: owners that append from
// several loops, some of which are killed.
func live(t testing.TB, d *mortal, dir, after string, r *rand.Rand, answered map[int]bool, next *atomic.Int64) {
	t.Helper()
	owners, enough := 1+r.IntN(3), int64(1+r.IntN(40))
	var mu sync.Mutex
	var said []int
	for range owners {
		p := &process{mortal: d}
		w, err := Open(Options{Dir: dir, SegmentBytes: 8 << 10, MaxBytes: 1 << 30, MinFree: 1, disk: p})
		if err != nil {
			continue // a sync failed: the server would end, and start again
		}
		if d.trusted() { // what a killed owner left is answered by the next
			list, _ := everything(t, dir)
			said = append(said, list...)
		}
		var wg sync.WaitGroup
		count := new(atomic.Int64)
		reached := make(chan struct{})
		for range 3 {
			wg.Go(func() {
				for {
					batch := []int{int(next.Add(1) - 1), int(next.Add(1) - 1)}
					pos, err := w.Append([]*storage.Record{record(batch[0]), record(batch[1])})
					if err == nil {
						err = w.Sync(pos, 10*time.Second)
					}
					if err != nil {
						return
					}
					mu.Lock()
					said = append(said, batch...)
					mu.Unlock()
					if count.Add(1) == enough {
						close(reached)
					}
				}
			})
		}
		ended := make(chan struct{})
		go func() { wg.Wait(); close(ended) }()
		select {
		case <-reached:
		case <-ended: // the log is broken: the server ends
		}
		if owners--; owners == 0 {
			d.cut(t, after, func() {
				mu.Lock()
				defer mu.Unlock()
				for _, k := range said {
					answered[k] = true
				}
			})
		}
		p.kill()
		<-ended
		_ = w.Close()
	}
	if !d.off { // the last owner could not open it
		d.cut(t, after, func() {
			for _, k := range said {
				answered[k] = true
			}
		})
	}
}
