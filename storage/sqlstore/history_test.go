package sqlstore_test

import (
	"errors"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"gt06/storage"
	"gt06/storage/logtest"
	"gt06/storage/sqlstore"
)

// alarm is an SOS with a fix (0x26).
func alarm(device, n int) storage.Record {
	return frame(device, n, 0x26, append(gps(n, uint32(40_000_000+n)), 8, 0x01, 0xcc, 0x00, 0x28, 0x7d, 0x00, 0x1f, 0x71, 0x46, 4, 4, 1, 1))
}

func TestPositionsComeInPagesAndNoneTwice(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, _ func() *sqlx.DB) {
		const many = 2501 // two pages and a bit
		s, log := openStore(t, opt), logtest.NewLog()
		for n := range many {
			log.Add(fix(1, n))
		}
		log.Add(fix(2, 5))
		// A second full of fixes, at the place where the first page ends.
		for n := range 1500 {
			log.Add(frame(1, 998, 0x22, append(gps(998, uint32(50_000_000+n)), 0x01, 0xcc, 0x00, 0x28, 0x7d, 0x00, 0x1f, 0x71, 1, 0, 0)))
		}
		drain(t, s, log, 1)
		var times []time.Time
		pages := 0
		each := func(list []sqlstore.Position) error {
			pages++
			for i := range list {
				times = append(times, list[i].Time)
				if p := &list[i]; p.Latitude == nil || p.SpeedKMH == nil || p.Kind != "location" || !p.Valid || p.ReceivedAt.IsZero() || len(p.Attributes) == 0 {
					t.Fatalf("%+v", p)
				}
			}
			return nil
		}
		from, to := base.Add(time.Second), base.Add((many-1)*time.Second)
		if err := s.Positions(t.Context(), imei(1).String(), from, to, each); err != nil {
			t.Fatal(err)
		}
		if want := many - 2 + 1500; len(times) != want || pages < 3 {
			t.Errorf("%d positions in %d pages, want %d", len(times), pages, want)
		}
		for i := 1; i < len(times); i++ {
			if times[i].Before(times[i-1]) {
				t.Fatalf("%v after %v", times[i], times[i-1])
			}
		}
		enough := errors.New("enough")
		if err := s.Positions(t.Context(), imei(1).String(), from, to, func([]sqlstore.Position) error { return enough }); !errors.Is(err, enough) {
			t.Errorf("%v", err)
		}
		if err := s.Positions(t.Context(), imei(3).String(), from, to, each); !errors.Is(err, sqlstore.ErrNoDevice) {
			t.Errorf("a device nobody knows: %v", err)
		}
	})
}

func TestAlarmsAreTheLastOnes(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, _ func() *sqlx.DB) {
		s, log := openStore(t, opt), logtest.NewLog()
		for n := range 20 {
			log.Add(alarm(1, n), fix(1, n), alarm(2, n))
		}
		drain(t, s, log, 1)
		for _, c := range []struct {
			imei  string
			since time.Time
			most  int
			want  int
		}{{"", base, 100, 40}, {imei(1).String(), base, 100, 20}, {"", base.Add(15 * time.Second), 100, 10}, {"", base, 3, 3}, {imei(3).String(), base, 9, 0}} {
			list, err := s.Alarms(t.Context(), c.imei, c.since, c.most)
			if err != nil || len(list) != c.want {
				t.Errorf("%+v: %d alarms, %v", c, len(list), err)
			}
			for i := range list {
				if a := &list[i]; a.Alarm != "sos" || a.Latitude == nil || a.ReceivedAt.Before(c.since) || i > 0 && a.ReceivedAt.Before(list[i-1].ReceivedAt) {
					t.Errorf("%+v", a)
				}
			}
			if n := len(list); n > 0 && !list[n-1].ReceivedAt.Equal(base.Add(19*time.Second)) {
				t.Errorf("the last one is missing: %+v", list[n-1])
			}
			if c.imei != "" {
				continue
			}
			recent, err := s.RecentAlarms(t.Context(), c.since, c.most)
			if err != nil || len(recent) != c.want || !recent[0].Time.Equal(list[0].Time) || !recent[c.want-1].Time.Equal(list[c.want-1].Time) {
				t.Errorf("%+v: %d recent alarms, %v", c, len(recent), err)
			}
		}
	})
}
