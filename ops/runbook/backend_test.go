package runbook_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"gt06/ops"
	"gt06/ops/cloud/fake"
	"gt06/ops/runbook"
)

// TestTwoHostsRaceForTheLock, 100 times: one wins, every time, and the other is
// told who. Tags take their time, so that several pairs of hosts race at once.
func TestTwoHostsRaceForTheLock(t *testing.T) {
	t.Parallel()
	for backend, pairs := range map[string]int{"s3": 1, "tag": 10} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			var wg sync.WaitGroup
			for range pairs {
				lock := lockOf(t, backend, func(endpoint string) string { return endpoint })
				wg.Go(func() {
					for n := range 100 / pairs {
						for !race(t, lock, n) {
							t.Logf("race %d: this machine stood still", n)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// lockOf is the lock of a production of its own, behind a detour.
func lockOf(t *testing.T, backend string, detour func(endpoint string) string) ops.CloudLock {
	t.Helper()
	a := fake.New()
	t.Cleanup(a.Close)
	site := a.Production()
	site.Endpoint = detour(site.Endpoint)
	s, at := session(t, site)
	s.Config.Lock.Backend = backend
	b, err := runbook.Backend(at.Cloud, s.Config)
	if err != nil {
		t.Fatal(err)
	}
	return b.Lock
}

// race lets two hosts take the lock. It counts when neither was so slow that it
// gave up itself.
func race(t *testing.T, lock ops.CloudLock, n int) (counts bool) {
	var wg sync.WaitGroup
	holders, won, slow := make([]ops.Holder, 2), make([]bool, 2), make([]bool, 2)
	for host := range 2 {
		wg.Go(func() {
			mine := ops.Holder{Change: fmt.Sprintf("c-20261122-%02d", n+1), Host: fmt.Sprint("host", host), Since: "2026-11-22T12:00:00Z"}
			who, err := lock.Acquire(t.Context(), mine)
			holders[host], won[host], slow[host] = who, err == nil, ops.KindOf(err) == ops.Busy
			if err != nil && !errors.Is(err, ops.ErrHeld) && !slow[host] {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	now, err := lock.Holder(t.Context())
	counts = !slow[0] && !slow[1]
	if won[0] && won[1] || counts && (won[0] == won[1] || err != nil || now != holders[0] || now != holders[1]) {
		t.Errorf("race %d: won %v, held by %+v, told %+v, %v", n, won, now, holders, err)
	}
	other := now
	other.Host = "elsewhere"
	if err := lock.Release(t.Context(), other); !errors.Is(err, ops.ErrHeld) {
		t.Errorf("another gave it back: %v", err)
	}
	if err := lock.Release(t.Context(), now); err != nil {
		t.Error(err)
	}
	return counts || t.Failed()
}

// TestAHostThatStoodStillHasNotTheLock: it saw the tag free and writes it when
// another has won and is at work.
func TestAHostThatStoodStillHasNotTheLock(t *testing.T) {
	t.Parallel()
	arrived, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	lock := lockOf(t, "tag", func(endpoint string) string {
		at, err := url.Parse(endpoint)
		if err != nil {
			t.Fatal(err)
		}
		proxy := httputil.NewSingleHostReverseProxy(at)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			if bytes.Contains(body, []byte("Action=CreateTags")) && bytes.Contains(body, []byte("sleeper")) {
				once.Do(func() { close(arrived) })
				<-goOn
			}
			proxy.ServeHTTP(w, r)
		}))
		t.Cleanup(srv.Close)
		return srv.URL
	})
	late := make(chan error, 1)
	sleeper, winner := ops.Holder{Change: "c-20261122-01", Host: "sleeper"}, ops.Holder{Change: "c-20261122-02", Host: "winner"}
	go func() { _, err := lock.Acquire(t.Context(), sleeper); late <- err }()
	<-arrived
	if who, err := lock.Acquire(t.Context(), winner); err != nil || who != winner {
		t.Errorf("%+v, %v", who, err)
	}
	close(goOn)
	if err := <-late; ops.KindOf(err) != ops.Busy || !strings.Contains(err.Error(), "another may have taken it") {
		t.Errorf("%v", err)
	}
	if _, err := lock.Acquire(t.Context(), ops.Holder{Change: "c-20261122-03", Host: "third"}); !errors.Is(err, ops.ErrHeld) {
		t.Errorf("a third one got it: %v", err)
	}
}

// TestLockWithLostReply: who won and did not hear of it has won.
func TestLockWithLostReply(t *testing.T) {
	t.Parallel()
	a := fake.New()
	t.Cleanup(a.Close)
	s, _ := session(t, a.Production())
	mine := ops.Holder{Change: "c-20261122-01", Host: "laptop", Since: "2026-11-22T12:00:00Z"}
	a.Inject(fake.Fault{Action: "PutObject", Kind: fake.LostReply})
	if who, err := s.Backend.Lock.Acquire(t.Context(), mine); err != nil || who != mine {
		t.Errorf("%+v, %v", who, err)
	}
	a.Inject(fake.Fault{Action: "PutObject", Kind: fake.LostReply})
	if err := s.Backend.Lock.Release(t.Context(), mine); err != nil {
		t.Error(err)
	}
	if who, err := s.Backend.Lock.Holder(t.Context()); err != nil || who != (ops.Holder{}) {
		t.Errorf("%+v, %v", who, err)
	}
}

// TestJournalCopyIsTamperProof: a copy altered or taken away in the bucket is
// found, and one is never written over.
func TestJournalCopyIsTamperProof(t *testing.T) {
	t.Parallel()
	a := fake.New()
	t.Cleanup(a.Close)
	site := a.Production()
	s, _ := session(t, site)
	c, err := s.Open(t.Context(), ops.Restart, "to look at its journal")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Note(t.Context(), c.ID, ops.KindNote, 0, map[string]string{"text": "seen"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Backend.Mirror.Put(t.Context(), c.ID, 1, []byte("{}")); !errors.Is(err, ops.ErrExists) {
		t.Errorf("written over: %v", err)
	}
	if _, err := s.Backend.Mirror.Get(t.Context(), c.ID, 99); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	if v, err := s.Journals.Verify(t.Context()); err != nil || v.Copies == 0 {
		t.Fatalf("%+v, %v", v, err)
	}
	for path, body := range a.Objects(site.Bucket + "/journal/") {
		for _, other := range [][]byte{append([]byte(nil), body[:len(body)-1]...), []byte("{}"), nil} {
			if other == nil && strings.HasSuffix(path, "00000003.json") {
				continue // the last may not have been sent yet
			}
			a.Tamper(path, other)
			if _, err := s.Journals.Verify(t.Context()); ops.KindOf(err) != ops.JournalBroken {
				t.Errorf("%s altered to %q: %v", path, other, err)
			}
			a.Tamper(path, body)
		}
	}
}
