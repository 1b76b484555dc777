package backup

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
)

// Archive writes files and directories, encrypted, into a place: secrets such
// as Laravel's .env are among them, and the place is not to be trusted with
// them. To read it takes the identity that belongs to the recipient, which is
// kept elsewhere:
//
//	age( gzip( tar ) )     entries by absolute path, without the first slash
//
// A path that is not there is left out and named in the manifest. Links are
// kept as links; sockets and devices are left out.
func Archive(ctx context.Context, paths []string, recipient string, p Place, o Options) (Manifest, error) {
	m := Manifest{Format: format, Kind: Files, Begun: o.Now().UTC(), Source: strings.Join(paths, " "), EncryptedTo: recipient}
	m.Name = nameOf(m.Begun, Files, "")
	to, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		return m, fmt.Errorf("backup.recipient: %w", err)
	}
	w, err := begin(ctx, p, &m, false, o.Progress)
	if err != nil {
		return m, err
	}
	defer w.object.Abort()
	secret, err := age.Encrypt(w, to)
	if err != nil {
		return m, err
	}
	packed := gzip.NewWriter(secret)
	a := &archive{ctx: ctx, tar: tar.NewWriter(packed), manifest: &m}
	for _, path := range paths {
		if err := a.tree(path); err != nil {
			return m, err
		}
	}
	if len(m.Archive) == 0 {
		return m, fmt.Errorf("nothing of %s is there", m.Source)
	}
	if err := errors.Join(a.tar.Close(), packed.Close(), secret.Close()); err != nil {
		return m, err
	}
	if err := w.finish(&m); err != nil {
		return m, err
	}
	m.RawBytes = a.bytes
	if err := shrunk(ctx, p, &m, o); err != nil {
		return m, err
	}
	m.Ended = o.Now().UTC()
	return m, commit(ctx, p, w, &m)
}

// archive is a tar under way.
type archive struct {
	ctx      context.Context // of the one call that makes it
	tar      *tar.Writer
	manifest *Manifest
	bytes    int64
}

func (a *archive) tree(root string) error {
	if !filepath.IsAbs(root) {
		return fmt.Errorf("%s: a path to protect is absolute", root)
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = a.ctx.Err()
		}
		if err == nil {
			err = a.add(path, d)
		}
		if errors.Is(err, fs.ErrNotExist) { // never was, or went away meanwhile
			a.miss(path + " is not there")
			return nil
		}
		return err
	})
}

func (a *archive) miss(why string) {
	a.manifest.Incomplete = strings.TrimPrefix(a.manifest.Incomplete+"; "+why, "; ")
}

func (a *archive) add(path string, d fs.DirEntry) error {
	switch d.Type() {
	case 0, fs.ModeDir, fs.ModeSymlink:
	default:
		a.miss(fmt.Sprintf("%s is a %s", path, d.Type()))
		return nil
	}
	if !d.Type().IsRegular() {
		info, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		if d.Type() == fs.ModeSymlink {
			if link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		_, err = a.header(path, info, link)
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size, err := a.header(path, info, "")
	if err != nil {
		return err
	}
	// What is appended while we read belongs to the next backup; one that gets
	// shorter is an error, because the header is written.
	n, err := io.Copy(a.tar, io.LimitReader(f, size))
	if err == nil && n != size {
		err = fmt.Errorf("%s got shorter while it was read", path)
	}
	a.bytes += n
	a.manifest.Archive = append(a.manifest.Archive, Entry{Path: path, Bytes: n})
	return err
}

func (a *archive) header(path string, info fs.FileInfo, link string) (int64, error) {
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return 0, err
	}
	h.Name = strings.TrimPrefix(path, "/")
	return h.Size, a.tar.WriteHeader(h)
}

// Identity reads the secret half of a recipient from a file as age-keygen
// writes it.
func Identity(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "AGE-SECRET-KEY-") {
			return line, nil
		}
	}
	return "", fmt.Errorf("%s holds no AGE-SECRET-KEY", path)
}

// Extract decrypts an archive below a directory, in which every file must be
// new.
func Extract(ctx context.Context, p Place, m Manifest, identity, dir string) error {
	if err := errKind(m, Files); err != nil {
		return err
	}
	if err := Check(ctx, p, m); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	differs, err := unpack(ctx, p, m, identity, dir)
	if err == nil && len(differs) > 0 {
		err = fmt.Errorf("%w: %s", ErrDamaged, strings.Join(differs, "; "))
	}
	return err
}

// unpack reads an archive, writes it below a directory unless that is "", and
// says in what it differs from its manifest.
func unpack(ctx context.Context, p Place, m Manifest, identity, dir string) ([]string, error) {
	key, err := age.ParseX25519Identity(identity)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	object, err := p.Open(ctx, m.Name)
	if err != nil {
		return nil, err
	}
	defer object.Close() //nolint:errcheck // only read
	plain, err := age.Decrypt(object, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Name, err)
	}
	packed, err := gzip.NewReader(plain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	var root *os.Root
	if dir != "" {
		if root, err = os.OpenRoot(dir); err != nil {
			return nil, err
		}
		defer root.Close() //nolint:errcheck // what was written was synced
	}
	var got []Entry
	for tr := tar.NewReader(packed); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		n, err := putBack(root, h, tr)
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			got = append(got, Entry{Path: "/" + h.Name, Bytes: n})
		}
	}
	// Only what was read to its end is known to be whole.
	if _, err := io.Copy(io.Discard, packed); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	var differs []string
	for _, e := range m.Archive {
		if !slices.Contains(got, e) {
			differs = append(differs, fmt.Sprintf("%s with %d bytes is missing", e.Path, e.Bytes))
		}
	}
	return differs, nil
}

// putBack writes an entry. Nothing leaves the directory: neither a path with ..
// nor one through a link of the archive itself.
func putBack(root *os.Root, h *tar.Header, r io.Reader) (int64, error) {
	if root == nil {
		return io.Copy(io.Discard, r)
	}
	name := filepath.FromSlash(strings.TrimSuffix(h.Name, "/"))
	switch h.Typeflag {
	case tar.TypeDir:
		return 0, root.MkdirAll(name, 0o700)
	case tar.TypeSymlink:
		return 0, errors.Join(root.MkdirAll(filepath.Dir(name), 0o700), root.Symlink(h.Linkname, name))
	case tar.TypeReg:
	default:
		return 0, fmt.Errorf("%w: %s is of type %q", ErrDamaged, h.Name, h.Typeflag)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return 0, err
	}
	// Not readable by others, whatever it was: an operator puts it in its place.
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(f, r)
	return n, errors.Join(err, f.Sync(), f.Close())
}
