package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"gt06/cmd/internal/config"
	"gt06/server/control"
)

// limitMemory bounds the heap, so that the collector works harder before the
// kernel ends the process: by GOMEMLIMIT, else the configuration, else four
// fifths of what the cgroup may use. The rest is for what is no heap: stacks,
// the epoll loops' arenas, the page cache of the log, which counts, too.
//
// The collector also runs twice as often as is usual: what lives is small, and
// the machine is shared. Beside a flood of attackers that is 36 MiB more
// instead of 49.
func limitMemory(cfg config.Memory, env func(string) string) control.Memory {
	collectEach(50, env)
	if env("GOMEMLIMIT") != "" { // the runtime has read it
		return control.Memory{Limit: debug.SetMemoryLimit(-1), From: "GOMEMLIMIT"}
	}
	m := control.Memory{Limit: int64(cfg.Limit), From: "configuration"}
	if m.Limit == 0 {
		m.Limit, m.From = cgroupLimit("/proc/self/cgroup", "/sys/fs/cgroup")/5*4, "cgroup"
	}
	if m.Limit == 0 {
		return control.Memory{From: "none"}
	}
	debug.SetMemoryLimit(m.Limit)
	return m
}

// collectEach has the collector run when the heap has grown by so many per cent,
// unless GOGC says how often.
func collectEach(percent int, env func(string) string) {
	if env("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// cgroupLimit returns the smallest limit of memory from this process' cgroup
// up, of either version; 0: none.
func cgroupLimit(self, root string) int64 {
	b, err := os.ReadFile(self)
	if err != nil {
		return 0
	}
	least := int64(math.MaxInt64)
	for line := range strings.Lines(string(b)) {
		// 0::/path is version 2, 4:memory:/path version 1.
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		var dir, name string
		switch controllers {
		case "":
			dir, name = root, "memory.max"
		case "memory":
			dir, name = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		default:
			continue
		}
		for at := filepath.Clean("/" + path); ; at = filepath.Dir(at) {
			if n := readNumber(filepath.Join(dir, at, name)); n > 0 {
				least = min(least, n)
			}
			if at == "/" {
				break
			}
		}
	}
	const unlimited = 1 << 50 // version 1 writes a huge number
	if least >= unlimited {
		return 0
	}
	return least
}

func readNumber(path string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil {
		return 0 // "max"
	}
	return n
}

// resident returns the bytes of memory this process holds.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
