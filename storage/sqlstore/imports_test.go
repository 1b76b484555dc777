package sqlstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"gt06/storage/event"
	"gt06/storage/logtest"
	"gt06/storage/sqlstore"
)

// History comes in once: beside what the log brought, over a second importer,
// and from the beginning again.
func TestImporter(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		s := openStore(t, opt)
		log := logtest.NewLog()
		log.Add(fix(1, 1))
		drain(t, s, log, 1)
		db := open()
		var live struct {
			Latitude  float64 `db:"latitude"`
			Longitude float64 `db:"longitude"`
			At        string  `db:"at"`
		}
		if err := db.Get(&live, "SELECT latitude, longitude, CAST(fix_time AS CHAR(19)) AS at FROM positions"); err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.DateTime, live.At)
		if err != nil {
			t.Fatal(err)
		}
		row := func(key int64, dev int, second int64, latitude, longitude float64) event.Foreign {
			return event.Foreign{Key: key, Fix: event.Fix{Device: imei(dev), FixTime: at.Unix() + second, ReceivedAt: (at.Unix() + second) * 1e6, Valid: true, Latitude: latitude, Longitude: longitude}}
		}
		old := row(5, 2, 0, 1, 2)
		old.Fix.FixTime -= 100 * 24 * 3600
		batches := [][]event.Foreign{
			{row(1, 1, 0, live.Latitude+4e-7, live.Longitude-4e-7), row(2, 2, 0, 1, 2), row(3, 2, 0, 1.000001, 2)}, // the frame of the log, as a table rounds it; one twice
			{row(4, 2, 0, 1, 2), old, {Key: 6, Refused: "no place"}, row(7, 2, 0, 1.1, 2), row(8, 2, 1, 1, 2), row(9, 1, 1, 1, 2)},
		}
		const want = "9 read, 4 written, 3 there, refused map[no place:1 older than retention.rows:1]"
		said := func(i *sqlstore.Importer) string {
			p := i.Progress()
			return fmt.Sprintf("%d read, %d written, %d there, refused %v", p.Read, p.Written, p.There, p.Refused)
		}
		var i *sqlstore.Importer
		for _, rows := range batches {
			if i, err = s.Importer(t.Context(), "name", "crm.gps_positions"); err != nil {
				t.Fatal(err)
			}
			if err := i.Store(t.Context(), rows); err != nil {
				t.Fatal(err)
			}
		}
		if got := said(i); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		// Two at a time: the second finds that the first has gone on.
		late, err := s.Importer(t.Context(), "name", "crm.gps_positions")
		if err != nil || said(late) != want {
			t.Errorf("resumed: %s, %v", said(late), err)
		}
		if err := i.Store(t.Context(), []event.Foreign{row(10, 1, 2, 3, 4)}); err != nil {
			t.Error(err)
		}
		if err := late.Store(t.Context(), []event.Foreign{row(10, 1, 2, 3, 4)}); err == nil {
			t.Error("two imports of one table went on beside each other")
		}
		if err := late.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, rows := range batches {
			if err := late.Store(t.Context(), rows); err != nil {
				t.Fatal(err)
			}
		}
		if p := late.Progress(); p.Written != 0 || p.There != 7 {
			t.Errorf("again: %s", said(late))
		}
		var rows, protocols, latest int
		if err := db.QueryRowx("SELECT (SELECT COUNT(*) FROM positions), (SELECT COUNT(*) FROM positions WHERE protocol = 0), (SELECT COUNT(*) FROM latest_positions)").Scan(&rows, &protocols, &latest); err != nil {
			t.Fatal(err)
		}
		if rows != 6 || protocols != 5 || latest != 2 {
			t.Errorf("%d rows, %d of them imported, %d latest positions", rows, protocols, latest)
		}
	})
}
