// Listeneronly is what a restart with tableflip alone is: the listener is passed
// on, the connections end. It answers frames and keeps nothing. The bench
// compares with it.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"

	"gt06/protocol"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(addr string) error {
	upg, err := tableflip.New(tableflip.Options{})
	if err != nil {
		return err
	}
	ln, err := upg.Listen("tcp", addr)
	if err != nil {
		return err
	}
	go func() {
		hup := make(chan os.Signal, 1)
		signal.Notify(hup, syscall.SIGHUP)
		for range hup {
			_ = upg.Upgrade()
		}
	}()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	if err := upg.Ready(); err != nil {
		return err
	}
	<-upg.Exit()
	return nil
}

func serve(c net.Conn) {
	defer c.Close() //nolint:errcheck // the device is gone
	var d protocol.Decoder
	var m protocol.Message
	buf, have := make([]byte, 4096), 0
	for {
		n, err := c.Read(buf[have:])
		have += n
		at := 0
		for at < have {
			cut := protocol.Framer{}.Next(buf[at:have], true)
			if cut.Len > 0 {
				frame := buf[at+cut.Skip : at+cut.Skip+cut.Len]
				d.Decode(&m, frame, protocol.Session{})
				if _, err := c.Write(protocol.AppendAnswer(nil, &m, frame, time.Now())); err != nil {
					return
				}
			}
			at += cut.Skip + cut.Len
			if cut.Len == 0 {
				break
			}
		}
		have = copy(buf, buf[at:have])
		if err != nil {
			return
		}
	}
}
