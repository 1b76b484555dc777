package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/protocol"
	"gt06/server/control"
)

const (
	// gone is how long a server may be away before a command that watches it
	// ends: an upgrade and a restart take less.
	gone = 20 * time.Second
	// stays is how long a conversation lasts with a server that is there, and not
	// ending itself.
	stays = time.Second
)

// follow watches the server over its restarts and upgrades, until the context
// ends. args is asked again for each.
func (t *tool) follow(ctx context.Context, stderr io.Writer, verb string, args func() any, each func(json.RawMessage) error) error {
	c, err := t.client()
	if err != nil {
		return cli.Fail(cli.Usage, err)
	}
	for away := (time.Time{}); ; {
		began := time.Now()
		err := c.Stream(ctx, verb, args(), each)
		ended := err == nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
		was := away.IsZero() || time.Since(began) > stays // there, before it ended
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the operator ended it
		case ended && was:
			fmt.Fprintln(stderr, "the server that was asked has ended: looking for the next")
			away = time.Now()
		case !ended && !errors.Is(err, control.ErrNoServer), away.IsZero():
			return explain(err)
		case time.Since(away) > t.gone:
			return explain(fmt.Errorf("%w: for %v", control.ErrNoServer, t.gone))
		}
		if !pause(ctx, 100*time.Millisecond) {
			return nil
		}
	}
}

func (t *tool) tailCommand() *cobra.Command {
	var want control.TailArgs
	var frames bool
	c := &cobra.Command{
		Use: "tail [IMEI]", Short: "Watch frames come in",
		Example: "  gt06ctl tail\n  gt06ctl tail 356789012345678 --frames\n  gt06ctl tail --unidentified\n  gt06ctl tail 356789012345678 --json | jq .frame",
		Long: `Frames are shown as they arrive, before they are durable; over a restart and an
upgrade, too. What this program cannot take fast enough is left out, and said.

With --frames every byte is named, as in gt06ctl decode. --unidentified shows who
else is at the port: bytes of other protocols, frames before a login, with a
wrong checksum, damaged, or of a kind nobody knows.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				imei, err := protocol.ParseIMEI(args[0])
				if err != nil {
					return cli.Fail(cli.Usage, err, "gt06ctl devices lists the devices")
				}
				want.IMEI = imei.String()
			}
			out := cmd.OutOrStdout()
			d := decoder{out: out, noLogin: true}
			return t.follow(cmd.Context(), cmd.ErrOrStderr(), "tail", func() any { return want }, func(line json.RawMessage) error {
				if t.json {
					return printRaw(out, line)
				}
				var s control.Seen
				if err := json.Unmarshal(line, &s); err != nil {
					return err
				}
				if s.LeftOut > 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "%d frames were left out\n", s.LeftOut)
				}
				if frames {
					return sayFrame(out, &d, &s)
				}
				return saySeen(out, &s)
			})
		},
	}
	c.Flags().BoolVar(&frames, "frames", false, "name every byte")
	c.Flags().BoolVar(&want.Unidentified, "unidentified", false, "only what is no whole frame of a known kind from a device that has logged in")
	return c
}

// who names the sender of a frame.
func who(s *control.Seen) string {
	if s.IMEI == "" {
		return "no login from " + s.Remote
	}
	return s.IMEI
}

// saySeen prints a frame on a line.
func saySeen(out io.Writer, s *control.Seen) error {
	var f struct {
		Type      string
		Latitude  *float64
		Longitude *float64
		Speed     *float64 `json:"speed_kmh"`
		Alarms    []string
		CRCOK     *bool `json:"crc_ok"` // null: there is none
		Error     string
	}
	if err := json.Unmarshal(s.Frame, &f); err != nil {
		return err
	}
	text := f.Type
	if f.Latitude != nil && f.Longitude != nil {
		text += fmt.Sprintf(" %.5f %.5f", *f.Latitude, *f.Longitude)
	}
	if f.Speed != nil {
		text += fmt.Sprintf(" %.0f km/h", *f.Speed)
	}
	if len(f.Alarms) > 0 {
		text += " alarm " + strings.Join(f.Alarms, ",")
	}
	if f.CRCOK != nil && !*f.CRCOK {
		text += " (wrong checksum)"
	}
	if f.Error != "" {
		text += " (" + f.Error + ")"
	}
	if b, err := hex.DecodeString(s.Hex); err == nil && f.Type == "unknown" {
		if name := foreign(b); name != "" {
			text += " looks like " + name
		}
	}
	_, err := fmt.Fprintln(out, oneLine(fmt.Sprintf("%s %s %s  %s", stamp(s.Time), who(s), text, s.Hex)))
	return err
}

// sayFrame prints a frame with every byte named.
func sayFrame(out io.Writer, d *decoder, s *control.Seen) error {
	frame, err := hex.DecodeString(s.Hex)
	if err != nil {
		return err
	}
	answer, err := hex.DecodeString(s.Answer)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s %s, connection %s, %d bytes\n%x\n", stamp(s.Time), oneLine(who(s)), oneLine(s.Conn), len(frame), frame)
	if name := foreign(frame); name != "" {
		fmt.Fprintf(out, "looks like %s: %s\n", name, oneLine(strings.ToValidUTF8(string(frame), "\ufffd")))
	}
	imei, _ := protocol.ParseIMEI(s.IMEI) // 0: none
	d.session = protocol.Session{IMEI: imei, UTCOffset: s.UTCOffset, Model: s.Model}
	return d.explain(frame, answer)
}

func stamp(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }

// foreign names what speaks another protocol at the port, by how it begins; ""
// when nobody knows. GT06 frames begin with 7878 or 7979.
func foreign(b []byte) string {
	for _, f := range []struct{ begin, name string }{
		{"GET ", "HTTP"},
		{"POST ", "HTTP"},
		{"HEAD ", "HTTP"},
		{"OPTIONS ", "HTTP"},
		{"CONNECT ", "HTTP"},
		{"PRI * HTTP/2", "HTTP/2"},
		{"\x16\x03", "TLS"},
		{"SSH-", "SSH"},
		{"\x03\x00\x00", "RDP"},
		{"PROXY ", "a proxy's PROXY header"},
		{"\r\n\r\n\x00\r\nQUIT\n", "a proxy's PROXY header, version 2"},
		{"##,imei:", "a GPS103 tracker"},
		{"imei:", "a GPS103 tracker"},
		{"*HQ,", "an H02 tracker"},
		{"*ZJ,", "an H02 tracker"},
		{"$$", "a Meitrack tracker"},
		{"@@", "a Meitrack tracker"},
		{"(0", "a TK103 tracker"},
		{"[3G*", "a watch (Beesure, SeTracker)"},
		{"[SG*", "a watch (Beesure, SeTracker)"},
		{"+RESP:", "a Queclink tracker"},
		{"+ACK:", "a Queclink tracker"},
		{"+BUFF:", "a Queclink tracker"},
		{"\x00\x0f3", "a Teltonika tracker"},
		{"\x00\x0f8", "a Teltonika tracker"},
		{"\x7e", "a JT/T 808 tracker"},
		{"\x67\x67", "an EELINK tracker"},
		{"\x24\x24", "a Meiligao tracker"},
		{"\x10", "MQTT"},
	} {
		if strings.HasPrefix(string(b), f.begin) {
			return f.name
		}
	}
	return ""
}
