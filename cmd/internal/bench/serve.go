package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"gt06/storage"
	"gt06/storage/spool"
)

// crowd is how many devices the most of a figure are: what descriptors allow,
// at most 19,000.
func (b *bench) crowd() int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 500
	}
	lim.Cur = lim.Max
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
	return int(min(lim.Max-800, uint64(b.pick(19_000, 2_000))))
}

func (b *bench) sizes() []int {
	most := b.crowd()
	var list []int
	for _, n := range []int{100, 1000, 5000, 10_000} {
		if n < most {
			list = append(list, n)
		}
	}
	return append(list, most)
}

// noDatabase names one that is away: all is durable in the log, and waits there.
//
//nolint:gochecknoglobals // read-only
var noDatabase = []string{"--store", "mariadb", "--dsn", "nobody@unix(/nonexistent)/gt06"}

// start measures the time from exec to ready.
func (b *bench) start() error {
	ready := func(fill bool) (float64, error) {
		var ms []float64
		dir, err := os.MkdirTemp(b.dir, "start-")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
		args := []string{"--keeper", "off"}
		if fill {
			if err := fillSpool(filepath.Join(dir, "spool"), b.pick(16, 2)); err != nil {
				return 0, err
			}
			args = append(args, noDatabase...) // nothing is read while it is measured
		}
		for range b.pick(21, 3) {
			begin := time.Now()
			t, err := b.full(dir, args...)
			if err != nil {
				return 0, err
			}
			ms = append(ms, float64(time.Since(begin).Microseconds())/1000)
			t.dir = "" // it is started again
			t.stop()
		}
		return median(ms), nil
	}
	empty, err := ready(false)
	if err != nil {
		return err
	}
	b.note(Figure{Name: "start, empty log", Value: empty, Unit: "ms", Goal: "<= 100 ms", Met: atMost(empty, 100)})
	full, err := ready(true)
	if err != nil {
		return err
	}
	b.note(Figure{Name: fmt.Sprintf("start, %d MiB of log", 64*b.pick(16, 2)), Value: full, Unit: "ms", Reference: "empty log", Beside: empty, Goal: "<= 2000 ms", Met: atMost(full, 2000)})
	return nil
}

// fillSpool writes segments of 64 MiB that no server has read.
func fillSpool(dir string, segments int) error {
	w, err := spool.Open(spool.Options{Dir: dir, MaxBytes: 4 << 30, MinFree: 1})
	if err != nil {
		return err
	}
	batch := make([]*storage.Record, 100)
	for i := range batch {
		batch[i] = &storage.Record{Conn: 7, InputEnd: 1, Input: make([]byte, 4000), Flags: storage.Junk}
	}
	for int(w.End().Segment()) <= segments {
		if _, err := w.Append(batch); err != nil {
			return errors.Join(err, w.Close())
		}
	}
	return w.Close()
}

// memory measures what one more idle, logged-in connection costs, server and
// keeper together.
func (b *bench) memory() error {
	line := series{name: "server and keeper"}
	for _, n := range b.sizes()[1:] {
		tries := 1
		if n >= 10_000 {
			tries = 3 // by how far the heap is from its next collection just then
		}
		var found []float64
		for range tries {
			per, err := b.residentEach(n)
			if err != nil {
				return err
			}
			found = append(found, per)
		}
		per := median(found)
		line.add(float64(n), per)
		f := Figure{Name: fmt.Sprintf("memory of an idle connection, %d open", n), Value: per, Unit: "KiB"}
		if n >= 10_000 || b.opt.Quick {
			f.Goal, f.Met = "<= 1.0 KiB", atMost(per, 1)
		}
		b.note(f)
	}
	b.plots = append(b.plots, plot{file: "memory", title: "Resident memory per idle connection", x: "connections", y: "KiB", lines: []series{line}})
	return nil
}

func (b *bench) residentEach(n int) (kib float64, err error) {
	t, err := b.full("")
	if err != nil {
		return 0, err
	}
	defer t.stop()
	// One that came before takes what is taken once.
	first, err := newLoad(t.addr, 1)
	if err != nil {
		return 0, err
	}
	defer first.close()
	if _, err := first.connect(1); err != nil {
		return 0, err
	}
	if err := b.until(10*time.Second, "the first rows", func() bool { lag, err := t.lag(b.ctx); return err == nil && lag == 0 }); err != nil {
		return 0, err
	}
	before := t.resident()
	l, err := newLoad(t.addr, n)
	if err != nil {
		return 0, err
	}
	defer l.close()
	if _, err := l.connect(256); err != nil {
		return 0, err
	}
	if err := b.until(30*time.Second, "the rows of the logins", func() bool { lag, err := t.lag(b.ctx); return err == nil && lag == 0 }); err != nil {
		return 0, err
	}
	return (t.resident() - before) / float64(n) / 1024, nil
}

// one is a server under a closed loop.
type one struct {
	perSecond, cpu float64 // answers, microseconds a frame
	spent          string  // who used the processors, where that is asked
}

// loop drives a server with one frame of each device on its way.
func (b *bench) loop(begin func() (*target, error), devices int, churn float64, d time.Duration) (one, error) {
	t, err := begin()
	if err != nil {
		return one{}, err
	}
	defer t.stop()
	return b.drive(t, devices, churn, d)
}

func (b *bench) drive(t *target, devices int, churn float64, d time.Duration) (one, error) {
	l, err := newLoad(t.addr, devices)
	if err != nil {
		return one{}, err
	}
	defer l.close()
	if _, err := l.connect(256); err != nil {
		return one{}, err
	}
	before := t.cpu()
	perSecond, err := l.saturate(d, churn)
	if err != nil {
		return one{}, err
	}
	if l.ended > 0 {
		return one{}, fmt.Errorf("the server ended %d connections", l.ended)
	}
	return one{perSecond: perSecond, cpu: (t.cpu() - before) * 1e6 / float64(l.frames)}, nil
}

// answers compares processor time and answers a second with the bare C server,
// without log and database, with the keeper, while one device of a hundred
// comes again each second; then how the cost grows with the connections.
func (b *bench) answers() error {
	if b.newReference == nil {
		return nil
	}
	d := time.Duration(b.pick(2000, 500)) * time.Millisecond
	lines := []series{{name: "gt06"}, {name: "C, epoll only"}}
	for _, n := range b.sizes() {
		var ours, theirs, rate, theirRate []float64
		rounds := 3
		if goal := n == 1000 || n == 10_000; goal {
			rounds = 5
		}
		for range b.pick(rounds, 1) {
			c, err := b.loop(b.newReference, n, .01, d)
			if err != nil {
				return fmt.Errorf("the C reference with %d devices: %w", n, err)
			}
			g, err := b.loop(b.bare, n, .01, d)
			if err != nil {
				return fmt.Errorf("%d devices: %w", n, err)
			}
			ours, theirs = append(ours, g.cpu), append(theirs, c.cpu)
			rate, theirRate = append(rate, g.perSecond), append(theirRate, c.perSecond)
		}
		f := Figure{Name: fmt.Sprintf("processor time a frame, %d devices", n), Value: median(ours), Unit: "us", Reference: "C, epoll only", Beside: median(theirs)}
		if n == 1000 || n == 10_000 {
			f.Goal, f.Met = "<= 1.5 x", atMost(median(ours)/median(theirs), 1.5)
		}
		b.note(f)
		if n == 1000 {
			b.note(Figure{Name: "answers a second, 1000 devices", Value: median(rate), Unit: "/s", Reference: "C, epoll only", Beside: median(theirRate)})
		}
		lines[0].add(float64(n), median(ours))
		lines[1].add(float64(n), median(theirs))
	}
	least, most := lines[0].extremes()
	b.note(Figure{Name: "cost as work grows", Value: most, Unit: "us a frame at most", Reference: "at least", Beside: least, Goal: "linear: <= 1.5 x", Met: atMost(most/least, 1.5)})
	b.plots = append(b.plots, plot{file: "cpu", title: "Processor time per frame, answers only", x: "connections", y: "us", lines: lines})
	return nil
}

// storm lets many devices connect and log in at once.
func (b *bench) storm() error {
	n := min(b.crowd(), 10_000)
	var seconds, slowest, refused, theirs []float64
	once := func(start func() (*target, error)) (time.Duration, *load, error) {
		t, err := start()
		if err != nil {
			return 0, nil, err
		}
		defer t.stop()
		return b.rush(t, n)
	}
	for range b.pick(5, 1) {
		took, l, err := once(func() (*target, error) { return b.full("") })
		if err != nil {
			return err
		}
		seconds = append(seconds, took.Seconds())
		slowest = append(slowest, percentile(l.logins, 1))
		refused = append(refused, float64(l.refused+l.ended))
		if b.newReference == nil {
			continue
		}
		if took, _, err = once(b.newReference); err != nil {
			return err
		}
		theirs = append(theirs, took.Seconds())
	}
	s, worst := median(seconds), median(slowest)
	f := Figure{Name: fmt.Sprintf("reconnect storm, %d devices", n), Value: s, Unit: "s", Goal: "<= 3 s, answers < 1 s, 0 refused"}
	met := s <= 3 && worst < 1000 && median(refused) == 0
	f.Met, f.Note = &met, fmt.Sprintf("slowest answer %.0f ms, %.0f refused", worst, median(refused))
	if len(theirs) > 0 {
		f.Reference, f.Beside = "C, epoll only", median(theirs)
	}
	b.note(f)
	return nil
}

func (b *bench) rush(t *target, n int) (time.Duration, *load, error) {
	l, err := newLoad(t.addr, n)
	if err != nil {
		return 0, nil, err
	}
	defer l.close()
	took, err := l.connect(2048)
	return took, l, err
}
