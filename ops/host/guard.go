package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ErrProtected means that something would have been deleted where nothing of
// ours ever deletes: no gate and no emergency opens this.
var ErrProtected = errors.New("protected")

// Guard are the trees in which nothing is deleted.
type Guard []string

// NewGuard returns what is always protected, and more: the directories MariaDB
// names, the data of gt06d, the journal.
func NewGuard(more ...string) Guard {
	return append(Guard{"/var/lib/mysql", "/var/lib/gt06", "/var/lib/gt06ops", "/var/backups", "/home", "/root", "/etc", "/boot", "/var/www"}, more...)
}

// Check returns an error that is ErrProtected when a path is a protected tree,
// is in one, or has one in it: as it is written, and as the links on its way
// lead.
func (g Guard) Check(path string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	paths := []string{abs}
	if target, err := filepath.EvalSymlinks(abs); err == nil && target != abs {
		paths = append(paths, target)
	}
	for _, tree := range g {
		for _, p := range paths {
			if inside(p, tree) || inside(tree, p) {
				return fmt.Errorf("%w: %s holds data (%s)", ErrProtected, path, tree)
			}
		}
		// A bind mount, or a link in the middle of the tree's own name.
		info, err := os.Stat(tree)
		if err != nil {
			continue
		}
		for p := paths[len(paths)-1]; p != "/"; p = filepath.Dir(p) {
			if at, err := os.Stat(p); err == nil && os.SameFile(at, info) {
				return fmt.Errorf("%w: %s is in %s, by another name", ErrProtected, path, tree)
			}
		}
	}
	if filepath.Base(abs) == ".env" {
		return fmt.Errorf("%w: %s holds secrets that are nowhere else", ErrProtected, path)
	}
	return nil
}

// inside says whether a path is a tree or in it.
func inside(path, tree string) bool {
	rel, err := filepath.Rel(tree, path)
	return err == nil && filepath.IsLocal(rel)
}
