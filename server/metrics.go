package server

import (
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"gt06/protocol"
)

// rejection is why a frame is kept but becomes no row of its kind.
type rejection uint8

// The reasons, the first that holds counts: a frame is rejected once.
const (
	rejectedPanic rejection = iota
	rejectedEarly
	rejectedCRC
	rejectedUnknown
	rejectedDamaged
	numRejections
)

//nolint:gochecknoglobals // read-only table
var rejectionNames = [numRejections]string{"decoder_panic", "before_login", "bad_crc", "unknown", "damaged"}

// counters are what the loops count. A loop counts a batch in plain locals and
// adds them here once, so that no cache line is fought over per frame.
type counters struct {
	in       [256]atomic.Uint64 // frames by type
	out      [256]atomic.Uint64 // answers by the type of the frame answered, and commands
	rejected [numRejections]atomic.Uint64
	answers  atomic.Uint64 // bytes
	input    atomic.Uint64 // bytes
	junk     atomic.Uint64 // bytes
	twins    atomic.Uint64
	flaps    atomic.Uint64
	badDigit atomic.Uint64
	paced    atomic.Uint64
	waits    atomic.Uint64
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
	refusedNetwork
	refusedNetworkFailures
	refusedFailures
	numRefusals
)

//nolint:gochecknoglobals // read-only table
var refusalNames = [numRefusals]string{"connections", "no_room", "descriptors", "network_accepts", "network_failed_logins", "failed_logins"}

// collector shows the counters to Prometheus.
type collector struct {
	s                                 *Server
	frames, rejected, closed, refused *prometheus.Desc
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
		frames:      desc("frames_total", "Frames cut from the input (in), answers and commands (out), by message type; types that no table knows are other.", "dir", "proto"),
		rejected:    desc("frames_rejected_total", "Frames that are kept but become no row of their kind, by reason.", "reason"),
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
			{desc("twin_devices_total", "Logins of a device that is alive on another connection."), &c.twins},
			{desc("flapping_logins_total", "Logins of devices that logged in too often within a minute."), &c.flaps},
			{desc("logins_bad_check_digit_total", "Logins whose IMEI has a wrong check digit."), &c.badDigit},
			{desc("reads_paced_total", "Times a connection brought more than its share and was left unread for a while."), &c.paced},
			{desc("accept_waits_total", "Times connections waited in the kernel because too many came at once."), &c.waits},
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
	c.types(func(v uint64, dir, proto string) { counter(c.frames, v, dir, proto) })
	for r := range numRejections {
		counter(c.rejected, c.s.count.rejected[r].Load(), rejectionNames[r])
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

// types yields the frames of each type the protocol knows and of all others
// together: what a device sends never makes a series.
func (c *collector) types(yield func(v uint64, dir, proto string)) {
	for dir, counts := range map[string]*[256]atomic.Uint64{"in": &c.s.count.in, "out": &c.s.count.out} {
		var other uint64
		for t := range counts {
			if n := counts[t].Load(); protocol.Known(byte(t)) {
				yield(n, dir, fmt.Sprintf("0x%02x", t))
			} else {
				other += n
			}
		}
		yield(other, dir, "other")
	}
}
