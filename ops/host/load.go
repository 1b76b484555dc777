package host

import (
	"fmt"
	"runtime"
	"time"

	"github.com/prometheus/procfs"
)

// Load is how busy the machine is.
type Load struct {
	One, Five, Fifteen float64 // load averages
	CPUs               int
	MemoryTotal        uint64 // bytes
	MemoryAvailable    uint64 // bytes, without swapping
	Uptime             time.Duration
}

// Load reads load averages, memory and uptime.
func (s System) Load() (Load, error) {
	fs, err := procfs.NewFS(s.Proc)
	if err != nil {
		return Load{}, err
	}
	avg, err := fs.LoadAvg()
	if err != nil {
		return Load{}, err
	}
	mem, err := fs.Meminfo()
	if err != nil {
		return Load{}, err
	}
	if mem.MemTotalBytes == nil || mem.MemAvailableBytes == nil {
		return Load{}, fmt.Errorf("%s/meminfo has no MemTotal or MemAvailable", s.Proc)
	}
	stat, err := fs.Stat()
	if err != nil {
		return Load{}, err
	}
	return Load{
		One: avg.Load1, Five: avg.Load5, Fifteen: avg.Load15, CPUs: runtime.NumCPU(),
		MemoryTotal: *mem.MemTotalBytes, MemoryAvailable: *mem.MemAvailableBytes,
		Uptime: time.Since(time.Unix(int64(stat.BootTime), 0)).Truncate(time.Second),
	}, nil
}

// Clock is what the kernel knows about its own clock.
type Clock struct {
	Synchronised bool
	Error        time.Duration // the most it may be off
}
