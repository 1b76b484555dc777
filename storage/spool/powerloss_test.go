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
	"gt06/storage/powertest"
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

// process is who writes to a disk whose power is cut, until it is killed.
type process struct {
	files
	*powertest.Disk
	dead atomic.Bool
}

var errKilled = errors.New("the process is gone")

// do is one operation of a process that lives.
func (p *process) do(op func() error) error {
	return p.Do(func() error {
		if p.dead.Load() {
			return errKilled
		}
		return op()
	})
}

func (p *process) create(path string) (f *os.File, err error) {
	err = p.do(func() error {
		if f, err = p.files.create(path); err == nil {
			p.Created(path)
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
	return p.do(func() error { return p.Synced(f.Name(), now) })
}

func (p *process) syncDir(dir string) error {
	return p.do(func() error {
		p.DirSynced(dir)
		return nil
	})
}

func (p *process) remove(path string) error {
	return p.do(func() error {
		p.Removed(path)
		return p.files.remove(path)
	})
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
		live(t, powertest.New(t, dir, r, 0.01), dir, after, r, answered, next)
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
func live(t testing.TB, d *powertest.Disk, dir, after string, r *rand.Rand, answered map[int]bool, next *atomic.Int64) {
	t.Helper()
	owners, enough := 1+r.IntN(3), int64(1+r.IntN(40))
	var mu sync.Mutex
	var said []int
	for range owners {
		p := &process{Disk: d}
		w, err := Open(Options{Dir: dir, SegmentBytes: 8 << 10, MaxBytes: 1 << 30, MinFree: 1, disk: p})
		if err != nil {
			continue // a sync failed: the server would end, and start again
		}
		if d.Trusted() { // what a killed owner left is answered by the next
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
			d.Cut(t, after, func() {
				mu.Lock()
				defer mu.Unlock()
				for _, k := range said {
					answered[k] = true
				}
			})
		}
		p.dead.Store(true)
		<-ended
		_ = w.Close()
	}
	if !d.Off() { // the last owner could not open it
		d.Cut(t, after, func() {
			for _, k := range said {
				answered[k] = true
			}
		})
	}
}
