package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// Client asks the server behind a socket.
type Client struct{ Path string }

// Call asks for one thing and decodes the result into out.
func (c Client) Call(ctx context.Context, verb string, args, out any) error {
	done := errors.New("got it")
	err := c.Stream(ctx, verb, args, func(b json.RawMessage) error {
		if err := json.Unmarshal(b, out); err != nil {
			return err
		}
		return done
	})
	switch {
	case errors.Is(err, done):
		return nil
	case err == nil:
		return fmt.Errorf("the server ended without an answer to %s", verb)
	}
	return err
}

// Stream asks for events and calls each until the context or the server ends,
// or each returns an error.
func (c Client) Stream(ctx context.Context, verb string, args any, each func(json.RawMessage) error) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.Path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w: nothing listens on %s", ErrNoServer, c.Path)
	}
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the conversation is over
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	req := Request{Version: Version, Verb: verb, User: os.Getenv("SUDO_USER")}
	if args != nil {
		if req.Args, err = json.Marshal(args); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return err
	}
	dec := json.NewDecoder(bufio.NewReader(conn))
	for {
		var r Reply
		if err := dec.Decode(&r); err != nil {
			if ctx.Err() != nil || errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if r.Error != "" {
			return &Error{Text: r.Error, Code: r.Code, Hints: r.Hints}
		}
		if err := each(r.Result); err != nil {
			return err
		}
	}
}
