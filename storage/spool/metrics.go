package spool

import (
	"errors"
	"math"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	sync        prometheus.Histogram
	failedSyncs prometheus.Counter
	dropped     prometheus.Counter
	unstored    atomic.Int64 // bytes of segments that are not in the database as a whole
}

func (m *metrics) register(w *Writer, reg prometheus.Registerer) error {
	m.sync = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "gt06_spool_sync_seconds", Help: "Time an fdatasync of the log took.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
	})
	m.failedSyncs = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "gt06_spool_failed_syncs_total", Help: "Syncs that failed; what they covered was written again elsewhere.",
	})
	m.dropped = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "gt06_spool_segments_dropped_total", Help: "Segments dropped by age or for room, all of them in the database.",
	})
	return errors.Join(
		reg.Register(m.sync), reg.Register(m.failedSyncs), reg.Register(m.dropped),
		reg.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "gt06_spool_records_total", Help: "Records appended to the log by this process.",
		}, func() float64 { return float64(w.appended.Load()) })),
		reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gt06_spool_bytes", Help: "Size of the log on disk.",
		}, func() float64 { return float64(w.bytes.Load()) })),
		reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gt06_spool_max_bytes", Help: "Limit of the log's size (spool.max_bytes).",
		}, func() float64 { return float64(w.opt.MaxBytes) })),
		reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gt06_spool_unstored_bytes", Help: "Size of the segments that are not in the database as a whole: they must stay.",
		}, func() float64 { return float64(m.unstored.Load()) })),
		reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gt06_disk_free_bytes", Help: "Free on the file system of the log, to users without privileges.",
		}, func() float64 { return w.space(false) })),
		reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gt06_disk_bytes", Help: "Size of the file system of the log.",
		}, func() float64 { return w.space(true) })),
		reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gt06_spool_full", Help: "1 while there is no room for more records.",
		}, func() float64 {
			if w.full.Load() != nil {
				return 1
			}
			return 0
		})),
	)
}

// space returns what the file system of the log has, in all or free; NaN when
// it does not say.
func (w *Writer) space(all bool) float64 {
	total, free, err := space(w.opt.Dir)
	switch {
	case err != nil:
		return math.NaN()
	case all:
		return float64(total)
	}
	return float64(free)
}
