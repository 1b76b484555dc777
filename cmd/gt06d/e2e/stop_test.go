package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gt06/protocol/device/fleet"
)

// TestStopLeavesNothingInTheLog: behind a stop nobody stores what is in the log
// until the next start, which may be long after, when the port was given to
// another program. So all of it is in the table and with the receiver before the
// process ends, in the middle of traffic.
func TestStopLeavesNothingInTheLog(t *testing.T) {
	t.Parallel()
	var events atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var list []json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		events.Add(int64(len(list)))
	}))
	t.Cleanup(receiver.Close)
	d := newDaemon(t, settings(t, "  - {name: crm, webhook: {url: \""+receiver.URL+"\"}}\n")...)
	rows := func() (n int64) {
		t.Helper()
		db := openRows(t, d)
		if err := db.QueryRowContext(t.Context(), "SELECT (SELECT COUNT(*) FROM positions) + (SELECT COUNT(*) FROM heartbeats)").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range 3 {
		d.start()
		f := fleet.New(fleet.Options{Addr: d.addr, Devices: 50, Rate: 40, Duration: time.Minute, Settle: time.Millisecond})
		ctx, cancel := context.WithCancel(t.Context())
		var sending sync.WaitGroup
		sending.Go(func() { f.Run(ctx) })
		d.eventually("the fleet sends", func() bool { sent, answered := f.Progress(); return sent > 500 && answered > 300 })
		if out, errs, code := d.ctl("stop"); code != 0 {
			t.Fatalf("stop: exit code %d, %s%s", code, out, errs)
		}
		<-d.done
		if d.err != nil {
			t.Errorf("it ended with %v", d.err)
		}
		cancel()
		sending.Wait()
		stored, sent := rows(), events.Load()
		d.start()
		d.drained()
		d.caughtUp()
		if now := rows(); now != stored {
			t.Errorf(broken+"%d rows at the stop, %d after the next start", stored, now)
		}
		if now := events.Load(); now != sent {
			t.Errorf(broken+"%d events at the stop, %d after the next start", sent, now)
		}
		d.stop()
	}
}
