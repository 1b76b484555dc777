package protocol_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"gt06/protocol"
	"gt06/protocol/vectortest"
)

// All of Traccar's commands are built alike, but the one of 245 characters: its
// length byte wraps to 1, so no device could read it; ours refuses.
func TestCommandVectors(t *testing.T) {
	t.Parallel()
	all, refused := 0, 0
	vectortest.Lines(t, "commands.jsonl", func(line []byte) {
		var v struct {
			Command, Hex          string
			Data, Model, Password *string
			Language, Alternative bool
		}
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		all++
		o := protocol.CommandOptions{Alternative: v.Alternative}
		if v.Model != nil {
			o.Model = *v.Model
		}
		if v.Password != nil {
			o.Password = *v.Password
		}
		text := ""
		var err error
		switch v.Command {
		case "custom":
			text = *v.Data
		case "engineStop":
			text, err = protocol.CommandText("engine-stop", nil, o)
		case "engineResume":
			text, err = protocol.CommandText("engine-resume", nil, o)
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := protocol.AppendCommand(nil, 0, text, v.Language)
		if v.Hex[4:6] == "01" && errors.Is(err, protocol.ErrTooLong) {
			refused++
			return
		}
		if err != nil || hex.EncodeToString(b) != v.Hex {
			t.Errorf("%s: got %x, %v, want %s", line, b, err, v.Hex)
		}
		if flag, back, ok := protocol.ParseCommand(b); !ok || flag != 0 || back != text {
			t.Errorf("%s: read back as %d %q %v", line, flag, back, ok)
		}
	})
	t.Logf("%d commands, %d of them refused", all, refused)
}

func TestCommandText(t *testing.T) {
	t.Parallel()
	for _, c := range protocol.CommandNames() {
		args := make([]string, len(c.Args))
		for i := range args {
			args[i] = "60"
		}
		text, err := protocol.CommandText(c.Name, args, protocol.CommandOptions{})
		if err != nil || !strings.HasSuffix(text, "#") || strings.Contains(text, "%") || protocol.CutsEngine(text) != c.Cuts {
			t.Errorf("%s: %q, %v, cuts %v", c.Name, text, err, protocol.CutsEngine(text))
		}
	}
	for _, bad := range [][]string{{"fly"}, {"interval"}, {"interval", "1", "2"}, {"interval", "x"}, {"interval", "4"}, {"interval", "10#\r\nDYD"}, {"status", "now"}} {
		if text, err := protocol.CommandText(bad[0], bad[1:], protocol.CommandOptions{}); err == nil {
			t.Errorf("%v gives %q", bad, text)
		}
	}
	for text, want := range map[string]bool{"RELAY,1#": true, "relay,1#": true, " Relay,2#": true, "RELAY,0#": false, "DYD,123456#": true, "dyd#": true, "HFYD#": false, "STATUS#": false, "": false} {
		if protocol.CutsEngine(text) != want {
			t.Errorf("%q cuts: %v", text, !want)
		}
	}
}
