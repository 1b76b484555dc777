package runbook

import (
	"context"
	"fmt"
	"strconv"

	"gt06/ops"
	"gt06/ops/host"
)

// ResizeGuest makes partition and file system of a mount as large as the volume
// has become: the second half of `resize volume`, on the machine.
func (m *Machine) ResizeGuest(mount string) ops.Runbook {
	return ops.Runbook{
		Name: "resize guest",
		Discover: func(context.Context) (ops.Params, error) {
			p, err := m.PartitionOf(mount)
			if err != nil {
				return nil, ops.Fail(ops.Refused, err, "lsblk")
			}
			return ops.Params{"mount": mount, "device": p.Device, "disk": p.Disk, "number": strconv.Itoa(p.Number), "type": p.Type}, nil
		},
		Steps: func(p ops.Params) []ops.Step {
			number, _ := strconv.Atoi(p["number"])
			part := host.Partition{Device: p["device"], Disk: p["disk"], Number: number, Type: p["type"], Mount: p["mount"]}
			return []ops.Step{m.growPartition(part), m.growFilesystem(part)}
		},
	}
}

func (m *Machine) growPartition(p host.Partition) ops.Step {
	return ops.Step{
		ID: "partition.grow", Class: ops.Guest, Title: fmt.Sprintf("grow partition %d of %s to the end of the disk", p.Number, p.Disk),
		Do: func(ctx context.Context, _ *ops.Run) error { _, err := m.GrowPartition(ctx, p); return err },
		Postcheck: func(ctx context.Context, _ *ops.Run) (ops.State, error) {
			left, err := m.Growable(ctx, p)
			return ops.State{Done: err == nil && !left, Seen: fmt.Sprintf("%s can grow: %v", p.Device, left)}, err
		},
	}
}

// growFilesystem is done when the file system has nearly the size of its
// partition: the rest is its own book-keeping.
func (m *Machine) growFilesystem(p host.Partition) ops.Step {
	return ops.Step{
		ID: "filesystem.grow", Class: ops.Guest, Title: fmt.Sprintf("grow %s of %s, mounted at %s, online", p.Type, p.Device, p.Mount),
		Do: func(ctx context.Context, _ *ops.Run) error { return m.GrowFilesystem(ctx, p) },
		Postcheck: func(_ context.Context, _ *ops.Run) (ops.State, error) {
			size, err := host.BlockSize(p.Device)
			if err != nil {
				return ops.State{}, err
			}
			u, err := host.DiskUsage(p.Mount)
			const share = 0.92
			return ops.State{Done: err == nil && float64(u.Bytes) >= share*float64(size), Seen: fmt.Sprintf("file system %d MiB of %d MiB", u.Bytes>>20, size>>20)}, err
		},
	}
}
