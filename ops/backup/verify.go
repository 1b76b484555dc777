package backup

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gt06/ops/host"
)

// Verdict is what a verification found.
type Verdict struct {
	Manifest Manifest
	Restored bool // put back and compared; else only read to its end
	Differs  []string
}

// Check reads a backup to its end: the checksum, and for a dump its last line
// and everything in it, against the manifest.
func Check(ctx context.Context, p Place, m Manifest) error {
	scan := newScanner()
	into := io.Discard
	if m.Kind == MariaDB {
		into = scan
	}
	if err := read(ctx, p, m, into); err != nil {
		return err
	}
	if m.Kind != MariaDB {
		return nil
	}
	if err := scan.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if differs := m.Contents.Compare(scan.contents, true); len(differs) > 0 {
		return fmt.Errorf("%w: %s", ErrDamaged, strings.Join(differs, "; "))
	}
	return nil
}

// read copies what a backup holds, uncompressed, and compares length and hash
// of what is stored.
func read(ctx context.Context, p Place, m Manifest, into io.Writer) error {
	object, err := p.Open(ctx, m.Name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer object.Close() //nolint:errcheck // only read
	sum, count := sha256.New(), &counter{}
	stored := io.TeeReader(object, io.MultiWriter(sum, count))
	if m.Kind == Files {
		_, err = io.Copy(into, stored)
	} else {
		var plain *gzip.Reader
		if plain, err = gzip.NewReader(stored); err == nil {
			_, err = io.Copy(into, plain)
		}
	}
	if err == nil {
		_, err = io.Copy(io.Discard, stored) // what comes behind counts, too
	}
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	if corrupt || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, m.Name, err)
	}
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != m.SHA256 || count.n != m.Bytes {
		return fmt.Errorf("%w: %s has %d bytes with SHA-256 %s, its manifest says %d and %s", ErrDamaged, m.Name, count.n, got, m.Bytes, m.SHA256)
	}
	return ctx.Err()
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

// Verify checks a backup and puts it back where nobody uses it: a dump into a
// MariaDB of its own, which is started and thrown away, and is dumped again; a
// SQLite database into a temporary file. The archive of files is decrypted when
// the identity is given. A MariaDB of its own, not a schema beside the others:
// there no event fires, no trigger of another schema is touched, and the
// memory and the binary log of the one in use are left alone.
func Verify(ctx context.Context, s host.System, p Place, m Manifest, identity string) (Verdict, error) {
	v := Verdict{Manifest: m}
	if err := Check(ctx, p, m); err != nil {
		return v, err
	}
	var err error
	switch m.Kind {
	case MariaDB:
		v.Differs, err = redump(ctx, s, p, m)
	case SQLite:
		v.Differs, err = reopen(ctx, p, m)
	case Files:
		if identity == "" {
			return v, nil
		}
		v.Differs, err = unpack(ctx, p, m, identity, "")
	}
	v.Restored = err == nil
	return v, err
}

func reopen(ctx context.Context, p Place, m Manifest) ([]string, error) {
	f, err := os.CreateTemp("", "gt06-verify-*.db")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // a copy of ours
	if err := errors.Join(read(ctx, p, m, f), f.Close()); err != nil {
		return nil, err
	}
	got, err := sqliteContents(ctx, f.Name())
	if err != nil {
		return nil, err
	}
	return m.Contents.Compare(got, true), nil
}

// redump restores a dump into a MariaDB of its own and dumps it again.
func redump(ctx context.Context, s host.System, p Place, m Manifest) ([]string, error) {
	room, err := host.DiskUsage(os.TempDir())
	if err != nil {
		return nil, err
	}
	if needed := uint64(3*m.RawBytes + 256<<20); room.Available < needed {
		return nil, fmt.Errorf("%s has %d MiB available and the restored databases need about %d: set TMPDIR to a directory with more", os.TempDir(), room.Available>>20, needed>>20)
	}
	scratch, err := host.StartScratch(ctx, s)
	if err != nil {
		return nil, err
	}
	defer scratch.Close()
	if err := load(ctx, scratch.MariaDB, p, m, nil, ""); err != nil {
		return nil, fmt.Errorf("restore %s into an empty MariaDB: %w", m.Name, err)
	}
	again, err := dump(ctx, scratch.MariaDB, dumpArgs(strings.Fields(m.Source), false), io.Discard)
	if err != nil {
		return nil, err
	}
	return m.Contents.Compare(again.contents, true), nil
}

// Load puts schemas of a dump in the place of those that are there. What was made since is gone, too: tables a dump does not know would stay
// otherwise. It reads the whole dump first: one that is damaged changes
// nothing. The last statement puts the mark into the comment of each schema
// (Loaded): a mark is letters and digits.
func Load(ctx context.Context, db host.MariaDB, p Place, m Manifest, schemas []string, mark string) error {
	if err := errKind(m, MariaDB); err != nil {
		return err
	}
	for _, s := range schemas {
		if m.Contents[s] == nil {
			return fmt.Errorf("%s has no schema %s, but %s", m.Name, s, m.Source)
		}
	}
	if err := Check(ctx, p, m); err != nil {
		return err
	}
	var end strings.Builder
	for _, s := range schemas {
		quoted := "`" + strings.ReplaceAll(s, "`", "``") + "`"
		if _, err := db.Query(ctx, "DROP DATABASE IF EXISTS "+quoted); err != nil {
			return err
		}
		fmt.Fprintf(&end, "/*M!100500 ALTER DATABASE %s COMMENT = '%s' */;\n", quoted, mark)
	}
	return load(ctx, db, p, m, schemas, end.String())
}

// Loaded says whether the Load with this mark got to its end in all schemas,
// whatever became of the process that asked for it. A MariaDB before 10.5 has
// no comments of schemas and knows of none.
func Loaded(ctx context.Context, db host.MariaDB, schemas []string, mark string) (bool, error) {
	rows, err := db.Query(ctx, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE 1 = 0 /*M!100500 + 1 AND SCHEMA_COMMENT = '"+mark+"' */")
	if err != nil {
		return false, err
	}
	missing := func(s string) bool { return !slices.ContainsFunc(rows, func(r []string) bool { return r[0] == s }) }
	return !slices.ContainsFunc(schemas, missing), nil
}

// load runs a dump, and then the statements of end.
func load(ctx context.Context, db host.MariaDB, p Place, m Manifest, schemas []string, end string) error {
	r, w := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		only := &chooser{to: bufio.NewWriterSize(w, 1<<16), schemas: schemas, on: true}
		err := read(ctx, p, m, only)
		if err == nil {
			_, _ = only.to.WriteString(end) // as the flush says
			err = only.to.Flush()
		}
		sent <- err
		_ = w.CloseWithError(err) // an end that is an error is none for the client: it is killed
	}()
	// Binary mode: no byte of the data is a command to the client.
	c := db.Client("mariadb", "--binary-mode", "--default-character-set=utf8mb4", "--max-allowed-packet=1G")
	c.Stdin = r
	result, err := db.Exec(ctx, c)
	_ = r.CloseWithError(io.ErrClosedPipe)
	lost := <-sent
	switch {
	case err == nil && result.Code != 0:
		return &host.ExitError{Command: c.Name, Result: result}
	case err != nil:
		return err
	}
	return lost
}

// Compare says in which definitions a database differs from a dump: rows may
// have come since.
func Compare(ctx context.Context, db host.MariaDB, m Manifest, schemas []string) ([]string, error) {
	if len(schemas) == 0 {
		schemas = strings.Fields(m.Source)
	}
	now, err := dump(ctx, db, append([]string{"--no-data"}, dumpArgs(schemas, false)...), io.Discard)
	if err != nil {
		return nil, err
	}
	want := Contents{}
	for _, s := range schemas {
		want[s] = m.Contents[s]
	}
	return want.Compare(now.contents, false), nil
}

// chooser passes the lines of a dump that belong to some schemas, and those
// before the first.
type chooser struct {
	to      *bufio.Writer
	schemas []string // nil: all
	on      bool
	partial []byte
}

// Write takes the next bytes.
func (c *chooser) Write(p []byte) (int, error) {
	if c.schemas == nil {
		return c.to.Write(p)
	}
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			c.partial = append(c.partial, p...)
			return n, nil
		}
		c.partial = append(c.partial, p[:i+1]...)
		p = p[i+1:]
		line := bytes.TrimSuffix(c.partial, []byte("\n"))
		for _, form := range []*regexp.Regexp{createSchema, useSchema} {
			if m := form.FindSubmatch(line); m != nil {
				c.on = slices.Contains(c.schemas, name(m[1]))
			}
		}
		if c.on {
			if _, err := c.to.Write(c.partial); err != nil {
				return 0, err
			}
		}
		c.partial = c.partial[:0]
	}
}

// RestoreSQLite writes a SQLite database from a backup to a path that must not
// be there.
func RestoreSQLite(ctx context.Context, p Place, m Manifest, path string) error {
	if err := errKind(m, SQLite); err != nil {
		return err
	}
	o, err := Dir(filepath.Dir(path)).Create(ctx, filepath.Base(path))
	if err != nil {
		return err
	}
	defer o.Abort()
	if err := read(ctx, p, m, o); err != nil {
		return err
	}
	return o.Commit()
}
