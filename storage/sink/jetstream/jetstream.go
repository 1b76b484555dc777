// Package jetstream publishes events to a stream of NATS JetStream.
//
//	subject      PREFIX.<type>.<imei>     gt06.position.356789012345678
//	Nats-Msg-Id  the id of the event      a second one within the stream's window is dropped by the server
//	data         the event                as a webhook gets it
//
// A batch is taken when every message has its PubAck: the stream has stored it.
// So each event is in the stream once, unless the acks of a batch were lost and
// could not be asked for again within the window (New makes it ten minutes).
package jetstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"gt06/storage/sink"
)

const (
	// window is how long a stream that is made here knows the ids it has seen,
	// keep how long it keeps messages. Who wants it otherwise makes the stream.
	window = 10 * time.Minute
	keep   = 7 * 24 * time.Hour
	// together is how many messages wait for their ack at a time.
	together = 256
)

// Options of a Publisher.
type Options struct {
	URL         string // nats:// or tls://, several with commas
	Stream      string // made when there is none
	Subject     string // prefix
	Credentials string // file, "": none
	Timeout     time.Duration
	Events      *sink.Encoder
}

// Publisher is a sink.Receiver.
type Publisher struct {
	opt  Options
	conn *nats.Conn    // nil: not connected
	gone chan struct{} // closed when it ends
	js   jetstream.JetStream
}

// Check says what is wrong with options, nil: nothing.
func Check(o Options) error {
	for address := range strings.SplitSeq(o.URL, ",") {
		u, err := url.Parse(address)
		switch {
		case err != nil:
			return errors.New("url: it cannot be read")
		case u.Scheme != "nats" && u.Scheme != "tls":
			return fmt.Errorf("url: the scheme is %q: it can be nats or tls", u.Scheme)
		case u.Host == "":
			return errors.New("url: it names no host")
		case u.User != nil:
			return errors.New("url: it has a user: credentials_file is the place for a secret")
		}
	}
	for what, s := range map[string]string{"stream": o.Stream, "subject": o.Subject} {
		if s == "" || strings.ContainsAny(s, "*> \t\r\n") || what == "stream" && strings.ContainsAny(s, ".") || strings.HasPrefix(s, ".") || strings.HasSuffix(s, ".") || strings.Contains(s, "..") {
			return fmt.Errorf("%s: %q is no name", what, s)
		}
	}
	return nil
}

// New prepares a publisher; nothing is dialed yet.
func New(o Options) *Publisher { return &Publisher{opt: o} }

// Send implements sink.Receiver.
func (p *Publisher) Send(ctx context.Context, b *sink.Batch) error {
	events, err := p.opt.Events.Events(b.Items)
	if err != nil || len(events) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, p.opt.Timeout)
	defer cancel()
	if p.conn == nil {
		if err := p.dial(ctx); err != nil {
			p.hangUp()
			return classify(err)
		}
	}
	if err := p.publish(ctx, events); err != nil {
		p.hangUp() // what is on its way is published again, under its ids
		return classify(err)
	}
	return nil
}

// dial connects and looks for the stream.
func (p *Publisher) dial(ctx context.Context) (err error) {
	gone, dial := make(chan struct{}), &dialer{ctx: ctx}
	opts := []nats.Option{
		nats.Name("gt06d"), nats.NoReconnect(), nats.Timeout(p.opt.Timeout), nats.SetCustomDialer(dial),
		nats.ClosedHandler(func(*nats.Conn) { close(gone) }),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // the default writes to stderr
	}
	p.gone = gone
	if p.opt.Credentials != "" {
		opts = append(opts, nats.UserCredentials(p.opt.Credentials))
	}
	if p.conn, err = nats.Connect(p.opt.URL, opts...); errors.Is(err, nats.ErrNoServers) && dial.err != nil {
		return dial.err // it says which, and why
	} else if err != nil {
		return err
	}
	if p.js, err = jetstream.New(p.conn, jetstream.WithPublishAsyncMaxPending(together)); err != nil {
		return err
	}
	if _, err = p.js.Stream(ctx, p.opt.Stream); errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = p.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: p.opt.Stream, Subjects: []string{p.opt.Subject + ".>"}, Storage: jetstream.FileStorage, Duplicates: window, MaxAge: keep,
		})
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", p.opt.Stream, err)
	}
	return nil
}

// dialer lets the end of a context end a dial, and keeps why the last one failed.
type dialer struct {
	ctx context.Context
	err error
}

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (c net.Conn, err error) {
	c, err = (&net.Dialer{}).DialContext(d.ctx, network, address)
	d.err = err
	return c, err
}

// publish returns nil when the stream has stored all events.
func (p *Publisher) publish(ctx context.Context, events []sink.Event) error {
	acks := make([]jetstream.PubAckFuture, 0, len(events))
	for i := range events {
		e := &events[i]
		device := "none"
		if e.Device != 0 {
			device = e.Device.String()
		}
		// Nothing is repeated here: the whole batch is.
		ack, err := p.js.PublishMsgAsync(&nats.Msg{Subject: p.opt.Subject + "." + string(e.Type) + "." + device, Data: e.JSON},
			jetstream.WithMsgID(e.ID), jetstream.WithExpectStream(p.opt.Stream), jetstream.WithRetryAttempts(0))
		if err != nil {
			return err
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return err
		case <-p.gone:
			return errors.Join(nats.ErrConnectionClosed, p.conn.LastError())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// classify says what an error means for a sink.
func classify(err error) error {
	kind := sink.KindConnect
	api := (*jetstream.APIError)(nil)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout), errors.Is(err, jetstream.ErrAsyncPublishTimeout):
		kind = sink.KindTimeout
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrPermissionViolation), errors.Is(err, jetstream.ErrNoStreamResponse):
		kind = sink.KindRejected
	case errors.As(err, &api) && api.Code >= 500:
		kind = sink.KindServer
	case errors.As(err, &api):
		kind = sink.KindRejected
	}
	return &sink.Error{Kind: kind, Err: err}
}

func (p *Publisher) hangUp() {
	if p.conn != nil {
		p.conn.Close()
		p.conn, p.js = nil, nil
	}
}

// Close implements sink.Receiver.
func (p *Publisher) Close() error {
	p.hangUp()
	return nil
}
