package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/protocol/device"
	"gt06/protocol/device/fleet"
	"gt06/server/control"
)

// outcome is the object simulate ends with.
type outcome struct {
	fleet.Result
	Rows    *int `json:"rows,omitempty"`
	Merged  *int `json:"merged,omitempty"`
	Missing *int `json:"missing,omitempty"`
}

func (t *tool) simulateCommand() *cobra.Command {
	opt := fleet.Options{}
	var verify bool
	c := &cobra.Command{
		Use: "simulate", Short: "Be a fleet of devices, and account for every frame",
		Example: "  gt06ctl simulate --devices 200 --rate 1 --duration 30s\n  gt06ctl simulate --addr 127.0.0.1:5023 --devices 20 --json",
		Long: `Simulated devices log in, send locations, heartbeats, alarms and requests, and
keep a ledger of what was answered. At the end it is compared with the rows of
the database (--verify, the default where the server can be asked). Their IMEIs
are of a test range that no real device has. Ctrl-C ends the sending and still
accounts for it; a second one ends at once.

It ends with exit code 7 when a frame was lost, answered twice or out of order,
or when an answered fix is not exactly one row.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asked := cmd.Flags().Changed("verify")
			return t.simulate(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), opt, verify, asked)
		},
	}
	f := c.Flags()
	f.StringVar(&opt.Addr, "addr", "", "address of the server; default: that of the server here, else 127.0.0.1:5023")
	f.IntVar(&opt.Devices, "devices", 20, "number of devices")
	f.Float64Var(&opt.Rate, "rate", 1, "frames a second of each device")
	f.DurationVar(&opt.Duration, "duration", 30*time.Second, "how long they send")
	f.Float64Var(&opt.Arrival, "arrival", 1000, "connections a second at the start")
	f.Float64Var(&opt.Torn, "torn", 0.1, "share of frames written in two pieces")
	f.Uint64Var(&opt.Seed, "seed", 1, "seed of what is random")
	f.IntVar(&opt.First, "first", 0, "number of the first device: its IMEI follows from it")
	f.BoolVar(&verify, "verify", true, "compare the ledger with the database")
	return c
}

func (t *tool) simulate(ctx context.Context, stdout, stderr io.Writer, opt fleet.Options, verify, asked bool) error {
	if opt.Devices < 1 || opt.Rate < 0 {
		return cli.Fail(cli.Usage, errors.New("simulate: --devices is at least 1 and --rate not negative"))
	}
	if opt.First == 0 {
		// A run of its own: fixes of an earlier one are not taken for this one's.
		opt.First = int(time.Now().Unix()%900) * 1000
	}
	begin := time.Now().Truncate(time.Second)
	var st control.Status
	client, err := t.client()
	if err != nil {
		return cli.Fail(cli.Usage, err)
	}
	if err := client.Call(ctx, "status", nil, &st); err != nil {
		if verify && asked {
			return explain(err)
		}
		if verify {
			fmt.Fprintf(stderr, "the rows are not compared: %s\n", cli.Plain(err.Error()))
		}
		verify = false
	}
	if opt.Addr == "" {
		opt.Addr = dialable(st.Listen)
	}
	if err := reach(ctx, opt.Addr); err != nil {
		return cli.Fail(cli.Timeout, err, "start a server: gt06d; or say where it is: --addr HOST:PORT")
	}
	f := fleet.New(opt)
	stopped := context.AfterFunc(ctx, func() {
		f.Finish()
		signal.Reset(syscall.SIGINT, syscall.SIGTERM)
	})
	defer stopped()
	ctx = context.WithoutCancel(ctx)
	shown := make(chan struct{})
	progress, stop := context.WithCancel(ctx)
	go func() { defer close(shown); show(progress, stderr, f, opt.Duration) }()
	res := outcome{Result: f.Run(ctx)}
	stop()
	<-shown
	var report device.Report
	if verify {
		if report, err = compare(ctx, client, f, begin, newProgress(stderr)); err != nil {
			if !t.json {
				_ = printOutcome(stdout, &res, opt) // what the devices saw is worth knowing all the same
			}
			return explain(err)
		}
		merged, missing := report.Merged, report.Missing+report.Doubled+report.Foreign+report.Wrong
		res.Rows, res.Merged, res.Missing = &report.Rows, &merged, &missing
	}
	if t.json {
		err = printJSON(stdout, res)
	} else {
		err = printOutcome(stdout, &res, opt)
	}
	if err != nil {
		return err
	}
	if res.Lost+res.Duplicated+res.OutOfOrder > 0 || !report.OK() {
		return cli.Fail(cli.Red, fmt.Errorf("simulate: lost %d, duplicated %d, out of order %d; rows missing %d, doubled %d, foreign %d, wrong %d %s",
			res.Lost, res.Duplicated, res.OutOfOrder, report.Missing, report.Doubled, report.Foreign, report.Wrong, report.First))
	}
	return nil
}

// dialable turns the address a server listens on into one to dial.
func dialable(listen string) string {
	ap, err := netip.ParseAddrPort(listen)
	switch {
	case err != nil:
		return "127.0.0.1:5023"
	case ap.Addr().IsUnspecified():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ap.Port()).String()
	}
	return listen
}

// reach says why nobody listens at an address. A server that is restarted at
// this moment is waited for.
func reach(ctx context.Context, addr string) error {
	var d net.Dialer
	for end := time.Now().Add(2 * time.Second); ; {
		c, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) || !pause(ctx, 100*time.Millisecond) {
			return fmt.Errorf("no server at %s: %w", addr, err)
		}
	}
}

func printOutcome(w io.Writer, r *outcome, opt fleet.Options) error {
	fmt.Fprintf(w, "%d devices, %d frames sent, %d answered, %d lost, %d duplicated, %d out of order, %d reconnects\n", opt.Devices, r.Sent, r.Answered, r.Lost, r.Duplicated, r.OutOfOrder, r.Reconnects)
	_, err := fmt.Fprintf(w, "answered in %.1f ms (half), %.1f (99 %%), %.1f (99.9 %%), %.1f at most\n", r.Ack.P50, r.Ack.P99, r.Ack.P999, r.Ack.Max)
	if r.Rows != nil {
		_, err = fmt.Fprintf(w, "%d rows in positions, %d merged, %d missing\n", *r.Rows, *r.Merged, *r.Missing)
	}
	return err
}

// show says each second how far a run is.
func show(ctx context.Context, w io.Writer, f *fleet.Fleet, d time.Duration) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	begin := time.Now()
	live := newProgress(w)
	defer live.clear()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			sent, answered := f.Progress()
			live.say("%3.0f of %.0f s: %d sent, %d answered", time.Since(begin).Seconds(), d.Seconds(), sent, answered)
		}
	}
}

// away is how long the server may be gone while the ledger is compared: it may
// be restarted just then.
const away = 15 * time.Second

// compare waits until the log is in the database and compares.
func compare(ctx context.Context, client control.Client, f *fleet.Fleet, since time.Time, live *progress) (device.Report, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(2 * time.Minute)
	defer live.clear()
	seen := time.Now()
	for n := 1; ; n++ {
		var st control.Status
		err := client.Call(ctx, "status", nil, &st)
		if _, refused := errors.AsType[*control.Error](err); err != nil && (refused || time.Since(seen) > away) {
			return device.Report{}, err
		}
		if err == nil {
			if seen = time.Now(); st.Store.Lag == 0 {
				break
			}
		}
		if n%20 == 0 {
			live.say("the database is %d records behind: waiting for it", st.Store.Lag)
		}
		select {
		case <-ctx.Done():
			return device.Report{}, ctx.Err()
		case <-limit:
			return device.Report{}, &control.Error{Text: fmt.Sprintf("the database is %d records behind after two minutes (%s)", st.Store.Lag, st.Store.LastError), Code: int(cli.Timeout)}
		case <-tick.C:
		}
	}
	var stored []struct {
		Table, IMEI, Kind   string
		Time                time.Time
		Latitude, Longitude float64
		Speed               float64 `json:"speed_kmh"`
		Course              float64
	}
	if err := client.Call(ctx, "rows", control.RowsArgs{IMEIs: f.IMEIs(), Since: since}, &stored); err != nil {
		return device.Report{}, err
	}
	rows := make([]device.Row, 0, len(stored))
	for _, s := range stored {
		if s.Table != "positions" {
			continue
		}
		rows = append(rows, device.Row{
			IMEI: s.IMEI, Kind: s.Kind, Has: s.Latitude != 0 || s.Longitude != 0,
			Place: device.Place{Time: s.Time, Latitude: s.Latitude, Longitude: s.Longitude, SpeedKMH: s.Speed, Course: s.Course},
		})
	}
	return device.Compare(f.Ledgers(), rows), nil
}
