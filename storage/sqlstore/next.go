//go:build gt06_next

package sqlstore

import (
	"embed"
	"io/fs"
	"strings"
)

// A build with the tag gt06_next is the next version of this program, for
// tests of an upgrade and a downgrade with a migration between.

//go:embed testdata/next
var next embed.FS

func init() { migrations = overlay{} } //nolint:gochecknoinits // of a build for tests

// overlay shows the migrations of both.
type overlay struct{}

// Open implements fs.FS.
func (overlay) Open(name string) (fs.File, error) {
	if f, err := next.Open(strings.Replace(name, "migrations/", "testdata/next/", 1)); err == nil && strings.HasSuffix(name, ".sql") {
		return f, nil
	}
	return embedded.Open(name)
}

// ReadDir implements fs.ReadDirFS.
func (overlay) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := embedded.ReadDir(name)
	if err != nil {
		return nil, err
	}
	more, err := next.ReadDir(strings.Replace(name, "migrations", "testdata/next", 1))
	if err != nil {
		return list, nil //nolint:nilerr // nothing is added there
	}
	return append(list, more...), nil
}
