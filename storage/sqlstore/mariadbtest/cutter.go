package mariadbtest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Cutter passes connections to a MariaDB on, and cuts each of them at a place of
// its own.
type Cutter struct {
	Socket string // where it listens

	mu   sync.Mutex
	rand *rand.Rand
	cuts map[string]int
}

// The ways a connection is cut.
const (
	inRequest    = "within a request"
	inReply      = "within a reply"
	beforeCommit = "before a commit"
	atCommit     = "while it commits"
	afterCommit  = "behind a commit, its reply lost"
)

// Kinds are all of them.
//
//nolint:gochecknoglobals // a table
var Kinds = []string{inRequest, inReply, beforeCommit, atCommit, afterCommit}

// NewCutter cuts connections to a socket, until the end of the test.
func NewCutter(t testing.TB, seed uint64, network, target string) *Cutter {
	t.Helper()
	dir, err := os.MkdirTemp("", "cut") // a short path: sockets have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	c := &Cutter{Socket: filepath.Join(dir, "s"), rand: rand.New(rand.NewPCG(seed, 0)), cuts: map[string]int{}} //nolint:gosec // a test's
	ln, err := net.Listen("unix", c.Socket)                                                                     //nolint:noctx // a test's own
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		_ = ln.Close()
		all.Wait()
		_ = os.RemoveAll(dir)
	})
	all.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial(network, target) //nolint:noctx // a test's own
			if err != nil {
				_ = client.Close()
				continue
			}
			all.Go(func() { c.pass(client, server) })
		}
	})
	return c
}

// String says how many connections were cut in which way.
func (c *Cutter) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprint(c.cuts)
}

// Sum is how many connections were cut.
func (c *Cutter) Sum() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.cuts {
		n += k
	}
	return n
}

// Of is how many were cut in a way.
func (c *Cutter) Of(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cuts[kind]
}

// pass copies in both directions until the place is reached: an offset in a
// direction, or a commit.
func (c *Cutter) pass(client, server net.Conn) {
	c.mu.Lock()
	kind := Kinds[c.rand.IntN(len(Kinds))]
	commits := 1 + c.rand.IntN(6)
	left := map[string]int{inRequest: 1 + int(c.rand.ExpFloat64()*8000), inReply: 1 + int(c.rand.ExpFloat64()*800)}[kind]
	c.mu.Unlock()
	var once sync.Once
	end := func(kind string) {
		once.Do(func() {
			_ = client.Close()
			_ = server.Close()
			if kind != "" {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.cuts[kind]++
			}
		})
	}
	var muted sync.Mutex // held from before a commit whose reply is lost
	lost := false
	var replies sync.WaitGroup
	replies.Go(func() {
		defer end("")
		buf := make([]byte, 4096)
		for {
			n, err := server.Read(buf)
			if err != nil {
				return
			}
			muted.Lock()
			drop := lost
			muted.Unlock()
			switch {
			case drop:
				end(afterCommit)
				return
			case kind == inReply && n >= left:
				_, _ = client.Write(buf[:left])
				end(inReply)
				return
			case kind == inReply:
				left -= n
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	defer replies.Wait()
	defer func() {
		if muted.Lock(); !lost { // else the reply ends it
			end("")
		}
		muted.Unlock()
	}()
	buf := make([]byte, 4096)
	for {
		n, err := client.Read(buf)
		if err != nil {
			end("")
			return
		}
		if kind == inRequest {
			if n >= left {
				_, _ = server.Write(buf[:left])
				end(inRequest)
				return
			}
			left -= n
		}
		if bytes.HasSuffix(buf[:n], []byte("\x07\x00\x00\x00\x03COMMIT")) {
			if commits--; commits == 0 {
				switch kind {
				case beforeCommit:
					end(beforeCommit)
					return
				case atCommit:
					_, _ = server.Write(buf[:n])
					end(atCommit)
					return
				case afterCommit:
					muted.Lock()
					lost = true
					muted.Unlock()
				}
			}
		}
		if _, err := server.Write(buf[:n]); err != nil {
			end("")
			return
		}
	}
}
