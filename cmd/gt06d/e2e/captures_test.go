package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to look at the rows

	"gt06/protocol"
	"gt06/protocol/device"
	"gt06/protocol/vectortest"
	"gt06/server/control"
	"gt06/storage/sqlstore"
	"gt06/storage/sqlstore/mariadbtest"
)

// captures returns the frames of real devices.
func captures(t *testing.T) (list []vectortest.Vector) {
	t.Helper()
	vectortest.Lines(t, "captures.jsonl", func(line []byte) {
		var v vectortest.Vector
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	})
	return list
}

// unproven says whether the frame is one that this version keeps and answers
// without reading it whole: its kind is not in the table, or its content is
// damaged.
func unproven(got *vectortest.Decoded) bool { return got.Type == "unknown" || got.Error != "" }

func TestCapturesThroughDecode(t *testing.T) {
	t.Parallel()
	byModel := map[string][]vectortest.Vector{}
	for _, v := range captures(t) {
		byModel[v.Model] = append(byModel[v.Model], v)
	}
	good, kept := 0, 0
	for model, list := range byModel {
		var in bytes.Buffer
		for i := range list {
			in.WriteString(list[i].Hex + "\n")
		}
		cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "gt06ctl"), "decode", "--json", "--no-login", "--model", model)
		cmd.Stdin = &in
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if len(lines) != len(list) {
			t.Fatalf("model %q: %d lines for %d frames", model, len(lines), len(list))
		}
		for i, line := range lines {
			var got vectortest.Decoded
			if err := json.Unmarshal([]byte(line), &got); err != nil {
				t.Fatal(err)
			}
			diff := vectortest.Differences(&list[i], &got)
			if unproven(&got) && len(diff) > 0 {
				kept++
				continue
			}
			if len(diff) > 0 {
				t.Errorf("%s: %s", list[i].ID, strings.Join(diff, "; "))
			}
			good++
		}
	}
	t.Logf("%d captures equal, %d kept and answered as unknown", good, kept)
	if kept > 0 {
		t.Errorf("%d captures are not decoded", kept)
	}
}

// whole drops the frames that were cut short by who captured them, several in
// one line, and those that Traccar gives up on.
func whole(list []vectortest.Vector) []vectortest.Vector {
	return slices.DeleteFunc(list, func(v vectortest.Vector) bool {
		frame, _ := hex.DecodeString(v.Hex)
		c := new(protocol.Framer).Next(frame, true)
		return c.Len != len(frame) || len(v.Expected.Error) > 0 && !bytes.Equal(v.Expected.Error, []byte("null"))
	})
}

// throughTheSocket sends each frame from a device of its own, in two parts, ten
// at a time, and compares the answers and then the rows with what is expected
// of it. It returns how many rows were equal, and how many of each type.
func throughTheSocket(t *testing.T, list []vectortest.Vector) (rows int, types map[string]int) {
	t.Helper()
	d := newDaemon(t)
	d.start()
	d.drained()
	d.stop()
	db := openRows(t, d)
	const models = `INSERT INTO devices (imei, model, status, created_at, updated_at) VALUES (?, ?, 'allowed', '2026-01-01', '2026-01-01')`
	for i := range list {
		if list[i].Model != "" {
			if _, err := db.ExecContext(t.Context(), models, device.IMEI(i).String(), list[i].Model); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.start()
	d.drained() // the models are read
	var wg sync.WaitGroup
	const peers = 10
	for k := range peers {
		wg.Go(func() {
			for i := k; i < len(list); i += peers {
				exchange(t, d, i, &list[i])
			}
		})
	}
	wg.Wait()
	d.drained()
	types = map[string]int{}
	for i := range list {
		v := &list[i]
		got := decodeCapture(t, v)
		imei := device.IMEI(i).String()
		if got.IMEI != "" {
			imei = got.IMEI
		}
		n := compareRow(t, db, imei, v, &got)
		rows += n
		types[v.Hex[:4]+" "+v.Type] += n
	}
	return rows, types
}

func TestCapturesThroughTheSocket(t *testing.T) {
	t.Parallel()
	rows, _ := throughTheSocket(t, whole(captures(t)))
	t.Logf("%d captures are rows with equal fields", rows)
	if rows < 106 {
		t.Errorf("only %d captures are rows", rows)
	}
}

func decodeCapture(t *testing.T, v *vectortest.Vector) (got vectortest.Decoded) {
	t.Helper()
	frame, err := hex.DecodeString(v.Hex)
	if err != nil {
		t.Fatal(err)
	}
	var m protocol.Message
	s := protocol.Session{Model: v.Model}
	new(protocol.Decoder).Decode(&m, frame, s)
	if err := json.Unmarshal(protocol.AppendJSON(nil, &m, s, nil), &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// exchange logs a device in, sends the capture and compares the answers. A
// login behind it ends the exchange: its answer is the last.
func exchange(t *testing.T, d *daemon, n int, v *vectortest.Vector) {
	t.Helper()
	c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close() //nolint:errcheck // a test's own
	_ = c.SetDeadline(time.Now().Add(patience))
	login := device.Build(device.Login, n, 0, time.Now()).Bytes
	frame, _ := hex.DecodeString(v.Hex)
	last := device.Build(device.Login, n, 0xfefd, time.Now()).Bytes
	decoded := decodeCapture(t, v)
	if imei, err := protocol.ParseIMEI(decoded.IMEI); err == nil { // a connection is one device's
		login, last = nil, protocol.AppendFrame(nil, 0x01, imei.AppendBCD(nil), 0xfefe)
	}
	stream := slices.Concat(login, frame)
	for _, part := range [][]byte{stream[:len(login)+len(frame)/2], stream[len(login)+len(frame)/2:], last} {
		if _, err := c.Write(part); err != nil {
			t.Error(err)
			return
		}
		pause(time.Millisecond)
	}
	answerTo := func(b []byte) []byte {
		var m protocol.Message
		new(protocol.Decoder).Decode(&m, b, protocol.Session{})
		return protocol.AppendAnswer(nil, &m, b, time.Now())
	}
	end := answerTo(last)
	var first []byte
	if len(login) > 0 {
		first = answerTo(login)
	}
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.HasSuffix(got, end) {
		k, err := c.Read(buf)
		if err != nil {
			t.Errorf("%s: %v after %x", v.ID, err, got)
			return
		}
		got = append(got, buf[:k]...)
	}
	got = got[len(first) : len(got)-len(end)]
	if v.TimeDependent || unproven(&decoded) {
		return
	}
	if want := strings.Join(v.Response, ""); hex.EncodeToString(got) != want {
		t.Errorf("%s: answered %x, want %s", v.ID, got, want)
	}
}

func openRows(t *testing.T, d *daemon) *sql.DB {
	t.Helper()
	driver, dsn := "sqlite", "file:"+filepath.Join(d.dir, "gt06.db")+"?_pragma=busy_timeout(10000)"
	if i := slices.Index(d.args, "--dsn"); i >= 0 {
		driver, dsn = "mysql", d.args[i+1]
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// compareRow compares the one row of a capture with what is expected of it.
func compareRow(t *testing.T, db *sql.DB, imei string, v *vectortest.Vector, got *vectortest.Decoded) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	count := func(table, where string) (n int) {
		query := fmt.Sprintf("SELECT COUNT(*) FROM %s t JOIN devices d ON d.id = t.device_id WHERE d.imei = ? %s", table, where)
		if table == "quarantined_frames" {
			query = "SELECT COUNT(*) FROM quarantined_frames WHERE imei = ?"
		}
		if err := db.QueryRowContext(ctx, query, imei).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	// Traccar rolls an impossible date over, ours gives none: the rest is a row.
	const noDate = "impossible date"
	if unproven(got) && !strings.HasPrefix(got.Error, noDate) {
		if n := count("quarantined_frames", ""); n != 1 {
			t.Errorf("%s: %d frames in quarantine, want 1 (%s)", v.ID, n, got.Error)
		}
		return 0
	}
	p := v.Expected.Position
	if p == nil {
		return 0 // a login
	}
	table := "positions"
	switch got.Type {
	case "heartbeat", "status":
		table = "heartbeats"
	case "location", "alarm", "lbs", "wifi":
	default:
		if got.Latitude == nil {
			table = "device_events"
		}
	}
	extra := ""
	if table == "device_events" {
		extra = "AND t.kind <> 'login'"
	}
	if n := count(table, extra); n != 1 {
		if table != "heartbeats" || n != 0 {
			t.Errorf("%s (%s): %d rows in %s", v.ID, got.Type, n, table)
		}
		return 0
	}
	var text string
	if err := db.QueryRowContext(ctx, fmt.Sprintf("SELECT t.attributes FROM %s t JOIN devices d ON d.id = t.device_id WHERE d.imei = ? %s", table, extra), imei).Scan(&text); err != nil {
		t.Fatal(err)
	}
	var attributes map[string]any
	if err := json.Unmarshal([]byte(text), &attributes); err != nil {
		t.Fatal(err)
	}
	for key, want := range p.Attributes {
		if key != "alarm" && key != "type" && !vectortest.Equal(attributes[key], want) {
			t.Errorf("%s: %s is %v in the row, want %v", v.ID, key, attributes[key], want)
		}
	}
	if table != "positions" {
		return 1
	}
	var at string
	var latitude, longitude, speed, course, altitude sql.NullFloat64
	var valid bool
	var alarm sql.NullString
	row := db.QueryRowContext(ctx, "SELECT t.fix_time, t.latitude, t.longitude, t.speed_kmh, t.course, t.altitude, t.valid, t.alarm FROM positions t JOIN devices d ON d.id = t.device_id WHERE d.imei = ?", imei)
	if err := row.Scan(&at, &latitude, &longitude, &speed, &course, &altitude, &valid, &alarm); err != nil {
		t.Fatal(err)
	}
	if !p.Outdated {
		for name, pair := range map[string][2]float64{
			"latitude": {latitude.Float64, p.Latitude}, "longitude": {longitude.Float64, p.Longitude}, "speed": {speed.Float64, p.Speed * 1.852},
			"course": {course.Float64, p.Course}, "altitude": {altitude.Float64, p.Altitude},
		} {
			if math.Abs(pair[0]-pair[1]) > 1e-4 {
				t.Errorf("%s: %s is %v in the row, want %v", v.ID, name, pair[0], pair[1])
			}
		}
		if valid != p.Valid {
			t.Errorf("%s: valid is %v in the row", v.ID, valid)
		}
	} else if latitude.Valid || valid {
		t.Errorf("%s: a place in the row of a frame without a fix", v.ID)
	}
	if when := p.FixTime; when != nil && got.Error == "" && when.Year() >= 2010 && when.Before(time.Now()) && !strings.HasPrefix(at, when.UTC().Format(time.DateTime)) {
		t.Errorf("%s: fix_time is %s in the row, want %v", v.ID, at, when)
	}
	if first, _, _ := strings.Cut(fmt.Sprint(p.Attributes["alarm"]), ","); p.Attributes["alarm"] != nil && alarm.String != first {
		t.Errorf("%s: alarm is %q in the row, want %q", v.ID, alarm.String, first)
	}
	return 1
}

func TestEverySplitOfEveryKindThroughTheSocket(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	c, err := net.Dial("tcp", d.addr) //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // a test's own
	var dec protocol.Decoder
	var m protocol.Message
	serial := 0
	for kind := device.Login; kind <= device.TimeRequest; kind++ {
		size := len(device.Build(kind, 1, 0, time.Now()).Bytes)
		for at := range size {
			f := device.Build(kind, 1, serial, time.Now()).Bytes
			serial++
			for _, part := range [][]byte{f[:at], f[at:]} {
				if _, err := c.Write(part); err != nil {
					t.Fatal(err)
				}
				pause(200 * time.Microsecond)
			}
			dec.Decode(&m, f, protocol.Session{})
			want := protocol.AppendAnswer(nil, &m, f, time.Now())
			got := make([]byte, len(want))
			_ = c.SetReadDeadline(time.Now().Add(patience))
			for n := 0; n < len(want); {
				k, err := c.Read(got[n:])
				if err != nil {
					t.Fatalf("kind %d split at %d: %v", kind, at, err)
				}
				n += k
			}
			if kind != device.TimeRequest && !bytes.Equal(got, want) {
				t.Fatalf("kind %d split at %d: answer %x, want %x", kind, at, got, want)
			}
		}
	}
}

// A frame of every type, and every dialect, into rows.
func TestGeneratedThroughTheSocket(t *testing.T) {
	t.Parallel()
	var list []vectortest.Vector
	add := func(line []byte) {
		var v vectortest.Vector
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
	vectortest.Built(t, add)
	vectortest.Lines(t, "generated.jsonl", add)
	list = whole(list)
	rows, types := throughTheSocket(t, list)
	var none []string
	for name, n := range types {
		if n == 0 {
			none = append(none, name)
		}
	}
	slices.Sort(none)
	t.Logf("%d frames of %d types, %d rows with equal fields; no row for %v", len(list), len(types), rows, none)
	if len(list) < 1000 || rows < 900 {
		t.Errorf("only %d frames, %d rows", len(list), rows)
	}
}

// What a device writes is harmless in SQL, JSON, logs and on terminals.
func TestStringsFromTheWire(t *testing.T) {
	t.Parallel()
	nasty := map[string]string{
		"quotes": `'; DROP TABLE devices; -- "\`, "lines": "a\r\nb\n{\"level\":\"error\"}\n", "terminal": "\x1b[2J\x1b]0;owned\x07", "zeros": "a\x00b",
		"not UTF-8": "\xff\xfe\x80", "long": strings.Repeat("x'\\\"", 15_000),
	}
	for store, args := range map[string][]string{"sqlite": nil, "mariadb": {"--store", "mariadb"}} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			if args != nil {
				args = append(args, "--dsn", mariadbtest.Schema(t))
			}
			d := newDaemon(t, args...)
			d.start()
			n := 30
			for name, text := range nasty {
				r := d.replier(n, nil)
				n++
				b := append([]byte{0, 0, 0, 1, 1}, text...)
				if _, err := r.c.Write(protocol.AppendExtended(nil, 0x21, b, 3)); err != nil {
					t.Fatal(err)
				}
				if _, err := r.c.Write(protocol.AppendExtended(nil, 0x9b, append([]byte{3}, text...), 4)); err != nil {
					t.Fatal(err)
				}
				pause(50 * time.Millisecond)
				d.drained()
				var rows []sqlstore.Stored
				if err := d.client().Call(t.Context(), "rows", control.RowsArgs{IMEIs: []string{r.imei}}, &rows); err != nil {
					t.Fatal(err)
				}
				kinds := map[string]int{}
				for _, row := range rows {
					kinds[row.Table+" "+row.Kind]++
				}
				if kinds["device_events command_reply"] != 1 || kinds["device_events info"] != 1 || kinds["quarantined_frames "] != 0 {
					t.Errorf("%s: rows %v", name, kinds)
				}
			}
			if strings.Contains(d.out.String(), "\x1b") {
				t.Error("the log has an escape of a device")
			}
			out, _, code := d.ctl("devices", "--json")
			if code != 0 || !json.Valid([]byte(out)) || strings.Count(out, `"imei"`) != len(nasty) {
				t.Errorf("exit code %d, %s", code, out)
			}
		})
	}
}
