package e2e

import (
	"net/http"
	"strings"
	"testing"

	"gt06/server/control"
)

// What will stop the server is said before it does: by status, /readyz and the
// reasons in both.
func TestReasonsComeBeforeFailures(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, "--config", configFile(t, "limits: {connections: 10}\nmemory: {limit: 300MiB}\nclock: {must_sync: true}\n"))
	d.start()
	d.drained()
	var st control.Status
	if err := d.status(&st); err != nil {
		t.Fatal(err)
	}
	if st.Memory.From != "configuration" || st.Memory.Limit != 300<<20 || st.Memory.Resident < 1<<20 {
		t.Errorf("memory %+v", st.Memory)
	}
	// A machine whose clock nothing synchronises is one of the reasons.
	degraded := func(reason string) bool {
		code, text := d.get("/readyz")
		return d.status(&st) == nil && st.State == "degraded" && strings.Contains(strings.Join(st.Reasons, "; "), reason) &&
			code == http.StatusServiceUnavailable && strings.Contains(text, reason)
	}
	if unsynchronised := st.Clock.Synchronised == "no"; unsynchronised != degraded("not synchronised") {
		t.Errorf("synchronised is %q and the state %s: %v", st.Clock.Synchronised, st.State, st.Reasons)
	}
	const connections = "of 10 connections are open"
	if degraded(connections) {
		t.Error("connections are no problem yet")
	}
	for n := range 9 {
		if _, ok := d.loggedIn(n); !ok {
			t.Fatal("no answer")
		}
	}
	d.eventually("connections are nearly used up", func() bool { return degraded("9 " + connections) })
}
