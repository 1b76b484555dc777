package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/protocol"
	"gt06/server/control"
)

func (t *tool) captureCommand() *cobra.Command {
	var span time.Duration
	var path string
	c := &cobra.Command{
		Use: "capture IMEI", Short: "Write what a live device sends and is answered, as a capture file",
		Long: `capture follows a device and writes its frames and their answers as a pcap file,
for support, Wireshark, or gt06ctl decode --pcap; over a restart and an upgrade,
too. It needs no rights on the network: the frames come from the server, the
packets around them are made up.`,
		Example: "  gt06ctl capture 490154203237518 --for 10m --out device.pcap",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			imei, err := protocol.ParseIMEI(args[0])
			if err != nil {
				return cli.Fail(cli.Usage, err)
			}
			out := cmd.OutOrStdout()
			if path != "-" {
				f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
				if err != nil {
					return cli.Fail(cli.NotWritable, err, "give a file that does not exist: --out FILE")
				}
				defer f.Close() //nolint:errcheck // synced below
				out = f
			}
			n, err := t.capture(cmd.Context(), out, cmd.ErrOrStderr(), imei.String(), span)
			if err != nil {
				return err
			}
			if f, ok := out.(*os.File); ok && path != "-" {
				if err := f.Sync(); err != nil {
					return err
				}
			}
			if path == "-" {
				return nil
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"file": path, "frames": n})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d frames in %s\ngt06ctl decode --pcap < %s\n", n, path, path)
			return err
		},
	}
	c.Flags().DurationVar(&span, "for", 10*time.Minute, "how long")
	c.Flags().StringVar(&path, "out", "device.pcap", "file to write; - is standard output")
	return c
}

// capture writes frames of a device until the time is over.
func (t *tool) capture(ctx context.Context, out, stderr io.Writer, imei string, span time.Duration) (frames int, err error) {
	end := time.Now().Add(span)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	live := newProgress(stderr)
	defer live.clear()
	w := pcapgo.NewWriter(out)
	const most = 1 << 18
	if err := w.WriteFileHeader(most, layers.LinkTypeEthernet); err != nil {
		return 0, err
	}
	made := packets{w: w}
	return frames, t.follow(ctx, stderr, "tail", func() any { return control.TailArgs{IMEI: imei} }, func(b json.RawMessage) error {
		var v control.Seen
		if err := json.Unmarshal(b, &v); err != nil {
			return err
		}
		input, err1 := hex.DecodeString(v.Hex)
		answer, err2 := hex.DecodeString(v.Answer)
		if err := errors.Join(err1, err2, made.write(v.Time, true, input), made.write(v.Time, false, answer)); err != nil {
			return err
		}
		frames++
		if live.live {
			live.say("%d frames, %v left", frames, time.Until(end).Round(time.Second))
		}
		return nil
	})
}

// packets makes the segments of one connection up.
type packets struct {
	w        *pcapgo.Writer
	up, down uint32 // bytes so far
}

// segment is as much as one made-up packet carries.
const segment = 1400

func (p *packets) write(at time.Time, up bool, b []byte) error {
	for len(b) > 0 {
		part := b[:min(len(b), segment)]
		b = b[len(part):]
		device, server := net.IPv4(192, 0, 2, 1), net.IPv4(192, 0, 2, 2) // of the documentation range
		tcp := layers.TCP{SrcPort: 40000, DstPort: 5023, Seq: 1 + p.up, Ack: 1 + p.down, ACK: true, PSH: true, Window: 65535}
		ip := layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: device, DstIP: server}
		if !up {
			ip.SrcIP, ip.DstIP = server, device
			tcp.SrcPort, tcp.DstPort, tcp.Seq, tcp.Ack = 5023, 40000, 1+p.down, 1+p.up
			p.down += uint32(len(part))
		} else {
			p.up += uint32(len(part))
		}
		if err := tcp.SetNetworkLayerForChecksum(&ip); err != nil {
			return err
		}
		eth := layers.Ethernet{SrcMAC: bytes.Repeat([]byte{2}, 6), DstMAC: bytes.Repeat([]byte{4}, 6), EthernetType: layers.EthernetTypeIPv4}
		buf := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, &eth, &ip, &tcp, gopacket.Payload(part)); err != nil {
			return err
		}
		raw := buf.Bytes()
		if err := p.w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(raw), Length: len(raw)}, raw); err != nil {
			return err
		}
	}
	return nil
}
