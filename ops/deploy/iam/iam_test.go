package iam_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gt06/ops/cloud/fake"
	"gt06/ops/deploy/iam"
)

var site = iam.Site{Account: fake.Account, Region: fake.Region, Allocation: "eipalloc-1", Bucket: "ops"}

func policies(t *testing.T, names ...string) []fake.Policy {
	t.Helper()
	var out []fake.Policy
	for _, n := range names {
		text, err := iam.Policy(n, site)
		if err != nil {
			t.Fatal(err)
		}
		p, err := fake.ParsePolicy([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", n, err)
		}
		out = append(out, p)
	}
	return out
}

// TestPoliciesAllowWhatIsCalledAndNoMore reads the calls out of the one package
// that makes them: each is in the policy meant for it, and each action of a
// policy is called.
func TestPoliciesAllowWhatIsCalledAndNoMore(t *testing.T) {
	t.Parallel()
	called := map[string]bool{}
	sources, err := filepath.Glob("../../cloud/*.go")
	if err != nil {
		t.Fatal(err)
	}
	direct := regexp.MustCompile(`c(?:loud)?\.(ec2|s3|sts|rbin|backup|trail|ssm)\.([A-Z][A-Za-z0-9]+)\(ctx`)
	paged := regexp.MustCompile(`(ec2|s3|rbin|backup|cloudtrail)\.New([A-Z][A-Za-z0-9]+)Paginator\(`)
	for _, name := range sources {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range append(direct.FindAllStringSubmatch(string(text), -1), paged.FindAllStringSubmatch(string(text), -1)...) {
			service := map[string]string{"trail": "cloudtrail"}[m[1]]
			if service == "" {
				service = m[1]
			}
			called[service+":"+m[2]] = true
		}
	}
	if len(called) < 30 {
		t.Fatalf("only %d calls found: the patterns are wrong", len(called))
	}
	// Names S3 and the uploader have beside those of the calls.
	delete(called, "s3:ListObjectsV2")
	for _, also := range []string{"s3:ListBucket", "s3:AbortMultipartUpload", "ec2:CreateTags"} {
		called[also] = true
	}
	looks := regexp.MustCompile(`:(Describe|List|Get|Lookup)`)
	allowed := map[string]map[string]bool{}
	for _, role := range []string{"read", "operate"} {
		allowed[role] = map[string]bool{}
		for _, s := range policies(t, role)[0].Statement {
			for _, a := range s.Action {
				allowed[role][a] = true
			}
		}
	}
	for _, call := range slices.Sorted(maps.Keys(called)) {
		want := "operate"
		if looks.MatchString(call) && call != "ssm:GetCommandInvocation" {
			want = "read"
		}
		if !allowed[want][call] {
			t.Errorf("%s is called and not in %s.json", call, want)
		}
		delete(allowed[want], call)
	}
	for role, rest := range allowed {
		for a := range rest {
			t.Errorf("%s.json allows %s, which nothing calls", role, a)
		}
	}
}

type tags = map[string]string

func resource(kind, id string, with tags) fake.Resource {
	account := fake.Account
	if kind == "snapshot" || kind == "image" {
		account = ""
	}
	return fake.Resource{ARN: "arn:aws:ec2:" + fake.Region + ":" + account + ":" + kind + "/" + id, Tags: with}
}

// TestForbidden: what the manual and the strategy forbid is refused to the
// role that may do the most, and to all that only looks everything is.
func TestForbidden(t *testing.T) {
	t.Parallel()
	managed, temp, rescue := tags{"gt06ops:managed": "true"}, tags{"gt06ops:role": "temp"}, tags{"gt06ops:role": "rescue"}
	prod, root := resource("instance", "i-1", managed), resource("volume", "vol-1", managed)
	other, snapshot := resource("instance", "i-2", nil), resource("snapshot", "snap-1", tags{"gt06ops:change": "c-1"})
	object := fake.Resource{ARN: "arn:aws:s3:::ops/journal/c-1/1.json"}
	for name, c := range map[string]struct {
		call    fake.Call
		allowed bool
	}{
		"delete a snapshot":               {fake.Call{Action: "ec2:DeleteSnapshot", Resources: []fake.Resource{snapshot}}, false},
		"unlock a snapshot":               {fake.Call{Action: "ec2:UnlockSnapshot", Resources: []fake.Resource{snapshot}}, false},
		"share a snapshot":                {fake.Call{Action: "ec2:ModifySnapshotAttribute", Resources: []fake.Resource{snapshot}}, false},
		"lock a snapshot":                 {fake.Call{Action: "ec2:LockSnapshot", Resources: []fake.Resource{snapshot}, Context: tags{"ec2:SnapshotLockDuration": "30"}}, true},
		"lock it for ten years":           {fake.Call{Action: "ec2:LockSnapshot", Resources: []fake.Resource{snapshot}, Context: tags{"ec2:SnapshotLockDuration": "3650"}}, false},
		"terminate production":            {fake.Call{Action: "ec2:TerminateInstances", Resources: []fake.Resource{prod}}, false},
		"terminate a rescue":              {fake.Call{Action: "ec2:TerminateInstances", Resources: []fake.Resource{resource("instance", "i-3", rescue)}}, true},
		"delete the root volume":          {fake.Call{Action: "ec2:DeleteVolume", Resources: []fake.Resource{root}}, false},
		"delete a temporary volume":       {fake.Call{Action: "ec2:DeleteVolume", Resources: []fake.Resource{resource("volume", "vol-2", temp)}}, true},
		"stop production":                 {fake.Call{Action: "ec2:StopInstances", Resources: []fake.Resource{prod}}, true},
		"stop another machine":            {fake.Call{Action: "ec2:StopInstances", Resources: []fake.Resource{other}}, false},
		"label production as rescue":      {fake.Call{Action: "ec2:CreateTags", Resources: []fake.Resource{prod}, Context: tags{"aws:RequestTag/gt06ops:role": "rescue"}}, false},
		"label another as managed":        {fake.Call{Action: "ec2:CreateTags", Resources: []fake.Resource{other}, Context: tags{"aws:RequestTag/gt06ops:managed": "true"}}, false},
		"take the label of production":    {fake.Call{Action: "ec2:DeleteTags", Resources: []fake.Resource{prod}, Context: tags{"aws:RequestTag/gt06ops:managed": "true"}}, false},
		"rename production":               {fake.Call{Action: "ec2:CreateTags", Resources: []fake.Resource{prod}, Context: tags{"aws:RequestTag/Name": "x"}}, false},
		"write the lock":                  {fake.Call{Action: "ec2:CreateTags", Resources: []fake.Resource{prod}, Context: tags{"aws:RequestTag/gt06ops:lock": "c-1@host"}}, true},
		"release the address":             {fake.Call{Action: "ec2:ReleaseAddress", Resources: []fake.Resource{resource("elastic-ip", "eipalloc-1", nil)}}, false},
		"take the address off":            {fake.Call{Action: "ec2:DisassociateAddress", Resources: []fake.Resource{prod}}, false},
		"give the address to production":  {fake.Call{Action: "ec2:AssociateAddress", Resources: []fake.Resource{resource("elastic-ip", "eipalloc-1", nil), prod}}, true},
		"give it to another machine":      {fake.Call{Action: "ec2:AssociateAddress", Resources: []fake.Resource{resource("elastic-ip", "eipalloc-1", nil), other}}, false},
		"give another address":            {fake.Call{Action: "ec2:AssociateAddress", Resources: []fake.Resource{resource("elastic-ip", "eipalloc-2", nil), prod}}, false},
		"a large helper":                  {fake.Call{Action: "ec2:RunInstances", Resources: []fake.Resource{{ARN: resource("instance", "*", nil).ARN, New: true}}, Context: tags{"aws:RequestTag/gt06ops:role": "rescue", "ec2:InstanceType": "p5.48xlarge"}}, false},
		"an unlabelled instance":          {fake.Call{Action: "ec2:RunInstances", Resources: []fake.Resource{{ARN: resource("instance", "*", nil).ARN, New: true}}, Context: tags{"ec2:InstanceType": "t3.micro"}}, false},
		"a snapshot without a change":     {fake.Call{Action: "ec2:CreateSnapshot", Resources: []fake.Resource{root, {ARN: resource("snapshot", "*", nil).ARN, New: true}}}, false},
		"a snapshot of another machine's": {fake.Call{Action: "ec2:CreateSnapshot", Resources: []fake.Resource{resource("volume", "vol-9", nil), {ARN: resource("snapshot", "*", nil).ARN, New: true}}, Context: tags{"aws:RequestTag/gt06ops:change": "c"}}, false},
		"a volume from a foreign one":     {fake.Call{Action: "ec2:CreateVolume", Resources: []fake.Resource{{ARN: resource("volume", "*", nil).ARN, New: true}, resource("snapshot", "snap-9", nil)}, Context: tags{"aws:RequestTag/gt06ops:change": "c"}}, false},
		"change the Recycle Bin":          {fake.Call{Action: "rbin:UpdateRule", Resources: []fake.Resource{{ARN: "*"}}}, false},
		"delete a journal record":         {fake.Call{Action: "s3:DeleteObject", Resources: []fake.Resource{object}}, false},
		"delete its versions":             {fake.Call{Action: "s3:DeleteObjectVersion", Resources: []fake.Resource{object}}, false},
		"write a journal record":          {fake.Call{Action: "s3:PutObject", Resources: []fake.Resource{object}}, true},
		"write elsewhere in the bucket":   {fake.Call{Action: "s3:PutObject", Resources: []fake.Resource{{ARN: "arn:aws:s3:::ops/x"}}}, false},
		"read another bucket":             {fake.Call{Action: "s3:GetObject", Resources: []fake.Resource{{ARN: "arn:aws:s3:::other/x"}}}, false},
		"stop the trail":                  {fake.Call{Action: "cloudtrail:StopLogging", Resources: []fake.Resource{{ARN: "*"}}}, false},
		"another SSM document":            {fake.Call{Action: "ssm:SendCommand", Resources: []fake.Resource{prod, {ARN: "arn:aws:ssm:" + fake.Region + "::document/AWS-Other"}}}, false},
	} {
		why := fake.Judge(policies(t, iam.Names()...), c.call)
		if (why == "") != c.allowed {
			t.Errorf("%s: %q", name, why)
		}
		if why := fake.Judge(policies(t, "read", "deny"), c.call); why == "" {
			t.Errorf("%s: allowed to the role that looks", name)
		}
	}
}
