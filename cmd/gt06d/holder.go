package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/procfs"
)

// holderOf names the processes that listen on an address, or "" when they
// cannot be seen: a server and its keeper hold it together.
func holderOf(addr string) string {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		_, port, found := strings.Cut(addr, ":")
		if !found {
			return ""
		}
		if ap, err = netip.ParseAddrPort("0.0.0.0:" + port); err != nil {
			return ""
		}
	}
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return ""
	}
	inodes := map[string]bool{}
	tcp4, _ := fs.NetTCP()  //nolint:staticcheck // netlink would be a dependency for a line of an error message
	tcp6, _ := fs.NetTCP6() //nolint:staticcheck // the same
	const listening = 0x0a
	for _, line := range append(tcp4, tcp6...) {
		local, _ := netip.AddrFromSlice(line.LocalAddr)
		local = local.Unmap()
		same := local == ap.Addr().Unmap() || local.IsUnspecified() || ap.Addr().IsUnspecified()
		if line.St == listening && line.LocalPort == uint64(ap.Port()) && same {
			inodes[fmt.Sprintf("socket:[%d]", line.Inode)] = true
		}
	}
	procs, err := fs.AllProcs()
	if err != nil {
		return ""
	}
	var holders []string
	for _, p := range procs {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.PID))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			target, err := os.Readlink(fd)
			if err != nil || !inodes[target] {
				continue
			}
			command, _ := p.CmdLine()
			holders = append(holders, fmt.Sprintf("pid %d (%s)", p.PID, strings.Join(command, " ")))
			break
		}
	}
	return strings.Join(holders, " and ")
}
