package server

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gt06/protocol"
)

func TestBlob(t *testing.T) {
	t.Parallel()
	want := Session{peer: netip.MustParseAddrPort("192.0.2.7:4711"), device: protocol.Session{IMEI: 0x123456789012345, UTCOffset: -19800, Model: "NT20"}}
	want.state.set(stateVerified)
	b := want.blob()
	var got Session
	if err := got.setBlob(b); err != nil || got.peer != want.peer || got.device != want.device || !got.state.has(stateVerified) {
		t.Errorf("got %+v, %v", got.device, err)
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "short": b[:len(b)-1], "long": append(slices.Clone(b), 0), "another version": append([]byte{9}, b[1:]...),
	} {
		if err := got.setBlob(bad); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// What a keeper holds may be of any released version.
func TestReleasedBlobs(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../testdata/released/*/blob.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("no blobs of released versions, %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var s Session
		if err := s.setBlob(unhex(t, strings.TrimSpace(string(text)))); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if s.device.IMEI.String() != "490154203237518" || s.device.UTCOffset != 19800 || s.device.Model != "NT20" || s.peer.String() != "192.0.2.7:4711" || !s.state.has(stateVerified) {
			t.Errorf("%s: got %+v from %v", file, s.device, s.peer)
		}
	}
}

// Records of a connection come in any mixture of frames, carries, held input
// and commands; what counts is where both streams end and what is owed.
func TestTail(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		records []Record
		want    tail
	}{
		"frames": {
			[]Record{{InputEnd: 10, AnswerEnd: 5, Input: []byte("a"), Answer: []byte("12345")}, {InputEnd: 20, AnswerEnd: 8, Input: []byte("b"), Answer: []byte("678")}},
			tail{in: 20, out: 8, answers: []byte("12345678")},
		},
		"a carry repeats": {
			[]Record{{InputEnd: 10, AnswerEnd: 5, Input: []byte("a"), Answer: []byte("12345")}, {InputEnd: 10, AnswerEnd: 5, Flags: Carry, Answer: []byte("345")}, {InputEnd: 20, AnswerEnd: 6, Input: []byte("b"), Answer: []byte("6")}},
			tail{in: 20, out: 6, answers: []byte("123456")},
		},
		"it begins with a carry": {
			[]Record{{InputEnd: 10, AnswerEnd: 5, Flags: Carry, Answer: []byte("45")}, {InputEnd: 12, AnswerEnd: 6, Input: []byte("b"), Answer: []byte("6")}},
			tail{in: 12, out: 6, answers: []byte("456")},
		},
		"half a frame is held": {
			[]Record{{InputEnd: 10, AnswerEnd: 5, Input: []byte("a")}, {InputEnd: 13, AnswerEnd: 5, Flags: Partial, Input: []byte("xyz")}},
			tail{in: 13, out: 5, held: []byte("xyz")},
		},
		"a command does not end a held half": {
			[]Record{{InputEnd: 13, AnswerEnd: 5, Flags: Partial, Input: []byte("xyz")}, {InputEnd: 13, AnswerEnd: 7, Answer: []byte("67")}},
			tail{in: 13, out: 7, answers: []byte("67"), held: []byte("xyz")},
		},
		"its frame does": {
			[]Record{{InputEnd: 13, AnswerEnd: 5, Flags: Partial, Input: []byte("xyz")}, {InputEnd: 15, AnswerEnd: 6, Input: []byte("xyz12"), Answer: []byte("6")}},
			tail{in: 15, out: 6, answers: []byte("6")},
		},
		"a hole": {
			[]Record{{InputEnd: 10, AnswerEnd: 5, Answer: []byte("5")}, {InputEnd: 20, AnswerEnd: 9, Answer: []byte("9")}},
			tail{in: 20, out: 5, answers: []byte("5"), broken: true},
		},
	} {
		got := tail{out: c.records[0].AnswerEnd - uint64(len(c.records[0].Answer))}
		for i := range c.records {
			got.add(&c.records[i])
		}
		if got.in != c.want.in || got.out != c.want.out || string(got.answers) != string(c.want.answers) || string(got.held) != string(c.want.held) || got.broken != c.want.broken {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

// What contradicts itself is refused, connection by connection.
func TestContradictionsAreNotGuessedAt(t *testing.T) {
	t.Parallel()
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // a test's own
	for name, bad := range map[string]tail{
		"more was taken than is recorded": {in: 3, out: 4, answers: []byte("1234")},
		"more was sent than is recorded":  {in: 5, out: 3, answers: []byte("123")},
		"what is owed is not there":       {in: 5, out: 9, answers: []byte("9")},
		"the records do not join":         {in: 5, out: 4, answers: []byte("1234"), broken: true},
		"more is recorded than came":      {in: 50, out: 4, answers: []byte("1234")},
	} {
		p, err := pair(ln)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		if err := p.deviceSends([]byte("12345678")); err != nil {
			t.Fatal(err)
		}
		if err := release(p.server, make([]byte, 10), 5); err != nil {
			t.Fatal(err)
		}
		if err := p.serverSends([]byte("1234")); err != nil {
			t.Fatal(err)
		}
		s, _, _ := byHand(t, Limits{})
		l := s.loops[0]
		c := &Session{fd: p.server, home: l}
		l.add(c)
		if err := l.resume(c, &bad, &Resumed{}); err == nil {
			t.Errorf("%s: gone on with", name)
		}
		good := tail{in: 7, out: 6, answers: []byte("123456")}
		var report Resumed
		if err := l.resume(c, &good, &report); name != "more is recorded than came" && (err != nil || report.Discarded != 2 || report.Resent != 2) {
			t.Errorf("%s: the truth is refused: %v, %+v", name, err, report)
		}
		l.close()
	}
}

func TestInheritRefusesWhatIsNotOurs(t *testing.T) {
	t.Parallel()
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // a test's own
	for addr, want := range map[string]bool{ln.Addr().String(): true, "127.0.0.1:0": true, "127.0.0.1:1": false, "127.0.0.2:0": false, "nonsense": false} {
		if _, err := Inherit(ln.FD(), addr); (err == nil) != want {
			t.Errorf("%s: %v", addr, err)
		}
	}
	udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(udp) //nolint:errcheck // a test's own
	if _, err := Inherit(udp, "0.0.0.0:0"); err == nil {
		t.Error("a UDP socket is taken for the device port")
	}
	all, err := Listen(":0")
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close() //nolint:errcheck // a test's own
	if _, err := Inherit(all.FD(), ":0"); err != nil {
		t.Error(err)
	}
}
