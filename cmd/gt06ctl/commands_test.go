package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
)

// runnable calls do with every command that does something itself.
func runnable(c *cobra.Command, do func(*cobra.Command)) {
	if c.Name() == "help" || c.Name() == "completion" {
		return // cobra's own
	}
	do(c)
	for _, sub := range c.Commands() {
		runnable(sub, do)
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	t.Parallel()
	n := 0
	runnable(command(), func(c *cobra.Command) {
		n++
		path := c.CommandPath()
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: Short is %q: a line without a full stop", path, c.Short)
		}
		if c.HasParent() && !strings.Contains(c.Example, "gt06ctl") {
			t.Errorf("%s has no example of how it is called", path)
		}
		var help bytes.Buffer
		if code := run(append(strings.Fields(path)[1:], "--help"), nil, &help, &help); code != 0 || !strings.HasSuffix(help.String(), cli.Table+"\n") {
			t.Errorf("%s: help does not end with the exit codes:\n%s", path, help.String())
		}
		if f := c.Flags().Lookup("json"); f == nil && c.InheritedFlags().Lookup("json") == nil && c.HasParent() {
			t.Errorf("%s does not take --json", path)
		}
		for line := range strings.Lines(c.Example) {
			if len(line) > 2 && !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: the example %q is not indented", path, line)
			}
		}
	})
	if n < 20 {
		t.Errorf("only %d commands were looked at", n)
	}
}

// evil is what a device may write into any text: colours, a cleared screen, the
// one-byte forms of the same, a text that runs backwards, line ends, a table.
const evil = "a\x1b[31mb\x1b]0;c\x07d\u009b2Je\u202ef\x7fg\r\nh\ti\x00"

// hostile is a server that answers every question with what devices wrote.
func hostile(t *testing.T) (socket string) {
	t.Helper()
	number, code := 1.5, int64(1)
	now := time.Now().UTC()
	attributes, _ := json.Marshal(map[string]string{evil: evil})
	frame, _ := json.Marshal(map[string]any{"type": evil, "error": evil, "alarms": []string{evil}, "attributes": map[string]string{"result": evil}})
	reply := evil
	seen := control.Seen{Time: now, IMEI: "", Conn: evil, Remote: evil, Hex: "1b5b33316d48454c4c4f9b324a", Answer: "1b5b", Model: evil, LeftOut: 1, Frame: frame}
	upgrade := control.Upgrade{Result: control.Upgraded, Reason: evil, From: control.Program{Version: evil}, To: control.Program{Version: evil}, At: evil}
	value := func(v any) control.Handler {
		return func(context.Context, json.RawMessage, func(any) error) (any, error) { return v, nil }
	}
	lines := func(list ...any) control.Handler {
		return func(_ context.Context, _ json.RawMessage, send func(any) error) (any, error) {
			var err error
			for _, v := range list {
				err = errors.Join(err, send(v))
			}
			return nil, err
		}
	}
	// A stream that would never end is refused at last.
	stream := func(v any) control.Handler {
		return func(_ context.Context, _ json.RawMessage, send func(any) error) (any, error) {
			return nil, errors.Join(send(v), &control.Error{Text: "enough " + evil, Code: int(cli.Refused), Hints: []string{evil}})
		}
	}
	alarms := []control.Alarm{{IMEI: evil, Time: now, ReceivedAt: now, Alarm: evil, Code: &code, Latitude: &number, Longitude: &number}}
	socket = filepath.Join(t.TempDir(), "s")
	s, err := control.Serve(socket, map[string]control.Handler{
		"status": value(control.Status{
			State: evil, Reasons: []string{evil}, Version: evil, Spool: control.SpoolInfo{Oldest: evil}, LastUpgrade: &upgrade,
			Store: control.StoreInfo{Kind: evil, State: evil, LastError: evil},
		}),
		"devices":  value([]control.Device{{IMEI: evil, Name: evil, Model: evil, Status: evil, Remote: evil, LastSeen: evil, FixTime: evil, Latitude: &number, Longitude: &number, SpeedKMH: &number}}),
		"validate": value(control.Validation{OK: true, Checks: []control.Check{{Name: evil, OK: true, Text: evil}}}),
		"tail":     stream(seen),
		"alarms": func(ctx context.Context, args json.RawMessage, send func(any) error) (any, error) {
			if strings.Contains(string(args), `"follow":true`) {
				return stream(alarms)(ctx, args, send)
			}
			return alarms, nil
		},
		"track": func(_ context.Context, _ json.RawMessage, send func(any) error) (any, error) {
			p := control.Position{Time: now, ReceivedAt: now, Kind: evil, Valid: true, Latitude: &number, Longitude: &number, SpeedKMH: &number, Alarm: evil, Attributes: attributes}
			return []control.Position{}, send([]control.Position{p, p})
		},
		"problems":       value([]control.Problem{{IMEI: evil, Name: evil, Kind: evil, Last: evil, Text: evil, Do: evil}}),
		"devices-change": value(control.DevicesChanged{Changed: 1}),
		"devices-policy": value(control.DevicePolicy{Policy: evil, From: evil}),
		"trace":          value([]control.Trace{{IMEI: evil, Until: now, By: evil}}),
		"send":           value(control.Sent{IMEI: evil, Command: evil, Reply: &reply}),
		"commands":       value([]map[string]any{{"command": evil, "requested_by": evil, "sent_at": evil, "reply": evil, "replied_at": evil}}),
		"quarantine":     value([]control.Quarantined{{ID: 1, IMEI: evil, ReceivedAt: evil, Hex: "1b5b33316d9b", Reason: evil}}),
		"replay":         lines(control.Event[control.Replayed, control.Replayed]{Progress: &control.Replayed{}}, control.Event[control.Replayed, control.Replayed]{Result: &control.Replayed{Frames: 1}}),
		"import":         lines(control.Event[control.ImportProgress, control.Imported]{Progress: &control.ImportProgress{Step: evil, Records: 1}}, control.Event[control.ImportProgress, control.Imported]{Result: &control.Imported{Stream: evil, Records: 1, First: now, Last: now}}),
		"history": lines(control.Event[control.HistoryProgress, control.History]{Progress: &control.HistoryProgress{Read: 1}},
			control.Event[control.HistoryProgress, control.History]{Result: &control.History{Source: evil, Refused: map[string]int64{evil: 1}}}),
		"budget":   value(control.Budget{Log: control.BudgetPart{Kind: evil}, Database: control.BudgetPart{Kind: evil}}),
		"verify":   lines(control.Event[control.Verified, control.Verified]{Progress: &control.Verified{}}, control.Event[control.Verified, control.Verified]{Result: &control.Verified{Places: []control.Missing{{From: now, To: now, Rows: 0}}}}),
		"schema":   value(control.SchemaInfo{Version: 1, Known: 1}),
		"upgrades": value([]control.Upgrade{upgrade}),
		"upgrade":  lines(control.UpgradeEvent{Step: evil}, control.UpgradeEvent{Result: &upgrade}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return socket
}

// Each command is run, as a table and as JSON, against a server full of what
// devices may write. A new command is added here, or says why not.
func TestWhatDevicesWriteDoesNotSteerTheTerminal(t *testing.T) {
	t.Parallel()
	socket := hostile(t)
	const imei = "490154203237518"
	runs := map[string][][]string{
		"status": {{}}, "devices": {{}, {"--problems"}}, "validate": {{}, {"--watch", "1ms"}},
		"tail": {{}, {"--frames"}, {"--unidentified"}}, "alarms": {{}, {"--follow"}},
		"track": {{imei}, {imei, "--format", "csv"}, {imei, "--format", "geojson"}},
		"trace": {{}}, "send": {{imei, "STATUS#"}}, "commands": {{imei}},
		"quarantine list": {{}}, "quarantine show": {{"1"}}, "quarantine replay": {{}}, "replay": {{"--from", "2h", "--to", "1h"}},
		"devices allow": {{imei}}, "devices block": {{imei}}, "devices name": {{imei, "x"}}, "devices model": {{imei, "x"}}, "devices timezone": {{imei, "UTC"}},
		"devices policy": {{}, {"allow"}}, "devices import": {{"testdata/fleet.csv"}},
		"spool import": {{"/kept"}}, "import": {{"--mapping", "../../ops/deploy/node/mapping.yaml", "--plan"}},
		"store budget": {{}}, "store verify": {{}}, "store migrate": {{}, {"--plan"}},
		"upgrades": {{}}, "upgrade": {{}}, "decode": {{}, {"--raw"}}, "protocol": {{"22"}}, "version": {{}},
	}
	reason := map[string]string{
		"capture":        "writes a file for machines",
		"support-bundle": "has a test of its own",
		"bench":          "prints numbers of its own",
		"simulate":       "prints numbers of its own",
		"spool list":     "looks at files: numbers",
		"spool verify":   "looks at files: numbers",
		"stop":           "ends the server: prints a pid",
		"store init":     "asks MariaDB, not the server; has a test of its own",
		"man":            "writes manuals: no --json",
		"takeover":       "prints a plan made of the machine, none of it from devices",
	}
	runnable(command(), func(c *cobra.Command) {
		name := strings.TrimPrefix(c.CommandPath(), "gt06ctl ")
		if !c.HasParent() || c.HasSubCommands() && name != "devices" || strings.HasPrefix(name, "ops ") || reason[name] != "" {
			return
		}
		if runs[name] == nil {
			t.Errorf("%s is not in the table", name)
		}
		for _, args := range runs[name] {
			for _, form := range []string{"--json=false", "--json"} {
				args := append(append(strings.Fields(name), args...), "--socket", socket, form)
				var stdout, stderr bytes.Buffer
				code := run(args, strings.NewReader("78780a13\x1b[31m\u009b\n78781f1575\nxx\n\x00\x78\x78\x05\x13\x00\x01\xe9\xf1\x0d\x0a"), &stdout, &stderr)
				if code != 0 && !strings.Contains(stderr.String(), "enough ") {
					t.Errorf("%v: exit %d\n%s%s", args, code, stdout.String(), stderr.String())
				}
				if stdout.Len() == 0 {
					t.Errorf("%v prints nothing", args)
				}
				for _, r := range stdout.String() + stderr.String() {
					if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
						t.Errorf("%v prints %q in\n%q", args, r, stdout.String()+stderr.String())
						break
					}
				}
				if form == "--json" {
					wantJSON(t, args, stdout.String())
				}
			}
		}
	})
}

func wantJSON(t *testing.T, args []string, text string) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	for dec.More() {
		var v any
		if err := dec.Decode(&v); err != nil {
			t.Errorf("%v --json: %v in\n%s", args, err, text)
			return
		}
	}
}

func TestHostileJSONIsTheSameJSON(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	want := evil + "\U0001F69A\U000E0001"
	if err := printJSON(&out, map[string]string{"k": want}); err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got["k"] != want {
		t.Errorf("%q, %v", got["k"], err)
	}
	if strings.ContainsRune(out.String(), '\U000E0001') || !strings.ContainsRune(out.String(), '\U0001F69A') {
		t.Errorf("%q", out.String())
	}
}

func TestMoment(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2h": now.Add(-2 * time.Hour), "-90m": now.Add(-90 * time.Minute), "0s": now,
		"2026-11-24": now.Add(-36 * time.Hour), "2026-11-24 08:00": now.Add(-28 * time.Hour), "2026-11-24 08:00:05": now.Add(-28*time.Hour + 5*time.Second),
		"2026-11-24T13:30:00+05:30": now.Add(-28 * time.Hour),
	} {
		if got, err := moment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
	}
	if _, err := moment("yesterday", now); err == nil {
		t.Error("yesterday is taken")
	}
}

func TestForeign(t *testing.T) {
	t.Parallel()
	for begin, want := range map[string]string{
		"GET / HTTP/1.1\r\n": "HTTP", "\x16\x03\x01\x02\x00": "TLS", "SSH-2.0-x": "SSH", "##,imei:3595": "a GPS103 tracker",
		"*HQ,1": "an H02 tracker", "\x78\x78\x05": "", "\x79\x79": "", "": "", "hello": "",
	} {
		if got := foreign([]byte(begin)); got != want {
			t.Errorf("%q: %q, want %q", begin, got, want)
		}
	}
}

// A server whose checks go as a script says, one answer a second.
func TestValidateWatch(t *testing.T) {
	t.Parallel()
	const g, r, w = "green", "red", "warming"
	for name, now := range map[string]struct {
		script []string
		code   cli.Code
		lines  int // of the checks and the warming
		says   string
	}{
		"green":            {[]string{g}, cli.Done, 1, "green for 10s"},
		"red at the end":   {[]string{g, g, r}, cli.Red, 2, "red at the end"},
		"red for a time":   {[]string{g, r, g}, cli.Red, 3, "red for a time within 10s: [timestamps]"},
		"warming":          {[]string{w, w, g}, cli.Done, 3, "green for 10s"},
		"away for a while": {[]string{g, "", "", g}, cli.Done, 1, "green for 10s"},
		"never there":      {[]string{""}, cli.Timeout, 0, "no server is running"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			ask := func(_ context.Context, v *control.Validation) error {
				step := now.script[min(asked, len(now.script)-1)]
				asked++
				if step == "" {
					return explain(control.ErrNoServer)
				}
				*v = control.Validation{OK: step != r, WarmingUp: step == w, Checks: []control.Check{{Name: "timestamps", OK: step != r, Text: "text"}}}
				return nil
			}
			synctest.Test(t, func(t *testing.T) {
				var out, stderr bytes.Buffer
				code := cli.Report(&stderr, "gt06ctl", (&tool{gone: gone}).watchChecks(t.Context(), ask, &out, newProgress(&stderr), 10*time.Second, time.Second))
				if code != int(now.code) || !strings.Contains(out.String()+stderr.String(), now.says) {
					t.Errorf("exit %d\n%s%s", code, out.String(), stderr.String())
				}
				if lines := strings.Count(out.String(), "2000-01-01T"); lines != now.lines {
					t.Errorf("%d lines, want %d:\n%s", lines, now.lines, out.String())
				}
			})
		})
	}
}

func TestManual(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	if code := run([]string{"man", "--dir", dir}, nil, &stdout, &stderr); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	for _, page := range []string{"gt06ctl.1", "gt06ctl-upgrade.1", "gt06ctl-quarantine-show.1"} {
		b, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil || !bytes.Contains(b, []byte(".SH EXAMPLE")) && page != "gt06ctl.1" || !bytes.Contains(b, []byte("Exit codes")) {
			t.Errorf("%s: %v", page, err)
		}
	}
}

func TestMistakesAreOnesOfUsage(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"statsu", "quarantine lst", "quarantine show x", "replay", "track", "track 1 2", "track 490154203237518 --from soon", "tail 12", "status --nothing", "trace --for 1m",
		"trace 490154203237518 --for -1m", "man", "alarms --since x", "validate --watch", "validate --watch 1s --every 0s", "devices lst", "decode --raw --pcap",
	} {
		var stdout, stderr bytes.Buffer
		args := append(strings.Fields(line), "--socket", filepath.Join(t.TempDir(), "none"))
		if line == "validate --watch" {
			args = strings.Fields(line)
		}
		if code := run(args, strings.NewReader(""), &stdout, &stderr); code != int(cli.Usage) || !strings.Contains(stderr.String(), "\nhint: ") && !strings.HasPrefix(line, "decode") {
			t.Errorf("%s: exit %d, %s", line, code, stderr.String())
		}
	}
}

// A quiet stream is followed from server to server, and not only at first; one
// that does not come back is given up.
func TestFollow(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	serve := func(span time.Duration, say string) {
		ctx, cancel := context.WithTimeout(t.Context(), span)
		defer cancel()
		s, err := control.Serve(socket, map[string]control.Handler{"tail": func(_ context.Context, _ json.RawMessage, send func(any) error) (any, error) {
			if say != "" {
				return nil, send(say)
			}
			<-ctx.Done()
			return nil, nil
		}})
		if err != nil {
			t.Error(err)
			return
		}
		<-ctx.Done()
		_ = s.Close()
	}
	tool := &tool{socket: socket, gone: stays / 2}
	go func() {
		serve(stays*3/2, "")
		serve(stays*3/2, "")
		serve(stays/4, "the third")
	}()
	for there := false; !there && pause(t.Context(), time.Millisecond); {
		_, err := os.Stat(socket)
		there = err == nil
	}
	var got string
	var stderr bytes.Buffer
	err := tool.follow(t.Context(), &stderr, "tail", func() any { return nil }, func(b json.RawMessage) error {
		got = string(b)
		return nil
	})
	if got != `"the third"` || !errors.Is(err, control.ErrNoServer) {
		t.Errorf("%s, %v\n%s", got, err, stderr.String())
	}
}
