package fake

import (
	"strings"
	"time"
)

// cooldown is how long AWS lets a volume rest between two modifications.
const (
	hour     = time.Hour
	cooldown = 6 * hour
)

func (a *AWS) describeVolumes(p params) ([]node, error) {
	if err := named(p, "VolumeId", "volume", a.world.volumes); err != nil {
		return nil, err
	}
	var items [][]node
	for _, v := range sorted(a.world.volumes) {
		if p.selects("VolumeId", &v.object, map[string]string{"attachment.instance-id": v.at, "status": v.state}) {
			items = append(items, a.volume(v))
		}
	}
	return []node{set("volumeSet", items...)}, nil
}

func (a *AWS) volume(v *volume) []node {
	size := v.size
	if v.mod != nil {
		if phase, _ := a.phase(v.mod); phase != "modifying" {
			size = v.mod.to
		}
	}
	n := []node{
		el("volumeId", v.id), el("size", size), el("snapshotId", v.snapshot), el("availabilityZone", v.zone), el("status", v.state), el("createTime", v.created), el("volumeType", v.kind),
		el("iops", v.iops), el("throughput", v.throughput), el("encrypted", v.encrypted), tagSet(v.tags),
	}
	if v.key != "" {
		n = append(n, el("kmsKeyId", v.key))
	}
	if v.at != "" {
		n = append(n, set("attachmentSet", []node{el("volumeId", v.id), el("instanceId", v.at), el("device", v.device), el("status", v.attachment), el("deleteOnTermination", v.with)}))
	}
	return n
}

func (a *AWS) describeModifications(p params) ([]node, error) {
	var items [][]node
	for _, v := range sorted(a.world.volumes) {
		if v.mod == nil || !p.selects("VolumeId", &v.object, map[string]string{"volume-id": v.id}) {
			continue
		}
		phase, percent := a.phase(v.mod)
		items = append(items, []node{el("volumeId", v.id), el("modificationState", phase), el("originalSize", v.mod.from), el("targetSize", v.mod.to), el("progress", percent), el("startTime", v.mod.start)})
	}
	return []node{set("volumeModificationSet", items...)}, nil
}

func (a *AWS) modifyVolume(p params) ([]node, error) {
	v, to := a.world.volumes[p.Get("VolumeId")], p.num("Size")
	if v.mod != nil {
		if a.now().Sub(v.mod.start) < cooldown {
			return nil, refuse("VolumeModificationRateExceeded", "You've reached the maximum modification rate per volume limit. Wait at least 6 hours between modifications per EBS volume.")
		}
		v.size = v.mod.to
	}
	if to < v.size {
		return nil, refuse("InvalidParameterValue", "New size cannot be smaller than existing size")
	}
	v.mod = &modification{from: v.size, to: to, start: a.now()}
	return []node{in("volumeModification", el("volumeId", v.id), el("modificationState", "modifying"), el("originalSize", v.size), el("targetSize", to), el("progress", 0), el("startTime", v.mod.start))}, nil
}

func touchCreateVolume(a *AWS, p params) ([]Resource, map[string]string, error) {
	s, err := a.resource(p.Get("SnapshotId"))
	return []Resource{{ARN: arn("volume", "*"), New: true}, s}, asking(p.specified("volume")), err
}

func (a *AWS) createVolume(p params) ([]node, error) {
	token := p.Get("ClientToken")
	if v := a.world.volumes[a.world.tokens["volume "+token]]; v != nil && token != "" {
		return a.volume(v), nil
	}
	s := a.world.snapshots[p.Get("SnapshotId")]
	if s.state != "completed" {
		return nil, refuse("IncorrectState", "Snapshot '%s' is not 'completed'.", s.id)
	}
	if size := p.num("Size"); size < s.size {
		return nil, refuse("InvalidParameterValue", "Volume of %dGiB is smaller than snapshot '%s', expect size >= %dGiB", size, s.id, s.size)
	}
	v := &volume{
		object: object{id: a.id("vol"), tags: p.specified("volume"), lag: a.Lag}, state: "creating", zone: p.Get("AvailabilityZone"), kind: p.Get("VolumeType"), snapshot: s.id, key: p.Get("KmsKeyId"),
		size: p.num("Size"), iops: p.num("Iops"), throughput: p.num("Throughput"), encrypted: p.Get("Encrypted") == "true", next: a.now().Add(a.Delays.Attach), created: a.now(),
	}
	if !strings.HasPrefix(v.zone, Region) {
		return nil, refuse("InvalidZone.NotFound", "The zone '%s' does not exist.", v.zone)
	}
	a.world.volumes[v.id] = v
	a.world.tokens["volume "+token] = v.id
	return a.volume(v), nil
}

func (a *AWS) deleteVolume(p params) ([]node, error) {
	v := a.world.volumes[p.Get("VolumeId")]
	if v.at != "" {
		return nil, refuse("VolumeInUse", "Volume %s is currently attached to %s", v.id, v.at)
	}
	delete(a.world.volumes, v.id)
	return []node{el("return", true)}, nil
}

func attachment(v *volume) []node {
	return []node{el("volumeId", v.id), el("instanceId", v.at), el("device", v.device), el("status", v.attachment)}
}

func (a *AWS) attachVolume(p params) ([]node, error) {
	v, i, device := a.world.volumes[p.Get("VolumeId")], a.world.instances[p.Get("InstanceId")], p.Get("Device")
	if v.state != "available" {
		return nil, refuse("VolumeInUse", "%s is already attached to an instance", v.id)
	}
	if v.zone != i.zone {
		return nil, refuse("InvalidVolume.ZoneMismatch", "The volume '%s' is not in the same availability zone as instance '%s'", v.id, i.id)
	}
	if i.state != "running" && i.state != "stopped" {
		return nil, refuse("IncorrectState", "Instance '%s' is not 'running' or 'stopped'", i.id)
	}
	for _, other := range a.world.volumes {
		if other.at == i.id && other.device == device {
			return nil, refuse("InvalidParameterValue", "Invalid value '%s' for unixDevice. Attachment point %s is already in use", device, device)
		}
	}
	v.state, v.at, v.device, v.attachment, v.next = "in-use", i.id, device, "attaching", a.now().Add(a.Delays.Attach)
	if i.script != "" && i.console == "" {
		i.console = "gt06ops-rescue: done\n"
		if a.Rescue != nil {
			i.console = a.Rescue(i.script)
		}
	}
	return attachment(v), nil
}

func (a *AWS) detachVolume(p params) ([]node, error) {
	v, i := a.world.volumes[p.Get("VolumeId")], a.world.instances[p.Get("InstanceId")]
	if v.at != i.id {
		return nil, refuse("IncorrectState", "Volume '%s' is not attached to '%s'", v.id, i.id)
	}
	if v.device == i.root && i.state != "stopped" {
		return nil, refuse("OperationNotPermitted", "Unable to detach root volume '%s' from instance '%s'", v.id, i.id)
	}
	v.attachment, v.next = "detaching", a.now().Add(a.Delays.Attach)
	return attachment(v), nil
}
