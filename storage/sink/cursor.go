package sink

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"gt06/storage"
)

// Mark is where a sink stands.
type Mark struct {
	Sent    storage.Position // everything before it was taken by the receiver
	Sending storage.Position // end of the batch that is on its way; Sent: none is
	Missed  uint64           // records that were gone from the log before they were sent
}

// Cursor keeps the mark of a sink. It belongs to one goroutine.
type Cursor interface {
	// Load waits until this process is the one that sends, and returns the mark.
	// ErrNew: there is none yet.
	Load(ctx context.Context) (Mark, error)
	// Save keeps it: durable with sync, otherwise over a kill of this process.
	Save(ctx context.Context, m Mark, sync bool) error
	Close() error
}

// Errors of a Cursor that no repetition mends.
var (
	// ErrNew: the sink has never sent.
	ErrNew = errors.New("gt06/sink: no cursor yet")
	// ErrVersion: another version of the format wrote it.
	ErrVersion = errors.New("gt06/sink: unknown version of the cursor")
	// ErrDamaged: no slot of the file proves itself.
	ErrDamaged = errors.New("gt06/sink: the cursor is damaged")
	// ErrMoved: the cursor is not where this process left it, as a receiver that
	// keeps it with the rows can find; it is loaded again.
	ErrMoved = errors.New("gt06/sink: the cursor was moved by somebody else")
)

// These are part of the format of a cursor's file: two slots, written in turn,
// of which the one with the higher number counts. A write that is torn costs its
// own slot only. All integers are little-endian, crc is CRC32C of what is before
// it.
//
//	+---------+---------+----------+--------+-----------+----------+-------+
//	| magic 6 | vers. 2 | number 8 | sent 8 | sending 8 | missed 8 | crc 4 |
//	+---------+---------+----------+--------+-----------+----------+-------+
const (
	cursorMagic   = "GT06SK"
	cursorVersion = 1
	slotSize      = 44
	slotEvery     = 512 // a sector each
)

var le = binary.LittleEndian //nolint:gochecknoglobals // a name

//nolint:gochecknoglobals // read-only table
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fileCursor is a Cursor in a file of the data directory.
type fileCursor struct {
	path   string
	f      *os.File
	number uint64
}

// FileCursor keeps the mark of a sink in the file NAME.cursor of a directory.
func FileCursor(dir, name string) Cursor {
	return &fileCursor{path: filepath.Join(dir, name+".cursor")}
}

// Load implements Cursor.
func (c *fileCursor) Load(ctx context.Context) (Mark, error) {
	if c.f == nil {
		f, err := Lock(ctx, c.path)
		if err != nil {
			return Mark{}, err
		}
		c.f = f
	}
	b := make([]byte, slotEvery+slotSize)
	if _, err := c.f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return Mark{}, err
	}
	if len(bytes.Trim(b, "\x00")) == 0 {
		return Mark{}, ErrNew // a kill before the first slot leaves zeros, too
	}
	m, number, err := parseSlot(b)
	if errors.Is(err, ErrVersion) {
		return m, fmt.Errorf("%s: %w", c.path, err)
	}
	second, later, err2 := parseSlot(b[slotEvery:])
	if errors.Is(err2, ErrVersion) {
		return m, fmt.Errorf("%s: %w", c.path, err2)
	}
	if err2 == nil && (err != nil || later > number) {
		m, number, err = second, later, nil
	}
	if err != nil {
		return m, fmt.Errorf("%s: %w", c.path, err)
	}
	c.number = number
	return m, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock opens a file of a sink, makes it when it is not there, and waits until no
// other process has it: who has it sends.
func Lock(ctx context.Context, path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err = lock(ctx, f); err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// lock waits until no other process holds the file.
func lock(ctx context.Context, f *os.File) error {
	const pause = 5 * time.Millisecond
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return os.NewSyscallError("flock", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Save implements Cursor.
func (c *fileCursor) Save(_ context.Context, m Mark, sync bool) error {
	b := append(make([]byte, 0, slotSize), cursorMagic...)
	b = le.AppendUint16(b, cursorVersion)
	b = le.AppendUint64(b, c.number+1)
	b = le.AppendUint64(b, uint64(m.Sent))
	b = le.AppendUint64(b, uint64(m.Sending))
	b = le.AppendUint64(b, m.Missed)
	b = le.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if err := c.write(b, int64((c.number+1)%2)*slotEvery); err != nil {
		return err
	}
	c.number++
	if !sync {
		return nil
	}
	for {
		err := unix.Fdatasync(int(c.f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

func (c *fileCursor) write(b []byte, at int64) error {
	_, err := c.f.WriteAt(b, at)
	return err
}

func parseSlot(b []byte) (m Mark, number uint64, err error) {
	b = b[:slotSize]
	if !bytes.HasPrefix(b, []byte(cursorMagic)) {
		return m, 0, ErrDamaged
	}
	if v := le.Uint16(b[6:]); v != cursorVersion {
		return m, 0, fmt.Errorf("%w: %d, this program knows %d", ErrVersion, v, cursorVersion)
	}
	if crc32.Checksum(b[:slotSize-4], castagnoli) != le.Uint32(b[slotSize-4:]) {
		return m, 0, fmt.Errorf("%w: the checksum is wrong", ErrDamaged)
	}
	return Mark{storage.Position(le.Uint64(b[16:])), storage.Position(le.Uint64(b[24:])), le.Uint64(b[32:])}, le.Uint64(b[8:]), nil
}

// Close implements Cursor: another process may send.
func (c *fileCursor) Close() error {
	if c.f == nil {
		return nil
	}
	f := c.f
	c.f = nil
	return f.Close()
}
