package sink

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are shared by the sinks of a process; each has the label of its name.
type metrics struct {
	records, missed, errors *prometheus.CounterVec
	seconds                 *prometheus.HistogramVec
}

// newMetrics registers the metrics of a sink.
func newMetrics(s *Sink, reg prometheus.Registerer) (*metrics, error) {
	const sink = "sink"
	m := &metrics{
		records: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gt06_sink_records_total", Help: "Records of the log whose events a sink's receiver has taken."}, []string{sink}),
		missed:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gt06_sink_missed_records_total", Help: "Records that were gone from the log before a sink could send them."}, []string{sink}),
		errors:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gt06_sink_errors_total", Help: "Batches that were not taken, by what the error means."}, []string{sink, "kind"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "gt06_sink_send_seconds", Help: "Time until a receiver had taken a batch.", Buckets: prometheus.ExponentialBuckets(.001, 2, 16),
		}, []string{sink}),
	}
	label := prometheus.Labels{sink: s.opt.Name}
	err := errors.Join(
		Register(reg, &m.records), Register(reg, &m.missed), Register(reg, &m.errors), Register(reg, &m.seconds),
		reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gt06_sink_lag_records", Help: "Records of the log that a sink has not sent yet.", ConstLabels: label,
		}, func() float64 { return float64(s.Status().Lag) })),
		reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "gt06_sink_oldest_unsent_seconds", Help: "Age of the oldest record that a sink is trying to send, 0: there is none.", ConstLabels: label,
		}, func() float64 { return s.Status().Oldest.Seconds() })),
	)
	m.records.WithLabelValues(s.opt.Name)
	m.missed.WithLabelValues(s.opt.Name)
	for _, k := range []Kind{KindConnect, KindTimeout, KindBusy, KindServer, KindRejected, KindRedirect, KindCursor, KindLog, KindOther} {
		m.errors.WithLabelValues(s.opt.Name, string(k))
	}
	return m, err
}

// Register registers a collector, or takes the one that another sink has
// registered.
func Register[C prometheus.Collector](reg prometheus.Registerer, c *C) error {
	err := reg.Register(*c)
	if have, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if old, ok := have.ExistingCollector.(C); ok {
			*c = old
			return nil
		}
	}
	return err
}
