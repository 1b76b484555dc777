package cloud

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Origin is the change and the step that make an object: it is tagged with
// them, and found by them when the step is done again.
type Origin struct{ Change, Step string }

func (o Origin) tags() Tags { return Tags{TagChange: o.Change, TagStep: o.Step} }

// token is the same for every try of a step: at most 64 characters.
func (o Origin) token() *string {
	sum := sha256.Sum256([]byte(o.Change + "\x00" + o.Step))
	return aws.String(hex.EncodeToString(sum[:]))
}

func toTags(tags Tags) []types.Tag {
	var out []types.Tag
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		out = append(out, types.Tag{Key: aws.String(k), Value: aws.String(tags[k])})
	}
	return out
}

func specification(kind types.ResourceType, tags Tags) types.TagSpecification {
	return types.TagSpecification{ResourceType: kind, Tags: toTags(tags)}
}

func (c *Cloud) careful(o *ec2.Options) { o.Retryer = c.refusedOnly() }

// CreateSnapshot begins a snapshot of a volume, or returns the one this step
// began before. The moment it stands for is the return of this call; it is of
// use only once it is completed.
func (c *Cloud) CreateSnapshot(ctx context.Context, by Origin, volume, description string, tags Tags) (Snapshot, error) {
	return once(ctx, c, "create snapshot of "+volume,
		func(ctx context.Context) (Snapshot, bool, error) {
			made, err := c.SnapshotsOf(ctx, volume, by.tags())
			// One that ended in error is history; it is not deleted, another is made.
			made = slices.DeleteFunc(made, func(s Snapshot) bool { return s.State == "error" })
			if err != nil || len(made) == 0 {
				return Snapshot{}, false, err
			}
			return made[0], true, nil
		},
		func(ctx context.Context) (Snapshot, error) {
			out, err := c.ec2.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{
				VolumeId: aws.String(volume), Description: aws.String(description),
				TagSpecifications: []types.TagSpecification{specification(types.ResourceTypeSnapshot, tags.With(by.tags()))},
			}, c.careful)
			if err != nil {
				return Snapshot{}, err
			}
			return Snapshot{ID: aws.ToString(out.SnapshotId), State: string(out.State), Volume: volume, Description: description, Owner: aws.ToString(out.OwnerId), Started: aws.ToTime(out.StartTime), SizeGiB: aws.ToInt32(out.VolumeSize), Tags: fromTags(out.Tags)}, nil
		})
}

// LockSnapshot keeps a snapshot from deletion for some days, 1 to 36500, in
// mode governance or compliance. Compliance cannot be undone by anybody.
func (c *Cloud) LockSnapshot(ctx context.Context, id, mode string, days int32) error {
	_, err := c.ec2.LockSnapshot(ctx, &ec2.LockSnapshotInput{SnapshotId: aws.String(id), LockMode: types.LockMode(mode), LockDuration: aws.Int32(days)})
	return explain("lock snapshot "+id, err)
}

// CreateImage makes an image of an instance, tagged together with its
// snapshots, or returns the one this step made before. Without reboot the file
// systems are as after a power cut.
func (c *Cloud) CreateImage(ctx context.Context, by Origin, instance, name, description string, reboot bool, tags Tags) (string, error) {
	return once(ctx, c, "create image of "+instance,
		func(ctx context.Context) (string, bool, error) {
			made, err := c.Images(ctx, by.tags())
			made = slices.DeleteFunc(made, func(i Image) bool { return i.State == "failed" || i.State == "error" })
			if err != nil || len(made) == 0 {
				return "", false, err
			}
			return made[0].ID, true, nil
		},
		func(ctx context.Context) (string, error) {
			all := tags.With(by.tags())
			out, err := c.ec2.CreateImage(ctx, &ec2.CreateImageInput{
				InstanceId: aws.String(instance), Name: aws.String(name), Description: aws.String(description), NoReboot: aws.Bool(!reboot),
				TagSpecifications: []types.TagSpecification{specification(types.ResourceTypeImage, all), specification(types.ResourceTypeSnapshot, all)},
			}, c.careful)
			if err != nil {
				return "", err
			}
			return aws.ToString(out.ImageId), nil
		})
}

// Grow asks for a larger volume. A smaller one is refused here: it is never a
// resize.
func (c *Cloud) Grow(ctx context.Context, volume string, gib int32) error {
	now, err := c.Volume(ctx, volume)
	if err != nil {
		return err
	}
	if gib <= now.SizeGiB {
		return fmt.Errorf("grow %s from %d to %d GiB: %w: a volume only grows", volume, now.SizeGiB, gib, ErrProtected)
	}
	_, err = once(ctx, c, fmt.Sprintf("grow %s to %d GiB", volume, gib),
		func(ctx context.Context) (Modification, bool, error) {
			m, known, err := c.Modification(ctx, volume)
			return m, known && m.TargetGiB == gib && m.State != "failed", err
		},
		func(ctx context.Context) (Modification, error) {
			_, err := c.ec2.ModifyVolume(ctx, &ec2.ModifyVolumeInput{VolumeId: aws.String(volume), Size: aws.Int32(gib)}, c.careful)
			return Modification{}, err
		})
	return err
}

// Stop asks an instance to stop; [Cloud.Instance] says when it has.
func (c *Cloud) Stop(ctx context.Context, instance string) error {
	_, err := c.ec2.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{instance}})
	return explain("stop "+instance, err)
}

// Start asks a stopped instance to start.
func (c *Cloud) Start(ctx context.Context, instance string) error {
	_, err := c.ec2.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: []string{instance}})
	return explain("start "+instance, err)
}

// Machine is a helper instance to launch, of the same image, subnet, key and
// groups as another.
type Machine struct {
	Image, Type, Zone, Subnet, Key string
	Groups                         []string
	Script                         string // run at first boot, by the shell
	Role                           string // RoleRescue or RoleTemp
}

// Launch starts a helper instance, or returns the one this step started before
// and that still lives. It is terminated, not stopped, by its own shutdown.
func (c *Cloud) Launch(ctx context.Context, by Origin, m Machine) (Instance, error) {
	return once(ctx, c, "launch a "+m.Role+" instance",
		func(ctx context.Context) (Instance, bool, error) {
			all, err := c.Instances(ctx, by.tags().With(Tags{TagRole: m.Role}))
			all = slices.DeleteFunc(all, func(i Instance) bool { return i.State == "terminated" || i.State == "shutting-down" })
			if err != nil || len(all) == 0 {
				return Instance{}, false, err
			}
			return all[0], true, nil
		},
		func(ctx context.Context) (Instance, error) {
			tags := by.tags().With(Tags{TagRole: m.Role, TagName: "gt06ops-" + m.Role + "-" + by.Change})
			in := &ec2.RunInstancesInput{
				ImageId: aws.String(m.Image), InstanceType: types.InstanceType(m.Type), MinCount: aws.Int32(1), MaxCount: aws.Int32(1), ClientToken: by.token(),
				Placement: &types.Placement{AvailabilityZone: aws.String(m.Zone)}, SecurityGroupIds: m.Groups, UserData: aws.String(base64.StdEncoding.EncodeToString([]byte(m.Script))),
				InstanceInitiatedShutdownBehavior: types.ShutdownBehaviorTerminate,
				MetadataOptions:                   &types.InstanceMetadataOptionsRequest{HttpTokens: types.HttpTokensStateRequired},
				TagSpecifications:                 []types.TagSpecification{specification(types.ResourceTypeInstance, tags), specification(types.ResourceTypeVolume, tags)},
			}
			if m.Subnet != "" {
				in.SubnetId = aws.String(m.Subnet)
			}
			if m.Key != "" {
				in.KeyName = aws.String(m.Key)
			}
			out, err := c.ec2.RunInstances(ctx, in, c.careful)
			if err != nil {
				return Instance{}, err
			}
			return fromInstance(out.Instances[0]), nil
		})
}

// Terminate ends a helper instance for good; any other is refused here and by
// the policy.
func (c *Cloud) Terminate(ctx context.Context, instance string) error {
	i, err := c.Instance(ctx, instance)
	if err != nil {
		return err
	}
	if role := i.Tags[TagRole]; role != RoleRescue && role != RoleTemp {
		return fmt.Errorf("terminate %s: %w: its tag %s is %q", instance, ErrProtected, TagRole, role)
	}
	_, err = c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{instance}})
	return explain("terminate "+instance, err)
}

// CreateVolume makes a volume of a snapshot, or returns the one this step made
// before. Zone, type, IOPS, throughput and key are those of like; its size may
// not be smaller than the snapshot's.
func (c *Cloud) CreateVolume(ctx context.Context, by Origin, snapshot string, like Volume, tags Tags) (Volume, error) {
	return once(ctx, c, "create volume from "+snapshot,
		func(ctx context.Context) (Volume, bool, error) {
			made, err := c.Volumes(ctx, by.tags())
			made = slices.DeleteFunc(made, func(v Volume) bool { return v.State == "error" || v.State == "deleting" || v.State == "deleted" })
			if err != nil || len(made) == 0 {
				return Volume{}, false, err
			}
			return made[0], true, nil
		},
		func(ctx context.Context) (Volume, error) {
			in := &ec2.CreateVolumeInput{
				SnapshotId: aws.String(snapshot), AvailabilityZone: aws.String(like.Zone), VolumeType: types.VolumeType(like.Type), Size: aws.Int32(like.SizeGiB), ClientToken: by.token(),
				TagSpecifications: []types.TagSpecification{specification(types.ResourceTypeVolume, tags.With(by.tags()))},
			}
			if like.IOPS > 0 && slices.Contains([]string{"gp3", "io1", "io2"}, like.Type) {
				in.Iops = aws.Int32(like.IOPS)
			}
			if like.Throughput > 0 && like.Type == "gp3" {
				in.Throughput = aws.Int32(like.Throughput)
			}
			if like.Encrypted {
				in.Encrypted = aws.Bool(true)
				if like.KMSKey != "" {
					in.KmsKeyId = aws.String(like.KMSKey)
				}
			}
			out, err := c.ec2.CreateVolume(ctx, in, c.careful)
			if err != nil {
				return Volume{}, err
			}
			return Volume{ID: aws.ToString(out.VolumeId), State: string(out.State), Zone: aws.ToString(out.AvailabilityZone), Type: string(out.VolumeType), SizeGiB: aws.ToInt32(out.Size), Snapshot: snapshot, Tags: fromTags(out.Tags)}, nil
		})
}

// Attach gives a volume to an instance under a device name. That it is there
// already is success.
func (c *Cloud) Attach(ctx context.Context, volume, instance, device string) error {
	_, err := once(ctx, c, fmt.Sprintf("attach %s to %s as %s", volume, instance, device),
		func(ctx context.Context) (Volume, bool, error) {
			v, err := c.Volume(ctx, volume)
			return v, v.Instance == instance && v.Device == device, err
		},
		func(ctx context.Context) (Volume, error) {
			_, err := c.ec2.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: aws.String(volume), InstanceId: aws.String(instance), Device: aws.String(device)}, c.careful)
			return Volume{}, err
		})
	return err
}

// Detach takes a volume off the instance named. That it is off already is
// success; that another instance has it is not.
func (c *Cloud) Detach(ctx context.Context, volume, instance string) error {
	_, err := once(ctx, c, fmt.Sprintf("detach %s from %s", volume, instance),
		func(ctx context.Context) (Volume, bool, error) {
			v, err := c.Volume(ctx, volume)
			return v, v.Instance == "" || v.Leaving, err
		},
		func(ctx context.Context) (Volume, error) {
			_, err := c.ec2.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: aws.String(volume), InstanceId: aws.String(instance)}, c.careful)
			return Volume{}, err
		})
	return err
}

// DeleteVolume deletes a temporary volume; any other is refused here and by
// the policy.
func (c *Cloud) DeleteVolume(ctx context.Context, volume string) error {
	v, err := c.Volume(ctx, volume)
	if err != nil {
		return err
	}
	if v.Tags[TagRole] != RoleTemp {
		return fmt.Errorf("delete %s: %w: its tag %s is %q", volume, ErrProtected, TagRole, v.Tags[TagRole])
	}
	_, err = c.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: aws.String(volume)})
	return explain("delete "+volume, err)
}

// Associate gives an Elastic IP address to an instance, taking it from another
// that has it.
func (c *Cloud) Associate(ctx context.Context, allocation, instance string) error {
	_, err := c.ec2.AssociateAddress(ctx, &ec2.AssociateAddressInput{AllocationId: aws.String(allocation), InstanceId: aws.String(instance), AllowReassociation: aws.Bool(true)})
	return explain(fmt.Sprintf("give %s to %s", allocation, instance), err)
}

// Tag sets tags of an object, over those of the same name.
func (c *Cloud) Tag(ctx context.Context, id string, tags Tags) error {
	_, err := c.ec2.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{id}, Tags: toTags(tags)})
	return explain("tag "+id, err)
}

// Untag removes tags that still have the values given, and leaves others.
func (c *Cloud) Untag(ctx context.Context, id string, tags Tags) error {
	_, err := c.ec2.DeleteTags(ctx, &ec2.DeleteTagsInput{Resources: []string{id}, Tags: toTags(tags)})
	return explain("untag "+id, err)
}

// TagsOf reads the tags of any object of EC2.
func (c *Cloud) TagsOf(ctx context.Context, id string) (Tags, error) {
	tags := Tags{}
	for pages := ec2.NewDescribeTagsPaginator(c.ec2, &ec2.DescribeTagsInput{Filters: filters(map[string]string{"resource-id": id})}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain("read tags of "+id, err)
		}
		for _, t := range page.Tags {
			tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
		}
	}
	return tags, nil
}
