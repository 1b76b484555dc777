package server

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"gt06/protocol"
)

// numKinds is the number of message kinds; kinds are a closed set.
const numKinds = int(protocol.KindOBD) + 1

// counters are what the loops count. A loop counts a batch in plain locals and
// adds them here once, so that no cache line is fought over per frame.
type counters struct {
	frames   [numKinds]atomic.Uint64
	answers  atomic.Uint64 // bytes
	input    atomic.Uint64 // bytes
	junk     atomic.Uint64 // bytes
	badCRC   atomic.Uint64
	damaged  atomic.Uint64 // frames not or partly decoded
	panics   atomic.Uint64
	early    atomic.Uint64 // frames before a login
	twins    atomic.Uint64
	accepted atomic.Uint64
	closed   [numReasons]atomic.Uint64
	refused  [numRefusals]atomic.Uint64
	open     atomic.Int64
}

// refusal is why a connection was not accepted.
type refusal uint8

const (
	refusedLimit refusal = iota
	refusedRoom
	refusedDescriptors
	numRefusals
)

//nolint:gochecknoglobals // read-only table
var refusalNames = [numRefusals]string{"connections", "no_room", "descriptors"}

// collector shows the counters to Prometheus.
type collector struct {
	s                                 *Server
	frames, closed, refused           *prometheus.Desc
	plain                             []plainCounter
	connections, devices, stoppedDesc *prometheus.Desc
}

type plainCounter struct {
	desc  *prometheus.Desc
	value *atomic.Uint64
}

func newCollector(s *Server) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("gt06_"+name, help, labels, nil)
	}
	c := &s.count
	return &collector{
		s:           s,
		frames:      desc("frames_total", "Frames cut from the input, by kind.", "kind"),
		closed:      desc("connections_closed_total", "Connections that ended, by reason.", "reason"),
		refused:     desc("connections_refused_total", "Connections closed at once, by reason.", "reason"),
		connections: desc("connections_open", "Device connections that are open."),
		devices:     desc("devices_online", "Devices with a current connection."),
		stoppedDesc: desc("ingest_stopped", "1 while nothing is read because nothing can be made durable."),
		plain: []plainCounter{
			{desc("connections_accepted_total", "Connections accepted."), &c.accepted},
			{desc("input_bytes_total", "Bytes taken from devices."), &c.input},
			{desc("answer_bytes_total", "Bytes recorded as answers to devices."), &c.answers},
			{desc("junk_bytes_total", "Bytes between frames that belong to no frame."), &c.junk},
			{desc("frames_bad_crc_total", "Frames whose checksum is wrong."), &c.badCRC},
			{desc("frames_damaged_total", "Frames that could not be decoded in whole."), &c.damaged},
			{desc("frames_before_login_total", "Frames on connections without a login; kept, not answered."), &c.early},
			{desc("decoder_panics_total", "Frames on which the decoder panicked; kept and answered."), &c.panics},
			{desc("twin_devices_total", "Logins of a device that is alive on another connection."), &c.twins},
		},
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	for k := range numKinds {
		counter(c.frames, c.s.count.frames[k].Load(), protocol.Kind(k).String())
	}
	for r := closeNone + 1; r < numReasons; r++ {
		counter(c.closed, c.s.count.closed[r].Load(), r.String())
	}
	for r := range numRefusals {
		counter(c.refused, c.s.count.refused[r].Load(), refusalNames[r])
	}
	for _, p := range c.plain {
		counter(p.desc, p.value.Load())
	}
	gauge(c.connections, float64(c.s.count.open.Load()))
	gauge(c.devices, float64(c.s.registry.Len()))
	stopped := 0.0
	if c.s.Stopped() != "" {
		stopped = 1
	}
	gauge(c.stoppedDesc, stopped)
}
