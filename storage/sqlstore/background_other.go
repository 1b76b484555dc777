//go:build !linux

package sqlstore

// background does nothing here: no devices are served.
func background() {}
