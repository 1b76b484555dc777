package sink_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gt06/protocol"
	"gt06/protocol/device"
	"gt06/storage"
	"gt06/storage/sink"
)

var update = flag.Bool("update", false, "write the golden files anew")

// items are a record of each kind, and of what is no frame at all.
func items(t *testing.T) (list []sink.Item) {
	t.Helper()
	at := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	add := func(r storage.Record) {
		r.ReceivedAt = at.Add(time.Duration(len(list)) * time.Second).UnixMicro()
		list = append(list, sink.Item{Record: r, End: storage.At(1, uint32(100*(len(list)+1)))})
	}
	for _, k := range []device.Kind{device.Login, device.Location, device.Location4G, device.Heartbeat, device.Alarm, device.Cells, device.Information} {
		add(storage.Record{Device: device.IMEI(1), Input: device.Build(k, 1, 7, at).Bytes})
	}
	command, err := protocol.AppendCommand(nil, 42, "WHERE#", false)
	if err != nil {
		t.Fatal(err)
	}
	add(storage.Record{Device: device.IMEI(1), Model: "root", Answer: command})
	add(storage.Record{Device: device.IMEI(1), Input: protocol.AppendFrame(nil, 0x15, append([]byte{10, 0, 0, 0, 42}, "Lat:N1"...), 9)})
	add(storage.Record{Device: device.IMEI(1), Input: protocol.AppendFrame(nil, 0xee, []byte{1, 2}, 10)})
	add(storage.Record{Input: device.Build(device.Heartbeat, 1, 7, at).Bytes})
	add(storage.Record{Device: device.IMEI(1), Input: []byte("junk"), Flags: storage.Junk})
	return list
}

// The events of each kind of record, byte for byte: they are a contract.
func TestEvents(t *testing.T) {
	t.Parallel()
	events, err := sink.NewEncoder("0123456789abcdef", nil).Events(items(t))
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	ids := map[string]bool{}
	types := map[sink.Type]bool{}
	for _, e := range events {
		got.Write(append(e.JSON, '\n'))
		ids[e.ID], types[e.Type] = true, true
	}
	if len(ids) != len(events) {
		t.Errorf("%d events have %d ids", len(events), len(ids))
	}
	for _, want := range sink.Types() {
		if !types[want] {
			t.Errorf("no event of type %s: the test shows too little", want)
		}
	}
	path := filepath.Join("testdata", "events.jsonl")
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("events are\n%s\nwant\n%s", got.Bytes(), want)
	}
}

// What is wanted changes no id: a receiver that wants more later knows again
// what it has.
func TestWantedTypesKeepTheirIDs(t *testing.T) {
	t.Parallel()
	all, err := sink.NewEncoder("n", nil).Events(items(t))
	if err != nil {
		t.Fatal(err)
	}
	some, err := sink.NewEncoder("n", []sink.Type{sink.TypeAlarm}).Events(items(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(some) == 0 {
		t.Fatal("no alarm")
	}
	for _, e := range some {
		found := false
		for _, a := range all {
			found = found || a.ID == e.ID && bytes.Equal(a.JSON, e.JSON)
		}
		if !found || e.Type != sink.TypeAlarm {
			t.Errorf("%s is not among all", e.JSON)
		}
	}
}

// Events have the names of the database's columns: who reads both learns one
// set of names.
func TestEventsHaveTheNamesOfColumns(t *testing.T) {
	t.Parallel()
	columns := map[string]bool{}
	schemas, err := filepath.Glob(filepath.Join("..", "sqlstore", "migrations", "sqlite", "*.sql"))
	if err != nil || len(schemas) == 0 {
		t.Fatal(schemas, err)
	}
	for _, path := range schemas {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^\s+([a-z_]+)\s+[A-Z]|ADD COLUMN ([a-z_]+)`).FindAllStringSubmatch(string(b), -1) {
			columns[m[1]+m[2]] = true
		}
	}
	// Not of a table: what the event is, and the flag that a command and its reply
	// share.
	for _, name := range []string{"id", "type", "imei", "flag"} {
		columns[name] = true
	}
	events, err := sink.NewEncoder("n", nil).Events(items(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(e.JSON, &keys); err != nil {
			t.Fatal(err)
		}
		for k := range keys {
			if !columns[k] {
				t.Errorf("%s has %s, which is no column", e.Type, k)
			}
		}
	}
	if !columns["battery_level"] || strings.Contains(string(events[0].JSON), "null,null") {
		t.Error("the columns were not read")
	}
}
