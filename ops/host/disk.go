package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

// Usage is how full a file system is.
type Usage struct {
	Path      string
	Bytes     uint64 // size
	Used      uint64
	Available uint64 // to others than root
	Files     uint64 // inodes; 0 where the file system has no fixed number
	FilesFree uint64
}

// BytesPercent is the share in use as df shows it: of what others than root can
// have.
func (u Usage) BytesPercent() float64 { return percent(u.Used, u.Used+u.Available) }

// FilesPercent is the share of the inodes in use.
func (u Usage) FilesPercent() float64 { return percent(u.Files-u.FilesFree, u.Files) }

func percent(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

// DiskUsage asks the file system a path is on.
func DiskUsage(path string) (Usage, error) {
	u, err := usage(path)
	if err != nil {
		return Usage{}, fmt.Errorf("file system of %s: %w", path, err)
	}
	return u, nil
}

// Partition is the place of a file system on a disk.
type Partition struct {
	Device string // /dev/nvme0n1p1, /dev/xvda1
	Disk   string // /dev/nvme0n1, or the device itself when the disk has no partitions
	Number int    // of the partition, 0: the whole disk
	Type   string // of the file system: ext4, xfs
	Mount  string // "": not mounted
}

// PartitionOf finds the partition mounted at a place, by device number: names
// differ from machine to machine, numbers do not lie.
func (s System) PartitionOf(mount string) (Partition, error) {
	self, err := procfs.NewFS(s.Proc)
	if err != nil {
		return Partition{}, err
	}
	proc, err := self.Self()
	if err != nil {
		return Partition{}, err
	}
	mounts, err := proc.MountInfo()
	if err != nil {
		return Partition{}, err
	}
	for _, m := range slices.Backward(mounts) { // the last one covers those before
		if m.MountPoint != mount {
			continue
		}
		link, err := filepath.EvalSymlinks(filepath.Join(s.Sys, "dev/block", m.MajorMinorVer))
		if err != nil {
			return Partition{}, fmt.Errorf("%s is on %s (%s), which is no block device: %w", mount, m.Source, m.FSType, err)
		}
		p := Partition{Device: "/dev/" + filepath.Base(link), Type: m.FSType, Mount: mount}
		p.Disk = p.Device
		number, err := os.ReadFile(filepath.Join(link, "partition"))
		if errors.Is(err, os.ErrNotExist) {
			return p, nil
		}
		if err != nil {
			return Partition{}, err
		}
		p.Disk = "/dev/" + filepath.Base(filepath.Dir(link))
		p.Number, err = strconv.Atoi(strings.TrimSpace(string(number)))
		return p, err
	}
	return Partition{}, fmt.Errorf("nothing is mounted at %s", mount)
}

// GrowPartition makes a partition as large as its disk allows and says whether
// there was anything to grow. A disk without partitions is left alone.
func (s System) GrowPartition(ctx context.Context, p Partition) (bool, error) {
	if p.Number == 0 {
		return false, nil
	}
	return s.growpart(ctx, p.Disk, strconv.Itoa(p.Number))
}

// Growable says whether GrowPartition would change anything.
func (s System) Growable(ctx context.Context, p Partition) (bool, error) {
	if p.Number == 0 {
		return false, nil
	}
	return s.growpart(ctx, "--dry-run", p.Disk, strconv.Itoa(p.Number))
}

func (s System) growpart(ctx context.Context, args ...string) (bool, error) {
	if !s.has("growpart") {
		return false, errors.New("growpart is not installed: apt-get install cloud-guest-utils")
	}
	c := Command{Name: "growpart", Args: args}
	r, err := s.Exec(ctx, c)
	switch {
	case err != nil:
		return false, err
	case r.Code == 0:
		return true, nil
	case r.Code == 1 && strings.Contains(r.Stdout, "NOCHANGE"):
		return false, nil
	}
	return false, &ExitError{Command: c.String(), Result: r}
}

// capSysResource is what growing a mounted ext4 takes, by number.
const capSysResource = 24

// GrowFilesystem makes a file system as large as its partition: mounted ones
// online, ext4 that is not mounted after a check. One that has the size already
// stays as it is.
func (s System) GrowFilesystem(ctx context.Context, p Partition) error {
	switch {
	case strings.HasPrefix(p.Type, "ext") && p.Mount == "":
		c := Command{Name: "e2fsck", Args: []string{"-f", "-p", p.Device}}
		r, err := s.Exec(ctx, c)
		if err != nil {
			return err
		}
		const corrected = 1 // e2fsck(8): 0 clean, 1 corrected, everything else needs a human
		if r.Code > corrected {
			return &ExitError{Command: c.String(), Result: r}
		}
	case strings.HasPrefix(p.Type, "ext"):
		ok, err := capable(capSysResource)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%s is mounted and this process has no CAP_SYS_RESOURCE, without which the kernel refuses to grow it: run as root outside of a container", p.Device)
		}
	case p.Type == "xfs" && p.Mount != "":
		_, err := s.run(ctx, Command{Name: "xfs_growfs", Args: []string{p.Mount}})
		return err
	default:
		return fmt.Errorf("%s has a file system %q at %q that only its own tools can grow", p.Device, p.Type, p.Mount)
	}
	_, err := s.run(ctx, Command{Name: "resize2fs", Args: []string{p.Device}})
	return err
}

// BlockSize returns the size of a block device or an image, in bytes.
func BlockSize(path string) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // only read
	end, err := f.Seek(0, 2)
	return uint64(end), err
}
