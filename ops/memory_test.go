package ops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// memory is a cloud of one instance, as much of it as this package asks for.
type memory struct {
	mu     sync.Mutex
	facts  Facts
	puts   map[string][]byte
	last   map[string]int
	head   string
	holder Holder
	now    func() time.Time
}

const testInstance = "i-0ae922662c241c912"

func newMemory() *memory {
	m := &memory{puts: map[string][]byte{}, last: map[string]int{}, now: func() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }}
	m.facts = Facts{
		Account:  "123456789012",
		Instance: Instance{ID: testInstance, Name: "quickport-prod", State: "running", Zone: "ap-south-1a", RootDevice: "/dev/sda1"},
		Root:     Volume{ID: "vol-1", Type: "gp3", GiB: 30, IOPS: 3000, Throughput: 125},
		Address:  Address{Allocation: "eipalloc-1", Association: "eipassoc-1", IP: "3.109.42.82", Instance: testInstance}, RecycleBinDays: 7,
	}
	return m
}

func (m *memory) Facts(_ context.Context, q Question) (Facts, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.facts
	f.LocalTime, f.CloudTime = m.now(), m.now()
	if q.Change == "" {
		f.Snapshot = nil
	}
	return f, nil
}

func (m *memory) Put(_ context.Context, change string, seq int, line []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := fmt.Sprintf("%s/%08d", change, seq)
	if _, ok := m.puts[key]; ok {
		return ErrExists
	}
	m.puts[key], m.last[change] = line, max(seq, m.last[change])
	return nil
}

func (m *memory) Get(_ context.Context, change string, seq int) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	line, ok := m.puts[fmt.Sprintf("%s/%08d", change, seq)]
	if !ok {
		return nil, os.ErrNotExist
	}
	return line, nil
}

func (m *memory) Last(context.Context) (map[string]int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.last), nil
}

func (m *memory) SetHead(_ context.Context, head string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.head = head
	return nil
}

func (m *memory) Head(context.Context) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.head, nil
}

// lock is the memory's lock: the names of its methods are taken by the anchor.
type memoryLock struct{ *memory }

func (m memoryLock) Acquire(_ context.Context, h Holder) (Holder, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.holder != (Holder{}) {
		return m.holder, ErrHeld
	}
	m.holder = h
	return h, nil
}

func (m memoryLock) Release(_ context.Context, h Holder) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.holder != h {
		return ErrHeld
	}
	m.holder = Holder{}
	return nil
}

func (m memoryLock) Holder(context.Context) (Holder, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holder, nil
}

// snapshot is a good one for a change.
func (m *memory) snapshot(change string, action Action) *Snapshot {
	return &Snapshot{
		ID: "snap-1", Volume: "vol-1", State: "completed", Progress: 100, Owner: m.facts.Account, Start: m.now().Add(-10 * time.Minute),
		Name: "prod-root-2026-11-22-before-" + string(action), Description: "2026-11-22: disk at 91 percent",
		Tags: map[string]string{TagInstance: testInstance, TagChange: change}, Lock: "",
	}
}

func testConfig(t *testing.T, dir string) Config {
	t.Helper()
	c, err := ParseConfig([]byte("aws: {region: ap-south-1, instance_id: " + testInstance + ", eip_allocation_id: eipalloc-1}\nlock: {file: " + filepath.Join(dir, "lock") + "}\njournal: {dir: " + filepath.Join(dir, "journal") + "}\n"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// host is a session of one machine: its own files, the same cloud.
func host(t *testing.T, m *memory, name string) *Session {
	t.Helper()
	config := testConfig(t, t.TempDir())
	return &Session{
		Config: config, Out: io.Discard, Backend: Backend{Facts: m, Mirror: m, Anchor: m, Lock: memoryLock{m}},
		Journals: &Journals{Dir: config.Journal.Dir, Mirror: m, Anchor: m, Actor: Actor{User: "ravi", Host: name}, Now: m.now},
		Gate:     &SnapshotGate{Facts: m, Config: config}, Confirm: Confirm{Yes: true},
	}
}

// opened is a change with its snapshot.
func opened(t *testing.T, s *Session, m *memory) Change {
	t.Helper()
	c, err := s.Open(t.Context(), DiskResize, "disk at 91 percent")
	if err != nil {
		t.Fatal(err)
	}
	m.facts.Snapshot = m.snapshot(c.ID, c.Action)
	return c
}

// apply approves what the plan says now, as an operator does who read it.
func apply(t *testing.T, s *Session, id string, book Runbook) error {
	t.Helper()
	p, err := s.Plan(t.Context(), id, book)
	if err != nil {
		return err
	}
	s.Confirm.Plan = p.Hash()
	return s.Apply(t.Context(), id, book)
}

var errTest = errors.New("it does not work")
