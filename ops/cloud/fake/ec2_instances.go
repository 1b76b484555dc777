package fake

import (
	"encoding/base64"
	"fmt"
)

func (a *AWS) describeInstances(p params) ([]node, error) {
	if err := named(p, "InstanceId", "instance", a.world.instances); err != nil {
		return nil, err
	}
	var items [][]node
	for _, i := range sorted(a.world.instances) {
		if p.selects("InstanceId", &i.object, map[string]string{"instance-state-name": i.state}) {
			items = append(items, []node{el("reservationId", "r-1"), el("ownerId", Account), set("instancesSet", a.instance(i))})
		}
	}
	return []node{set("reservationSet", items...)}, nil
}

var stateCodes = map[string]int{"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80} //nolint:gochecknoglobals // a table

func state(name, word string) node { return in(name, el("code", stateCodes[word]), el("name", word)) }

func (a *AWS) instance(i *instance) []node {
	var disks, groups [][]node
	for _, v := range sorted(a.world.volumes) {
		if v.at == i.id {
			disks = append(disks, []node{el("deviceName", v.device), in("ebs", el("volumeId", v.id), el("status", v.attachment), el("deleteOnTermination", v.with))})
		}
	}
	for _, g := range i.groups {
		groups = append(groups, []node{el("groupId", g), el("groupName", g)})
	}
	ip := i.ip
	for _, e := range a.world.addresses {
		if e.instance == i.id {
			ip = e.ip
		}
	}
	return []node{
		el("instanceId", i.id), el("imageId", i.image), state("instanceState", i.state), el("instanceType", i.kind), el("launchTime", i.launched), in("placement", el("availabilityZone", i.zone)),
		el("ipAddress", ip), el("subnetId", "subnet-0a"), el("keyName", "prod"), el("rootDeviceName", i.root), el("rootDeviceType", "ebs"), set("blockDeviceMapping", disks...), set("groupSet", groups...), tagSet(i.tags),
	}
}

// turn moves an instance from one of some states to a passing one, and tells
// both.
func (a *AWS) turn(p params, from []string, passing string) ([]node, error) {
	i := a.world.instances[p.Get("InstanceId.1")]
	before, ok := i.state, false
	for _, f := range from {
		ok = ok || f == before
	}
	settled := map[string]string{"stopping": "stopped", "pending": "running", "shutting-down": "terminated"}[passing]
	switch {
	case before == passing || before == settled: // asked again
	case !ok:
		return nil, refuse("IncorrectInstanceState", "The instance '%s' is not in a state from which it can be %s: it is %s.", i.id, passing, before)
	default:
		i.state, i.next = passing, a.now().Add(a.Delays.Stop)
	}
	return []node{set("instancesSet", []node{el("instanceId", i.id), state("currentState", i.state), state("previousState", before)})}, nil
}

func (a *AWS) stopInstances(p params) ([]node, error) {
	return a.turn(p, []string{"running"}, "stopping")
}

func (a *AWS) startInstances(p params) ([]node, error) {
	i := a.world.instances[p.Get("InstanceId.1")]
	rooted := false
	for _, v := range a.world.volumes {
		rooted = rooted || v.at == i.id && v.device == i.root && v.attachment == "attached"
	}
	if !rooted {
		return nil, refuse("IncorrectInstanceState", "Instance '%s' does not have a volume attached at root (%s)", i.id, i.root)
	}
	return a.turn(p, []string{"stopped"}, "pending")
}

func (a *AWS) terminateInstances(p params) ([]node, error) {
	return a.turn(p, []string{"running", "stopped", "stopping", "pending"}, "shutting-down")
}

func touchRun(a *AWS, p params) ([]Resource, map[string]string, error) {
	var out []Resource
	for _, kind := range []string{"instance", "volume", "network-interface"} {
		out = append(out, Resource{ARN: arn(kind, "*"), New: len(p.specified(kind)) > 0})
	}
	out = append(out, Resource{ARN: arn("image", p.Get("ImageId"))})
	if subnet := p.Get("SubnetId"); subnet != "" {
		out = append(out, Resource{ARN: arn("subnet", subnet)})
	}
	if key := p.Get("KeyName"); key != "" {
		out = append(out, Resource{ARN: arn("key-pair", key)})
	}
	for _, g := range p.list("SecurityGroupId") {
		if a.world.groups[g] == nil {
			return nil, nil, missing("security-group", g)
		}
		out = append(out, Resource{ARN: arn("security-group", g)})
	}
	context := asking(p.specified("instance"))
	context["ec2:InstanceType"] = p.Get("InstanceType")
	return out, context, nil
}

func (a *AWS) runInstances(p params) ([]node, error) {
	token := p.Get("ClientToken")
	i := a.world.instances[a.world.tokens["run "+token]]
	if i == nil || token == "" {
		i = &instance{
			object: object{id: a.id("i"), tags: p.specified("instance"), lag: a.Lag}, state: "pending", zone: p.Get("Placement.AvailabilityZone"), kind: p.Get("InstanceType"), image: p.Get("ImageId"), root: "/dev/xvda",
			ip: fmt.Sprintf("198.51.100.%d", a.serial%250), groups: p.list("SecurityGroupId"), next: a.now().Add(a.Delays.Start), launched: a.now(), self: p.Get("InstanceInitiatedShutdownBehavior") == "terminate",
		}
		if text, err := base64.StdEncoding.DecodeString(p.Get("UserData")); err == nil {
			i.script = string(text)
		}
		a.world.instances[i.id] = i
		a.world.tokens["run "+token] = i.id
		v := &volume{object: object{id: a.id("vol"), tags: p.specified("volume")}, state: "in-use", zone: i.zone, kind: "gp3", size: 8, at: i.id, device: i.root, attachment: "attached", with: true, created: a.now()}
		a.world.volumes[v.id] = v
	}
	return []node{el("reservationId", "r-1"), el("ownerId", Account), set("instancesSet", a.instance(i))}, nil
}

func (a *AWS) console(p params) ([]node, error) {
	i := a.world.instances[p.Get("InstanceId")]
	if i == nil {
		return nil, missing("instance", p.Get("InstanceId"))
	}
	return []node{el("instanceId", i.id), el("timestamp", a.now()), el("output", base64.StdEncoding.EncodeToString([]byte(i.console)))}, nil
}
