package runbook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gt06/ops"
	"gt06/ops/cloud"
	"gt06/ops/deploy/iam"
)

// Found is what an account says about the machine to be operated.
type Found struct {
	Account  string          `json:"account"`
	Region   string          `json:"region"`
	Instance cloud.Instance  `json:"instance"`
	Root     cloud.Volume    `json:"root"`
	Address  cloud.Address   `json:"address"` // zero: it has none that is elastic
	Openings []cloud.Opening `json:"openings"`
	Bucket   string          `json:"bucket"`
}

// Discover reads an account; the instance is the one named, else the one this
// runs on, else the only one that runs.
func Discover(ctx context.Context, c *cloud.Cloud, instance, bucket string) (Found, error) {
	f, err := discover(ctx, c, instance, bucket)
	return f, cloudError(err)
}

func discover(ctx context.Context, c *cloud.Cloud, instance, bucket string) (Found, error) {
	who, err := c.Identity(ctx)
	if err != nil {
		return Found{}, err
	}
	f := Found{Account: who.Account, Region: c.Region(), Bucket: bucket}
	if f.Bucket == "" {
		f.Bucket = "gt06ops-" + who.Account
	}
	if instance == "" {
		if instance, err = only(ctx, c); err != nil {
			return f, err
		}
	}
	if f.Instance, err = c.Instance(ctx, instance); err != nil {
		return f, err
	}
	root, ok := f.Instance.Root()
	if !ok {
		return f, ops.Fail(ops.Refused, fmt.Errorf("%s has no root volume attached at %s", instance, f.Instance.RootDevice))
	}
	if f.Root, err = c.Volume(ctx, root.Volume); err != nil {
		return f, err
	}
	addresses, err := c.Addresses(ctx)
	if err != nil {
		return f, err
	}
	if k := slices.IndexFunc(addresses, func(a cloud.Address) bool { return a.Instance == instance }); k >= 0 {
		f.Address = addresses[k]
	} else {
		return f, ops.Fail(ops.Refused, fmt.Errorf("%s has no Elastic IP: its address would change with the next stop", instance), "allocate one and associate it, then again: gt06ctl ops init")
	}
	f.Openings, err = c.Openings(ctx, f.Instance.Groups)
	return f, err
}

func only(ctx context.Context, c *cloud.Cloud) (string, error) {
	if self, ok, err := c.Self(ctx); ok || err != nil {
		return self.InstanceID, err
	}
	all, err := c.Instances(ctx, nil)
	if err != nil {
		return "", err
	}
	all = slices.DeleteFunc(all, func(i cloud.Instance) bool { return i.State != "running" || i.Tags[cloud.TagRole] != "" })
	if len(all) == 1 {
		return all[0].ID, nil
	}
	var names []string
	for _, i := range all {
		names = append(names, i.ID+" "+i.Name())
	}
	return "", ops.Fail(ops.Usage, errors.New("which instance is it? running are: "+strings.Join(names, ", ")), "gt06ctl ops init --instance ID")
}

// Config is the configuration as it is written. A comment says what else there
// is; all other keys have defaults.
func (f Found) Config(profile, endpoint string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s, as found by gt06ctl ops init. All keys: gt06ctl ops init --help.\n", f.Instance.Name())
	fmt.Fprintf(&b, "aws:\n  region: %s\n  instance_id: %s\n  eip_allocation_id: %s\n  eip: %s\n", f.Region, f.Instance.ID, f.Address.Allocation, f.Address.IP)
	for key, value := range map[string]string{"profile": profile, "endpoint_url": endpoint} {
		if value != "" {
			fmt.Fprintf(&b, "  %s: %q\n", key, value)
		}
	}
	fmt.Fprintf(&b, "journal:\n  s3_uri: s3://%s\nbackup:\n  s3_uri: s3://%s/backup\n", f.Bucket, f.Bucket)
	return b.String()
}

// Tags are the commands that put the tags the policies go by.
func (f Found) Tags() []string {
	return []string{fmt.Sprintf("aws ec2 create-tags --region %s --tags Key=%s,Value=true --resources %s %s", f.Region, cloud.TagManaged, f.Instance.ID, f.Root.ID)}
}

type block = map[string]any

// Template is what the account should have, for CloudFormation: the roles, the
// Recycle Bin rule, the daily plan, the bucket. It is printed and never applied.
func (f Found) Template() ([]byte, error) {
	var policies []block
	for _, name := range iam.Names() {
		text, err := iam.Policy(name, iam.Site{Account: f.Account, Region: f.Region, Allocation: f.Address.Allocation, Bucket: f.Bucket})
		if err != nil {
			return nil, err
		}
		policies = append(policies, block{"PolicyName": "gt06ops-" + name, "PolicyDocument": json.RawMessage(text)})
	}
	account := block{"AWS": "arn:aws:iam::" + f.Account + ":root"}
	volumes := block{"Ref": "DailyPlan"}
	return json.MarshalIndent(block{
		"AWSTemplateFormatVersion": "2010-09-09",
		"Description":              "What gt06ctl ops needs beside " + f.Instance.ID,
		"Resources": block{
			"ReadRole":        role("gt06ops-read", account, []block{policies[0], policies[2]}),
			"OperateRole":     role("gt06ops-operate", account, policies),
			"InstanceRole":    role("gt06ops-instance", block{"Service": "ec2.amazonaws.com"}, policies, "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"),
			"InstanceProfile": block{"Type": "AWS::IAM::InstanceProfile", "Properties": block{"Roles": []any{block{"Ref": "InstanceRole"}}}},
			"BackupRole":      role("gt06ops-backup", block{"Service": "backup.amazonaws.com"}, nil, "arn:aws:iam::aws:policy/service-role/AWSBackupServiceRolePolicyForBackup"),
			"RecycleBin": block{"Type": "AWS::RBin::Rule", "Properties": block{
				"Description": "deleted snapshots can be had back", "ResourceType": "EBS_SNAPSHOT",
				"RetentionPeriod": block{"RetentionPeriodValue": 7, "RetentionPeriodUnit": "DAYS"},
			}},
			"DailyVault": block{"Type": "AWS::Backup::BackupVault", "DeletionPolicy": "Retain", "Properties": block{"BackupVaultName": "gt06-daily"}},
			"DailyPlan": block{"Type": "AWS::Backup::BackupPlan", "Properties": block{"BackupPlan": block{"BackupPlanName": "gt06-daily", "BackupPlanRule": []block{{
				"RuleName": "daily", "TargetBackupVault": block{"Ref": "DailyVault"}, "ScheduleExpression": "cron(30 20 * * ? *)", "Lifecycle": block{"DeleteAfterDays": 7},
			}}}}},
			// By tag, so that a restored root volume is in it.
			"DailySelection": block{"Type": "AWS::Backup::BackupSelection", "Properties": block{"BackupPlanId": volumes, "BackupSelection": block{
				"SelectionName": "managed-volumes", "IamRoleArn": block{"Fn::GetAtt": []string{"BackupRole", "Arn"}}, "Resources": []string{"arn:aws:ec2:*:*:volume/*"},
				"Conditions": block{"StringEquals": []block{{"ConditionKey": "aws:ResourceTag/" + cloud.TagManaged, "ConditionValue": "true"}}},
			}}},
			"Bucket": block{"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain", "Properties": block{
				"BucketName": f.Bucket, "VersioningConfiguration": block{"Status": "Enabled"},
				"BucketEncryption":               block{"ServerSideEncryptionConfiguration": []block{{"ServerSideEncryptionByDefault": block{"SSEAlgorithm": "AES256"}}}},
				"PublicAccessBlockConfiguration": block{"BlockPublicAcls": true, "BlockPublicPolicy": true, "IgnorePublicAcls": true, "RestrictPublicBuckets": true},
			}},
		},
	}, "", "  ")
}

func role(name string, who block, policies []block, managed ...string) block {
	p := block{"RoleName": name, "AssumeRolePolicyDocument": block{"Version": "2012-10-17", "Statement": []block{{"Effect": "Allow", "Principal": who, "Action": "sts:AssumeRole"}}}}
	if policies != nil {
		p["Policies"] = policies
	}
	if managed != nil {
		p["ManagedPolicyArns"] = managed
	}
	return block{"Type": "AWS::IAM::Role", "Properties": p}
}
