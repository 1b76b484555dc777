package sqlstore_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jmoiron/sqlx"

	"gt06/protocol"
	"gt06/storage"
	"gt06/storage/logtest"
	"gt06/storage/sqlstore"
)

func everyDevice(t *testing.T, s *sqlstore.Store) (list []sqlstore.Device, err error) {
	t.Helper()
	err = s.EachDevice(t.Context(), func(d *sqlstore.Device) { list = append(list, *d) })
	return list, err
}

func TestWhatAnOperatorSaysOfDevices(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, _ func() *sqlx.DB) {
		s := openStore(t, opt)
		change := func(want int, list ...sqlstore.DeviceChange) {
			t.Helper()
			if n, err := s.Change(t.Context(), list); err != nil || n != want {
				t.Errorf("%d registered, want %d: %v", n, want, err)
			}
		}
		one, two := imei(1).String(), imei(2).String()
		change(2,
			sqlstore.DeviceChange{IMEI: one, Name: new("truck '1'\n"), Model: new("NT20"), UTCOffset: new(int32(19800))},
			sqlstore.DeviceChange{IMEI: two, Status: new(sqlstore.StatusBlocked)})
		change(0, sqlstore.DeviceChange{IMEI: one, Model: new("")})
		list, err := everyDevice(t, s)
		if err != nil || len(list) != 2 {
			t.Fatalf("%+v, %v", list, err)
		}
		if d := list[0]; d.Name != "truck '1'\n" || d.Model != "" || d.UTCOffset == nil || *d.UTCOffset != 19800 || d.Status != sqlstore.StatusAllowed {
			t.Errorf("%+v", d)
		}
		if d := list[1]; d.Status != sqlstore.StatusBlocked || d.UTCOffset != nil {
			t.Errorf("%+v", d)
		}
		change(0, sqlstore.DeviceChange{IMEI: one, OwnOffset: true})
		// All or nothing: the second of these is no status.
		if _, err := s.Change(t.Context(), []sqlstore.DeviceChange{{IMEI: one, Name: new("other")}, {IMEI: two, Status: new("nonsense")}}); err == nil && opt.Kind == sqlstore.MariaDB {
			t.Error("a status that does not exist was taken")
		}
		if list, err = everyDevice(t, s); err != nil || list[0].UTCOffset != nil || opt.Kind == sqlstore.MariaDB && list[0].Name == "other" {
			t.Errorf("%+v, %v", list, err)
		}
	})
}

// An operator and the writer name the same new devices at the same moment.
func TestAnOperatorBesideTheWriter(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		s := openStore(t, opt)
		log := logtest.NewLog()
		const devices = 200
		done := make(chan error, 1)
		go func() {
			var err error
			for n := range devices {
				if err == nil {
					_, err = s.Change(context.Background(), []sqlstore.DeviceChange{{IMEI: imei(n).String(), Name: new("x")}})
				}
			}
			done <- err
		}()
		for n := range devices {
			log.Add(fix(n, 1))
			if n%20 == 19 {
				drain(t, s, log, int64(n))
			}
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := count(t, open(), "SELECT COUNT(*) FROM devices WHERE name = 'x'"); n != devices {
			t.Errorf("%d devices have their name, want %d", n, devices)
		}
	})
}

// drainAs is drain with options of a test.
func drainAs(t *testing.T, s *sqlstore.Store, log *logtest.Log, o sqlstore.WriterOptions) *sqlstore.Writer {
	t.Helper()
	o.Log, o.Node, o.Decoder = log, "node", &protocol.Decoder{}
	w := s.Writer(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	eventually(t, func() bool { return w.Status().Position == log.Durable() }, func() string { return fmt.Sprintf("%+v", w.Status()) })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return w
}

func TestRowsOfDevicesNobodyConfirmedAreCapped(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		s := openStore(t, opt)
		if _, err := s.Change(t.Context(), []sqlstore.DeviceChange{{IMEI: imei(2).String()}}); err != nil {
			t.Fatal(err)
		}
		log := logtest.NewLog()
		more := func(from int) {
			for n := from; n < from+40; n++ {
				log.Add(fix(1, n), beat(1, n), fix(2, n))
			}
		}
		o := sqlstore.WriterOptions{Confirm: func() bool { return true }, Caps: sqlstore.Caps{Quarantined: 50}, Epoch: 1}
		more(0)
		drainAs(t, s, log, o)
		more(40) // a new writer counts what is there
		o.Epoch = 2
		drainAs(t, s, log, o)
		rows := func(device int) int {
			const of = " JOIN devices d ON d.id = t.device_id WHERE d.imei = '"
			n := 0
			for _, table := range []string{"positions", "heartbeats"} {
				n += count(t, open(), "SELECT COUNT(*) FROM "+table+" t"+of+imei(device).String()+"'")
			}
			return n
		}
		if n := rows(1); n != 50 {
			t.Errorf("%d rows of a device in quarantine, want 50", n)
		}
		if n := rows(2); n != 80 {
			t.Errorf("%d rows of a device that is known, want 80", n)
		}
		// Allowed, it is like any other.
		if _, err := s.Change(t.Context(), []sqlstore.DeviceChange{{IMEI: imei(1).String(), Status: new(sqlstore.StatusAllowed)}}); err != nil {
			t.Fatal(err)
		}
		more(80)
		o.Epoch = 3
		w := drainAs(t, s, log, o)
		if n := rows(1); n != 50+80 {
			t.Errorf("%d rows of a device that was allowed, want 130", n)
		}
		w.Forget()
	})
}

func TestFramesWithoutALoginAreCapped(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		log := logtest.NewLog()
		for n := range 100 {
			r := fix(1, n)
			r.Device = 0
			log.Add(r)
			r.ReceivedAt += 3600e6
			log.Add(r)
		}
		log.Add(storage.Record{Conn: 9, ReceivedAt: base.UnixMicro(), Device: imei(1), Input: frame(1, 1, 0x77, []byte{1}).Input})
		drainAs(t, openStore(t, opt), log, sqlstore.WriterOptions{Epoch: 1, Caps: sqlstore.Caps{Nameless: 30}})
		n := count(t, open(), "SELECT COUNT(*) FROM quarantined_frames WHERE imei IS NULL")
		if n > 62 || n < 30 || count(t, open(), "SELECT COUNT(*) FROM quarantined_frames") != n+1 {
			t.Errorf("%d rows of connections without a login in two hours of 30 each", n)
		}
	})
}
