package server

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"gt06/protocol"
)

// series returns all values of a registry by name and labels.
func series(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}

// A frame is counted by its type and rejected for one reason at most; what a
// device sends never makes a series.
func TestFramesAreCountedByTypeAndReason(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	s, addr := start(t, &memoryLog{}, func(c *Config) { c.Registerer = reg })
	before := series(t, reg)
	c := dial(t, addr)
	damaged := slices.Clone(unhex(t, beatHex))
	damaged[len(damaged)-3] ^= 1
	for _, b := range [][]byte{
		unhex(t, beatHex), // before the login
		unhex(t, loginHex), unhex(t, beatHex),
		protocol.AppendFrame(nil, 0xee, []byte{1, 2, 3}, 9),
		protocol.AppendFrame(nil, 0xef, []byte{1, 2, 3}, 10),
		damaged,
		protocol.AppendFrame(nil, 0x22, []byte{26, 11}, 11),
	} {
		write(t, c, b)
	}
	eventually(t, "all are counted", func() bool { return s.count.in[0x22].Load() == 1 })
	after := series(t, reg)
	for name, want := range map[string]float64{
		"gt06_frames_total dir=in proto=0x13":             3,
		"gt06_frames_total dir=in proto=0x01":             1,
		"gt06_frames_total dir=out proto=0x01":            1,
		"gt06_frames_total dir=in proto=other":            2,
		"gt06_frames_rejected_total reason=before_login":  1,
		"gt06_frames_rejected_total reason=bad_crc":       1,
		"gt06_frames_rejected_total reason=unknown":       2,
		"gt06_frames_rejected_total reason=damaged":       1,
		"gt06_frames_rejected_total reason=decoder_panic": 0,
		"gt06_connections_accepted_total":                 1,
	} {
		if got := after[name]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if a, b := slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)); !slices.Equal(a, b) {
		t.Errorf("series came and went:\n%s\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
	}
}
