package fake

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// params are a call's arguments in EC2's form: Filter.1.Name and so on.
type params struct{ url.Values }

func (p params) num(key string) int {
	n, _ := strconv.Atoi(p.Get(key))
	return n
}

// list reads Key.1, Key.2 and so on.
func (p params) list(key string) (out []string) {
	for i := 1; p.Has(fmt.Sprint(key, ".", i)); i++ {
		out = append(out, p.Get(fmt.Sprint(key, ".", i)))
	}
	return out
}

// tags reads Key.n.Key and Key.n.Value.
func (p params) tags(key string) map[string]string {
	out := map[string]string{}
	for i := 1; p.Has(fmt.Sprintf("%s.%d.Key", key, i)); i++ {
		out[p.Get(fmt.Sprintf("%s.%d.Key", key, i))] = p.Get(fmt.Sprintf("%s.%d.Value", key, i))
	}
	return out
}

// specified reads the tags a new object of a kind is to have.
func (p params) specified(kind string) map[string]string {
	for i := 1; ; i++ {
		prefix := fmt.Sprintf("TagSpecification.%d", i)
		switch p.Get(prefix + ".ResourceType") {
		case kind:
			return p.tags(prefix + ".Tag")
		case "":
			return map[string]string{}
		}
	}
}

// selects says whether an object is named by id (of key) and passes the
// filters; props are what filters may ask for.
func (p params) selects(key string, o *object, props map[string]string) bool {
	if ids := p.list(key); len(ids) > 0 {
		return slices.Contains(ids, o.id)
	}
	if o.lag > 0 {
		o.lag--
		return false
	}
	for i := 1; p.Has(fmt.Sprintf("Filter.%d.Name", i)); i++ {
		name := p.Get(fmt.Sprintf("Filter.%d.Name", i))
		seen := props[name]
		if tag, ok := strings.CutPrefix(name, "tag:"); ok {
			seen = o.tags[tag]
		}
		if !slices.Contains(p.list(fmt.Sprintf("Filter.%d.Value", i)), seen) {
			return false
		}
	}
	return true
}

func queryAction(r *request) string {
	form, _ := url.ParseQuery(string(r.body))
	return form.Get("Action")
}

const ec2Space = "http://ec2.amazonaws.com/doc/2016-11-15/"

func ec2Refusal(_ *request, e *refusal) answer {
	return answer{status: e.status, kind: "text/xml", body: document("Response", ec2Space, in("Errors", in("Error", el("Code", e.code), el("Message", e.message))), el("RequestID", "fake"))}
}

// call is an action of EC2: what it touches, for IAM and the record, and what
// it does. An action without touch reads.
type call struct {
	touch func(*AWS, params) ([]Resource, map[string]string, error)
	do    func(*AWS, params) ([]node, error)
}

var ec2Calls = map[string]call{ //nolint:gochecknoglobals // a table
	"DescribeInstances":            {nil, (*AWS).describeInstances},
	"DescribeVolumes":              {nil, (*AWS).describeVolumes},
	"DescribeVolumesModifications": {nil, (*AWS).describeModifications},
	"DescribeSnapshots":            {nil, (*AWS).describeSnapshots},
	"DescribeSnapshotAttribute":    {nil, (*AWS).describeSnapshotAttribute},
	"DescribeLockedSnapshots":      {nil, (*AWS).describeLocks},
	"ListSnapshotsInRecycleBin":    {nil, func(*AWS, params) ([]node, error) { return []node{set("snapshotSet")}, nil }},
	"DescribeImages":               {nil, (*AWS).describeImages},
	"DescribeAddresses":            {nil, (*AWS).describeAddresses},
	"DescribeSecurityGroups":       {nil, (*AWS).describeGroups},
	"DescribeTags":                 {nil, (*AWS).describeTags},
	"GetConsoleOutput":             {nil, (*AWS).console},
	"CreateSnapshot":               {touchCreateSnapshot, (*AWS).createSnapshot},
	"LockSnapshot":                 {touchLock, (*AWS).lockSnapshot},
	"CreateImage":                  {touchCreateImage, (*AWS).createImage},
	"ModifyVolume":                 {touching("VolumeId"), (*AWS).modifyVolume},
	"StopInstances":                {touching("InstanceId.1"), (*AWS).stopInstances},
	"StartInstances":               {touching("InstanceId.1"), (*AWS).startInstances},
	"TerminateInstances":           {touching("InstanceId.1"), (*AWS).terminateInstances},
	"RunInstances":                 {touchRun, (*AWS).runInstances},
	"CreateVolume":                 {touchCreateVolume, (*AWS).createVolume},
	"DeleteVolume":                 {touching("VolumeId"), (*AWS).deleteVolume},
	"AttachVolume":                 {touching("VolumeId", "InstanceId"), (*AWS).attachVolume},
	"DetachVolume":                 {touching("VolumeId", "InstanceId"), (*AWS).detachVolume},
	"AssociateAddress":             {touching("AllocationId", "InstanceId"), (*AWS).associateAddress},
	"CreateTags":                   {touchTags, (*AWS).createTags},
	"DeleteTags":                   {touchTags, (*AWS).deleteTags},
}

func (a *AWS) ec2(r *request) (answer, error) {
	form, err := url.ParseQuery(string(r.body))
	if err != nil {
		return answer{}, refuse("InvalidParameterValue", "%v", err)
	}
	p := params{form}
	known, ok := ec2Calls[r.action]
	if !ok {
		return answer{}, refuse("InvalidAction", "The action %s is not valid for this web service.", r.action)
	}
	c := Call{Action: "ec2:" + r.action, DryRun: p.Get("DryRun") == "true", Resources: []Resource{{ARN: "*"}}}
	if known.touch != nil {
		c.Changes = true
		if c.Resources, c.Context, err = known.touch(a, p); err != nil {
			return answer{}, err
		}
	}
	if err := a.admit(r, c); err != nil {
		return answer{}, err
	}
	// Tags given at creation need their own permission.
	for _, made := range c.Resources {
		if tags := requested(c.Context); made.New && len(tags) > 0 {
			also := Call{Action: "ec2:CreateTags", DryRun: c.DryRun, Resources: []Resource{made}, Context: maps.Clone(c.Context)}
			also.Context["ec2:CreateAction"] = r.action
			if err := a.admit(r, also); err != nil {
				return answer{}, err
			}
		}
	}
	if c.DryRun {
		return answer{}, &refusal{http.StatusPreconditionFailed, "DryRunOperation", "Request would have succeeded, but DryRun flag is set."}
	}
	kids, err := known.do(a, p)
	if err != nil {
		a.settled(err)
		return answer{}, err
	}
	if c.Changes {
		e := Event{ID: a.id("event"), Name: r.action, User: r.caller, Time: a.now()}
		for _, t := range c.Resources {
			e.Resources = append(e.Resources, t.ARN[strings.LastIndex(t.ARN, "/")+1:])
		}
		a.world.events = append(a.world.events, e)
	}
	return answer{kind: "text/xml", body: document(r.action+"Response", ec2Space, append([]node{el("requestId", "fake")}, kids...)...)}, nil
}

// requested picks the tags of a call's context.
func requested(context map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range context {
		if tag, ok := strings.CutPrefix(k, "aws:RequestTag/"); ok {
			out[tag] = v
		}
	}
	return out
}

func asking(tags map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range tags {
		out["aws:RequestTag/"+k] = v
	}
	return out
}

// arn names an object as IAM does; snapshots and images belong to no account
// there.
func arn(kind, id string) string {
	account := Account
	if kind == "snapshot" || kind == "image" {
		account = ""
	}
	return fmt.Sprintf("arn:aws:ec2:%s:%s:%s/%s", Region, account, kind, id)
}

var prefixes = map[string]string{"i": "instance", "vol": "volume", "snap": "snapshot", "ami": "image", "eipalloc": "elastic-ip", "sg": "security-group"} //nolint:gochecknoglobals // a table

func (a *AWS) resource(id string) (Resource, error) {
	short, _, _ := strings.Cut(id, "-")
	kind := prefixes[short]
	o := a.find(id)
	if o == nil {
		return Resource{}, missing(kind, id)
	}
	return Resource{ARN: arn(kind, id), Tags: o.tags}, nil
}

func missing(kind, id string) error {
	codes := map[string]string{"instance": "InvalidInstanceID.NotFound", "volume": "InvalidVolume.NotFound", "snapshot": "InvalidSnapshot.NotFound", "image": "InvalidAMIID.NotFound", "elastic-ip": "InvalidAllocationID.NotFound", "security-group": "InvalidGroup.NotFound"}
	code := codes[kind]
	if code == "" {
		code = "InvalidID"
	}
	return refuse(code, "The ID '%s' does not exist", id)
}

func (a *AWS) find(id string) *object {
	w := a.world
	if o, ok := w.instances[id]; ok {
		return &o.object
	}
	if o, ok := w.volumes[id]; ok {
		return &o.object
	}
	if o, ok := w.snapshots[id]; ok {
		return &o.object
	}
	if o, ok := w.images[id]; ok {
		return &o.object
	}
	if o, ok := w.addresses[id]; ok {
		return &o.object
	}
	if o, ok := w.groups[id]; ok {
		return &o.object
	}
	return nil
}

// touching is for actions on existing objects, named by parameters.
func touching(keys ...string) func(*AWS, params) ([]Resource, map[string]string, error) {
	return func(a *AWS, p params) ([]Resource, map[string]string, error) {
		var out []Resource
		for _, k := range keys {
			r, err := a.resource(p.Get(k))
			if err != nil {
				return nil, nil, err
			}
			out = append(out, r)
		}
		return out, map[string]string{}, nil
	}
}

func touchTags(a *AWS, p params) ([]Resource, map[string]string, error) {
	var out []Resource
	for _, id := range p.list("ResourceId") {
		r, err := a.resource(id)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, r)
	}
	return out, asking(p.tags("Tag")), nil
}

func (a *AWS) createTags(p params) ([]node, error) {
	for _, id := range p.list("ResourceId") {
		for k, v := range p.tags("Tag") {
			if strings.HasPrefix(k, "aws:") {
				return nil, refuse("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
			}
			a.find(id).tags[k] = v
		}
	}
	return []node{el("return", true)}, nil
}

func (a *AWS) deleteTags(p params) ([]node, error) {
	for _, id := range p.list("ResourceId") {
		tags := a.find(id).tags
		for k, v := range p.tags("Tag") {
			if tags[k] == v {
				delete(tags, k)
			}
		}
	}
	return []node{el("return", true)}, nil
}

func (a *AWS) describeTags(p params) ([]node, error) {
	var items [][]node
	for i := 1; p.Has(fmt.Sprintf("Filter.%d.Name", i)); i++ {
		for _, id := range p.list(fmt.Sprintf("Filter.%d.Value", i)) {
			if o := a.find(id); o != nil {
				for _, k := range slices.Sorted(maps.Keys(o.tags)) {
					items = append(items, []node{el("resourceId", id), el("key", k), el("value", o.tags[k])})
				}
			}
		}
	}
	return []node{set("tagSet", items...)}, nil
}

func tagSet(tags map[string]string) node {
	var items [][]node
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		items = append(items, []node{el("key", k), el("value", tags[k])})
	}
	return set("tagSet", items...)
}

// sorted lists a map's objects by id.
func sorted[T any](all map[string]T) []T {
	ids := slices.Collect(maps.Keys(all))
	sort.Strings(ids)
	out := make([]T, 0, len(ids))
	for _, id := range ids {
		out = append(out, all[id])
	}
	return out
}

// named refuses ids that do not exist.
func named[T any](p params, key, kind string, all map[string]T) error {
	for _, id := range p.list(key) {
		if _, ok := all[id]; !ok {
			return missing(kind, id)
		}
	}
	return nil
}

func (a *AWS) describeAddresses(p params) ([]node, error) {
	if err := named(p, "AllocationId", "elastic-ip", a.world.addresses); err != nil {
		return nil, err
	}
	var items [][]node
	for _, e := range sorted(a.world.addresses) {
		if !p.selects("AllocationId", &e.object, map[string]string{"instance-id": e.instance, "public-ip": e.ip}) {
			continue
		}
		item := []node{el("publicIp", e.ip), el("allocationId", e.id), el("domain", "vpc"), tagSet(e.tags)}
		if e.instance != "" {
			item = append(item, el("instanceId", e.instance), el("associationId", e.association))
		}
		items = append(items, item)
	}
	return []node{set("addressesSet", items...)}, nil
}

func (a *AWS) associateAddress(p params) ([]node, error) {
	e, i := a.world.addresses[p.Get("AllocationId")], a.world.instances[p.Get("InstanceId")]
	if e.instance != "" && e.instance != i.id && p.Get("AllowReassociation") != "true" {
		return nil, refuse("Resource.AlreadyAssociated", "resource %s is already associated", e.id)
	}
	if i.state == "terminated" || i.state == "pending" {
		return nil, refuse("InvalidInstanceID", "The pending or terminated instance '%s' is not in a valid state", i.id)
	}
	if e.instance != i.id {
		e.instance, e.association = i.id, a.id("eipassoc")
	}
	return []node{el("return", true), el("associationId", e.association)}, nil
}

func (a *AWS) describeGroups(p params) ([]node, error) {
	if err := named(p, "GroupId", "security-group", a.world.groups); err != nil {
		return nil, err
	}
	var items [][]node
	for _, g := range sorted(a.world.groups) {
		if !p.selects("GroupId", &g.object, nil) {
			continue
		}
		var rules [][]node
		for _, o := range g.open {
			rule := []node{el("ipProtocol", o.Protocol)}
			if o.Protocol != "-1" {
				rule = append(rule, el("fromPort", o.From), el("toPort", o.To))
			}
			if strings.Contains(o.CIDR, ":") {
				rule = append(rule, set("ipv6Ranges", []node{el("cidrIpv6", o.CIDR)}))
			} else {
				rule = append(rule, set("ipRanges", []node{el("cidrIp", o.CIDR)}))
			}
			rules = append(rules, rule)
		}
		items = append(items, []node{el("groupId", g.id), el("groupName", g.id), el("ownerId", Account), set("ipPermissions", rules...)})
	}
	return []node{set("securityGroupInfo", items...)}, nil
}
