package cli

import (
	"fmt"
	"runtime/debug"
	"strings"
)

// version is set by a release build (-ldflags -X).
var version string

// Version returns the version the program was released as, or the commit it was
// built from.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	name := info.Main.Version
	if name == "" || name == "(devel)" {
		name = "devel"
	}
	for _, s := range info.Settings {
		if rev := s.Value[:min(len(s.Value), 12)]; s.Key == "vcs.revision" && !strings.HasSuffix(name, rev) {
			return fmt.Sprintf("%s (%s)", name, rev)
		}
	}
	return name
}
