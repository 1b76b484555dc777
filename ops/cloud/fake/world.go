package fake

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// world is what exists.
type world struct {
	instances map[string]*instance
	volumes   map[string]*volume
	snapshots map[string]*snapshot
	images    map[string]*image
	addresses map[string]*address
	groups    map[string]*group
	rules     []RecycleBinRule
	plans     []BackupPlan
	points    []RecoveryPoint
	events    []Event
	commands  map[string]*command
	tokens    map[string]string // client token -> object
}

func newWorld() world {
	return world{
		instances: map[string]*instance{}, volumes: map[string]*volume{}, snapshots: map[string]*snapshot{}, images: map[string]*image{},
		addresses: map[string]*address{}, groups: map[string]*group{}, commands: map[string]*command{}, tokens: map[string]string{},
	}
}

// object is what all have: an id, tags, and how often a list has missed it.
type object struct {
	id   string
	tags map[string]string
	lag  int
}

type instance struct {
	object
	state, zone, kind, image, root, ip string
	groups                             []string
	next                               time.Time // when a passing state ends
	launched                           time.Time
	self                               bool // own shutdown terminates
	script, console                    string
}

type volume struct {
	object
	state, zone, kind, snapshot, key string
	size, iops, throughput           int
	encrypted                        bool
	at, device, attachment           string // instance, its name for it, attaching|attached|detaching
	with                             bool   // deleted with its instance
	next, created                    time.Time
	mod                              *modification
}

type modification struct {
	from, to int
	start    time.Time
}

type snapshot struct {
	object
	state, volume, description string
	size                       int
	full                       int64
	shared                     bool
	start, next                time.Time
	fails                      bool
	mode                       string // lock
	days                       int
	locked                     time.Time
}

type image struct {
	object
	name, description string
	snapshots         []string
	created           time.Time
}

type address struct {
	object
	ip, instance, association string
}

type group struct {
	object
	open []Port
}

type command struct {
	code           int
	stdout, stderr string
}

// Port is a rule of a security group.
type Port struct {
	Protocol string
	From, To int
	CIDR     string
}

// RecycleBinRule is a retention rule for snapshots.
type RecycleBinRule struct {
	ID   string
	Days int
}

// BackupPlan is a plan of AWS Backup with one rule.
type BackupPlan struct {
	ID, Name, Schedule string
	KeepDays           int
	Resources          []string
}

// RecoveryPoint is a backup AWS Backup made.
type RecoveryPoint struct {
	Resource string // ARN
	ID       string
	Created  time.Time
}

// Event is a call CloudTrail has seen.
type Event struct {
	ID, Name, User string
	Time           time.Time
	Resources      []string
}

// settle moves everything to where it is by now.
func (a *AWS) settle() {
	now := a.now()
	for _, s := range a.world.snapshots {
		if s.state == "pending" && !now.Before(s.next) {
			s.state = "completed"
			if s.fails {
				s.state = "error"
			}
		}
	}
	for _, i := range a.world.instances {
		if now.Before(i.next) {
			continue
		}
		switch i.state {
		case "pending":
			i.state = "running"
		case "stopping":
			i.state = "stopped"
		case "shutting-down":
			i.state = "terminated"
			for _, v := range a.world.volumes {
				if v.at == i.id {
					v.state, v.at, v.device, v.attachment = "available", "", "", ""
					if v.with {
						delete(a.world.volumes, v.id)
					}
				}
			}
		}
	}
	for _, v := range a.world.volumes {
		if now.Before(v.next) {
			continue
		}
		switch {
		case v.state == "creating":
			v.state = "available"
		case v.attachment == "attaching":
			v.attachment = "attached"
		case v.attachment == "detaching":
			v.state, v.at, v.device, v.attachment = "available", "", "", ""
		}
	}
}

// phase of a modification: modifying, then optimizing with the new size, then
// completed.
func (a *AWS) phase(m *modification) (state string, percent int) {
	switch past := a.now().Sub(m.start); {
	case past < a.Delays.Modify:
		return "modifying", 0
	case past < 2*a.Delays.Modify:
		return "optimizing", 50
	}
	return "completed", 100
}

// Instance is one to put there, running, with its root volume.
type Instance struct {
	ID, Name, Volume, Zone, Type, Root string
	GiB                                int
	Tags                               map[string]string
	Open                               []Port
}

// Put adds an instance, its root volume and its security group.
func (a *AWS) Put(p Instance) {
	a.mu.Lock()
	defer a.mu.Unlock()
	tags := maps.Clone(p.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	tags["Name"] = p.Name
	sg := &group{object: object{id: a.id("sg"), tags: map[string]string{}}, open: p.Open}
	a.world.groups[sg.id] = sg
	a.world.instances[p.ID] = &instance{object: object{id: p.ID, tags: tags}, state: "running", zone: p.Zone, kind: p.Type, image: "ami-0f5ee92e2d63afc18", root: p.Root, groups: []string{sg.id}, launched: a.now().Add(-1000 * time.Hour)}
	a.world.volumes[p.Volume] = &volume{object: object{id: p.Volume, tags: maps.Clone(tags)}, state: "in-use", zone: p.Zone, kind: "gp3", size: p.GiB, iops: 3000, throughput: 125, at: p.ID, device: p.Root, attachment: "attached", created: a.now().Add(-1000 * time.Hour)}
}

// PutAddress adds an Elastic IP address, given to an instance ("" to none).
func (a *AWS) PutAddress(allocation, ip, instance string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := &address{object: object{id: allocation, tags: map[string]string{}}, ip: ip, instance: instance}
	if instance != "" {
		e.association = a.id("eipassoc")
	}
	a.world.addresses[allocation] = e
}

// Snapshot is one to put there.
type Snapshot struct {
	Volume, Description, State string // State "" is completed
	Age                        time.Duration
	Tags                       map[string]string
	Shared                     bool
}

// PutSnapshot adds a snapshot and returns its id.
func (a *AWS) PutSnapshot(p Snapshot) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &snapshot{object: object{id: a.id("snap"), tags: maps.Clone(p.Tags)}, state: p.State, volume: p.Volume, description: p.Description, size: 30, full: 18 << 30, start: a.now().Add(-p.Age), shared: p.Shared}
	if s.state == "" {
		s.state = "completed"
	}
	a.world.snapshots[s.id] = s
	return s.id
}

// Protect sets the Recycle Bin rules, the plans and the recovery points.
func (a *AWS) Protect(rules []RecycleBinRule, plans []BackupPlan, points []RecoveryPoint) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.world.rules, a.world.plans, a.world.points = rules, plans, points
}

// Happened adds a call somebody made past this tool.
func (a *AWS) Happened(e Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e.ID == "" {
		e.ID = a.id("event")
	}
	a.world.events = append(a.world.events, e)
}

// FailSnapshots makes the snapshots now pending, and the next one, end in
// error.
func (a *AWS) FailSnapshots() { a.Inject(Fault{Action: "snapshot error", Times: 1}) }

// Seen is an object as a test looks at it.
type Seen struct {
	ID, State, At, Device string
	GiB                   int
	Tags                  map[string]string
}

// Volumes lists the volumes that have the tags, by id; with the instance and
// device they are at.
func (a *AWS) Volumes(with map[string]string) []Seen {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle()
	return look(a.world.volumes, with, func(v *volume) Seen { return Seen{v.id, v.state, v.at, v.device, v.size, maps.Clone(v.tags)} })
}

// Instances lists the instances that have the tags, by id.
func (a *AWS) Instances(with map[string]string) []Seen {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle()
	return look(a.world.instances, with, func(i *instance) Seen { return Seen{ID: i.id, State: i.state, Tags: maps.Clone(i.tags)} })
}

// Snapshots lists the snapshots that have the tags, by id.
func (a *AWS) Snapshots(with map[string]string) []Seen {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle()
	return look(a.world.snapshots, with, func(s *snapshot) Seen {
		return Seen{ID: s.id, State: s.state, At: s.volume, GiB: s.size, Tags: maps.Clone(s.tags)}
	})
}

// Images lists the images that have the tags, by id.
func (a *AWS) Images(with map[string]string) []Seen {
	a.mu.Lock()
	defer a.mu.Unlock()
	return look(a.world.images, with, func(i *image) Seen { return Seen{ID: i.id, Tags: maps.Clone(i.tags)} })
}

// AddressOf returns the instance an address belongs to.
func (a *AWS) AddressOf(allocation string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.world.addresses[allocation].instance
}

func look[T interface{ is() *object }](all map[string]T, with map[string]string, see func(T) Seen) []Seen {
	var out []Seen
	for _, o := range all {
		if has(o.is().tags, with) {
			out = append(out, see(o))
		}
	}
	slices.SortFunc(out, func(a, b Seen) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func (o *object) is() *object { return o }

func has(tags, with map[string]string) bool {
	for k, v := range with {
		if tags[k] != v {
			return false
		}
	}
	return true
}
