package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/protocol"
)

// decoder explains frames of one connection: a login sets the device and the
// zone of those after it.
type decoder struct {
	d       protocol.Decoder
	m       protocol.Message
	session protocol.Session
	noLogin bool
	// zoneGiven: the operator's word on the zone outranks the device's.
	zoneGiven bool
	json      bool
	out       io.Writer
}

func (t *tool) decodeCommand() *cobra.Command {
	d := &decoder{}
	var raw, pcap bool
	var zone int
	c := &cobra.Command{
		Use: "decode", Short: "Explain frames, read as hex, one a line",
		Example: "  echo 78780a134004040001000fdcee0d0a | gt06ctl decode\n  gt06ctl decode --json < frames.txt\n  gt06ctl decode --raw < stream.bin\n  tcpdump -w - port 5023 | gt06ctl decode --pcap",
		Long: `Each line is one frame as it was cut, whatever its length byte, checksum or tail
say. The lines are one connection: a login sets the device and the time zone of
those after it. Without --json every byte is named; with it each non-empty line
gives exactly one JSON object.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.out, d.json = cmd.OutOrStdout(), t.json
			d.session.UTCOffset = int32(zone) * 60
			d.zoneGiven = cmd.Flags().Changed("tz")
			switch {
			case raw && pcap:
				return cli.Fail(cli.Usage, errors.New("--raw and --pcap are two forms of input: give one"))
			case raw:
				return d.stream(cmd.InOrStdin())
			case pcap:
				return d.capture(cmd.InOrStdin())
			}
			return d.lines(cmd.InOrStdin())
		},
	}
	c.Flags().BoolVar(&raw, "raw", false, "read a stream of bytes and cut it as the server does")
	c.Flags().BoolVar(&pcap, "pcap", false, "read a capture of packets (pcap, pcapng), put its streams together and cut both directions")
	c.Flags().BoolVar(&d.noLogin, "no-login", false, "a login does not change what follows")
	c.Flags().StringVar(&d.session.Model, "model", "", "the operator's model of the device: some frames mean something else on it")
	c.Flags().IntVar(&zone, "tz", 0, "time zone of the device in minutes east of UTC")
	return c
}

func (d *decoder) lines(in io.Reader) error {
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadString('\n')
		if text := strings.TrimSpace(line); text != "" {
			if err := d.line(text); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return cli.Fail(cli.Internal, fmt.Errorf("read: %w", err))
		}
	}
}

func (d *decoder) line(text string) error {
	frame, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		if !d.json {
			_, err = fmt.Fprintf(d.out, "no hex: %s\n\n", oneLine(text))
			return err
		}
		b, _ := json.Marshal(map[string]string{"type": "unknown", "error": "not hexadecimal: " + err.Error()})
		_, err = fmt.Fprintf(d.out, "%s\n", b)
		return err
	}
	return d.frame(frame)
}

func (d *decoder) stream(in io.Reader) error {
	b, err := io.ReadAll(in)
	if err != nil {
		return cli.Fail(cli.Internal, fmt.Errorf("read: %w", err))
	}
	var f protocol.Framer
	for len(b) > 0 {
		cut := f.Next(b, false)
		if cut.Skip > 0 && !d.json {
			fmt.Fprintf(d.out, "%d bytes of rubbish: %x\n\n", cut.Skip, b[:cut.Skip])
		}
		if cut.Len == 0 {
			return nil
		}
		if err := d.frame(b[cut.Skip : cut.Skip+cut.Len]); err != nil {
			return err
		}
		b = b[cut.Skip+cut.Len:]
	}
	return nil
}

func (d *decoder) frame(frame []byte) error {
	ranges := []protocol.Range(nil)
	if !d.json {
		ranges = d.d.Explain(frame, d.session)
	}
	behind := len(protocol.Behind(frame))
	frame = frame[:len(frame)-behind]
	d.d.Decode(&d.m, frame, d.session)
	if d.m.Kind == protocol.KindLogin && !d.noLogin && d.m.Has&protocol.HasIMEI != 0 {
		d.session.IMEI = d.m.IMEI
		if !d.zoneGiven {
			d.session.UTCOffset = d.m.UTCOffset
		}
	}
	if behind > 0 && d.m.Error == "" {
		d.m.Error = fmt.Sprintf("%d bytes behind the frame are not part of it", behind)
	}
	answers := protocol.AppendAnswer(nil, &d.m, frame, time.Now())
	if d.json {
		return printRaw(d.out, protocol.AppendJSON(nil, &d.m, d.session, answers))
	}
	return d.dump(frame, ranges, answers)
}

// explain names every byte of a frame that was answered with answers.
func (d *decoder) explain(frame, answers []byte) error {
	ranges := d.d.Explain(frame, d.session)
	d.d.Decode(&d.m, frame, d.session)
	return d.dump(frame, ranges, answers)
}

func (d *decoder) dump(frame []byte, ranges []protocol.Range, answers []byte) error {
	w := newTable(d.out)
	w.row(d.m.Kind)
	for _, r := range ranges {
		bytes := fmt.Sprintf("%x", frame[r.Offset:r.Offset+r.Len])
		if len(bytes) > 24 {
			bytes = bytes[:22] + "…"
		}
		value := r.Value
		if r.Unit != "" {
			value += " " + r.Unit
		}
		w.row(fmt.Sprintf("  %d..%d", r.Offset, r.Offset+r.Len-1), bytes, r.Name, value)
	}
	if d.m.Error != "" {
		w.row("  error", "", d.m.Error)
	}
	protocol.EachFrame(answers, func(b []byte) { w.row("  answer", fmt.Sprintf("%x", b)) })
	w.row()
	return w.end()
}
