package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"gt06/server"
	"gt06/server/control"
	"gt06/storage/event"
	"gt06/storage/sqlstore"
)

// remedies says of each problem what it means and what mends it. %[1]s is the
// IMEI, %[2]s what is particular.
//
//nolint:gochecknoglobals // read-only table
var remedies = map[string]struct{ text, do string }{
	string(event.ProblemZone):        {"its clock is off by whole quarters of an hour: local time where UTC is due", "gt06ctl devices timezone %[1]s %[2]s"},
	string(event.ProblemClock):       {"its clock says times in the future or before 2010; the rows have the time of their receipt", "set its clock, or wait for a fix of its GPS receiver: gt06ctl tail %[1]s"},
	string(event.ProblemRollover):    {"its GPS receiver counts weeks from zero again; 1,024 weeks are added", "nothing now; new firmware of its vendor in the end"},
	string(event.ProblemJump):        {"it reports places that cannot be reached in time; they are in positions, not in latest_positions", "look at its antenna and power: gt06ctl tail %[1]s"},
	string(event.ProblemNowhere):     {"it reports 0, 0 as a fix; that is in positions, not in latest_positions", "look at its antenna: gt06ctl tail %[1]s"},
	string(server.TroubleTwin):       {"it speaks on two connections at a time, from %[2]s", "two devices have one IMEI, or somebody copies it: look where both are, then gt06ctl devices block %[1]s or program one of them anew"},
	string(server.TroubleFlapping):   {"it logs in again and again, last from %[2]s", "look at its signal, SIM and power: gt06ctl tail %[1]s"},
	sqlstore.StatusQuarantined:       {"nobody has confirmed it; its rows are few until then", "gt06ctl devices allow %[1]s, or block; gt06ctl replay stores what the log still has"},
	server.CloseBlocked.String():     {"it is blocked and comes again, last from %[2]s", "gt06ctl devices allow %[1]s, or take its SIM out of service"},
	server.CloseNotAllowed.String():  {"it is not registered and the policy is allow; it was refused, last from %[2]s", "gt06ctl devices allow %[1]s"},
	server.CloseUnknownMax.String():  {"it is not registered and limits.unknown_devices is reached; it was refused, last from %[2]s", "gt06ctl devices allow %[1]s, or raise the limit"},
	server.CloseAddressMax.String():  {"it is not registered and its address brought too many such; it was refused, last from %[2]s", "gt06ctl devices allow %[1]s, or raise limits.address_devices"},
	server.CloseIMEIChanged.String(): {"it logged in on the connection of another device, from %[2]s", "a gateway in front? Each device needs a connection of its own"},
}

func problem(imei, kind string, count int, last time.Time, particular string) control.Problem {
	fill := func(s string) string {
		if !strings.Contains(s, "%[") {
			return s
		}
		return fmt.Sprintf(s, imei, particular)
	}
	r := remedies[kind]
	p := control.Problem{IMEI: imei, Kind: kind, Count: count, Text: fill(r.text), Do: fill(r.do)}
	if !last.IsZero() {
		p.Last = last.UTC().Format(time.RFC3339)
	}
	return p
}

// Problems lists what is wrong with devices, the latest first. What comes from
// frames and connections is since this server began; without the database it
// is only what connections show.
func (a *app) Problems(ctx context.Context) ([]control.Problem, error) {
	list := []control.Problem{}
	for _, t := range a.server.Troubles() {
		from := t.Remote
		if t.Other != "" {
			from += " and " + t.Other
		}
		list = append(list, problem(t.IMEI.String(), string(t.Kind), t.Count, t.Last, from))
	}
	store, w, _ := a.store.get()
	if store != nil {
		for imei, found := range w.Problems() {
			for _, p := range found {
				list = append(list, problem(imei.String(), string(p.Kind), p.Count, time.UnixMicro(p.Last), event.Zone(p.Zone)))
			}
		}
		names := map[string]string{}
		err := store.EachDevice(ctx, func(d *sqlstore.Device) {
			names[d.IMEI] = d.Name
			if d.Status == sqlstore.StatusQuarantined {
				list = append(list, problem(d.IMEI, sqlstore.StatusQuarantined, 1, d.LastSeen, ""))
			}
		})
		if err != nil {
			return nil, err
		}
		for i := range list {
			list[i].Name = names[list[i].IMEI]
		}
	}
	slices.SortStableFunc(list, func(a, b control.Problem) int {
		return cmp.Or(cmp.Compare(b.Last, a.Last), cmp.Compare(a.IMEI, b.IMEI), cmp.Compare(a.Kind, b.Kind))
	})
	return list, nil
}
