package keeper

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// run starts a keeper; the function returned ends it.
func run(t *testing.T, path string, grace time.Duration) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Options{Path: path, Grace: grace, Log: t.Logf, Ready: func() { close(ready) }})
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func link(t *testing.T, path string) *Link {
	t.Helper()
	l := New(path, t.Logf)
	if err := l.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// conn returns both ends of a connection.
func conn(t *testing.T) (ours, theirs int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fds[1]) })
	return fds[0], fds[1]
}

// ended says whether the other end sees the end of the stream.
func ended(fd int) bool {
	n, err := unix.Read(fd, make([]byte, 1))
	return n == 0 && err == nil
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}

// fetched returns what the keeper holds, and closes it.
func fetched(t *testing.T, l *Link) (blobs map[uint64]string, mark uint64) {
	t.Helper()
	blobs = map[uint64]string{}
	each := func(e Event) {
		blobs[e.ID] = string(e.Blob)
		_ = unix.Close(e.FD)
	}
	mark, err := l.Fetch(each)
	if err != nil {
		t.Fatal(err)
	}
	return blobs, mark
}

func TestASuccessorGetsEverything(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "k")
	run(t, path, time.Minute)
	first := link(t, path)
	const n = 1000 // several batches, and more than the window
	theirs := make([]int, n)
	for i := range n {
		ours, other := conn(t)
		theirs[i] = other
		first.Register(uint64(i+1), ours, fmt.Appendf(nil, "blob %d", i))
		if i%3 == 0 {
			first.Update(uint64(i+1), fmt.Appendf(nil, "again %d", i))
		}
		if i%5 == 0 {
			first.Drop(uint64(i + 1))
		}
		_ = unix.Close(ours) // the process dies with its descriptors
	}
	if err := first.Serve(77); err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	blobs, mark := fetched(t, link(t, path))
	if mark != 77 || len(blobs) != n-n/5 {
		t.Fatalf("mark %d, %d held", mark, len(blobs))
	}
	for i, other := range theirs {
		want, held := fmt.Sprintf("blob %d", i), i%5 != 0
		if i%3 == 0 {
			want = fmt.Sprintf("again %d", i)
		}
		if got, ok := blobs[uint64(i+1)]; ok != held || held && got != want {
			t.Fatalf("%d: got %q, %v", i, got, ok)
		}
		if ended(other) == held {
			t.Fatalf("%d: held %v, ended %v", i, held, !held)
		}
	}
}

func TestAFollowerSeesChangesInOrder(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "k")
	run(t, path, time.Minute)
	old, next := link(t, path), link(t, path)
	if err := old.Serve(1); err != nil {
		t.Fatal(err)
	}
	if blobs, _ := fetched(t, next); len(blobs) != 0 {
		t.Fatalf("%d held", len(blobs))
	}
	a, _ := conn(t)
	b, _ := conn(t)
	old.Register(1, a, []byte("a"))
	old.Register(2, b, []byte("b"))
	old.Update(1, []byte("A"))
	old.Drop(2)
	old.Mark(9)
	held := map[uint64]string{}
	mark, err := next.Sync(func(e Event) {
		switch e.Kind {
		case Held, Updated:
			held[e.ID] = string(e.Blob)
		case Dropped:
			delete(held, e.ID)
		}
		if e.Kind == Held {
			_ = unix.Close(e.FD)
		}
	})
	if err != nil || mark != 9 || len(held) != 1 || held[1] != "A" {
		t.Errorf("mark %d, held %v, %v", mark, held, err)
	}
}

// A dead server's last words count, although its successor asked first.
func TestLastWordsOfTheDead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "k")
	run(t, path, time.Minute)
	for i := range 50 {
		dying, next := link(t, path), link(t, path)
		ours, _ := conn(t)
		dying.Register(uint64(i+1), ours, nil)
		_ = unix.Close(ours)
		_ = dying.Close()
		if blobs, _ := fetched(t, next); len(blobs) != i+1 {
			t.Fatalf("%d held, want %d", len(blobs), i+1)
		}
		_ = next.Close()
	}
}

func TestGraceAndRelease(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "k")
	run(t, path, 300*time.Millisecond)
	server := link(t, path)
	if err := server.Serve(1); err != nil {
		t.Fatal(err)
	}
	ours, theirs := conn(t)
	server.Register(1, ours, nil)
	_ = unix.Close(ours)
	_ = server.Close()
	begin := time.Now()
	eventually(t, "the grace ends", func() bool { return ended(theirs) })
	if took := time.Since(begin); took < 250*time.Millisecond {
		t.Errorf("after %v", took)
	}
	// What is registered after that is the next server's.
	server = link(t, path)
	ours, theirs = conn(t)
	server.Register(2, ours, nil)
	if err := server.Serve(1); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(ours)
	if blobs, _ := fetched(t, link(t, path)); len(blobs) != 1 {
		t.Errorf("%d held", len(blobs))
	}
	server.Release()
	eventually(t, "released", func() bool { return ended(theirs) })
}

func TestTheKeeperIsReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "k")
	stop := run(t, path, time.Minute)
	server := link(t, path)
	if err := server.Serve(1); err != nil {
		t.Fatal(err)
	}
	a, _ := conn(t)
	b, _ := conn(t)
	c, _ := conn(t)
	server.Register(1, a, []byte("a"))
	server.Register(2, b, []byte("b"))
	server.Mark(5)
	stop()
	eventually(t, "the loss is seen", func() bool { return server.State().Lost })
	if server.Ready() {
		t.Error("devices are accepted at once without a keeper")
	}
	server.Update(1, []byte("A"))
	server.Drop(2)
	server.Register(3, c, []byte("c"))
	run(t, path, time.Minute)
	eventually(t, "everything is registered again", func() bool { return !server.State().Lost })
	if blobs, mark := fetched(t, link(t, path)); mark != 5 || len(blobs) != 2 || blobs[1] != "A" || blobs[3] != "c" {
		t.Errorf("mark %d, held %v", mark, blobs)
	}
}

func TestWhatIsNotRegisteredAgainIsDropped(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "k")
	run(t, path, time.Minute)
	server := link(t, path)
	ours, theirs := conn(t)
	server.Register(1, ours, nil)
	_ = unix.Close(ours)
	server.mu.Lock() // the drop of 1 is lost with the connection
	delete(server.table, 1)
	server.lose(errors.New("a test"))
	server.mu.Unlock()
	server.again()
	eventually(t, "the stale one is gone", func() bool { return ended(theirs) })
}

func TestOneKeeper(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "k")
	run(t, path, time.Minute)
	if err := Run(t.Context(), Options{Path: path, Log: t.Logf}); !errors.Is(err, ErrRunning) {
		t.Errorf("got %v", err)
	}
}

// What is no message of ours ends the conversation and nothing else.
func TestStrangeMessages(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "k")
	run(t, path, time.Minute)
	good := link(t, path)
	ours, theirs := conn(t)
	good.Register(1, ours, []byte("x"))
	for name, b := range map[string][]byte{
		"short": {1, 'R'}, "another version": append([]byte{9, 'F'}, make([]byte, 8)...), "unknown type": append([]byte{1, '?'}, make([]byte, 8)...),
		"a register without a descriptor": message(msgRegister, 1), "a blob too long": append(message(msgUpdate, 1), make([]byte, MaxBlob+1)...),
		"a command that is none": append(message(msgCommand, 0), "99999"...),
	} {
		fd, _, err := connect(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := send(fd, b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = unix.Close(fd)
	}
	if blobs, _ := fetched(t, link(t, path)); len(blobs) != 1 || blobs[1] != "x" || ended(theirs) {
		t.Errorf("held %v", blobs)
	}
}

// A client that cannot take the descriptors is told, not left half served.
func TestDescriptorsThatDoNotFit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "k")
	run(t, path, time.Minute)
	server := link(t, path)
	for i := range 300 {
		ours, _ := conn(t)
		server.Register(uint64(i+1), ours, nil)
		_ = unix.Close(ours)
	}
	// The message is received with too little room for its descriptors, as at
	// the limit of a process.
	next := link(t, path)
	next.w.oob = make([]byte, unix.CmsgSpace(4*10))
	n := 0
	_, err := next.Fetch(func(e Event) { n++; _ = unix.Close(e.FD) })
	if !errors.Is(err, errTruncated) || n != 0 {
		t.Errorf("got %v after %d", err, n)
	}
}

func TestCommandOfASupervisedServer(t *testing.T) {
	t.Parallel()
	var s supervisor
	s.command([]byte("2\x00/bin/a\x00-x\x00A=1\x00B=2\x00"))
	if fmt.Sprint(s.args) != "[/bin/a -x]" || fmt.Sprint(s.env) != "[A=1 B=2]" {
		t.Errorf("%q %q", s.args, s.env)
	}
	for _, bad := range []string{"", "0\x00", "3\x00/bin/a\x00", "x\x00/bin/a\x00"} {
		s.command([]byte(bad))
	}
	if len(s.args) != 2 {
		t.Errorf("%q", s.args)
	}
}

// The kernel says ECONNRESET before it hands out what a client sent last, when
// that client ended with an answer of ours unread: a killed server always may.
func TestLastWordsOfAClientThatDidNotReadItsAnswer(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0]) //nolint:errcheck // a test
	k := &Keeper{opt: Options{Log: t.Logf}, held: map[uint64]*held{}}
	c := &client{wire: newWire(pair[0])}
	if err := send(pair[0], message(msgSynced, 0)); err != nil {
		t.Fatal(err)
	}
	fd, far := conn(t)
	if err := errors.Join(send(pair[1], message(msgRegister, 7), fd), send(pair[1], message(msgRelease, 0)), unix.Close(fd), unix.Close(pair[1])); err != nil {
		t.Fatal(err)
	}
	k.drain(c)
	if !c.left || len(k.held) != 0 || !ended(far) {
		t.Errorf("the release is lost: left %t, %d held", c.left, len(k.held))
	}
	if !c.dead {
		t.Error("the client's end is not seen")
	}
}
