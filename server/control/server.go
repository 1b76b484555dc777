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
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Handler answers one verb. A streaming handler calls send for each event and
// returns nil at its end; others return their result.
type Handler func(ctx context.Context, args json.RawMessage, send func(any) error) (any, error)

// Server is the server side of the socket.
type Server struct {
	ln       *net.UnixListener
	path     string
	handlers map[string]Handler
	wg       sync.WaitGroup
	cancel   context.CancelFunc
}

// Serve listens on path and answers until Close. The socket is bound under a
// temporary name and renamed, so that it replaces a predecessor's in one step.
func Serve(path string, handlers map[string]Handler) (*Server, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	temporary := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(temporary)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(temporary, 0o660), os.Rename(temporary, path)); err != nil {
		_ = ln.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{ln: ln, path: path, handlers: handlers, cancel: cancel}
	s.wg.Go(func() { s.accept(ctx) })
	return s, nil
}

// Stop takes no new conversations: a successor has the path by now.
func (s *Server) Stop() { _ = s.ln.Close() }

// Close ends all conversations. The path stays: it may be a successor's.
func (s *Server) Close() error {
	s.cancel()
	s.Stop()
	s.wg.Wait()
	return nil
}

// Remove takes the path away, for a server whose place nobody takes.
func (s *Server) Remove() error {
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (s *Server) accept(ctx context.Context) {
	for {
		c, err := s.ln.AcceptUnix()
		if err != nil {
			return
		}
		s.wg.Go(func() {
			defer c.Close() //nolint:errcheck // the conversation is over
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer stop()
			s.answer(ctx, c)
		})
	}
}

func (s *Server) answer(ctx context.Context, c *net.UnixConn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := json.NewEncoder(c)
	refuse := func(code int, format string, args ...any) {
		_ = out.Encode(Reply{Error: fmt.Sprintf(format, args...), Code: code})
	}
	peer, err := ownUser(c)
	if err != nil {
		refuse(8, "%v", err)
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(io.LimitReader(c, maxMessage)).ReadBytes('\n')
	if err != nil {
		refuse(2, "request is not a line of at most %d bytes", maxMessage)
		return
	}
	var req Request
	if err := json.Unmarshal(line, &req); err != nil {
		refuse(2, "request is not JSON: %v", err)
		return
	}
	if req.Version != Version {
		refuse(3, "request has version %d, this server speaks %d", req.Version, Version)
		return
	}
	handler, ok := s.handlers[req.Verb]
	if !ok {
		refuse(2, "this server does not know %q", req.Verb)
		return
	}
	// The end of the client ends a stream.
	go func() {
		_ = c.SetReadDeadline(time.Time{})
		_, _ = c.Read(make([]byte, 1))
		cancel()
	}()
	send := func(v any) error {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		_ = c.SetWriteDeadline(time.Now().Add(10 * time.Second))
		return out.Encode(Reply{Result: b})
	}
	result, err := handler(context.WithValue(ctx, callerKey{}, caller(peer, req.User)), req.Args, send)
	var refused *Error
	switch {
	case errors.As(err, &refused):
		_ = out.Encode(Reply{Error: refused.Text, Code: refused.Code, Hints: refused.Hints})
	case err != nil:
		refuse(1, "%v", err)
	case result != nil:
		_ = send(result)
	}
}

type callerKey struct{}

// Caller returns who asked, in a Handler: the user at the other end of the
// socket, as the kernel says; of root also who became root, as the tool says.
func Caller(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}

func caller(uid uint32, claimed string) string {
	name := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	const longest = 32 // a Linux user name
	plain := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, claimed)
	if uid == 0 && plain != "" && len(plain) <= longest {
		name = plain + " (" + name + ")"
	}
	return name
}
