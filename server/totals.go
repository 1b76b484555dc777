package server

import (
	"math"

	dto "github.com/prometheus/client_model/go"
)

// Totals are what was counted since this process began: who draws rates takes
// the difference of two.
type Totals struct {
	Accepted uint64
	Frames   uint64
	Closed   []uint64 // by CloseReason
	Answers  []Bucket // answer times, cumulative
}

// Bucket is how many answers took at most so long.
type Bucket struct {
	Seconds float64
	Count   uint64
}

// CloseReasons names the reasons that Totals.Closed is indexed by. The first is
// none and never counted.
func CloseReasons() []string { return append([]string(nil), reasonNames[:]...) }

// Totals returns the counters of now.
func (s *Server) Totals() Totals {
	t := Totals{Accepted: s.count.accepted.Load(), Closed: make([]uint64, numReasons)}
	for typ := range s.count.in {
		t.Frames += s.count.in[typ].Load()
	}
	for r := range t.Closed {
		t.Closed[r] = s.count.closed[r].Load()
	}
	var m dto.Metric
	if s.delay.Write(&m) == nil {
		for _, b := range m.GetHistogram().GetBucket() {
			t.Answers = append(t.Answers, Bucket{b.GetUpperBound(), b.GetCumulativeCount()})
		}
		t.Answers = append(t.Answers, Bucket{math.Inf(1), m.GetHistogram().GetSampleCount()})
	}
	return t
}
