package cli

import (
	"fmt"
	"runtime/debug"
)

// Version returns the version and commit the program was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version, commit := info.Main.Version, ""
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			commit = s.Value[:min(len(s.Value), 12)]
		}
	}
	if version == "" || version == "(devel)" {
		version = "devel"
	}
	if commit == "" {
		return version
	}
	return fmt.Sprintf("%s (%s)", version, commit)
}
