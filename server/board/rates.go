package board

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"gt06/server"
)

// Rates are the last half hour in steps: what the curves are drawn from and
// reconnects are judged by. They outlive the process in a small file beside its
// sockets, so that an upgrade is a line in the middle of the curves and not
// their beginning, and a storm that an upgrade sets off is seen at once:
//
//	header, 64 bytes
//	+-------------+------------+-----------+----------+---------+-------+
//	| gt06rate  8 | version  2 | columns 2 | slots  4 | step ms 4| crc 4 |
//	+-------------+------------+-----------+----------+---------+-------+
//	slot, at 64 + n * (8 + 4 * columns)
//	+-----------------------+---------------------------+
//	| Unix milliseconds   8 | a float32 for each column |
//	+-----------------------+---------------------------+
//
// crc is of the names of the columns. A file of another form is no harm: it is
// begun anew. A step goes into the slot behind the newest, which their times
// tell, and is one write, so a kill at any time leaves a file that can be read.
type Rates struct {
	step    time.Duration
	columns []string

	mu     sync.Mutex
	slots  []Sample
	next   int      // the slot behind the newest
	file   *os.File // nil: kept in memory only
	last   server.Totals
	lastAt time.Time
}

// Sample is one step.
type Sample struct {
	At     int64     // Unix milliseconds; 0: empty
	Values []float32 // by column
}

const (
	span         = 30 * time.Minute
	ratesVersion = 1
	ratesHeader  = 64
)

//nolint:gochecknoglobals // a constant
var ratesMagic = []byte("gt06rate")

// The columns before the reasons of closes. Connections, log and lag are as
// they were at the end of the step, the others happened within it.
const (
	colAccepted = iota
	colFrames
	colHalf // half of the answers took at most so many milliseconds; NaN: there were none
	colMost // 99 of 100
	colConnections
	colLog // bytes
	colLag // records
	colReasons
)

// Gauges are what a step notes beside the totals.
type Gauges struct {
	Connections int
	LogBytes    int64
	Lag         int64
}

func newRates(step time.Duration) *Rates {
	r := &Rates{step: step, columns: append([]string{"accepted", "frames", "half_ms", "most_ms", "connections", "log_bytes", "lag"}, server.CloseReasons()[1:]...)}
	r.slots = make([]Sample, int(span/step))
	return r
}

// open goes on with the file at path. Without one the rates are kept in memory:
// the error says why, and is no reason not to serve.
func (r *Rates) open(path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(ratesHeader+len(r.slots)*r.size())))
	if err == nil && !r.parse(b) {
		err = errors.Join(f.Truncate(0), writeAt(f, r.header(), 0))
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r.file = f
	return nil
}

func writeAt(f *os.File, b []byte, at int64) error {
	_, err := f.WriteAt(b, at)
	return err
}

func (r *Rates) size() int { return 8 + 4*len(r.columns) }

func (r *Rates) header() []byte {
	b := binary.LittleEndian.AppendUint16(slices.Clone(ratesMagic), ratesVersion)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(r.columns)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.slots)))
	b = binary.LittleEndian.AppendUint32(b, uint32(r.step.Milliseconds()))
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE([]byte(strings.Join(r.columns, " "))))
	return append(b, make([]byte, ratesHeader-len(b))...)
}

// parse takes what an earlier process left. It reports whether the file has
// this form.
func (r *Rates) parse(b []byte) bool {
	if len(b) < ratesHeader || !bytes.Equal(b[:ratesHeader], r.header()) {
		return false
	}
	b = b[ratesHeader:]
	for i := range r.slots {
		if len(b) < r.size() {
			break
		}
		if at := int64(binary.LittleEndian.Uint64(b)); at > 0 {
			s := Sample{At: at, Values: make([]float32, len(r.columns))}
			for c := range s.Values {
				s.Values[c] = math.Float32frombits(binary.LittleEndian.Uint32(b[8+4*c:]))
			}
			r.slots[i] = s
			if newest := r.slots[(r.next+len(r.slots)-1)%len(r.slots)]; at >= newest.At {
				r.next = (i + 1) % len(r.slots)
			}
		}
		b = b[r.size():]
	}
	return true
}

// Close frees the file.
func (r *Rates) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}

// note ends a step. The first of a process only remembers the totals.
func (r *Rates) note(t server.Totals, g Gauges, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.last
	r.last, r.lastAt = t, now
	if before.Closed == nil {
		before = server.Totals{Closed: make([]uint64, len(t.Closed))} // a process begins with nothing counted
	}
	v := make([]float32, len(r.columns))
	v[colAccepted] = float32(t.Accepted - before.Accepted)
	v[colFrames] = float32(t.Frames - before.Frames)
	v[colHalf], v[colMost] = quantile(before.Answers, t.Answers, .5), quantile(before.Answers, t.Answers, .99)
	v[colConnections], v[colLog], v[colLag] = float32(g.Connections), float32(g.LogBytes), float32(g.Lag)
	for i := range t.Closed[1:] {
		v[colReasons+i] = float32(t.Closed[1+i] - before.Closed[1+i])
	}
	at := now.UnixMilli()
	i := r.next
	r.slots[i], r.next = Sample{At: at, Values: v}, (i+1)%len(r.slots)
	if r.file != nil {
		b := binary.LittleEndian.AppendUint64(nil, uint64(at))
		for _, f := range v {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
		}
		if writeAt(r.file, b, int64(ratesHeader+i*r.size())) != nil {
			_ = r.file.Close() // the curves are not worth a word each step
			r.file = nil
		}
	}
}

// quantile returns the p-quantile in milliseconds of what came between two
// histograms, straight within a bucket; NaN when nothing came.
func quantile(before, after []server.Bucket, p float64) float32 {
	count := func(i int) float64 {
		if i < len(before) {
			return float64(after[i].Count - before[i].Count)
		}
		return float64(after[i].Count)
	}
	if len(after) == 0 || count(len(after)-1) == 0 {
		return float32(math.NaN())
	}
	want := p * count(len(after)-1)
	low, below := 0.0, 0.0
	for i := range after {
		if math.IsInf(after[i].Seconds, 1) {
			break
		}
		if c := count(i); c >= want && c > below {
			return float32(1000 * (low + (after[i].Seconds-low)*(want-below)/(c-below)))
		}
		low, below = after[i].Seconds, count(i)
	}
	return float32(1000 * low)
}

// since returns the samples after a time, the oldest first.
func (r *Rates) since(after int64, now time.Time) []Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sorted(after, now)
}

// sorted is since with the lock held.
func (r *Rates) sorted(after int64, now time.Time) []Sample {
	after = max(after, now.Add(-span).UnixMilli())
	var list []Sample
	for _, s := range r.slots {
		if s.At > after && s.At <= now.UnixMilli() {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b Sample) int { return int(a.At - b.At) })
	return list
}

// accepted returns how many connections came within a window, those that the
// open step has seen included, and how far back from now that is known without
// a hole. total is the server's counter of now.
func (r *Rates) accepted(window time.Duration, total uint64, now time.Time) (n float64, known time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.sorted(now.Add(-window-r.step).UnixMilli(), now)
	n = float64(max(total, r.last.Accepted) - r.last.Accepted) // a step may have ended since the counter was read
	const missed = 6                                           // steps that may be missing: an upgrade or a rescue is shorter
	edge := now.UnixMilli()
	for _, s := range slices.Backward(list) {
		if edge-s.At > missed*r.step.Milliseconds() {
			break
		}
		n += float64(s.Values[colAccepted])
		edge = s.At
	}
	return n, min(window, time.Duration(now.UnixMilli()-edge)*time.Millisecond)
}
