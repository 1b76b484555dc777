// Package webhook posts events to an HTTP server.
//
// One request at a time, the next only after a status of 2xx:
//
//	POST URL
//	Content-Type: application/json
//	Idempotency-Key: <batch>               the same whenever the batch is sent again
//	Gt06-Signature: t=<Unix time>,v1=<hex> HMAC-SHA256 of "<time>.<body>", with a secret
//	Authorization: Bearer <token>          with a token
//
//	[{"id":…,"type":"position","imei":…,…}, …]
//
// With FormatTraccar a request carries one position, as Traccar's forwarding
// does: {"position":{…},"device":{…}}, camelCase, speed in knots; its key is that
// of the event. Only what has a fix is sent so.
//
// A redirect is not followed: it could send the fleet's places anywhere.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"gt06/storage/sink"
)

// Format is how a body looks.
type Format string

// The formats.
const (
	FormatNative  Format = "gt06"
	FormatTraccar Format = "traccar"
)

// Options of a Webhook.
type Options struct {
	URL     string // http or https
	Format  Format
	Timeout time.Duration // of a request as a whole
	Secret  []byte        // nil: not signed
	Token   string        // "": none
	Events  *sink.Encoder
}

// Webhook is a sink.Receiver.
type Webhook struct {
	opt    Options
	client http.Client
}

// Check says what is wrong with options, nil: nothing.
func Check(o Options) error {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil:
		return errors.New("url: it cannot be read") // the error would show what may be secret
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("url: the scheme is %q: it can be http or https", u.Scheme)
	case u.Host == "":
		return errors.New("url: it names no host")
	case u.User != nil:
		return errors.New("url: it has a user: token_file is the place for a secret")
	case o.Format != FormatNative && o.Format != FormatTraccar:
		return fmt.Errorf("format is %q: it can be gt06 or traccar", o.Format)
	}
	return nil
}

// New prepares a webhook; nothing is sent yet.
func New(o Options) *Webhook {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.MaxConnsPerHost = 1, 1
	return &Webhook{opt: o, client: http.Client{
		Transport: transport, Timeout: o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Send implements sink.Receiver.
func (w *Webhook) Send(ctx context.Context, b *sink.Batch) error {
	if w.opt.Format == FormatTraccar {
		return w.traccar(ctx, b)
	}
	events, err := w.opt.Events.Events(b.Items)
	if err != nil || len(events) == 0 {
		return err
	}
	body := []byte{'['}
	for i := range events {
		body = append(append(body, events[i].JSON...), ',')
	}
	body[len(body)-1] = ']'
	return w.post(ctx, b.Key, body)
}

// post returns nil when the receiver says that it has taken the body.
func (w *Webhook) post(ctx context.Context, key string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.opt.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "gt06d")
	req.Header.Set("Idempotency-Key", key)
	if w.opt.Token != "" {
		req.Header.Set("Authorization", "Bearer "+w.opt.Token)
	}
	if w.opt.Secret != nil {
		now := strconv.FormatInt(time.Now().Unix(), 10)
		req.Header.Set("Gt06-Signature", "t="+now+",v1="+Signature(w.opt.Secret, now, body))
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return unreached(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	const most = 64 << 10
	said, err := io.ReadAll(io.LimitReader(resp.Body, most)) // the connection can be used again
	if resp.StatusCode/100 == 2 {
		return nil
	}
	if err != nil {
		return unreached(err)
	}
	return refused(resp, said)
}

// Signature returns what a receiver compares with v1 of Gt06-Signature: t is
// the time of the header, body what came.
func Signature(secret []byte, t string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	_, _ = mac.Write([]byte(t + "."))
	_, _ = mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// unreached is an error of the way there.
func unreached(err error) error {
	kind := sink.KindConnect
	if e, ok := errors.AsType[*url.Error](err); ok {
		if e.Timeout() {
			kind = sink.KindTimeout
		}
		err = e.Err // the URL may have a secret in its path
	}
	return &sink.Error{Kind: kind, Err: err}
}

// refused is a reply that is not 2xx.
func refused(resp *http.Response, said []byte) error {
	e := &sink.Error{Kind: sink.KindRejected}
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable:
		e.Kind = sink.KindBusy
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
			e.After = time.Duration(s) * time.Second
		}
	case code >= http.StatusInternalServerError:
		e.Kind = sink.KindServer
	case code/100 == 3:
		e.Kind = sink.KindRedirect
		e.Err = fmt.Errorf("status %s: redirects are not followed, name the last address", resp.Status)
		return e
	}
	const shown = 200
	e.Err = fmt.Errorf("status %s: %q", resp.Status, said[:min(len(said), shown)])
	return e
}

// Close implements sink.Receiver.
func (w *Webhook) Close() error {
	w.client.CloseIdleConnections()
	return nil
}
