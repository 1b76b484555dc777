package host

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

// Process is one that holds a socket.
type Process struct {
	PID  int
	Name string // as the kernel has it, 15 bytes
	Exe  string // "" where it cannot be seen
	Unit string // of systemd, "" when it belongs to none
}

// String names the process for an operator. Its arguments are left out: they
// may hold secrets.
func (p Process) String() string {
	text := fmt.Sprintf("%s (pid %d", p.Name, p.PID)
	if p.Exe != "" {
		text += ", " + p.Exe
	}
	if p.Unit != "" {
		text += ", " + p.Unit
	}
	return text + ")"
}

// Listener is a TCP socket that accepts, with all who hold it.
type Listener struct {
	Addr      netip.AddrPort
	Namespace string    // of the network, "" when it is this one
	Holders   []Process // none: they cannot be seen with these rights
}

// Listeners returns the TCP listeners of this and all other network namespaces
// of the machine, by port.
func (s System) Listeners() ([]Listener, error) {
	root, err := procfs.NewFS(s.Proc)
	if err != nil {
		return nil, err
	}
	procs, err := root.AllProcs()
	if err != nil {
		return nil, err
	}
	holders := map[string][]Process{} // by the target of the descriptor's link
	spaces := map[string]string{}     // network namespaces: a directory of procfs to read them in
	own, err := os.Readlink(filepath.Join(s.Proc, "self/ns/net"))
	if err != nil {
		return nil, err
	}
	spaces[own] = filepath.Join(s.Proc, "self")
	for _, p := range procs {
		dir := filepath.Join(s.Proc, strconv.Itoa(p.PID))
		if ns, err := os.Readlink(filepath.Join(dir, "ns/net")); err == nil && spaces[ns] == "" {
			spaces[ns] = dir
		}
		targets, err := p.FileDescriptorTargets()
		if err != nil {
			continue // it ended, or is not ours to see
		}
		seen := map[string]bool{}
		for _, target := range targets {
			if strings.HasPrefix(target, "socket:") && !seen[target] {
				seen[target] = true
				holders[target] = append(holders[target], s.process(p))
			}
		}
	}
	var out []Listener
	for ns, dir := range spaces {
		fs, err := procfs.NewFS(dir)
		if err != nil {
			continue
		}
		// netlink tells of the own namespace only.
		tcp4, err4 := fs.NetTCP()  //nolint:staticcheck // see above
		tcp6, err6 := fs.NetTCP6() //nolint:staticcheck // see above
		if ns == own && (err4 != nil || err6 != nil && exists(filepath.Join(dir, "net/tcp6"))) {
			return nil, fmt.Errorf("TCP sockets of %s: %w", s.Proc, err4)
		}
		const listening = 0x0a // TCP_LISTEN
		for _, line := range append(tcp4, tcp6...) {
			addr, ok := netip.AddrFromSlice(line.LocalAddr)
			if line.St != listening || !ok {
				continue
			}
			l := Listener{Addr: netip.AddrPortFrom(addr.Unmap(), uint16(line.LocalPort)), Holders: holders[fmt.Sprintf("socket:[%d]", line.Inode)]}
			if ns != own {
				l.Namespace = ns
			}
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b Listener) int {
		if a.Addr.Port() != b.Addr.Port() {
			return int(a.Addr.Port()) - int(b.Addr.Port())
		}
		return strings.Compare(a.Addr.String()+a.Namespace, b.Addr.String()+b.Namespace)
	})
	return out, nil
}

// Established returns how many connections a port of this network namespace has:
// those that are half open, of devices long gone, are among them.
func (s System) Established(port uint16) (n int, err error) {
	fs, err := procfs.NewFS(filepath.Join(s.Proc, "self"))
	if err != nil {
		return 0, err
	}
	tcp4, err := fs.NetTCP() //nolint:staticcheck // one namespace is enough, a netlink socket is not at hand in tests
	if err != nil {
		return 0, err
	}
	tcp6, err := fs.NetTCP6() //nolint:staticcheck // see above
	if err != nil && exists(filepath.Join(s.Proc, "self/net/tcp6")) {
		return 0, err
	}
	const established = 0x01 // TCP_ESTABLISHED
	for _, line := range append(tcp4, tcp6...) {
		if line.St == established && line.LocalPort == uint64(port) {
			n++
		}
	}
	return n, nil
}

// HoldersOf returns the processes that listen on a port in this network
// namespace, and whether anything listens at all.
func HoldersOf(list []Listener, port uint16) (holders []Process, taken bool) {
	seen := map[int]bool{}
	for _, l := range list {
		if l.Addr.Port() != port || l.Namespace != "" {
			continue
		}
		taken = true
		for _, p := range l.Holders {
			if !seen[p.PID] {
				seen[p.PID] = true
				holders = append(holders, p)
			}
		}
	}
	return holders, taken
}

func (s System) process(p procfs.Proc) Process {
	out := Process{PID: p.PID}
	out.Name, _ = p.Comm()
	out.Exe, _ = p.Executable()
	groups, _ := p.Cgroups()
	for _, g := range groups {
		for part := range strings.SplitSeq(g.Path, "/") {
			if strings.HasSuffix(part, ".service") {
				out.Unit = part
			}
		}
	}
	return out
}
