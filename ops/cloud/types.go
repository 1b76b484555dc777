package cloud

import (
	"maps"
	"strings"
	"time"
)

// The tags that tie an object in the cloud to this tool. They are how a
// resumed change finds what it made before it died: most of the calls that
// make something have no idempotency token, or one that is not always honoured.
const (
	TagName      = "Name"
	TagChange    = "gt06ops:change"       // change that made the object
	TagStep      = "gt06ops:step"         // step of it
	TagInstance  = "gt06ops:instance"     // instance a snapshot or volume belongs to; AWS does not store it
	TagRole      = "gt06ops:role"         // RoleRescue or RoleTemp: only these are ever terminated or deleted
	TagManaged   = "gt06ops:managed"      // "true" on the instance and volumes the operate role may stop
	TagKeepUntil = "gt06ops:keep-until"   // day before which a replaced root volume is not touched
	TagLock      = "gt06ops:lock"         // on the instance: who works on it
	TagHead      = "gt06ops:journal-head" // on the instance: the end of the journal
)

// The values of TagRole.
const (
	RoleRescue = "rescue"
	RoleTemp   = "temp"
	RoleImage  = "image" // a snapshot of an image: belongs to it
)

// Tags are an object's tags.
type Tags map[string]string

// With returns the tags with more on top; neither is changed.
func (t Tags) With(more Tags) Tags {
	out := maps.Clone(t)
	if out == nil {
		out = Tags{}
	}
	maps.Copy(out, more)
	return out
}

// Automated says which service made a snapshot, or "" where a person did.
func (t Tags) Automated() string {
	for key := range t {
		if strings.HasPrefix(key, "aws:backup:") || strings.HasPrefix(key, "aws:dlm:") {
			return key
		}
	}
	return ""
}

// Identity is who the calls are made as.
type Identity struct {
	Account string `json:"account"`
	ARN     string `json:"arn"`
}

// Instance is a machine. State is pending, running, shutting-down, terminated,
// stopping or stopped.
type Instance struct {
	ID         string    `json:"id"`
	State      string    `json:"state"`
	Zone       string    `json:"zone"`
	Type       string    `json:"type"`
	Image      string    `json:"image,omitempty"`
	RootDevice string    `json:"root_device"` // name the root volume must be attached under
	PublicIP   string    `json:"public_ip,omitempty"`
	Subnet     string    `json:"subnet,omitempty"`
	Key        string    `json:"key,omitempty"`
	Groups     []string  `json:"groups,omitempty"`
	Disks      []Disk    `json:"disks"`
	Launched   time.Time `json:"launched"`
	Tags       Tags      `json:"tags,omitempty"`
}

// Disk is a volume as an instance has it.
type Disk struct {
	Device         string `json:"device"`
	Volume         string `json:"volume"`
	State          string `json:"state"` // attaching, attached, detaching, detached
	DeleteWithHost bool   `json:"delete_with_host"`
}

// Name is the Name tag.
func (i Instance) Name() string { return i.Tags[TagName] }

// Root returns the disk under the root device's name; ok is false while none
// is attached there.
func (i Instance) Root() (disk Disk, ok bool) {
	for _, d := range i.Disks {
		if d.Device == i.RootDevice {
			return d, true
		}
	}
	return Disk{}, false
}

// Volume is a block device. State is creating, available, in-use, deleting,
// deleted or error. Size in GiB, throughput in MiB/s.
type Volume struct {
	ID         string    `json:"id"`
	State      string    `json:"state"`
	Zone       string    `json:"zone"`
	Type       string    `json:"type"`
	SizeGiB    int32     `json:"size_gib"`
	IOPS       int32     `json:"iops,omitempty"`
	Throughput int32     `json:"throughput,omitempty"`
	Encrypted  bool      `json:"encrypted"`
	KMSKey     string    `json:"kms_key,omitempty"`
	Snapshot   string    `json:"snapshot,omitempty"` // it was made from
	Instance   string    `json:"instance,omitempty"` // attached to, "" where available
	Device     string    `json:"device,omitempty"`
	Leaving    bool      `json:"leaving,omitempty"` // it is being detached
	Created    time.Time `json:"created"`
	Tags       Tags      `json:"tags,omitempty"`
}

// Modification is the last change of a volume's size. State is modifying,
// optimizing, completed or failed; the new size can be used from optimizing on.
// Another one is refused for six hours after its start.
type Modification struct {
	State     string    `json:"state"`
	TargetGiB int32     `json:"target_gib"`
	Percent   int64     `json:"percent"`
	Started   time.Time `json:"started"`
	Message   string    `json:"message,omitempty"`
}

// Usable says that the new size is there for the guest.
func (m Modification) Usable() bool { return m.State == "optimizing" || m.State == "completed" }

// Cooldown is how long a volume must rest between two modifications.
const Cooldown = 6 * time.Hour

// Snapshot is the state of a volume at the moment Started. State is pending,
// completed, error, recoverable or recovering; Percent is 0 to 100.
type Snapshot struct {
	ID          string    `json:"id"`
	State       string    `json:"state"`
	Percent     int       `json:"percent"`
	Message     string    `json:"message,omitempty"`
	Volume      string    `json:"volume"`
	SizeGiB     int32     `json:"size_gib"`
	FullBytes   int64     `json:"full_bytes,omitempty"` // of a full copy; 0 where not told
	Description string    `json:"description"`
	Owner       string    `json:"owner"`
	Tier        string    `json:"tier,omitempty"` // standard or archive
	Started     time.Time `json:"started"`
	Tags        Tags      `json:"tags,omitempty"`
}

// Name is the Name tag.
func (s Snapshot) Name() string { return s.Tags[TagName] }

// SnapshotLock keeps a snapshot from deletion. Mode is governance, compliance
// or compliance-cooloff.
type SnapshotLock struct {
	Snapshot string    `json:"snapshot"`
	Mode     string    `json:"mode"`
	Days     int32     `json:"days"`
	Expires  time.Time `json:"expires"`
}

// Image is a machine image. State is pending, available, failed or another
// word of AWS.
type Image struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	State     string   `json:"state"`
	Created   string   `json:"created"`
	Snapshots []string `json:"snapshots"`
	Tags      Tags     `json:"tags,omitempty"`
}

// Address is an Elastic IP address.
type Address struct {
	Allocation  string `json:"allocation"`
	Association string `json:"association,omitempty"` // "" where attached to nothing
	IP          string `json:"ip"`
	Instance    string `json:"instance,omitempty"`
	Tags        Tags   `json:"tags,omitempty"`
}

// Opening is a rule of a security group that lets the whole internet in.
// Ports are inclusive; -1 means all.
type Opening struct {
	Group    string `json:"group"`
	Protocol string `json:"protocol"`
	From     int32  `json:"from"`
	To       int32  `json:"to"`
	CIDR     string `json:"cidr"`
}

// RecycleBinRule keeps deleted snapshots for a while.
type RecycleBinRule struct {
	ID     string            `json:"id"`
	Days   int32             `json:"days"`
	Status string            `json:"status"` // pending or available
	Only   map[string]string `json:"only,omitempty"`
}

// BackupPlan is one rule of a plan of AWS Backup.
type BackupPlan struct {
	Name      string   `json:"name"`
	Schedule  string   `json:"schedule"`
	KeepDays  int64    `json:"keep_days"` // 0: for ever
	Resources []string `json:"resources"`
}

// RecoveryPoint is what AWS Backup made of a volume or instance.
type RecoveryPoint struct {
	ARN     string    `json:"arn"`
	Status  string    `json:"status"`
	Created time.Time `json:"created"`
}

// Event is a call somebody made in this account, from CloudTrail.
type Event struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	User      string    `json:"user"`
	Time      time.Time `json:"time"`
	Resources []string  `json:"resources"`
}

// Metadata is what an instance knows of itself.
type Metadata struct {
	InstanceID string `json:"instance_id"`
	PublicIP   string `json:"public_ip,omitempty"`
}
