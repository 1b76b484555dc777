package bench

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"gt06/protocol"
	"gt06/protocol/device"
)

// decode measures what cutting a frame from the stream, its checksum and its
// decoding cost, beside the checksum of the standard library, which the
// processor has an instruction for, over the same bytes.
func (b *bench) decode() error {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	one := [][]byte{device.Build(device.LocationOld, 1, 1, at).Bytes}
	ns, allocs, crc := b.timed(one)
	b.note(Figure{
		Name: "decode 0x12", Value: ns, Unit: "ns", Reference: "CRC32C of the bytes", Beside: crc, Goal: "<= 60 ns, 0 allocations", Met: atMost(ns+1000*allocs, 60),
		Note: fmt.Sprintf("%.0f allocations", allocs),
	})
	kinds := make([][]byte, 0, 8)
	for k := device.Login; k <= device.TimeRequest; k++ {
		kinds = append(kinds, device.Build(k, 1, int(k), at).Bytes)
	}
	if err := b.mixed("mixed stream, simulator's kinds", kinds); err != nil {
		return err
	}
	for _, path := range b.opt.Vectors {
		frames, err := vectors(path)
		if err != nil {
			return err
		}
		if err := b.mixed("mixed stream, "+filepath.Base(path), frames); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) mixed(name string, frames [][]byte) error {
	ns, allocs, crc := b.timed(frames)
	b.note(Figure{
		Name: name, Value: ns, Unit: "ns a frame", Reference: "CRC32C of the bytes", Beside: crc, Goal: "<= 150 ns", Met: atMost(ns, 150),
		Note: fmt.Sprintf("%d frames, %.1f allocations", len(frames), allocs),
	})
	return nil
}

// timed returns the medians of many short runs, frames and reference in turn: what
// else the machine does meets both.
func (b *bench) timed(frames [][]byte) (ns, allocs, crc float64) {
	var decoded, summed []float64
	var m protocol.Message
	var d protocol.Decoder
	var f protocol.Framer
	table := crc32.MakeTable(crc32.Castagnoli)
	for range b.pick(21, 3) {
		took, mallocs := perFrame(frames, func(frame []byte) {
			f.Next(frame, true)
			d.Decode(&m, frame, protocol.Session{})
		})
		decoded, allocs = append(decoded, took), mallocs
		took, _ = perFrame(frames, func(frame []byte) { crc32.Checksum(frame, table) })
		summed = append(summed, took)
	}
	return median(decoded), allocs, median(summed)
}

// perFrame returns the nanoseconds and the allocations that a frame takes, of a
// tenth of a second of them.
func perFrame(frames [][]byte, do func([]byte)) (ns, allocs float64) {
	const long, between = 100 * time.Millisecond, 2000 // frames between two looks at the clock
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin, n := time.Now(), 0
	for time.Since(begin) < long {
		for range between {
			do(frames[n%len(frames)])
			n++
		}
	}
	took := time.Since(begin)
	runtime.ReadMemStats(&after)
	return float64(took.Nanoseconds()) / float64(n), math.Round(10*float64(after.Mallocs-before.Mallocs)/float64(n)) / 10
}

// pick returns how often or how much, in a whole and in a quick run.
func (b *bench) pick(whole, quick int) int {
	if b.opt.Quick {
		return quick
	}
	return whole
}

func vectors(path string) ([][]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var frames [][]byte
	scan := bufio.NewScanner(bytes.NewReader(text))
	scan.Buffer(nil, 1<<24)
	for scan.Scan() {
		var v struct{ Hex string }
		if err := json.Unmarshal(scan.Bytes(), &v); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		frame, err := hex.DecodeString(v.Hex)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if len(frame) > 0 {
			frames = append(frames, frame)
		}
	}
	return frames, scan.Err()
}
