// Package photo puts photos together that devices send in parts, as files named
// by their content.
//
//	<dir>/<sha-256>.jpg           a whole photo
//	<dir>/parts/<imei>-<id>/      what has come of one
//	    total                     its size, once it was announced
//	    0000001024                a part, by its place
//
// Adding a part twice changes nothing, so the log may be read again; parts stay
// until they are old, whole or not.
package photo

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gt06/protocol"
)

// Errors of Add.
var (
	// ErrTooLarge: a photo is larger than it may be.
	ErrTooLarge = errors.New("gt06/photo: photo is too large")
	// ErrTooMany: a device sends too many photos at once.
	ErrTooMany = errors.New("gt06/photo: too many unfinished photos of a device")
)

const (
	// most is how large a photo may be: trackers' cameras make VGA pictures.
	most = 4 << 20
	// unfinished is how many a device may have under way.
	unfinished = 8
	// keep is how long parts stay.
	keep = 24 * time.Hour
)

// Store is a directory of photos. It belongs to one goroutine.
type Store struct {
	dir     string
	now     func() time.Time
	cleaned time.Time
}

// New makes a Store; the directory is made when the first part comes.
func New(dir string) *Store { return &Store{dir: dir, now: time.Now} }

// Add keeps an announcement or a part. file is the name of the photo once it is
// whole.
func (s *Store) Add(imei protocol.IMEI, p *protocol.Photo, data []byte) (file string, err error) {
	if p.Total > most || int64(p.Place)+int64(len(data)) > most {
		return "", fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, max(int64(p.Total), int64(p.Place)+int64(len(data))), most)
	}
	s.clean()
	dir, err := s.parts(imei, p.ID)
	if err != nil {
		return "", err
	}
	if p.Total > 0 {
		if err := write(filepath.Join(dir, "total"), []byte(strconv.FormatUint(uint64(p.Total), 10))); err != nil {
			return "", err
		}
	}
	if len(data) == 0 {
		return "", nil
	}
	if err := write(filepath.Join(dir, fmt.Sprintf("%010d", p.Place)), data); err != nil {
		return "", err
	}
	whole, err := join(dir, p.Numbered)
	if err != nil || whole == nil {
		return "", err
	}
	sum := sha256.Sum256(whole)
	file = hex.EncodeToString(sum[:]) + ".jpg"
	return file, write(filepath.Join(s.dir, file), whole)
}

// parts returns the directory of one photo.
func (s *Store) parts(imei protocol.IMEI, id uint32) (string, error) {
	root := filepath.Join(s.dir, "parts")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return "", err
	}
	dir := filepath.Join(root, fmt.Sprintf("%s-%08x", imei, id))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	others, err := filepath.Glob(filepath.Join(root, imei.String()+"-*"))
	if err != nil {
		return "", err
	}
	if len(others) >= unfinished {
		return "", fmt.Errorf("%w: %s has %d", ErrTooMany, imei, len(others))
	}
	return dir, os.Mkdir(dir, 0o700)
}

// join returns the photo, or nil while something is missing.
func join(dir string, numbered bool) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, "total"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // its announcement was lost with another server's memory: the log has it
	}
	if err != nil {
		return nil, err
	}
	total, err := strconv.Atoi(string(b))
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	whole := make([]byte, 0, min(total, most))
	n := 0
	for _, e := range entries {
		place, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if numbered && place != n || !numbered && place != len(whole) {
			return nil, nil
		}
		part, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		whole = append(whole, part...)
		n++
	}
	if len(whole) != total {
		return nil, nil
	}
	return whole, nil
}

// write replaces a file in one step.
func write(path string, b []byte) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, b, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// clean removes parts that are old, once an hour.
func (s *Store) clean() {
	now := s.now()
	if now.Sub(s.cleaned) < time.Hour {
		return
	}
	s.cleaned = now
	dirs, err := filepath.Glob(filepath.Join(s.dir, "parts", "*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		if st, err := os.Stat(dir); err == nil && now.Sub(st.ModTime()) > keep {
			_ = os.RemoveAll(dir)
		}
	}
}
