package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"gt06/server/control"
)

func (t *tool) alarmsCommand() *cobra.Command {
	q := control.AlarmsArgs{}
	var since string
	c := &cobra.Command{
		Use: "alarms [IMEI]", Short: "List the last alarms, or watch them come",
		Example: "  gt06ctl alarms --since 24h\n  gt06ctl alarms 356789012345678 --since '2026-11-24 08:00'\n  gt06ctl alarms --follow --json",
		Long: `Alarms are listed in the order in which they were received. With --follow those to
come are printed as they arrive, each once, over restarts and upgrades; none in
between is missed. --json prints a list, with --follow a line for each alarm.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if q.Since, err = moment(since, time.Now()); err != nil {
				return err
			}
			if q.IMEI, err = oneIMEI(args); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if !q.Follow {
				list := []control.Alarm{}
				if err := t.ask(cmd.Context(), "alarms", q, &list); err != nil {
					return err
				}
				if t.json {
					return printJSON(out, list)
				}
				return sayAlarms(out, list)
			}
			f := followed{tool: t, out: out, shown: map[string]time.Time{}, q: q}
			return t.follow(cmd.Context(), cmd.ErrOrStderr(), "alarms", f.args, f.each)
		},
	}
	c.Flags().StringVar(&since, "since", "1h", "received at or after: a time, or how long ago")
	c.Flags().IntVar(&q.Most, "most", 1000, "how many at most, the last ones")
	c.Flags().BoolVar(&q.Follow, "follow", false, "print those to come")
	return c
}

func sayAlarms(out io.Writer, list []control.Alarm) error {
	w := newTable(out, "RECEIVED", "IMEI", "ALARM", "CODE", "FIX", "PLACE")
	for i := range list {
		a := &list[i]
		code, place := "", ""
		if a.Code != nil {
			code = fmt.Sprintf("0x%02x", *a.Code)
		}
		if a.Latitude != nil && a.Longitude != nil {
			place = fmt.Sprintf("%.5f %.5f", *a.Latitude, *a.Longitude)
		}
		w.row(stamp(a.ReceivedAt), a.IMEI, a.Alarm, code, a.Time.UTC().Format(time.RFC3339), place)
	}
	return w.end()
}

// followed are the alarms that were printed: a server says some again after a
// restart, and what is stored comes as it is seen, too.
type followed struct {
	*tool
	out   io.Writer
	q     control.AlarmsArgs
	shown map[string]time.Time // when it was received, by what makes it the same
}

// again is how far back the next server is asked.
const again = time.Minute

func (f *followed) args() any { return f.q }

func (f *followed) each(b json.RawMessage) error {
	var list []control.Alarm
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	for i := range list {
		a := &list[i]
		place := ""
		if a.Latitude != nil && a.Longitude != nil {
			place = fmt.Sprint(*a.Latitude, *a.Longitude)
		}
		key := fmt.Sprint(a.IMEI, a.Time.Unix(), a.Alarm, place)
		if _, had := f.shown[key]; had {
			continue
		}
		f.shown[key] = a.ReceivedAt
		if since := a.ReceivedAt.Add(-again); since.After(f.q.Since) {
			f.q.Since = since
		}
		if err := f.say(a); err != nil {
			return err
		}
	}
	for key, at := range f.shown {
		if at.Before(f.q.Since) {
			delete(f.shown, key)
		}
	}
	return nil
}

func (f *followed) say(a *control.Alarm) error {
	if f.json {
		return printJSON(f.out, a)
	}
	place := ""
	if a.Latitude != nil && a.Longitude != nil {
		place = fmt.Sprintf(" at %.5f %.5f", *a.Latitude, *a.Longitude)
	}
	_, err := fmt.Fprintln(f.out, oneLine(fmt.Sprintf("%s %s %s%s", stamp(a.ReceivedAt), a.IMEI, a.Alarm, place)))
	return err
}
