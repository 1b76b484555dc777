package ops

import (
	"strings"
	"testing"
	"time"
)

// TestEachCheckFailsAlone breaks one thing at a time: exactly that check says
// no, with what it saw, what it wants, and a command to paste.
func TestEachCheckFailsAlone(t *testing.T) {
	t.Parallel()
	cases := []struct {
		id, situation string
		do            func(f *Facts, q *GateQuestion)
		seen, want    string
		next          string
	}{
		{"G1", "no snapshot", func(f *Facts, _ *GateQuestion) { f.Snapshot = nil }, "no snapshot has the tag", "completed", "snapshot create"},
		{"G1", "pending", func(f *Facts, _ *GateQuestion) { f.Snapshot.State, f.Snapshot.Progress = "pending", 40 }, "pending, 40 %", "completed, 100 %", "snapshot verify"},
		{"G1", "error", func(f *Facts, _ *GateQuestion) { f.Snapshot.State = "error" }, "error", "completed", "snapshot create"},
		{"G2", "wrong volume", func(f *Facts, _ *GateQuestion) { f.Snapshot.Volume = "vol-data" }, "vol-data", "vol-1", "snapshot create"},
		{"G3", "another instance's", func(f *Facts, _ *GateQuestion) { f.Snapshot.Tags[TagInstance] = "i-0000000000000000" }, "i-0000000000000000", testInstance, "snapshot create"},
		{"G3", "instance not here", func(f *Facts, _ *GateQuestion) { f.Instance.ID = "" }, "(none)", testInstance, "snapshot create"},
		{"G4", "wrong action", func(f *Facts, _ *GateQuestion) { f.Snapshot.Name = "prod-root-2026-11-22-before-disk-cleanup" }, "disk-cleanup", "before-disk-resize", "snapshot create"},
		{"G4", "wrong date", func(f *Facts, _ *GateQuestion) { f.Snapshot.Name = "prod-root-2026-11-21-before-disk-resize" }, "2026-11-21", "2026-11-22", "snapshot create"},
		{"G4", "another prefix", func(f *Facts, _ *GateQuestion) { f.Snapshot.Name = "test-root-2026-11-22-before-disk-resize" }, "test-root", "prod-root", "snapshot create"},
		{"G5", "no reason", func(f *Facts, _ *GateQuestion) { f.Snapshot.Description = "2026-11-22: disk-resize" }, "disk-resize", "two words", "snapshot create"},
		{"G5", "no date", func(f *Facts, _ *GateQuestion) { f.Snapshot.Description = "disk at 91 percent" }, "disk at", "2026-11-22", "snapshot create"},
		{"G6", "stale", func(f *Facts, _ *GateQuestion) {
			f.CloudTime = f.CloudTime.Add(5 * time.Hour)
			f.LocalTime = f.CloudTime
		}, "taken 5h10m0s ago", "at most 4h0m0s", "snapshot create"},
		{"G6", "clock skew", func(f *Facts, _ *GateQuestion) { f.LocalTime = f.LocalTime.Add(3 * time.Minute) }, "off by 3m0s", "at most 2m0s", "chronyc"},
		{"G6", "before the last change's steps", func(f *Facts, q *GateQuestion) { q.Effect = f.Snapshot.Start.Add(time.Second) }, "another change: 2026-11-22T11:50:01Z", "after every earlier change", "snapshot create"},
		{"G7", "another change's", func(f *Facts, _ *GateQuestion) { f.Snapshot.Tags[TagChange] = "c-20261121-01" }, "c-20261121-01", "c-20261122-01", "snapshot create"},
		{"G7", "automated", func(f *Facts, _ *GateQuestion) { f.Snapshot.Tags["aws:backup:source-resource"] = "x" }, "aws:backup", "c-20261122-01", "snapshot create"},
		{"G7", "automated by a lifecycle", func(f *Facts, _ *GateQuestion) { f.Snapshot.Tags["aws:dlm:lifecycle-policy-id"] = "x" }, "aws:dlm", "c-20261122-01", "snapshot create"},
		{"G8", "another owner", func(f *Facts, _ *GateQuestion) { f.Snapshot.Owner = "999999999999" }, "999999999999", "123456789012", "snapshot create"},
		{"G8", "public", func(f *Facts, _ *GateQuestion) { f.Snapshot.Public = true }, "shared with everybody", "shared with nobody", "snapshot create"},
		{"G8", "used before", func(_ *Facts, q *GateQuestion) { q.Consumed = map[string]string{"snap-1": "c-20261121-01"} }, "used by c-20261121-01", "no other change", "snapshot create"},
		{"G9", "no Recycle Bin", func(f *Facts, _ *GateQuestion) { f.RecycleBinDays = 0 }, "0 days", "at least 7 days", "ops init"},
		{"G10", "Elastic IP lost", func(f *Facts, _ *GateQuestion) { f.Address.Association, f.Address.Instance = "", "" }, "now (none)", "eipalloc-1", "associate-address"},
		{"G10", "not noted", func(_ *Facts, q *GateQuestion) { q.Change.Address = Address{} }, "noted (none)", "eipalloc-1", "associate-address"},
		{"G11", "size unknown", func(f *Facts, _ *GateQuestion) { f.Root.GiB = 0 }, "0 GiB", "all known", "preflight"},
	}
	for _, c := range cases {
		m := newMemory()
		f, err := m.Facts(t.Context(), Question{Change: "c"})
		if err != nil {
			t.Fatal(err)
		}
		q := GateQuestion{Change: Change{ID: "c-20261122-01", Action: DiskResize, Address: f.Address}, Class: Stop}
		f.Snapshot = m.snapshot(q.Change.ID, q.Change.Action)
		g := &SnapshotGate{Facts: m, Config: testConfig(t, t.TempDir())}
		if e := g.judge(q, f); !e.Checks.OK() || len(e.Checks) != 11 {
			t.Fatalf("nothing is wrong and the gate says %v", e.Checks.Failed())
		}
		c.do(&f, &q)
		e := g.judge(q, f)
		failed := e.Checks.Failed()
		if c.id == "G1" && f.Snapshot == nil { // there is nothing to restore from either
			failed = failed[:1]
		}
		if len(failed) != 1 || failed[0].ID != c.id {
			t.Errorf("%s, %s: failed are %v", c.id, c.situation, failed)
			continue
		}
		got := failed[0]
		if !strings.Contains(got.Seen, c.seen) || !strings.Contains(got.Want, c.want) || !strings.Contains(got.Next, c.next) {
			t.Errorf("%s, %s: %+v; want seen %q, want %q, next %q", c.id, c.situation, got, c.seen, c.want, c.next)
		}
	}
}

func TestActionsThatNeedALock(t *testing.T) {
	t.Parallel()
	m := newMemory()
	g := &SnapshotGate{Facts: m, Config: testConfig(t, t.TempDir())}
	for _, lock := range []string{"", "governance", "compliance"} {
		f, _ := m.Facts(t.Context(), Question{})
		f.Snapshot = m.snapshot("c-20261122-01", Migrate)
		f.Snapshot.Lock = lock
		e := g.judge(GateQuestion{Change: Change{ID: "c-20261122-01", Action: Migrate, Address: f.Address}, Class: Stop}, f)
		failed := e.Checks.Failed()
		if lock != "" && len(failed) != 0 || lock == "" && (len(failed) != 1 || failed[0].ID != "G9" || !strings.Contains(failed[0].Next, "snapshot lock")) {
			t.Errorf("lock %q: %v", lock, failed)
		}
	}
}
