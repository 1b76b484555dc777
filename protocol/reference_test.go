package protocol_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"gt06/protocol"
)

var update = flag.Bool("update", false, "write REFERENCE.md")

const referenceHead = `# The messages

Made from the table that the decoder, ` + "`gt06ctl decode`" + ` and ` + "`gt06ctl protocol`" + ` work by (table.go), and kept equal to it by a test:
` + "`go test ./protocol -run Reference -update`" + ` writes it. Between header and content stand the length and the type, behind the content the serial (2),
the checksum (2) and 0D 0A. Of one type the first entry whose condition holds is taken. Attributes and units are those of Traccar.
Source: PROTOCOL.md sections 4 to 14.
`

func TestReference(t *testing.T) {
	t.Parallel()
	want := referenceHead + protocol.ReferenceText(nil)
	if *update {
		if err := os.WriteFile("REFERENCE.md", []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("REFERENCE.md")
	if err != nil || string(got) != want {
		t.Errorf("REFERENCE.md is not what the table says (%v): go test ./protocol -run Reference -update", err)
	}
	seen := map[byte]bool{}
	for _, e := range protocol.Reference() {
		seen[e.Type] = true
		if e.Name == "" || e.Answer == "" || len(e.Fields) == 0 {
			t.Errorf("%+v says too little", e)
		}
	}
	// Every type of PROTOCOL.md section 13 has a row.
	for _, typ := range []byte{
		0x01, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1e, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x2a, 0x2c, 0x2d, 0x2e,
		0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x40, 0x41, 0x61, 0x65, 0x66, 0x69, 0x70, 0x80, 0x81, 0x82, 0x8a, 0x8c, 0x94, 0x95, 0x9b,
		0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa7, 0xa9, 0xb0, 0xb2, 0xf1, 0xf2, 0xf3,
	} {
		if !seen[typ] {
			t.Errorf("0x%02x has no row", typ)
		}
	}
	if text := protocol.ReferenceText(func(typ byte) bool { return typ == 0x13 }); strings.Count(text, "\n## ") != 1 || !strings.Contains(text, "batteryLevel") && !strings.Contains(text, "battery level") {
		t.Errorf("0x13:\n%s", text)
	}
}
