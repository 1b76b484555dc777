package cloud

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/backup"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	trail "github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/rbin"
	bin "github.com/aws/aws-sdk-go-v2/service/rbin/types"
)

// RecycleBin lists the rules that keep deleted snapshots.
func (c *Cloud) RecycleBin(ctx context.Context) ([]RecycleBinRule, error) {
	var rules []RecycleBinRule
	for pages := rbin.NewListRulesPaginator(c.rbin, &rbin.ListRulesInput{ResourceType: bin.ResourceTypeEbsSnapshot}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain("list Recycle Bin rules", err)
		}
		for _, r := range page.Rules {
			id := aws.ToString(r.Identifier)
			out, err := c.rbin.GetRule(ctx, &rbin.GetRuleInput{Identifier: r.Identifier})
			if err != nil {
				return nil, explain("read Recycle Bin rule "+id, err)
			}
			rule := RecycleBinRule{ID: id, Status: string(out.Status)}
			if p := out.RetentionPeriod; p != nil {
				rule.Days = aws.ToInt32(p.RetentionPeriodValue)
			}
			for _, t := range out.ResourceTags {
				if rule.Only == nil {
					rule.Only = map[string]string{}
				}
				rule.Only[aws.ToString(t.ResourceTagKey)] = aws.ToString(t.ResourceTagValue)
			}
			rules = append(rules, rule)
		}
	}
	return rules, nil
}

// BackupPlans lists the rules of all plans of AWS Backup with what they cover.
func (c *Cloud) BackupPlans(ctx context.Context) ([]BackupPlan, error) {
	var all []BackupPlan
	for pages := backup.NewListBackupPlansPaginator(c.backup, &backup.ListBackupPlansInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain("list backup plans", err)
		}
		for _, p := range page.BackupPlansList {
			plan, err := c.backup.GetBackupPlan(ctx, &backup.GetBackupPlanInput{BackupPlanId: p.BackupPlanId})
			if err != nil {
				return nil, explain("read backup plan", err)
			}
			resources, err := c.selected(ctx, aws.ToString(p.BackupPlanId))
			if err != nil {
				return nil, err
			}
			if plan.BackupPlan == nil {
				continue
			}
			for _, r := range plan.BackupPlan.Rules {
				out := BackupPlan{Name: aws.ToString(plan.BackupPlan.BackupPlanName) + "/" + aws.ToString(r.RuleName), Schedule: aws.ToString(r.ScheduleExpression), Resources: resources}
				if r.Lifecycle != nil {
					out.KeepDays = aws.ToInt64(r.Lifecycle.DeleteAfterDays)
				}
				all = append(all, out)
			}
		}
	}
	return all, nil
}

// selected lists what a plan covers: names of resources, and tag=value.
func (c *Cloud) selected(ctx context.Context, plan string) ([]string, error) {
	var all []string
	for pages := backup.NewListBackupSelectionsPaginator(c.backup, &backup.ListBackupSelectionsInput{BackupPlanId: aws.String(plan)}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain("list what is backed up", err)
		}
		for _, s := range page.BackupSelectionsList {
			out, err := c.backup.GetBackupSelection(ctx, &backup.GetBackupSelectionInput{BackupPlanId: aws.String(plan), SelectionId: s.SelectionId})
			if err != nil {
				return nil, explain("read what is backed up", err)
			}
			if out.BackupSelection == nil {
				continue
			}
			all = append(all, out.BackupSelection.Resources...)
			if c := out.BackupSelection.Conditions; c != nil {
				for _, t := range c.StringEquals {
					all = append(all, strings.TrimPrefix(aws.ToString(t.ConditionKey), "aws:ResourceTag/")+"="+aws.ToString(t.ConditionValue))
				}
			}
			for _, t := range out.BackupSelection.ListOfTags {
				all = append(all, aws.ToString(t.ConditionKey)+"="+aws.ToString(t.ConditionValue))
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

// ARN names a volume or an instance of this account for AWS Backup.
func (c *Cloud) ARN(ctx context.Context, kind, id string) (string, error) {
	who, err := c.Identity(ctx)
	return fmt.Sprintf("arn:aws:ec2:%s:%s:%s/%s", c.region, who.Account, kind, id), err
}

// RecoveryPoints lists what AWS Backup made of a resource, the newest first.
func (c *Cloud) RecoveryPoints(ctx context.Context, arn string) ([]RecoveryPoint, error) {
	var all []RecoveryPoint
	for pages := backup.NewListRecoveryPointsByResourcePaginator(c.backup, &backup.ListRecoveryPointsByResourceInput{ResourceArn: aws.String(arn)}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, explain("list recovery points of "+arn, err)
		}
		for _, p := range page.RecoveryPoints {
			all = append(all, RecoveryPoint{ARN: aws.ToString(p.RecoveryPointArn), Status: string(p.Status), Created: aws.ToTime(p.CreationDate)})
		}
	}
	slices.SortFunc(all, func(a, b RecoveryPoint) int { return b.Created.Compare(a.Created) })
	return all, nil
}

// Events lists the calls of the given names since a moment, the oldest first.
// CloudTrail shows a call up to 15 minutes late and forgets after 90 days.
func (c *Cloud) Events(ctx context.Context, since time.Time, names ...string) ([]Event, error) {
	var all []Event
	for _, name := range names {
		in := &cloudtrail.LookupEventsInput{StartTime: aws.Time(since), LookupAttributes: []trail.LookupAttribute{{AttributeKey: trail.LookupAttributeKeyEventName, AttributeValue: aws.String(name)}}}
		for pages := cloudtrail.NewLookupEventsPaginator(c.trail, in); pages.HasMorePages(); {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return nil, explain("look up "+name+" in CloudTrail", err)
			}
			for _, e := range page.Events {
				out := Event{ID: aws.ToString(e.EventId), Name: aws.ToString(e.EventName), User: aws.ToString(e.Username), Time: aws.ToTime(e.EventTime)}
				for _, r := range e.Resources {
					out.Resources = append(out.Resources, aws.ToString(r.ResourceName))
				}
				all = append(all, out)
			}
		}
	}
	slices.SortFunc(all, func(a, b Event) int { return a.Time.Compare(b.Time) })
	return all, nil
}

// Permission is the answer to "may I", asked with DryRun: nothing is done.
type Permission struct {
	Action string
	Err    error // nil: allowed
}

// Allowed asks for every changing call of EC2 that can be asked without doing
// it, on an instance, its root volume and its address. The error is of the
// asking; a refusal is in the Permission.
func (c *Cloud) Allowed(ctx context.Context, i Instance, allocation string) ([]Permission, error) {
	root, ok := i.Root()
	if !ok {
		return nil, fmt.Errorf("%s has no root volume attached: %w", i.ID, ErrNotFound)
	}
	yes, id, volume := aws.Bool(true), aws.String(i.ID), aws.String(root.Volume)
	own := Origin{Change: "selftest", Step: "selftest"}.tags()
	tags := []types.TagSpecification{specification(types.ResourceTypeSnapshot, own.With(Tags{TagInstance: i.ID}))}
	calls := []struct {
		action string
		call   func() error
	}{
		{"ec2:CreateSnapshot", func() error {
			_, err := c.ec2.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{DryRun: yes, VolumeId: volume, TagSpecifications: tags}, c.careful)
			return err
		}},
		{"ec2:ModifyVolume", func() error {
			_, err := c.ec2.ModifyVolume(ctx, &ec2.ModifyVolumeInput{DryRun: yes, VolumeId: volume, Size: aws.Int32(16384)}, c.careful)
			return err
		}},
		{"ec2:StopInstances", func() error {
			_, err := c.ec2.StopInstances(ctx, &ec2.StopInstancesInput{DryRun: yes, InstanceIds: []string{i.ID}}, c.careful)
			return err
		}},
		{"ec2:StartInstances", func() error {
			_, err := c.ec2.StartInstances(ctx, &ec2.StartInstancesInput{DryRun: yes, InstanceIds: []string{i.ID}}, c.careful)
			return err
		}},
		{"ec2:DetachVolume", func() error {
			_, err := c.ec2.DetachVolume(ctx, &ec2.DetachVolumeInput{DryRun: yes, VolumeId: volume, InstanceId: id}, c.careful)
			return err
		}},
		{"ec2:AssociateAddress", func() error {
			_, err := c.ec2.AssociateAddress(ctx, &ec2.AssociateAddressInput{DryRun: yes, AllocationId: aws.String(allocation), InstanceId: id}, c.careful)
			return err
		}},
	}
	var all []Permission
	for _, k := range calls {
		err := dryRun(k.action, k.call())
		if err != nil && !errors.Is(err, ErrDenied) {
			return all, err
		}
		all = append(all, Permission{k.action, err})
	}
	return all, nil
}
