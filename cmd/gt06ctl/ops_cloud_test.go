package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gt06/ops/backup"
	"gt06/ops/cloud"
	"gt06/ops/cloud/fake"
	"gt06/ops/cloud/mototest"
	"gt06/ops/deploy/iam"
)

// operator is a person at another machine: gt06ctl as a process of its own, a
// configuration, a journal, and a cloud.
type operator struct {
	*testing.T
	site   fake.Site
	config string
}

// newOperator writes the configuration of a site. With a bucket the journal is
// copied and the lock is there.
func newOperator(t *testing.T, site fake.Site) *operator {
	t.Helper()
	dir := journalDir(t)
	o := &operator{T: t, site: site, config: filepath.Join(dir, "ops.yaml")}
	if err := os.WriteFile(o.config, []byte(site.Config(dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	return o
}

// journalDir is in memory where there is such a place: processes are killed
// here, not machines, and thousands of fsyncs take their time.
func journalDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "gt06ops-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// guarded is a fake production under the policies of the role that operates.
func guarded(t *testing.T) (*fake.AWS, fake.Site) {
	t.Helper()
	a := fake.New()
	t.Cleanup(a.Close)
	site := a.Production()
	var policies []fake.Policy
	for _, n := range iam.Names() {
		text, err := iam.Policy(n, iam.Site{Account: fake.Account, Region: site.Region, Allocation: site.Allocation, Bucket: site.Bucket})
		if err != nil {
			t.Fatal(err)
		}
		p, err := fake.ParsePolicy([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		policies = append(policies, p)
	}
	a.Policies = map[string][]fake.Policy{"test": policies}
	t.Cleanup(func() {
		for _, c := range a.Calls() {
			if c.Refused == "UnauthorizedOperation" || c.Refused == "AccessDenied" {
				t.Errorf("the policies refuse what a runbook needs: %+v", c)
			}
		}
	})
	return a, site
}

// ops runs a command and returns its exit code, -1 where it was killed. With an
// environment of its own it is a process of its own.
func (o *operator) ops(env string, args ...string) (code int, stdout, stderr string) {
	o.Helper()
	args = append([]string{"ops", "--config", o.config, "--timeout", "1m"}, args...)
	var out, say bytes.Buffer
	if env == "" {
		code = run(args, strings.NewReader(""), &out, &say)
		return code, out.String(), say.String()
	}
	cmd := exec.CommandContext(o.Context(), "gt06ctl", args...)
	cmd.Env = append(os.Environ(), env)
	cmd.Stdout, cmd.Stderr = &out, &say
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), out.String(), say.String()
	}
	if err != nil {
		o.Fatal(err)
	}
	return 0, out.String(), say.String()
}

// must runs a command that has to end with a code.
func (o *operator) must(code int, args ...string) string {
	o.Helper()
	got, out, say := o.ops("", args...)
	if got != code {
		o.Fatalf("%v: exit %d, want %d\n%s%s", args, got, code, out, say)
	}
	return out + say
}

func (o *operator) open(action, reason string) string {
	o.Helper()
	_, out, say := o.ops("", "change", "open", "--action", action, "--reason", reason, "--json")
	var c struct{ ID string }
	if err := json.Unmarshal([]byte(out), &c); err != nil || c.ID == "" {
		o.Fatalf("open: %v\n%s%s", err, out, say)
	}
	return c.ID
}

// plan reads what a command would do: its hash.
func (o *operator) plan(args ...string) string {
	o.Helper()
	code, out, say := o.ops("", append([]string{"--json"}, args...)...)
	var p struct{ Plan string }
	if err := json.Unmarshal([]byte(out), &p); err != nil || code != 10 {
		o.Fatalf("plan of %v: exit %d, %v\n%s%s", args, code, err, out, say)
	}
	return p.Plan
}

// dumped puts the manifest of a dump of now into the bucket.
func (o *operator) dumped(under string) {
	o.Helper()
	b, err := o.account().Bucket("s3://" + o.site.Bucket + "/" + under)
	if err != nil {
		o.Fatal(err)
	}
	now := time.Now().UTC()
	name := "db-" + now.Format("20060102T150405Z") + ".sql.gz"
	text, err := json.Marshal(backup.Manifest{Format: 1, Name: name, Kind: backup.MariaDB, Begun: now})
	if err == nil {
		err = b.Create(o.Context(), name+".json", text)
	}
	if err != nil {
		o.Fatal(err)
	}
}

// apply reads the plan, then approves and does it.
func (o *operator) apply(env string, args ...string) (code int, text string) {
	o.Helper()
	hash := o.plan(args...)
	code, out, say := o.ops(env, append([]string{"--apply", "--yes", "--plan", hash}, args...)...)
	return code, out + say
}

func (o *operator) done(args ...string) string {
	o.Helper()
	code, text := o.apply("", args...)
	if code != 0 {
		o.Fatalf("%v: exit %d\n%s", args, code, text)
	}
	return text
}

// account opens the cloud past the program, to look.
func (o *operator) account() *cloud.Cloud {
	o.Helper()
	c, err := cloud.Open(o.Context(), cloud.Options{Region: o.site.Region, Endpoint: o.site.Endpoint})
	if err != nil {
		o.Fatal(err)
	}
	return c
}

// TestMaintenance is a planned maintenance from end to end, against the fake
// and against moto.
func TestMaintenance(t *testing.T) {
	t.Parallel()
	for name, site := range map[string]func(*testing.T) fake.Site{
		"fake": func(t *testing.T) fake.Site { t.Helper(); _, s := guarded(t); return s },
		"moto": mototest.Start,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOperator(t, site(t))
			began := time.Now()
			o.must(3, "snapshot", "create") // no change is open
			id := o.open("disk-resize", "the disk is at 91 percent")
			o.must(5, "change", "open", "--action", "restart", "--reason", "one change at a time")
			o.must(3, "resize", "volume", "--size", "40", "--apply", "--yes", "--plan", o.plan("resize", "volume", "--size", "40")) // no snapshot
			o.done("snapshot", "create")
			o.must(0, "snapshot", "verify")
			o.done("resize", "volume", "--size", "40")
			if v, err := o.account().Volume(t.Context(), o.site.Volume); err != nil || v.SizeGiB != 40 {
				t.Errorf("volume %+v, %v", v, err)
			}
			o.must(13, "resize", "volume", "--size", "30")
			o.must(3, "change", "close") // not validated
			o.must(0, "verify-journal")
			report := o.must(0, "change", "show", id)
			for _, want := range []string{id, "volume.modify", "snapshot.create", "Elastic IP: " + o.site.IP} {
				if !strings.Contains(report, want) {
					t.Errorf("the report lacks %q", want)
				}
			}
			t.Logf("%s: %s", name, time.Since(began).Round(time.Millisecond))
		})
	}
}

// TestWorstCase restores the machine from its snapshot; the address comes back
// and the old volume stays.
func TestWorstCase(t *testing.T) {
	t.Parallel()
	t.Run("fake", func(t *testing.T) {
		t.Parallel()
		a, site := guarded(t)
		o := newOperator(t, site)
		var ran string
		a.Guest = func(_, script string) (int, string, string) { ran = script; return 0, `{"imported":10000}`, "" }
		worstCase(t, o, "--guest", "ssm")
		if !strings.Contains(ran, "gt06ctl spool import") || !strings.Contains(ran, site.Volume) {
			t.Errorf("on the machine ran %q", ran)
		}
		if old := a.Volumes(map[string]string{cloud.TagManaged: "true"}); len(old) != 2 || old[0].State == "in-use" && old[1].State == "in-use" {
			t.Errorf("volumes %+v", old)
		}
	})
	t.Run("moto", func(t *testing.T) {
		t.Parallel()
		worstCase(t, newOperator(t, mototest.Start(t)))
	})
}

func worstCase(t *testing.T, o *operator, more ...string) {
	t.Helper()
	began := time.Now()
	id := o.open("other", "it does not come up again")
	o.done("snapshot", "create")
	// Something is tried, and makes it worse.
	o.done("run", "--", "true")
	if text := o.done("abort"); !strings.Contains(text, "restore instance --change "+id) {
		t.Errorf("abort does not say how to go back: %s", text)
	}
	o.must(3, "run", "--", "true") // only a restore is possible now
	o.done(append([]string{"restore", "instance"}, more...)...)
	c := o.account()
	i, err := c.Instance(t.Context(), o.site.Instance)
	if err != nil {
		t.Fatal(err)
	}
	root, ok := i.Root()
	if i.State != "running" || !ok || root.Volume == o.site.Volume {
		t.Errorf("instance %+v", i)
	}
	fresh, err := c.Volume(t.Context(), root.Volume)
	if err != nil || fresh.Tags[cloud.TagManaged] != "true" || fresh.Tags[cloud.TagChange] != id {
		t.Errorf("new volume %+v, %v", fresh, err)
	}
	old, err := c.Volume(t.Context(), o.site.Volume)
	if err != nil || old.Tags[cloud.TagKeepUntil] == "" {
		t.Errorf("old volume %+v, %v", old, err)
	}
	if a, err := c.Address(t.Context(), o.site.Allocation); err != nil || a.Instance != o.site.Instance {
		t.Errorf("address %+v, %v", a, err)
	}
	o.must(3, "restore", "instance") // once is enough
	o.must(0, "verify-journal")
	t.Logf("restore in %s; the strategy says 10 to 15 minutes, which AWS takes for its part", time.Since(began).Round(time.Millisecond))
}

// TestRescue: the good way, and the one where the rescue instance fails: in
// both the machine is back and no rescue instance lives.
func TestRescue(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key.pub")
	if err := os.WriteFile(key, []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx ravi@laptop\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		console string
		code    int
	}{
		"mended": {"gt06ops-rescue: done\n", 0},
		"failed": {"boot\ngt06ops-rescue: failed: no user ubuntu\n", 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, site := guarded(t)
			var ran string
			a.Rescue = func(script string) string { ran = script; return want.console }
			o := newOperator(t, site)
			o.open("ssh-fix", "nobody can log in")
			o.done("snapshot", "create")
			code, text := o.apply("", "ssh-recover", "--key", key)
			if code != want.code {
				t.Fatalf("exit %d\n%s", code, text)
			}
			if !strings.Contains(ran, "ravi@laptop") || !strings.Contains(ran, "shutdown -P +60") {
				t.Errorf("script %s", ran)
			}
			if want.code != 0 && !strings.Contains(text, "no user ubuntu") {
				t.Errorf("the reason is not told: %s", text)
			}
			back(t, a, site)
			if n := a.Changes("ec2:RunInstances"); n != 1 {
				t.Errorf("%d rescue instances", n)
			}
		})
	}
}

// TestRescueWithMoto goes the whole way with volumes and instances that are not
// our fake's: the machine is back, one rescue instance was there and is no more.
func TestRescueWithMoto(t *testing.T) {
	t.Parallel()
	o := newOperator(t, mototest.Start(t))
	id := o.open("ssh-fix", "nobody can log in")
	o.done("snapshot", "create")
	o.done("ssh-recover")
	i, err := o.account().Instance(t.Context(), o.site.Instance)
	if err != nil {
		t.Fatal(err)
	}
	if root, ok := i.Root(); i.State != "running" || !ok || root.Volume != o.site.Volume || root.Device != "/dev/sda1" {
		t.Errorf("instance %+v", i)
	}
	if helpers, err := o.account().Instances(t.Context(), cloud.Tags{cloud.TagChange: id, cloud.TagRole: cloud.RoleRescue}); err != nil || len(helpers) != 1 || helpers[0].State != "terminated" {
		t.Errorf("rescue instances %+v, %v", helpers, err)
	}
	if a, err := o.account().Address(t.Context(), o.site.Allocation); err != nil || a.Instance != o.site.Instance {
		t.Errorf("address %+v, %v", a, err)
	}
	o.must(0, "verify-journal")
}

// back says that production is as it was: running, its own root volume, its
// address, and no helper.
func back(t *testing.T, a *fake.AWS, site fake.Site) {
	t.Helper()
	if i := a.Instances(map[string]string{"Name": site.Name}); len(i) != 1 || i[0].State != "running" {
		t.Errorf("instance %+v", i)
	}
	volumes := a.Volumes(map[string]string{"Name": site.Name})
	if len(volumes) != 1 || volumes[0].At != site.Instance || volumes[0].Device != "/dev/sda1" {
		t.Errorf("root volume %+v", volumes)
	}
	if at := a.AddressOf(site.Allocation); at != site.Instance {
		t.Errorf("address at %q", at)
	}
	for _, i := range a.Instances(nil) {
		if i.Tags[cloud.TagRole] != "" && i.State != "terminated" {
			t.Errorf("a helper lives: %+v", i)
		}
	}
}

// TestAccount: init finds the machine, what it writes works, selftest proves the
// role, audit is green on a good account and names each thing that is not, and
// cost stays within the strategy's table.
func TestAccount(t *testing.T) {
	t.Parallel()
	a, site := guarded(t)
	o := newOperator(t, site)
	o.config = filepath.Join(t.TempDir(), "found.yaml")
	text := o.must(0, "init", "--region", site.Region, "--endpoint-url", site.Endpoint, "--bucket", site.Bucket)
	for _, want := range []string{"AWS::RBin::Rule", "AWS::Backup::BackupPlan", `"DeleteAfterDays": 7`, "ec2:DeleteSnapshot", "open to the world: tcp 5023-5023", "create-tags"} {
		if !strings.Contains(text, want) {
			t.Errorf("init lacks %s", want)
		}
	}
	written, err := os.ReadFile(o.config)
	if err != nil {
		t.Fatal(err)
	}
	sub := strings.Replace(string(written), "journal:\n", "journal:\n  dir: "+t.TempDir()+"\n", 1)
	if err := os.WriteFile(o.config, []byte(sub+"sop_version: "+time.Now().Format("2006-01")+"\nlock: {file: "+o.config+".lock}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.must(0, "init", "--region", site.Region, "--endpoint-url", site.Endpoint) // leaves it alone
	if n := a.Changes(); n != 0 {
		t.Fatalf("init changed %d things", n)
	}
	o.must(2, "selftest")
	if text := o.must(0, "selftest", "--account"); !strings.Contains(text, "ec2:StopInstances (DryRun): would be allowed") || !strings.Contains(text, "not proven") {
		t.Error(text)
	}
	o.must(0, "audit")
	if text := o.must(0, "cost"); strings.Contains(text, "NO") || regexp.MustCompile("(?i)delet|remov").MatchString(text) {
		t.Error(text)
	}
	// A change that is done leaves the audit green.
	o.open("disk-resize", "the disk is at 91 percent")
	o.done("snapshot", "create")
	o.must(13, "resize", "volume", "--size", "40", "--mode", "stop") // no logical backup
	o.dumped("backup")
	o.done("resize", "volume", "--size", "40", "--mode", "stop")
	o.must(0, "audit")
	// Each thing that is wrong is named.
	a.PutSnapshot(fake.Snapshot{Volume: site.Volume, Tags: map[string]string{"Name": "before the thing"}, Shared: true})
	a.Happened(fake.Event{Name: "StopInstances", User: "tired", Time: time.Now().Add(-3 * time.Hour), Resources: []string{site.Instance}})
	a.Happened(fake.Event{Name: "DeleteSnapshot", User: "thrifty", Time: time.Now().Add(-2 * time.Hour), Resources: []string{"snap-1"}})
	a.Protect(nil, nil, nil)
	a.PutAddress(site.Allocation, site.IP, "")
	text = o.must(7, "audit")
	for _, want := range []string{"NO  A1 ", "NO  A2 ", "NO  A3 ", "NO  A4 ", "NO  A5 ", "NO  A8 ", "NO  A13", "by tired", "by thrifty", "before the thing"} {
		if !strings.Contains(text, want) {
			t.Errorf("audit lacks %q:\n%s", want, text)
		}
	}
}

// TestRoleThatMayNothing is told what to ask for, with exit code 8.
func TestRoleThatMayNothing(t *testing.T) {
	t.Parallel()
	a := fake.New()
	t.Cleanup(a.Close)
	a.Policies = map[string][]fake.Policy{"test": nil}
	o := newOperator(t, a.Production())
	if text := o.must(8, "audit"); !strings.Contains(text, "AccessDenied") || !strings.Contains(text, "hint: gt06ctl ops selftest --account") {
		t.Error(text)
	}
}

// TestStopClassNotOnTheMachine: what stops the machine does not run on it.
func TestStopClassNotOnTheMachine(t *testing.T) {
	t.Parallel()
	a, site := guarded(t)
	o := newOperator(t, site)
	o.open("ssh-fix", "nobody can log in")
	o.done("snapshot", "create")
	a.On = site.Instance
	before := a.Changes("ec2:StopInstances", "ec2:DetachVolume", "ec2:RunInstances")
	if code, text := o.apply("", "ssh-recover"); code != 3 || !strings.Contains(text, "gt06ctl would end in the middle") {
		t.Errorf("exit %d: %s", code, text)
	}
	if a.Changes("ec2:StopInstances", "ec2:DetachVolume", "ec2:RunInstances") != before {
		t.Error("something was changed")
	}
}

// TestKilledAndResumed kills gt06ctl after each journal record of each of the
// cloud's runbooks and resumes: the end is the same, with one snapshot, one
// volume, one rescue instance, and that one terminated.
func TestKilledAndResumed(t *testing.T) {
	t.Parallel()
	for _, book := range []struct {
		action string
		args   []string
		check  func(*testing.T, *fake.AWS, fake.Site, string)
	}{
		{"disk-resize", []string{"resize", "volume", "--size", "40", "--mode", "stop"}, func(t *testing.T, a *fake.AWS, site fake.Site, _ string) {
			t.Helper()
			back(t, a, site)
			if n := a.Changes("ec2:ModifyVolume"); n != 1 {
				t.Errorf("%d resizes", n)
			}
		}},
		{"ssh-fix", []string{"ssh-recover"}, func(t *testing.T, a *fake.AWS, site fake.Site, _ string) {
			t.Helper()
			back(t, a, site)
			if n := len(a.Instances(map[string]string{cloud.TagRole: cloud.RoleRescue})); n != 1 {
				t.Errorf("%d rescue instances", n)
			}
		}},
		{"other", []string{"restore", "instance", "--guest", "ssm"}, func(t *testing.T, a *fake.AWS, site fake.Site, id string) {
			t.Helper()
			fresh := a.Volumes(map[string]string{cloud.TagChange: id})
			if len(fresh) != 1 || fresh[0].At != site.Instance || fresh[0].Device != "/dev/sda1" {
				t.Errorf("new volumes %+v", fresh)
			}
			if old := a.Volumes(map[string]string{"Name": site.Name}); len(old) != 1 || old[0].At != "" || old[0].Tags[cloud.TagKeepUntil] == "" {
				t.Errorf("old volume %+v", old)
			}
			if at := a.AddressOf(site.Allocation); at != site.Instance {
				t.Errorf("address at %q", at)
			}
		}},
	} {
		t.Run(strings.Join(book.args, " "), func(t *testing.T) {
			t.Parallel()
			for n := 1; ; n++ {
				killed := false
				a, site := guarded(t)
				a.Guest = func(string, string) (int, string, string) { return 0, `{"imported":1}`, "" }
				a.Lag = 1
				o := newOperator(t, site)
				id := o.open(book.action, "killed after record "+fmt.Sprint(n))
				o.done("snapshot", "create")
				code, text := o.apply(fmt.Sprintf("GT06_FAILPOINT=record:%d", n), book.args...)
				if code == -1 {
					killed = true
					code, text = o.resume()
				}
				if code != 0 {
					t.Fatalf("killed after record %d: exit %d\n%s", n, code, text)
				}
				book.check(t, a, site, id)
				if s := a.Snapshots(map[string]string{cloud.TagChange: id}); len(s) != 1 {
					t.Errorf("killed after record %d: %d snapshots", n, len(s))
				}
				o.must(0, "verify-journal")
				if t.Failed() {
					t.Fatalf("killed after record %d", n)
				}
				if !killed {
					t.Logf("%d places", n-1)
					if n < 10 {
						t.Errorf("only %d places to die at", n-1)
					}
					return
				}
			}
		})
	}
}

// resume goes on; where nothing was begun yet the command is what the operator
// gives again, and there is nothing to resume.
func (o *operator) resume() (int, string) {
	o.Helper()
	code, out, say := o.ops("", "change", "resume")
	return code, out + say
}

// TestSnapshotKilled: a snapshot whose maker was killed is found again, also
// where it ended in error meanwhile.
func TestSnapshotKilled(t *testing.T) {
	t.Parallel()
	for n := 1; n < 6; n++ {
		a, site := guarded(t)
		a.Lag = 1
		o := newOperator(t, site)
		id := o.open("restart", "killed while it makes a snapshot")
		if code, text := o.apply(fmt.Sprintf("GT06_FAILPOINT=record:%d", n), "snapshot", "create"); code == -1 {
			if code, text = o.resume(); code != 0 {
				t.Fatalf("record %d: exit %d\n%s", n, code, text)
			}
		} else if code != 0 {
			t.Fatalf("record %d: exit %d\n%s", n, code, text)
		}
		s := a.Snapshots(map[string]string{cloud.TagChange: id})
		if len(s) != 1 || s[0].State != "completed" {
			t.Errorf("record %d: snapshots %+v", n, s)
		}
	}
	a, site := guarded(t)
	a.FailSnapshots()
	o := newOperator(t, site)
	id := o.open("restart", "the snapshot ends in error")
	if code, text := o.apply("", "snapshot", "create"); code != 6 || !strings.Contains(text, "state error") {
		t.Errorf("exit %d: %s", code, text)
	}
	if code, text := o.resume(); code != 0 {
		t.Errorf("exit %d: %s", code, text)
	}
	var states []string
	for _, s := range a.Snapshots(map[string]string{cloud.TagChange: id}) {
		states = append(states, s.State)
	}
	slices.Sort(states)
	if !slices.Equal(states, []string{"completed", "error"}) {
		t.Errorf("snapshots %v", states)
	}
}
