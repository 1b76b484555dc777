package cloud

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// filters makes a filter of exact values, in a stable order.
func filters(by map[string]string) []types.Filter {
	var out []types.Filter
	for _, name := range slices.Sorted(maps.Keys(by)) {
		out = append(out, types.Filter{Name: aws.String(name), Values: []string{by[name]}})
	}
	return out
}

// tagged is a filter for objects that have all of the tags.
func tagged(tags Tags) map[string]string {
	by := map[string]string{}
	for k, v := range tags {
		by["tag:"+k] = v
	}
	return by
}

func fromTags(tags []types.Tag) Tags {
	out := Tags{}
	for _, t := range tags {
		out[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return out
}

// one returns the only element, or ErrNotFound under the object's name.
func one[T any](what, id string, all []T, err error) (T, error) {
	var zero T
	if err != nil {
		return zero, err
	}
	if len(all) != 1 {
		return zero, fmt.Errorf("%s %s: %w", what, id, ErrNotFound)
	}
	return all[0], nil
}

// Instance reads one instance.
func (c *Cloud) Instance(ctx context.Context, id string) (Instance, error) {
	all, err := c.instances(ctx, "read instance "+id, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	return one("instance", id, all, err)
}

// Instances lists the instances that have all of the tags, the terminated too.
func (c *Cloud) Instances(ctx context.Context, with Tags) ([]Instance, error) {
	return c.instances(ctx, "list instances", &ec2.DescribeInstancesInput{Filters: filters(tagged(with))})
}

func (c *Cloud) instances(ctx context.Context, doing string, in *ec2.DescribeInstancesInput) ([]Instance, error) {
	var all []Instance
	for pages := ec2.NewDescribeInstancesPaginator(c.ec2, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain(doing, err)
		}
		for _, r := range page.Reservations {
			for _, i := range r.Instances {
				all = append(all, fromInstance(i))
			}
		}
	}
	return all, nil
}

func fromInstance(i types.Instance) Instance {
	out := Instance{
		ID: aws.ToString(i.InstanceId), Type: string(i.InstanceType), Image: aws.ToString(i.ImageId), RootDevice: aws.ToString(i.RootDeviceName), PublicIP: aws.ToString(i.PublicIpAddress),
		Subnet: aws.ToString(i.SubnetId), Key: aws.ToString(i.KeyName), Launched: aws.ToTime(i.LaunchTime), Tags: fromTags(i.Tags),
	}
	if i.State != nil {
		out.State = string(i.State.Name)
	}
	if i.Placement != nil {
		out.Zone = aws.ToString(i.Placement.AvailabilityZone)
	}
	for _, g := range i.SecurityGroups {
		out.Groups = append(out.Groups, aws.ToString(g.GroupId))
	}
	for _, b := range i.BlockDeviceMappings {
		if b.Ebs != nil {
			out.Disks = append(out.Disks, Disk{Device: aws.ToString(b.DeviceName), Volume: aws.ToString(b.Ebs.VolumeId), State: string(b.Ebs.Status), DeleteWithHost: aws.ToBool(b.Ebs.DeleteOnTermination)})
		}
	}
	return out
}

// Volume reads one volume.
func (c *Cloud) Volume(ctx context.Context, id string) (Volume, error) {
	all, err := c.volumes(ctx, "read volume "+id, &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
	return one("volume", id, all, err)
}

// Volumes lists the volumes that have all of the tags.
func (c *Cloud) Volumes(ctx context.Context, with Tags) ([]Volume, error) {
	return c.volumes(ctx, "list volumes", &ec2.DescribeVolumesInput{Filters: filters(tagged(with))})
}

func (c *Cloud) volumes(ctx context.Context, doing string, in *ec2.DescribeVolumesInput) ([]Volume, error) {
	var all []Volume
	for pages := ec2.NewDescribeVolumesPaginator(c.ec2, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain(doing, err)
		}
		for _, v := range page.Volumes {
			out := Volume{
				ID: aws.ToString(v.VolumeId), State: string(v.State), Zone: aws.ToString(v.AvailabilityZone), Type: string(v.VolumeType), SizeGiB: aws.ToInt32(v.Size), IOPS: aws.ToInt32(v.Iops), Throughput: aws.ToInt32(v.Throughput),
				Encrypted: aws.ToBool(v.Encrypted), KMSKey: aws.ToString(v.KmsKeyId), Snapshot: aws.ToString(v.SnapshotId), Created: aws.ToTime(v.CreateTime), Tags: fromTags(v.Tags),
			}
			for _, a := range v.Attachments {
				out.Instance, out.Device, out.Leaving = aws.ToString(a.InstanceId), aws.ToString(a.Device), a.State == types.VolumeAttachmentStateDetaching
			}
			all = append(all, out)
		}
	}
	return all, nil
}

// Modification reads the last change of a volume's size; ok is false where
// there never was one.
func (c *Cloud) Modification(ctx context.Context, volume string) (m Modification, ok bool, err error) {
	out, err := c.ec2.DescribeVolumesModifications(ctx, &ec2.DescribeVolumesModificationsInput{Filters: filters(map[string]string{"volume-id": volume})})
	if hasCode(err, "InvalidVolumeModification.NotFound") || err == nil && len(out.VolumesModifications) == 0 {
		return Modification{}, false, nil
	}
	if err != nil {
		return Modification{}, false, explain("read the last change of "+volume, err)
	}
	for _, v := range out.VolumesModifications {
		if at := aws.ToTime(v.StartTime); !ok || at.After(m.Started) {
			m, ok = Modification{State: string(v.ModificationState), TargetGiB: aws.ToInt32(v.TargetSize), Percent: aws.ToInt64(v.Progress), Started: at, Message: aws.ToString(v.StatusMessage)}, true
		}
	}
	return m, ok, nil
}

// Snapshot reads one snapshot.
func (c *Cloud) Snapshot(ctx context.Context, id string) (Snapshot, error) {
	all, err := c.snapshots(ctx, "read snapshot "+id, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})
	return one("snapshot", id, all, err)
}

// SnapshotsOf lists the snapshots of a volume that have all of the tags, the
// newest first.
func (c *Cloud) SnapshotsOf(ctx context.Context, volume string, with Tags) ([]Snapshot, error) {
	by := tagged(with)
	by["volume-id"] = volume
	return c.snapshots(ctx, "list snapshots of "+volume, &ec2.DescribeSnapshotsInput{Filters: filters(by)})
}

// Snapshots lists the snapshots that have all of the tags, the newest first.
// At least one tag must be given: an account sees thousands of others'.
func (c *Cloud) Snapshots(ctx context.Context, with Tags) ([]Snapshot, error) {
	if len(with) == 0 {
		return nil, fmt.Errorf("list snapshots: %w: no tag named", ErrProtected)
	}
	return c.snapshots(ctx, "list snapshots", &ec2.DescribeSnapshotsInput{Filters: filters(tagged(with))})
}

func (c *Cloud) snapshots(ctx context.Context, doing string, in *ec2.DescribeSnapshotsInput) ([]Snapshot, error) {
	var all []Snapshot
	for pages := ec2.NewDescribeSnapshotsPaginator(c.ec2, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain(doing, err)
		}
		for _, s := range page.Snapshots {
			// "99%"; AWS leaves it out of a snapshot that has just begun.
			percent, _ := strconv.Atoi(strings.TrimSuffix(aws.ToString(s.Progress), "%"))
			all = append(all, Snapshot{
				ID: aws.ToString(s.SnapshotId), State: string(s.State), Percent: percent, Message: aws.ToString(s.StateMessage), Volume: aws.ToString(s.VolumeId), SizeGiB: aws.ToInt32(s.VolumeSize),
				FullBytes: aws.ToInt64(s.FullSnapshotSizeInBytes), Description: aws.ToString(s.Description), Owner: aws.ToString(s.OwnerId), Tier: string(s.StorageTier), Started: aws.ToTime(s.StartTime), Tags: fromTags(s.Tags),
			})
		}
	}
	slices.SortStableFunc(all, func(a, b Snapshot) int { return b.Started.Compare(a.Started) })
	return all, nil
}

// SnapshotShared says whether anybody else may read a snapshot.
func (c *Cloud) SnapshotShared(ctx context.Context, id string) (bool, error) {
	out, err := c.ec2.DescribeSnapshotAttribute(ctx, &ec2.DescribeSnapshotAttributeInput{SnapshotId: aws.String(id), Attribute: types.SnapshotAttributeNameCreateVolumePermission})
	if err != nil {
		return false, explain("read who may use "+id, err)
	}
	return len(out.CreateVolumePermissions) > 0, nil
}

// SnapshotLocks reads the locks of the snapshots named, or of all.
func (c *Cloud) SnapshotLocks(ctx context.Context, ids ...string) ([]SnapshotLock, error) {
	var all []SnapshotLock
	in := &ec2.DescribeLockedSnapshotsInput{SnapshotIds: ids}
	for {
		out, err := c.ec2.DescribeLockedSnapshots(ctx, in)
		if err != nil {
			return nil, explain("read snapshot locks", err)
		}
		for _, l := range out.Snapshots {
			all = append(all, SnapshotLock{Snapshot: aws.ToString(l.SnapshotId), Mode: string(l.LockState), Days: aws.ToInt32(l.LockDuration), Expires: aws.ToTime(l.LockExpiresOn)})
		}
		if in.NextToken = out.NextToken; aws.ToString(out.NextToken) == "" {
			return all, nil
		}
	}
}

// DeletedSnapshots lists the snapshots in the Recycle Bin that were of a
// volume: somebody deleted them.
func (c *Cloud) DeletedSnapshots(ctx context.Context, volume string) ([]string, error) {
	var ids []string
	for pages := ec2.NewListSnapshotsInRecycleBinPaginator(c.ec2, &ec2.ListSnapshotsInRecycleBinInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain("look into the Recycle Bin", err)
		}
		for _, s := range page.Snapshots {
			if aws.ToString(s.VolumeId) == volume {
				ids = append(ids, aws.ToString(s.SnapshotId))
			}
		}
	}
	return ids, nil
}

// Image reads one image.
func (c *Cloud) Image(ctx context.Context, id string) (Image, error) {
	all, err := c.images(ctx, "read image "+id, &ec2.DescribeImagesInput{ImageIds: []string{id}})
	return one("image", id, all, err)
}

// Images lists this account's images that have all of the tags.
func (c *Cloud) Images(ctx context.Context, with Tags) ([]Image, error) {
	return c.images(ctx, "list images", &ec2.DescribeImagesInput{Owners: []string{"self"}, Filters: filters(tagged(with))})
}

func (c *Cloud) images(ctx context.Context, doing string, in *ec2.DescribeImagesInput) ([]Image, error) {
	var all []Image
	for pages := ec2.NewDescribeImagesPaginator(c.ec2, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain(doing, err)
		}
		for _, i := range page.Images {
			out := Image{ID: aws.ToString(i.ImageId), Name: aws.ToString(i.Name), State: string(i.State), Created: aws.ToString(i.CreationDate), Tags: fromTags(i.Tags)}
			for _, b := range i.BlockDeviceMappings {
				if b.Ebs != nil && b.Ebs.SnapshotId != nil {
					out.Snapshots = append(out.Snapshots, *b.Ebs.SnapshotId)
				}
			}
			all = append(all, out)
		}
	}
	return all, nil
}

// Address reads one Elastic IP address by its allocation.
func (c *Cloud) Address(ctx context.Context, allocation string) (Address, error) {
	all, err := c.addresses(ctx, "read address "+allocation, &ec2.DescribeAddressesInput{AllocationIds: []string{allocation}})
	return one("address", allocation, all, err)
}

// Addresses lists all Elastic IP addresses of the region.
func (c *Cloud) Addresses(ctx context.Context) ([]Address, error) {
	return c.addresses(ctx, "list addresses", &ec2.DescribeAddressesInput{})
}

func (c *Cloud) addresses(ctx context.Context, doing string, in *ec2.DescribeAddressesInput) ([]Address, error) {
	out, err := c.ec2.DescribeAddresses(ctx, in)
	if err != nil {
		return nil, explain(doing, err)
	}
	var all []Address
	for _, a := range out.Addresses {
		all = append(all, Address{Allocation: aws.ToString(a.AllocationId), Association: aws.ToString(a.AssociationId), IP: aws.ToString(a.PublicIp), Instance: aws.ToString(a.InstanceId), Tags: fromTags(a.Tags)})
	}
	return all, nil
}

// Openings lists what the security groups let in from anywhere.
func (c *Cloud) Openings(ctx context.Context, groups []string) ([]Opening, error) {
	if len(groups) == 0 {
		return nil, nil
	}
	out, err := c.ec2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: groups})
	if err != nil {
		return nil, explain("read security groups", err)
	}
	var all []Opening
	for _, g := range out.SecurityGroups {
		for _, p := range g.IpPermissions {
			open := Opening{Group: aws.ToString(g.GroupId), Protocol: aws.ToString(p.IpProtocol), From: -1, To: -1}
			if p.FromPort != nil && p.ToPort != nil {
				open.From, open.To = *p.FromPort, *p.ToPort
			}
			for _, r := range p.IpRanges {
				if open.CIDR = aws.ToString(r.CidrIp); open.CIDR == "0.0.0.0/0" {
					all = append(all, open)
				}
			}
			for _, r := range p.Ipv6Ranges {
				if open.CIDR = aws.ToString(r.CidrIpv6); open.CIDR == "::/0" {
					all = append(all, open)
				}
			}
		}
	}
	return all, nil
}
