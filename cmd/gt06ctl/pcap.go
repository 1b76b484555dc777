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

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/gopacket/gopacket/reassembly"

	"gt06/cmd/internal/cli"
	"gt06/protocol"
)

// capture reads packets of a pcap or pcapng file, puts the TCP streams together
// and shows the frames of both directions.
func (d *decoder) capture(in io.Reader) error {
	r := bufio.NewReader(in)
	source, link, err := openCapture(r)
	if err != nil {
		return cli.Fail(cli.Usage, fmt.Errorf("not a capture: %w", err), "tcpdump -w FILE port 5023; gt06ctl decode --pcap < FILE")
	}
	factory := &streams{d: d}
	pool := reassembly.NewStreamPool(factory)
	assembler := reassembly.NewAssembler(pool)
	packets := gopacket.NewPacketSource(source, link)
	packets.NoCopy = true
	for {
		packet, err := packets.NextPacket()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return cli.Fail(cli.Usage, fmt.Errorf("the capture is damaged: %w", err))
		}
		tcp, ok := packet.Layer(layers.LayerTypeTCP).(*layers.TCP)
		if !ok || packet.NetworkLayer() == nil {
			continue
		}
		assembler.AssembleWithContext(packet.NetworkLayer().NetworkFlow(), tcp, &seenAt{packet.Metadata().CaptureInfo})
		if factory.err != nil {
			return factory.err
		}
	}
	assembler.FlushAll()
	return factory.err
}

func openCapture(r *bufio.Reader) (gopacket.PacketDataSource, layers.LinkType, error) {
	head, err := r.Peek(4)
	if err != nil {
		return nil, 0, err
	}
	if [4]byte(head) == [4]byte{0x0a, 0x0d, 0x0d, 0x0a} {
		ng, err := pcapgo.NewNgReader(r, pcapgo.DefaultNgReaderOptions)
		if err != nil {
			return nil, 0, err
		}
		return ng, ng.LinkType(), nil
	}
	p, err := pcapgo.NewReader(r)
	if err != nil {
		return nil, 0, err
	}
	return p, p.LinkType(), nil
}

// seenAt carries the time of a packet through the library.
type seenAt struct{ info gopacket.CaptureInfo }

// GetCaptureInfo implements reassembly.AssemblerContext.
func (s *seenAt) GetCaptureInfo() gopacket.CaptureInfo { return s.info }

// streams makes a stream of each connection.
type streams struct {
	d   *decoder
	err error
}

// New implements reassembly.StreamFactory.
func (f *streams) New(network, transport gopacket.Flow, tcp *layers.TCP, _ reassembly.AssemblerContext) reassembly.Stream {
	s := &stream{f: f, session: f.d.session}
	s.names[0] = network.Src().String() + ":" + transport.Src().String()
	s.names[1] = network.Dst().String() + ":" + transport.Dst().String()
	// A capture that begins in the middle of a connection may begin with a word
	// of the server: the device port is the lower one.
	s.reversed = !tcp.SYN && tcp.SrcPort < tcp.DstPort
	return s
}

// stream is one connection: a buffer and a framer for each direction.
type stream struct {
	f        *streams
	names    [2]string // who sent the first packet, and to whom
	reversed bool
	buf      [2][]byte
	session  protocol.Session // of the device
}

// Accept implements reassembly.Stream.
func (s *stream) Accept(_ *layers.TCP, _ gopacket.CaptureInfo, _ reassembly.TCPFlowDirection, _ reassembly.Sequence, start *bool, _ reassembly.AssemblerContext) bool {
	*start = true // connections that were there before the capture, too
	return true
}

// ReassembledSG implements reassembly.Stream.
func (s *stream) ReassembledSG(sg reassembly.ScatterGather, _ reassembly.AssemblerContext) {
	dir, _, _, skipped := sg.Info()
	side := 0
	if dir == reassembly.TCPDirServerToClient {
		side = 1
	}
	if skipped > 0 {
		s.buf[side] = nil // bytes the capture missed: the framer starts anew
	}
	n, _ := sg.Lengths()
	s.buf[side] = append(s.buf[side], sg.Fetch(n)...)
	s.drain(side, sg.CaptureInfo(0).Timestamp, true)
}

// ReassemblyComplete implements reassembly.Stream.
func (s *stream) ReassemblyComplete(reassembly.AssemblerContext) bool {
	for side := range s.buf {
		s.drain(side, time.Time{}, false)
	}
	return true
}

func (s *stream) drain(side int, at time.Time, patient bool) {
	var f protocol.Framer
	for len(s.buf[side]) > 0 && s.f.err == nil {
		cut := f.Next(s.buf[side], patient)
		if cut.Len > 0 {
			s.f.err = s.show(side, at, s.buf[side][cut.Skip:cut.Skip+cut.Len])
		}
		s.buf[side] = s.buf[side][cut.Skip+cut.Len:]
		if cut.Len == 0 {
			return
		}
	}
}

// show prints one frame. Only what the device says changes its session.
func (s *stream) show(side int, at time.Time, frame []byte) error {
	d := s.f.d
	up := (side == 0) != s.reversed
	saved, quiet := d.session, d.noLogin
	d.session, d.noLogin = s.session, d.noLogin || !up
	defer func() { d.session, d.noLogin = saved, quiet }()
	if !d.json {
		way := "device → server"
		if !up {
			way = "server → device"
		}
		if _, err := fmt.Fprintf(d.out, "%s  %s  %s → %s\n", at.UTC().Format("2006-01-02 15:04:05.000000"), way, s.names[side], s.names[1-side]); err != nil {
			return err
		}
		err := d.frame(frame)
		s.session = d.session
		return err
	}
	var b strings.Builder
	out := d.out
	d.out = &b
	err := d.frame(frame)
	d.out = out
	if up {
		s.session = d.session
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(struct {
		Time  time.Time       `json:"time"`
		From  string          `json:"from"`
		To    string          `json:"to"`
		Up    bool            `json:"up"` // from the device
		IMEI  string          `json:"imei,omitempty"`
		Hex   string          `json:"hex"`
		Frame json.RawMessage `json:"frame"`
	}{at.UTC(), s.names[side], s.names[1-side], up, imeiOf(s.session), hex.EncodeToString(frame), json.RawMessage(strings.TrimSpace(b.String()))})
}

func imeiOf(s protocol.Session) string {
	if s.IMEI == 0 {
		return ""
	}
	return s.IMEI.String()
}
