//go:build !linux

package backup

import (
	"os"
)

// rename gives a file its name, unless that is taken: a link never replaces.
func rename(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}
