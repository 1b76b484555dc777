package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"gt06/cmd/internal/cli"
	"gt06/protocol"
	"gt06/server"
	"gt06/server/control"
)

// waits are the operators who wait for the reply to a command.
type waits struct {
	mu   sync.Mutex
	open []*waiting // the oldest first
}

type waiting struct {
	imei  protocol.IMEI
	flag  uint32
	reply chan string
}

// observe gives a reply to who waits for it: by its flag, else, for firmwares
// that do not echo one, to the oldest of the device.
func (w *waits) observe(rec *server.Record, m *protocol.Message) {
	if m.Kind != protocol.KindCommandReply {
		return
	}
	text := ""
	for i := range m.Attributes {
		if m.Attributes[i].Key == "result" {
			text = m.Attributes[i].Text
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.open, func(o *waiting) bool { return o.imei == rec.Device && o.flag == m.ServerFlag })
	if i < 0 {
		i = slices.IndexFunc(w.open, func(o *waiting) bool { return o.imei == rec.Device })
	}
	if i < 0 {
		return
	}
	w.open[i].reply <- text
	w.open = slices.Delete(w.open, i, i+1)
}

func (w *waits) add(imei protocol.IMEI, flag uint32) *waiting {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := &waiting{imei: imei, flag: flag, reply: make(chan string, 1)}
	w.open = append(w.open, o)
	return o
}

func (w *waits) remove(o *waiting) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = slices.DeleteFunc(w.open, func(have *waiting) bool { return have == o })
}

// handleSend is the verb of `gt06ctl send`.
func (a *app) handleSend(ctx context.Context, args json.RawMessage, _ func(any) error) (any, error) {
	var q control.SendArgs
	if err := arguments(args, &q); err != nil {
		return nil, err
	}
	sent, err := a.send(ctx, &q)
	return sent, coded(err)
}

// send hands a command to a device and waits for its reply.
func (a *app) send(ctx context.Context, q *control.SendArgs) (*control.Sent, error) {
	imei, err := protocol.ParseIMEI(q.IMEI)
	if err != nil {
		return nil, cli.Fail(cli.Usage, err)
	}
	text, err := a.commandText(ctx, imei, q)
	if err != nil {
		return nil, err
	}
	flag := q.Flag
	for flag == 0 {
		flag = rand.Uint32()
	}
	b, err := protocol.AppendCommand(nil, flag, text, false)
	if err != nil {
		return nil, cli.Fail(cli.Usage, err)
	}
	o := a.waits.add(imei, flag)
	defer a.waits.remove(o)
	off := a.server.Watch()
	defer off()
	begin := time.Now()
	handed, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	switch err := a.server.Send(handed, imei, b, control.Caller(ctx)); {
	case errors.Is(err, server.ErrOffline) && q.Queue > 0:
		return a.enqueue(imei, text, q.Queue, control.Caller(ctx))
	case errors.Is(err, server.ErrOffline):
		return nil, cli.Fail(cli.NoDevice, fmt.Errorf("%s: %w", imei, err), "gt06ctl devices lists who is online")
	case errors.Is(err, context.DeadlineExceeded):
		return nil, cli.Fail(cli.Timeout, fmt.Errorf("%s does not read what it is sent", imei))
	case err != nil:
		return nil, err
	}
	sent := &control.Sent{IMEI: imei.String(), Command: text, Flag: flag, SentAt: begin.UTC().Format(time.RFC3339)}
	if q.Wait <= 0 {
		return sent, nil
	}
	t := time.NewTimer(q.Wait)
	defer t.Stop()
	select {
	case reply := <-o.reply:
		sent.Reply, sent.AfterMS = &reply, float64(time.Since(begin).Microseconds())/1000
		return sent, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.C:
		return nil, cli.Fail(cli.Timeout, fmt.Errorf("%s was sent %q and has not replied within %v; a later reply goes to device_commands", imei, text, q.Wait))
	}
}

// commandText finds the text of a command and refuses what policy forbids.
func (a *app) commandText(ctx context.Context, imei protocol.IMEI, q *control.SendArgs) (string, error) {
	text := q.Command
	if !strings.HasSuffix(text, "#") {
		settings, _ := a.fleet.Device(imei)
		var err error
		if text, err = protocol.CommandText(q.Command, q.Args, protocol.CommandOptions{Model: settings.Model, Alternative: q.Alternative, Password: q.Password}); err != nil {
			return "", cli.Fail(cli.Usage, err, "a text ends in #; gt06ctl send --help lists the names")
		}
	} else if len(q.Args) > 0 {
		return "", cli.Fail(cli.Usage, errors.New("a text takes no arguments"))
	}
	for _, r := range text {
		if r < ' ' || r > '~' {
			return "", cli.Fail(cli.Forbidden, fmt.Errorf("a command has printable ASCII characters only, not %q", r))
		}
	}
	if verb := protocol.Verb(text); !slices.Contains(a.cfg.Commands.Allow, verb) && !slices.Contains(a.cfg.Commands.Allow, "*") {
		return "", cli.Fail(cli.Forbidden, fmt.Errorf("%q is not among the commands that may be sent (commands.allow)", verb))
	}
	if !protocol.CutsEngine(text) {
		return text, nil
	}
	return text, a.mayCut(ctx, imei, q)
}

// stale is how old a fix may be that lets an engine be cut.
const stale = 10 * time.Minute

// mayCut: an engine is stopped on purpose, and at a standstill or slow.
func (a *app) mayCut(ctx context.Context, imei protocol.IMEI, q *control.SendArgs) error {
	if !q.CutEngine {
		return cli.Fail(cli.Refused, fmt.Errorf("%q can stop the engine of %s", q.Command, imei), "say --yes-cut-engine when that is what you want")
	}
	store, _, why := a.store.get()
	if store == nil {
		return cli.Fail(cli.Refused, fmt.Errorf("nobody knows how fast %s is: the database is away: %s", imei, why))
	}
	kmh, at, ok, err := store.LastFix(ctx, imei.String())
	most := a.cfg.Commands.CutBelowKMH
	switch {
	case err != nil:
		return err
	case !ok, time.Since(at) > stale:
		return cli.Fail(cli.Refused, fmt.Errorf("nobody knows how fast %s is: no fix within %v", imei, stale), "gt06ctl send IMEI position asks it")
	case kmh > most:
		return cli.Fail(cli.Refused, fmt.Errorf("%s was at %.0f km/h %v ago; engines are cut below %.0f km/h (commands.cut_below_kmh)", imei, kmh, time.Since(at).Round(time.Second), most))
	}
	return nil
}
