// Package backup makes copies of what cannot be made again, proves that they
// are whole, and puts them back: databases by dump, files by an encrypted
// archive. The snapshot of the volume protects all of it, too; a dump can be
// read without the volume, and one schema of it restored.
//
// A backup is three objects in a place, written in this order, each under
// another name until it is whole:
//
//	db-20261125T142628Z.sql.gz           the data
//	db-20261125T142628Z.sql.gz.sha256    for sha256sum -c
//	db-20261125T142628Z.sql.gz.json      the manifest: without it there is no backup
package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Kind is what a backup holds.
type Kind string

// The kinds.
const (
	MariaDB Kind = "mariadb"
	SQLite  Kind = "sqlite"
	Files   Kind = "files"
)

// format is the version of the manifest.
const format = 1

// Manifest says what a backup holds and how to know that it is whole.
type Manifest struct {
	Format      int       `json:"format"`
	Name        string    `json:"name"`
	Kind        Kind      `json:"kind"`
	Begun       time.Time `json:"begun"` // UTC
	Ended       time.Time `json:"ended"`
	Bytes       int64     `json:"bytes"`
	RawBytes    int64     `json:"raw_bytes"` // before compression
	SHA256      string    `json:"sha256"`
	Source      string    `json:"source"`               // schemas, a file, or directories
	Server      string    `json:"server,omitempty"`     // version of MariaDB
	Position    string    `json:"position,omitempty"`   // in the binary log, FILE:BYTE
	GTID        string    `json:"gtid,omitempty"`       // the same for replication
	Loose       []string  `json:"loose,omitempty"`      // tables that a consistent read does not cover
	Contents    Contents  `json:"contents,omitempty"`   // of databases
	Archive     []Entry   `json:"archive,omitempty"`    // of files
	Incomplete  string    `json:"incomplete,omitempty"` // what is missing from the archive and why
	EncryptedTo string    `json:"encrypted_to,omitempty"`
}

// Entry is a file of an archive.
type Entry struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

// Errors that a caller tells apart.
var (
	// ErrDamaged is a backup that is not what its manifest says.
	ErrDamaged = errors.New("the backup is damaged")
	// ErrShrunk is a backup much smaller than the last one: perhaps of the
	// wrong database.
	ErrShrunk = errors.New("much smaller than the last one")
)

var nameForm = regexp.MustCompile(`^(db|sqlite|files)-\d{8}T\d{6}Z(-[a-zA-Z0-9_.-]+)?\.(sql\.gz|db\.gz|tar\.age)$`)

func nameOf(begun time.Time, kind Kind, detail string) string {
	stamp := begun.UTC().Format("20060102T150405Z")
	switch kind {
	case MariaDB:
		return "db-" + stamp + ".sql.gz"
	case SQLite:
		return "sqlite-" + stamp + "-" + detail + ".gz"
	case Files:
	}
	return "files-" + stamp + ".tar.age"
}

// Read returns the manifest of a backup.
func Read(ctx context.Context, p Place, name string) (Manifest, error) {
	if !nameForm.MatchString(name) {
		return Manifest{}, fmt.Errorf("%q is no name of a backup: db-20261125T142628Z.sql.gz is one", name)
	}
	r, err := p.Open(ctx, name+".json")
	if err != nil {
		return Manifest{}, fmt.Errorf("%s in %s has no manifest, so it was never whole: %w", name, p, err)
	}
	defer r.Close() //nolint:errcheck // only read
	const most = 64 << 20
	b, err := io.ReadAll(io.LimitReader(r, most))
	if err != nil {
		return Manifest{}, err
	}
	var version struct{ Format int }
	if err := json.Unmarshal(b, &version); err != nil {
		return Manifest{}, fmt.Errorf("%w: manifest of %s: %w", ErrDamaged, name, err)
	}
	if version.Format != format {
		return Manifest{}, fmt.Errorf("manifest of %s has format %d; this program reads %d", name, version.Format, format)
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return Manifest{}, fmt.Errorf("%w: manifest of %s: %w", ErrDamaged, name, err)
	}
	if m.Name != name {
		return Manifest{}, fmt.Errorf("%w: the manifest of %s is that of %s", ErrDamaged, name, m.Name)
	}
	return m, nil
}

// List returns the manifests of the backups in a place, the oldest first.
// Objects without a manifest are no backups.
func List(ctx context.Context, p Place) ([]Manifest, error) {
	names, err := p.List(ctx)
	if err != nil {
		return nil, err
	}
	var out []Manifest
	for _, n := range names {
		data, isManifest := strings.CutSuffix(n, ".json")
		if !isManifest || !nameForm.MatchString(data) {
			continue
		}
		m, err := Read(ctx, p, data)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Manifest) int { return a.Begun.Compare(b.Begun) })
	return out, nil
}

// Last returns the newest backup of a kind and source; ok is false when there
// is none.
func Last(ctx context.Context, p Place, kind Kind, source string) (m Manifest, ok bool, err error) {
	list, err := List(ctx, p)
	if err != nil {
		return Manifest{}, false, err
	}
	for _, m := range slices.Backward(list) {
		if m.Kind == kind && (source == "" || m.Source == source) {
			return m, true, nil
		}
	}
	return Manifest{}, false, nil
}
