package fake

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

func (a *AWS) describeSnapshots(p params) ([]node, error) {
	if err := named(p, "SnapshotId", "snapshot", a.world.snapshots); err != nil {
		return nil, err
	}
	var items [][]node
	for _, s := range sorted(a.world.snapshots) {
		if p.selects("SnapshotId", &s.object, map[string]string{"volume-id": s.volume, "status": s.state}) {
			items = append(items, a.snapshot(s))
		}
	}
	return []node{set("snapshotSet", items...)}, nil
}

func (a *AWS) snapshot(s *snapshot) []node {
	percent := 100
	if s.state == "pending" {
		percent = max(0, 100-int(100*s.next.Sub(a.now())/max(a.Delays.Snapshot, 1)))
		percent = min(percent, 99)
	}
	n := []node{
		el("snapshotId", s.id), el("volumeId", s.volume), el("status", s.state), el("startTime", s.start), el("progress", fmt.Sprint(percent, "%")), el("ownerId", Account), el("volumeSize", s.size),
		el("description", s.description), el("storageTier", "standard"), el("fullSnapshotSizeInBytes", s.full), tagSet(s.tags),
	}
	if s.state == "error" {
		n = append(n, el("statusMessage", "an internal error, injected"))
	}
	return n
}

func touchCreateSnapshot(a *AWS, p params) ([]Resource, map[string]string, error) {
	v, err := a.resource(p.Get("VolumeId"))
	return []Resource{{ARN: arn("snapshot", "*"), New: true}, v}, asking(p.specified("snapshot")), err
}

func (a *AWS) createSnapshot(p params) ([]node, error) {
	v := a.world.volumes[p.Get("VolumeId")]
	s := &snapshot{object: object{id: a.id("snap"), tags: p.specified("snapshot"), lag: a.Lag}, state: "pending", volume: v.id, description: p.Get("Description"), size: v.size, full: 18 << 30, start: a.now(), next: a.now().Add(a.Delays.Snapshot)}
	if v.mod != nil {
		s.size = v.mod.to
	}
	s.fails = a.fault("snapshot error") != nil
	a.world.snapshots[s.id] = s
	return a.snapshot(s), nil
}

func (a *AWS) describeSnapshotAttribute(p params) ([]node, error) {
	s := a.world.snapshots[p.Get("SnapshotId")]
	if s == nil {
		return nil, missing("snapshot", p.Get("SnapshotId"))
	}
	n := node{name: "createVolumePermission"}
	if s.shared {
		n = set("createVolumePermission", []node{el("group", "all")})
	}
	return []node{el("snapshotId", s.id), n}, nil
}

func touchLock(a *AWS, p params) ([]Resource, map[string]string, error) {
	s, err := a.resource(p.Get("SnapshotId"))
	return []Resource{s}, map[string]string{"ec2:SnapshotLockDuration": p.Get("LockDuration")}, err
}

func (a *AWS) lockSnapshot(p params) ([]node, error) {
	s := a.world.snapshots[p.Get("SnapshotId")]
	if s.mode == "compliance" {
		return nil, refuse("SnapshotLock.Conflict", "Snapshot %s is locked in compliance mode", s.id)
	}
	s.mode, s.days, s.locked = p.Get("LockMode"), p.num("LockDuration"), a.now()
	return lock(s), nil
}

func lock(s *snapshot) []node {
	return []node{el("snapshotId", s.id), el("lockState", s.mode), el("lockDuration", s.days), el("lockCreatedOn", s.locked), el("lockExpiresOn", s.locked.Add(time.Duration(s.days)*24*time.Hour))}
}

func (a *AWS) describeLocks(p params) ([]node, error) {
	var items [][]node
	for _, s := range sorted(a.world.snapshots) {
		if s.mode != "" && p.selects("SnapshotId", &s.object, nil) {
			items = append(items, lock(s))
		}
	}
	return []node{set("snapshotSet", items...)}, nil
}

func touchCreateImage(a *AWS, p params) ([]Resource, map[string]string, error) {
	i, err := a.resource(p.Get("InstanceId"))
	return []Resource{{ARN: arn("image", "*"), New: true}, {ARN: arn("snapshot", "*"), New: true}, i}, asking(p.specified("image")), err
}

func (a *AWS) createImage(p params) ([]node, error) {
	for _, other := range a.world.images {
		if other.name == p.Get("Name") {
			return nil, refuse("InvalidAMIName.Duplicate", "AMI name %s is already in use by AMI %s", other.name, other.id)
		}
	}
	i := &image{object: object{id: a.id("ami"), tags: p.specified("image"), lag: a.Lag}, name: p.Get("Name"), description: p.Get("Description"), created: a.now()}
	for _, v := range sorted(a.world.volumes) {
		if v.at == p.Get("InstanceId") {
			s := &snapshot{object: object{id: a.id("snap"), tags: maps.Clone(p.specified("snapshot"))}, state: "completed", volume: v.id, description: "Created by CreateImage", size: v.size, full: 18 << 30, start: a.now()}
			a.world.snapshots[s.id] = s
			i.snapshots = append(i.snapshots, s.id)
		}
	}
	slices.Sort(i.snapshots)
	a.world.images[i.id] = i
	return []node{el("imageId", i.id)}, nil
}

func (a *AWS) describeImages(p params) ([]node, error) {
	if err := named(p, "ImageId", "image", a.world.images); err != nil {
		return nil, err
	}
	var items [][]node
	for _, i := range sorted(a.world.images) {
		if !p.selects("ImageId", &i.object, nil) {
			continue
		}
		word := "available"
		if a.now().Before(i.created.Add(a.Delays.Image)) {
			word = "pending"
		}
		var disks [][]node
		for _, s := range i.snapshots {
			disks = append(disks, []node{el("deviceName", "/dev/sda1"), in("ebs", el("snapshotId", s))})
		}
		items = append(items, []node{el("imageId", i.id), el("name", i.name), el("description", i.description), el("imageState", word), el("creationDate", i.created), set("blockDeviceMapping", disks...), tagSet(i.tags)})
	}
	return []node{set("imagesSet", items...)}, nil
}
