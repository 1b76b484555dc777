package protocol_test

import (
	"encoding/hex"
	"testing"
	"time"

	"gt06/protocol"
)

func TestPolicies(t *testing.T) {
	t.Parallel()
	now := time.Date(2015, 12, 29, 0, 0, 21, 0, time.UTC)
	for name, c := range map[string]struct{ frame, vendor string }{
		"login":                       {"78780d01012345678901234500018cdd0d0a", "787805010001d9dc0d0a"},
		"heartbeat":                   {"78780a134004040001000fdcee0d0a", "78780513000f008f0d0a"},
		"location":                    {location, ""},
		"cells":                       {"78783b2810010d02020201cc00287d001f713e287d001f7231287d001e232d287d001f4018000000000000000000000000000000000000ff00020005b14b0d0a", ""},
		"alarm that wants an answer":  {"787825160b0b0f0e241dcf027ac8870c4657e60014020901cc00287d001f726506040101003656a40d0a", "78780516003695700d0a"},
		"alarm that does not":         {"787825160b0b0f0e241dcf027ac8870c4657e60014020901cc00287d001f726506040100003656a40d0a", ""},
		"time, as the documents have": {"7878058a000688290d0a", "78780b8a0f0c1d0000150006f0860d0a"},
		"status":                      {hex.EncodeToString(protocol.AppendFrame(nil, 0x14, []byte("x"), 1)), hex.EncodeToString(protocol.AppendFrame(nil, 0x14, nil, 1))},
		"address request":             {hex.EncodeToString(protocol.AppendFrame(nil, 0xa7, make([]byte, 20), 1)), hex.EncodeToString(protocol.AppendFrame(nil, 0xa7, nil, 1))},
		"picture":                     {hex.EncodeToString(protocol.AppendExtended(nil, 0x41, make([]byte, 50), 1)), hex.EncodeToString(protocol.AppendExtended(nil, 0x41, nil, 1))},
		"unknown":                     {hex.EncodeToString(protocol.AppendFrame(nil, 0xd7, []byte("x"), 1)), ""},
	} {
		frame := unhex(t, c.frame)
		var m protocol.Message
		new(protocol.Decoder).Decode(&m, frame, protocol.Session{})
		if got := hex.EncodeToString(protocol.AppendAnswerBy(protocol.AnswerVendor, nil, &m, frame, now)); got != c.vendor {
			t.Errorf("%s: %s, want %s", name, got, c.vendor)
		}
		if got := protocol.AppendAnswerBy(protocol.AnswerNone, nil, &m, frame, now); len(got) != 0 {
			t.Errorf("%s: %x", name, got)
		}
		want := protocol.AppendAnswer(nil, &m, frame, now)
		if got := protocol.AppendAnswerBy(protocol.AnswerTraccar, nil, &m, frame, now); string(got) != string(want) {
			t.Errorf("%s: %x, want %x", name, got, want)
		}
	}
	for _, name := range []string{"traccar", "vendor", "none"} {
		if _, ok := protocol.ParsePolicy(name); !ok {
			t.Errorf("%q is no policy", name)
		}
	}
	if _, ok := protocol.ParsePolicy("all"); ok {
		t.Error(`"all" is a policy`)
	}
}
