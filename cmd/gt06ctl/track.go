package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/protocol"
	"gt06/server/control"
)

func (t *tool) trackCommand() *cobra.Command {
	var from, to, format string
	c := &cobra.Command{
		Use: "track IMEI", Short: "Print where a device was: a table, GeoJSON or CSV",
		Example: "  gt06ctl track 356789012345678\n  gt06ctl track 356789012345678 --from '2026-11-24 08:00' --to '2026-11-24 18:00' --format geojson > day.geojson\n  gt06ctl track 356789012345678 --from 48h --format csv",
		Long: `Positions come from the database, by the time of the fix; times are UTC. GeoJSON is
a FeatureCollection: a point for each position, and at the end the line through
the valid fixes, with their times in coordTimes. Positions without a fix (cells,
WiFi) are in the table and in CSV only. --json prints an object a line.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now()
			imei, err := oneIMEI(args)
			if err != nil {
				return err
			}
			q := control.TrackArgs{IMEI: imei}
			if q.From, err = moment(from, now); err != nil {
				return err
			}
			if q.To, err = moment(to, now); err != nil {
				return err
			}
			if !cmd.Flags().Changed("to") {
				q.To = now.Add(time.Minute) // the newest fixes: clocks of devices are ahead a little
			}
			if t.json {
				format = "json"
			}
			sink, ok := map[string]func(io.Writer, string) trackWriter{"table": tableTrack, "csv": csvTrack, "geojson": geoTrack, "json": jsonTrack}[format]
			if !ok {
				return cli.Fail(cli.Usage, fmt.Errorf("--format is %q: it can be table, csv or geojson", format))
			}
			return t.track(cmd, q, sink(cmd.OutOrStdout(), imei))
		},
	}
	c.Flags().StringVar(&from, "from", "24h", "fixes at or after: a time, or how long ago")
	c.Flags().StringVar(&to, "to", "0s", "and before")
	c.Flags().StringVar(&format, "format", "table", "table, csv or geojson")
	return c
}

// oneIMEI returns the IMEI among the arguments, "" for none.
func oneIMEI(args []string) (string, error) {
	if len(args) == 0 {
		return "", nil
	}
	imei, err := protocol.ParseIMEI(args[0])
	if err != nil {
		return "", cli.Fail(cli.Usage, err, "gt06ctl devices lists the devices")
	}
	return imei.String(), nil
}

func (t *tool) track(cmd *cobra.Command, q control.TrackArgs, w trackWriter) error {
	c, err := t.client()
	if err != nil {
		return cli.Fail(cli.Usage, err)
	}
	rows, whole := 0, false
	err = c.Stream(cmd.Context(), "track", q, func(b json.RawMessage) error {
		var list []control.Position
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
		whole = len(list) == 0
		for i := range list {
			if err := w.add(&list[i]); err != nil {
				return err
			}
		}
		rows += len(list)
		return nil
	})
	if err != nil {
		return explain(err)
	}
	if !whole {
		return cli.Fail(cli.Internal, fmt.Errorf("the server ended in the middle: %d positions were printed, not all", rows), "run it once more")
	}
	if rows == 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "no position of %s from %s to %s\n", q.IMEI, q.From.UTC().Format(time.RFC3339), q.To.UTC().Format(time.RFC3339))
	}
	return w.end()
}

// trackWriter prints positions in one form.
type trackWriter struct {
	add func(*control.Position) error
	end func() error
}

// number prints an optional number, "" for none.
func number(v *float64, digits int) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'f', digits, 64)
}

func tableTrack(out io.Writer, _ string) trackWriter {
	w := newTable(out, "TIME", "KIND", "VALID", "LATITUDE", "LONGITUDE", "KM/H", "COURSE", "SATELLITES", "ALARM")
	return trackWriter{
		add: func(p *control.Position) error {
			satellites := ""
			if p.Satellites != nil {
				satellites = fmt.Sprint(*p.Satellites)
			}
			w.row(p.Time.UTC().Format(time.RFC3339), p.Kind, p.Valid, number(p.Latitude, 6), number(p.Longitude, 6), number(p.SpeedKMH, 0), number(p.Course, 0), satellites, p.Alarm)
			return nil
		},
		end: w.end,
	}
}

func csvTrack(out io.Writer, imei string) trackWriter {
	w := csv.NewWriter(out)
	_ = w.Write([]string{"imei", "fix_time", "received_at", "kind", "valid", "latitude", "longitude", "altitude", "speed_kmh", "course", "satellites", "ignition", "alarm", "attributes"})
	return trackWriter{
		add: func(p *control.Position) error {
			satellites, ignition := "", ""
			if p.Satellites != nil {
				satellites = fmt.Sprint(*p.Satellites)
			}
			if p.Ignition != nil {
				ignition = fmt.Sprint(*p.Ignition)
			}
			return w.Write([]string{
				imei, p.Time.UTC().Format(time.RFC3339), p.ReceivedAt.UTC().Format(time.RFC3339Nano), oneLine(p.Kind), fmt.Sprint(p.Valid), number(p.Latitude, -1), number(p.Longitude, -1),
				number(p.Altitude, -1), number(p.SpeedKMH, -1), number(p.Course, -1), satellites, ignition, oneLine(p.Alarm), oneLine(string(p.Attributes)),
			})
		},
		end: func() error { w.Flush(); return w.Error() },
	}
}

func jsonTrack(out io.Writer, _ string) trackWriter {
	return trackWriter{add: func(p *control.Position) error { return printJSON(out, p) }, end: func() error { return nil }}
}

// geoTrack writes a FeatureCollection (RFC 7946) as it goes.
func geoTrack(out io.Writer, imei string) trackWriter {
	line := [][2]float64{}
	times := []string{}
	feature := func(geometry string, coordinates any, properties map[string]any) error {
		if len(times) > 0 || geometry == "LineString" {
			if _, err := io.WriteString(out, ","); err != nil {
				return err
			}
		}
		return printJSON(out, map[string]any{
			"type": "Feature", "geometry": map[string]any{"type": geometry, "coordinates": coordinates}, "properties": properties,
		})
	}
	_, _ = io.WriteString(out, `{"type":"FeatureCollection","features":[`+"\n")
	return trackWriter{
		add: func(p *control.Position) error {
			if p.Latitude == nil || p.Longitude == nil || !p.Valid {
				return nil
			}
			at, place := p.Time.UTC().Format(time.RFC3339), [2]float64{*p.Longitude, *p.Latitude}
			properties := map[string]any{"imei": imei, "time": at, "kind": p.Kind, "speed_kmh": p.SpeedKMH, "course": p.Course, "attributes": p.Attributes}
			if p.Alarm != "" {
				properties["alarm"] = p.Alarm
			}
			if err := feature("Point", place, properties); err != nil {
				return err
			}
			line, times = append(line, place), append(times, at)
			return nil
		},
		end: func() error {
			if len(line) > 1 { // a line has two ends
				if err := feature("LineString", line, map[string]any{"imei": imei, "coordTimes": times}); err != nil {
					return err
				}
			}
			_, err := io.WriteString(out, "]}\n")
			return err
		},
	}
}
