package main

import (
	"context"
	"math"
	"path/filepath"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
	"gt06/storage/spool"
)

// figures are the metrics that no package alone can tell: how the store stands
// to the log, and what outlives this process, from where it is kept.
type figures struct {
	a                             *app
	build, generation, keeper     *prometheus.Desc
	queue, oldest                 *prometheus.Desc
	upgrades, moved, took, stall  *prometheus.Desc
	state, devicesHeld, lastStamp *prometheus.Desc
}

func newFigures(a *app) *figures {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("gt06_"+name, help, labels, nil)
	}
	return &figures{
		a:           a,
		build:       desc("build_info", "1, with the version of this program.", "version", "goversion"),
		generation:  desc("generation", "Number of this owner of the log: one more with each start and each upgrade."),
		state:       desc("degraded", "1 while status says degraded, for whatever reason."),
		keeper:      desc("keeper_lost", "1 while connections end with this process although a keeper should hold them."),
		devicesHeld: desc("keeper_held", "Descriptors the keeper holds: connections and the listener."),
		queue:       desc("store_queue_rows", "Records of the log that are not in the database yet."),
		oldest:      desc("store_oldest_unacked_seconds", "Age of the oldest record that is not in the database yet, 0: all are."),
		upgrades:    desc("upgrade_total", "Upgrades in the history of this data directory, by result.", "result"),
		moved:       desc("upgrade_sessions_moved_total", "Connections that upgrades in the history handed over."),
		took:        desc("upgrade_seconds", "Time the last upgrade took as a whole, 0: there was none."),
		stall:       desc("upgrade_stall_seconds", "Time in the last upgrade during which nobody was answered."),
		lastStamp:   desc("upgrade_last_timestamp_seconds", "When the last upgrade was, Unix time, 0: there was none."),
	}
}

// Describe implements prometheus.Collector.
func (f *figures) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(f, ch) }

// Collect implements prometheus.Collector.
func (f *figures) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	one := map[bool]float64{true: 1}
	st := f.a.Status(context.Background())
	gauge(f.build, 1, cli.Version(), runtime.Version())
	gauge(f.generation, float64(st.Generation))
	gauge(f.state, one[st.State == "degraded"])
	_, lost := f.a.keep.state()
	gauge(f.keeper, one[lost != ""])
	held := 0
	if st.Keeper != nil {
		held = st.Keeper.Held
	}
	gauge(f.devicesHeld, float64(held))
	gauge(f.queue, float64(st.Store.Lag))
	gauge(f.oldest, f.a.oldestUnstored(time.Now()))

	var last control.Upgrade
	results := map[string]float64{control.Upgraded: 0, control.RolledBack: 0, control.Refused: 0}
	moved := 0.0
	if list, err := f.a.history(math.MaxInt64); err == nil {
		for _, u := range list {
			if _, known := results[u.Result]; known {
				results[u.Result]++
				moved += float64(u.Moved)
				last = u
			}
		}
	}
	for result, n := range results {
		ch <- prometheus.MustNewConstMetric(f.upgrades, prometheus.CounterValue, n, result)
	}
	ch <- prometheus.MustNewConstMetric(f.moved, prometheus.CounterValue, moved)
	gauge(f.took, last.TotalMS/1000)
	gauge(f.stall, last.StallMS/1000)
	at, err := time.Parse(time.RFC3339, last.At)
	if err != nil {
		at = time.Unix(0, 0)
	}
	gauge(f.lastStamp, float64(at.Unix()))
}

// oldestUnstored returns the age in seconds of the first record that is not in
// the database. While the database has not said where it stands, that is the
// first of this process at least.
func (a *app) oldestUnstored(now time.Time) float64 {
	from := a.first()
	if _, w, _ := a.store.get(); w != nil && w.Status().Begun {
		from = w.Status().Position
	}
	at, err := spool.Oldest(filepath.Join(a.cfg.DataDir, "spool"), from, a.spool.Durable())
	if err != nil || at == 0 {
		return 0
	}
	return max(0, now.Sub(time.UnixMicro(at)).Seconds())
}
