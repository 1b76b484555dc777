package backup

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"

	"gt06/ops/filelock"
)

// Place is where backups are kept: a directory, or a bucket.
type Place interface {
	fmt.Stringer
	// Create begins an object. Nobody sees it before Commit, and one of the
	// same name is an error that is fs.ErrExist.
	Create(ctx context.Context, name string) (Object, error)
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	List(ctx context.Context) ([]string, error)
}

// Object is one that is being written.
type Object interface {
	io.Writer
	Commit() error // durable, under its name
	Abort()        // nothing is left of it; no effect after Commit
}

// Dir is a directory as a place.
type Dir string

// String returns its path.
func (d Dir) String() string { return string(d) }

// Create begins a file that others cannot read.
func (d Dir) Create(_ context.Context, name string) (Object, error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, err
	}
	if err := d.sweep(); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(string(d), unfinished+"*")
	if err != nil {
		return nil, err
	}
	if err := filelock.Try(f); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close(), os.Remove(f.Name()))
	}
	return &fileObject{File: f, path: filepath.Join(string(d), name)}, nil
}

// unfinished begins the names of files that are being written. Their writers
// hold a lock on them, which goes with the process.
const unfinished = ".new-"

// sweep deletes what writers left that were killed: a dump may be as large as
// the room that is left.
func (d Dir) sweep() error {
	names, err := d.List(context.Background())
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasPrefix(name, unfinished) {
			continue
		}
		f, err := os.Open(filepath.Join(string(d), name))
		if errors.Is(err, os.ErrNotExist) {
			continue // another sweeps
		}
		if err != nil {
			return err
		}
		if filelock.Try(f) == nil {
			_ = os.Remove(f.Name())
		}
		_ = f.Close()
	}
	return nil
}

// Open opens a file.
func (d Dir) Open(_ context.Context, name string) (io.ReadCloser, error) {
	return os.Open(filepath.Join(string(d), filepath.Base(name)))
}

// List returns the names of the regular files.
func (d Dir) List(context.Context) ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Prune deletes the oldest backups of a kind and source until keep are left,
// and returns their names. The manifest goes first: what is half deleted is no
// backup.
func (d Dir) Prune(ctx context.Context, kind Kind, source string, keep int) ([]string, error) {
	list, err := List(ctx, d)
	if err != nil || keep < 1 {
		return nil, err
	}
	var names []string
	for _, m := range list {
		if m.Kind == kind && m.Source == source {
			names = append(names, m.Name)
		}
	}
	names = names[:max(0, len(names)-keep)]
	for _, n := range names {
		for _, suffix := range []string{".json", ".sha256", ""} {
			if err := os.Remove(filepath.Join(string(d), n+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return names, err
			}
		}
	}
	return names, nil
}

type fileObject struct {
	*os.File
	path string
	done bool
}

// Commit makes the file durable and gives it its name, unless that is taken.
func (f *fileObject) Commit() error {
	if err := f.Sync(); err != nil {
		return err
	}
	if err := rename(f.Name(), f.path); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.done = true
	dir, err := os.Open(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), dir.Sync(), dir.Close())
}

// Abort deletes the file.
func (f *fileObject) Abort() {
	if !f.done {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
}

// writing is a backup on its way into a place: what is written is counted,
// compressed where the kind wants it, hashed and stored.
type writing struct {
	object Object
	gzip   *gzip.Writer // nil: stored as it is
	sum    hash.Hash
	raw    int64
	stored int64
	told   int64
	tell   func(string)
}

// begin opens the object of a manifest.
func begin(ctx context.Context, p Place, m *Manifest, compress bool, tell func(string)) (*writing, error) {
	o, err := p.Create(ctx, m.Name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	w := &writing{object: o, sum: sha256.New(), tell: tell}
	if compress {
		// The fastest level: on a machine of two cores the CPU is the devices'.
		if w.gzip, err = gzip.NewWriterLevel(storing{w}, gzip.BestSpeed); err != nil {
			o.Abort()
			return nil, err
		}
	}
	return w, nil
}

// Write takes what is to be stored.
func (w *writing) Write(p []byte) (n int, err error) {
	if w.gzip != nil {
		n, err = w.gzip.Write(p)
	} else {
		n, err = storing{w}.Write(p)
	}
	w.raw += int64(n)
	const every = 64 << 20
	if w.tell != nil && w.raw-w.told >= every {
		w.told = w.raw
		w.tell(fmt.Sprintf("%d MiB read, %d MiB written", w.raw>>20, w.stored>>20))
	}
	return n, err
}

// storing is the far end of a writing.
type storing struct{ *writing }

func (s storing) Write(p []byte) (int, error) {
	n, err := s.object.Write(p)
	s.sum.Write(p[:n])
	s.stored += int64(n)
	return n, err
}

// finish closes the stream and fills in what the manifest says of it. Nothing
// is committed yet.
func (w *writing) finish(m *Manifest) error {
	if w.gzip != nil {
		if err := w.gzip.Close(); err != nil {
			return err
		}
	}
	m.Bytes, m.RawBytes, m.SHA256 = w.stored, w.raw, hex.EncodeToString(w.sum.Sum(nil))
	return nil
}

// commit makes the backup exist: data, checksum, and the manifest last.
func commit(ctx context.Context, p Place, w *writing, m *Manifest) error {
	if err := w.object.Commit(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	for _, side := range []struct {
		suffix string
		text   []byte
	}{{".sha256", []byte(m.SHA256 + "  " + m.Name + "\n")}, {".json", append(text, '\n')}} {
		o, err := p.Create(ctx, m.Name+side.suffix)
		if err != nil {
			return err
		}
		_, err = io.Copy(o, bytes.NewReader(side.text))
		if err == nil {
			err = o.Commit()
		}
		if err != nil {
			o.Abort()
			return err
		}
	}
	return nil
}
