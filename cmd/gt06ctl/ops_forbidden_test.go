package main

import (
	"strings"
	"sync"
	"testing"
	"time"

	"gt06/ops/cloud"
	"gt06/ops/cloud/fake"
)

// changes are the calls that change the production of a fake.
func changes(a *fake.AWS) int {
	return a.Changes("ec2:CreateSnapshot", "ec2:ModifyVolume", "ec2:StopInstances", "ec2:StartInstances", "ec2:TerminateInstances", "ec2:RunInstances", "ec2:DetachVolume",
		"ec2:AttachVolume", "ec2:CreateVolume", "ec2:DeleteVolume", "ec2:DeleteSnapshot", "ec2:AssociateAddress", "ec2:DisassociateAddress", "ec2:ReleaseAddress", "ec2:LockSnapshot", "ec2:CreateImage")
}

// TestForbiddenActions attempts every line of section 9 of both documents:
// refused, with its exit code, and nothing of production is changed.
func TestForbiddenActions(t *testing.T) {
	t.Parallel()
	good := func(site fake.Site, id string) map[string]string {
		return map[string]string{"Name": "prod-root-" + time.Now().In(time.FixedZone("IST", 5*3600+1800)).Format(time.DateOnly) + "-before-other", cloud.TagInstance: site.Instance, cloud.TagChange: id}
	}
	cases := []struct {
		line    string
		prepare func(o *operator, a *fake.AWS, id string)
		args    []string
		code    int
		says    string
	}{
		{"A:197 stop instance without snapshot", nil, []string{"restore", "instance"}, 3, "no snapshot to go back to"},
		{"A:197 stop instance past the tool", nil, []string{"run", "--", "aws", "ec2", "stop-instances", "--instance-ids", "i-0ae922662c241c912"}, 13, "blindly"},
		{"A:197 stop the machine from within", nil, []string{"run", "--", "sudo", "shutdown", "-h", "now"}, 13, "blindly"},
		{"A:198 resize disk without backup", func(o *operator, _ *fake.AWS, _ string) {
			o.keys("backup: {s3_uri: \"s3://" + o.site.Bucket + "/backup\"}\n")
		}, []string{"resize", "volume", "--size", "40"}, 13, "no disk is resized without a backup"},
		{"A:199 free disk by deleting the database", nil, []string{"run", "--", "rm", "-rf", "/var/lib/mysql"}, 13, "deleting the database"},
		{"A:199 with break-glass", nil, []string{"run", "--break-glass", "the disk is full and nobody can log in", "--", "rm", "-rf", "/var/lib/mysql"}, 13, "deleting the database"},
		{"A:200 change GT06 port", nil, []string{"run", "--", "sed", "-i", "s/5023/6023/", "/etc/gt06/gt06.yaml"}, 13, "GT06 port"},
		{"A:201 leave rescue instance running", func(_ *operator, a *fake.AWS, _ string) {
			a.Put(fake.Instance{ID: "i-0fedcba9876543210", Name: "rescue", Volume: "vol-0fedcba9876543210", Zone: fake.Region + "a", Type: "t3.micro", Root: "/dev/sda1", GiB: 8, Tags: map[string]string{cloud.TagRole: cloud.RoleRescue}})
		}, []string{"change", "close"}, 13, "must never remain running"},
		{"B:170 maintenance without snapshot", nil, []string{"run", "--", "true"}, 3, "G1"},
		{"B:171 deleting snapshots", nil, []string{"snapshot", "delete", "snap-1"}, 13, "delete a snapshot"},
		{"B:171 deleting snapshots past the tool", nil, []string{"run", "--", "aws", "ec2", "delete-snapshot", "--snapshot-id", "snap-1"}, 13, "delete a snapshot"},
		{"B:172 relying only on automated backups", func(o *operator, a *fake.AWS, id string) {
			tags := good(o.site, id)
			tags["aws:backup:source-resource"] = "x"
			a.PutSnapshot(fake.Snapshot{Volume: o.site.Volume, Description: time.Now().In(time.FixedZone("IST", 5*3600+1800)).Format(time.DateOnly) + ": it is forbidden to do", Tags: tags})
		}, []string{"run", "--", "true"}, 3, "G7"},
		{"B:173 production without restore plan", nil, []string{"run", "--", "true"}, 3, "G11"},
	}
	for _, c := range cases {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			a, site := guarded(t)
			o := newOperator(t, site)
			action := "other"
			if c.args[0] == "resize" {
				action = "disk-resize"
			}
			id := o.open(action, "it is forbidden to do")
			if c.prepare != nil {
				c.prepare(o, a, id)
			}
			before := changes(a)
			code, text := o.attempt(c.args...)
			if code != c.code || !strings.Contains(text, c.says) {
				t.Errorf("exit code %d, want %d and %q: %s", code, c.code, c.says, text)
			}
			if after := changes(a); after != before {
				t.Errorf("%d calls changed production", after-before)
			}
			if report := o.must(0, "change", "show", id); c.args[0] == "run" && c.code == 13 && !strings.Contains(report, "forbidden") {
				t.Errorf("the journal does not tell: %s", report)
			}
		})
	}
}

// attempt approves whatever plan a command shows, and applies it. Flags stand
// before a --.
func (o *operator) attempt(args ...string) (code int, text string) {
	o.Helper()
	return o.try("", args...)
}

// try is attempt with something in the environment of what applies.
func (o *operator) try(env string, args ...string) (code int, text string) {
	o.Helper()
	insert := func(more ...string) []string {
		for i, a := range args {
			if a == "--" {
				return append(append(append([]string{}, args[:i]...), more...), args[i:]...)
			}
		}
		return append(append([]string{}, args...), more...)
	}
	code, out, say := o.ops("", insert("--json")...)
	if _, hash, found := strings.Cut(out, `"plan":"`); code == 10 && found {
		hash, _, _ = strings.Cut(hash, `"`)
		code, out, say = o.ops(env, insert("--apply", "--yes", "--plan", hash)...)
	} else if code == 13 && args[0] == "run" {
		code, out, say = o.ops(env, insert("--apply", "--yes", "--plan", "sha256:0")...)
	}
	return code, out + say
}

// TestTwoOperators race for the lock of the instance, a hundred times, each
// with files of its own: one opens the change, the other is told who has it.
func TestTwoOperators(t *testing.T) {
	t.Parallel()
	a, site := guarded(t)
	first, second := newOperator(t, site), newOperator(t, site)
	for round := range 100 {
		var codes [2]int
		var wg sync.WaitGroup
		for i, o := range []*operator{first, second} {
			wg.Go(func() {
				codes[i], _, _ = o.ops("", "change", "open", "--action", "restart", "--reason", "weekly restart of all")
			})
		}
		wg.Wait()
		if min(codes[0], codes[1]) != 0 || max(codes[0], codes[1]) != 5 {
			t.Fatalf("round %d: exit codes %v", round, codes)
		}
		winner := first
		if codes[1] == 0 {
			winner = second
		}
		winner.must(0, "change", "close")
	}
	if n := a.Changes("ec2:CreateSnapshot"); n != 0 {
		t.Errorf("%d snapshots", n)
	}
	first.must(0, "verify-journal")
}

// TestAbortAndRestore is the worst night: a step fails, everything is stopped,
// the broken volume is kept, the machine goes back, and the change closes.
func TestAbortedIsFrozen(t *testing.T) {
	t.Parallel()
	a, site := guarded(t)
	o := newOperator(t, site)
	id := o.open("other", "it looks wrong in the middle")
	o.done("snapshot", "create")
	if code, text := o.attempt("run", "--", "false"); code != 6 {
		t.Fatalf("exit code %d: %s", code, text)
	}
	text := o.done("abort")
	for _, want := range []string{"evidence.snapshot", "everything since", "IST", "UTC", "gt06ctl ops restore instance --change " + id} {
		if !strings.Contains(text, want) {
			t.Errorf("abort does not say %q: %s", want, text)
		}
	}
	if s := a.Snapshots(map[string]string{cloud.TagChange: id + "-broken"}); len(s) != 1 {
		t.Errorf("snapshots of the broken volume: %+v", s)
	}
	if code, text := o.attempt("run", "--", "true"); code != 3 || !strings.Contains(text, "aborted") {
		t.Errorf("other work after it: exit code %d: %s", code, text)
	}
	o.done("restore", "instance")
	if code, text := o.attempt("change", "close"); code != 3 || !strings.Contains(text, "validate") {
		t.Errorf("closed without a validation: exit code %d: %s", code, text)
	}
	o.must(0, "verify-journal")
}
