package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// segmentInfo is a segment on disk.
type segmentInfo struct {
	segmentHeader
	path string
	size int64
	mod  int64 // Unix seconds of the last write
}

func segmentPath(dir string, number uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%010d.seg", number))
}

// list returns the segments of a directory from a number on, by number. Files
// that are no segments are left alone; one of another version is ErrVersion.
func list(dir string, from uint32) ([]segmentInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var segments []segmentInfo
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".seg")
		number, err := strconv.ParseUint(name, 10, 32)
		if !ok || err != nil || uint32(number) < from {
			continue
		}
		s := segmentInfo{path: filepath.Join(dir, e.Name())}
		head := make([]byte, headerSize)
		f, err := open(s.path, os.O_RDONLY)
		if errors.Is(err, os.ErrNotExist) {
			continue // room was made meanwhile
		}
		if err != nil {
			return nil, err
		}
		n, _ := io.ReadFull(f, head)
		st, err := f.Stat()
		_ = f.Close()
		if err != nil {
			return nil, err
		}
		s.size, s.mod = st.Size(), st.ModTime().Unix()
		s.segmentHeader, err = parseHeader(head[:n])
		if errors.Is(err, ErrVersion) {
			return nil, fmt.Errorf("%s: %w", s.path, err)
		}
		// With a damaged header the records behind it still prove themselves.
		s.number = uint32(number)
		segments = append(segments, s)
	}
	slices.SortFunc(segments, func(a, b segmentInfo) int { return int(int64(a.number) - int64(b.number)) })
	return segments, nil
}

// limitOf returns how far segment i is valid: a later one may say that a part
// of it was written again.
func limitOf(segments []segmentInfo, i int) int64 {
	for j := i + 1; j < len(segments); j++ {
		if segments[j].cut > 0 && segments[j].cutOf == segments[i].number {
			return min(int64(segments[j].cut), segments[i].size)
		}
	}
	return segments[i].size
}

func open(path string, flag int) (*os.File, error) {
	return os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
}

// segment is the one that is written.
type segment struct {
	segmentHeader
	f       *os.File
	disk    disk
	written int64 // zeros and records reach to here
}

// create claims the number of h or the first free one above it: O_EXCL decides
// between two that want it.
func create(dir string, h segmentHeader, ahead int64, d disk) (*segment, error) {
	var f *os.File
	for {
		var err error
		if f, err = d.create(segmentPath(dir, h.number)); err == nil {
			break
		}
		if !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		h.number++
	}
	var err error
	s := &segment{segmentHeader: h, f: f, disk: d}
	if err = d.writeAt(f, h.bytes(), 0); err == nil {
		err = s.extend(headerSize + ahead)
	}
	if err == nil {
		err = d.syncDir(dir)
	}
	if err != nil {
		_ = f.Close()
		_ = d.remove(f.Name())
		return nil, err
	}
	return s, nil
}

// extend writes zeros up to a size and makes that durable, so that a later
// sync has only data to write.
func (s *segment) extend(to int64) error {
	zeros := make([]byte, 256<<10)
	for at := max(s.written, headerSize); at < to; at += int64(len(zeros)) {
		if err := s.disk.writeAt(s.f, zeros[:min(int64(len(zeros)), to-at)], at); err != nil {
			return err
		}
	}
	if err := s.disk.sync(s.f); err != nil {
		return err
	}
	s.written = max(s.written, to)
	return nil
}
