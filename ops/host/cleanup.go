package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/prometheus/procfs"
)

// Cleanup frees room the way the SOP allows, and no other way.
type Cleanup struct {
	System
	Guard      Guard
	Logs       string // directory of the logs, /var/log
	Journal    string // directory of the journal, "": journald's own
	Days       int    // of the journal that are kept
	SnapRetain int    // revisions of a snap that are kept
}

// Rule is one way of freeing room.
type Rule struct {
	Name  string
	Title string
	Why   string                                   // it does not apply here, "" when it does
	Free  func(ctx context.Context) error          // frees
	Left  func() (files int, bytes int64, _ error) // what it could still free; nil: only the file system can tell
}

// Rules returns the rules in the SOP's order.
func (c Cleanup) Rules() []Rule {
	journal := []string{"--vacuum-time=" + strconv.Itoa(c.Days) + "d"}
	if c.Journal != "" {
		journal = append(journal, "--directory="+c.Journal)
	}
	return []Rule{
		c.program("packages", "delete downloaded packages", "apt-get", "clean"),
		c.program("journal", fmt.Sprintf("delete what the journal holds of more than %d days ago", c.Days), "journalctl", journal...),
		{
			Name: "logs", Title: fmt.Sprintf("delete rotated logs that nobody has open: %s/*.gz and %s/*.[0-9]", c.Logs, c.Logs),
			Free: c.deleteLogs,
			Left: func() (int, int64, error) {
				list, err := c.RotatedLogs()
				var bytes int64
				for _, l := range list {
					bytes += l.Bytes
				}
				return len(list), bytes, err
			},
		},
		c.program("snap", fmt.Sprintf("let snap keep %d revisions", c.SnapRetain), "snap", "set", "system", fmt.Sprintf("refresh.retain=%d", c.SnapRetain)),
	}
}

func (c Cleanup) program(name, title, program string, args ...string) Rule {
	r := Rule{Name: name, Title: title, Free: func(ctx context.Context) error {
		_, err := c.run(ctx, Command{Name: program, Args: args})
		return err
	}}
	if !c.has(program) {
		r.Why = "no " + program + " on this machine"
	}
	return r
}

// LogFile is a rotated log that may be deleted.
type LogFile struct {
	Name  string // in the directory of the logs
	Bytes int64  // on the disk; 0 when another name keeps the file
}

// RotatedLogs returns what may be deleted: regular files directly in the
// directory, on its own device, by the names the SOP gives, open in no process.
func (c Cleanup) RotatedLogs() ([]LogFile, error) {
	root, err := c.openLogs()
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // only read
	return c.rotated(root)
}

// openLogs opens the directory of the logs unless it is a link or protected.
func (c Cleanup) openLogs() (*os.Root, error) {
	if err := c.Guard.Check(c.Logs); err != nil {
		return nil, err
	}
	info, err := os.Lstat(c.Logs)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is no directory but %s", c.Logs, info.Mode().Type())
	}
	root, err := os.OpenRoot(c.Logs)
	if err != nil {
		return nil, err
	}
	// Not another one that took its place since.
	if now, err := root.Stat("."); err != nil || !os.SameFile(info, now) {
		_ = root.Close()
		return nil, errors.Join(fmt.Errorf("%s changed while it was opened", c.Logs), err)
	}
	return root, nil
}

func (c Cleanup) rotated(root *os.Root) ([]LogFile, error) {
	self, err := status(root, ".")
	if err != nil {
		return nil, err
	}
	open, err := c.openFiles()
	if err != nil {
		return nil, err
	}
	var out []LogFile
	for _, pattern := range []string{"*.gz", "*.[0-9]"} {
		names, err := fs.Glob(root.FS(), pattern)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			st, err := status(root, name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if !st.regular || st.dev != self.dev || open[st.file] {
				continue
			}
			l := LogFile{Name: name}
			if st.links == 1 {
				l.Bytes = st.bytes
			}
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b LogFile) int { return int(b.Bytes - a.Bytes) })
	return out, nil
}

func (c Cleanup) deleteLogs(ctx context.Context) error {
	root, err := c.openLogs()
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // what was deleted is deleted
	list, err := c.rotated(root)
	if err != nil {
		return err
	}
	for _, l := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		// Only the name goes, by a descriptor of the directory: a link put
		// there in this moment is deleted itself, never what it leads to.
		if err := root.Remove(l.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// file is a file by what the kernel knows it as.
type file struct{ dev, ino uint64 }

// inode is what the kernel knows of one.
type inode struct {
	file
	regular bool
	links   uint64
	bytes   int64 // on the disk
	uid     uint32
}

// openFiles returns the files that any process has open.
func (c Cleanup) openFiles() (map[file]bool, error) {
	root, err := procfs.NewFS(c.Proc)
	if err != nil {
		return nil, err
	}
	procs, err := root.AllProcs()
	if err != nil {
		return nil, err
	}
	out := map[file]bool{}
	for _, p := range procs {
		dir := filepath.Join(c.Proc, strconv.Itoa(p.PID), "fd")
		fds, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("which files process %d has open cannot be seen: run as root: %w", p.PID, err)
		}
		for _, fd := range fds {
			if info, err := os.Stat(filepath.Join(dir, fd.Name())); err == nil {
				if st, ok := inodeOf(info); ok {
					out[st.file] = true
				}
			}
		}
	}
	return out, nil
}

// status is lstat by a descriptor of the directory.
func status(root *os.Root, name string) (inode, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return inode{}, err
	}
	st, ok := inodeOf(info)
	if !ok {
		return inode{}, fmt.Errorf("%s: no inode", name)
	}
	return st, nil
}
