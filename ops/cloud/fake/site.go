package fake

import "fmt"

// Site names a production machine and what belongs to it: the one the
// operations manual is about.
type Site struct {
	Endpoint, Region, Instance, Name, Volume, Allocation, IP, Bucket string
}

// Config is a configuration of gt06ctl ops for the site: journal and lock in a
// directory, copies in the bucket.
func (s Site) Config(dir string) string {
	return fmt.Sprintf(`aws: {region: %s, instance_id: %s, eip_allocation_id: %s, eip: %s, endpoint_url: %q}
journal: {dir: %s/journal, s3_uri: "s3://%s"}
lock: {file: %s/lock}
`, s.Region, s.Instance, s.Allocation, s.IP, s.Endpoint, dir, s.Bucket, dir)
}

// Production fills the fake with the machine of the manual: a running instance
// with a 30 GiB root volume and an Elastic IP, a Recycle Bin rule, a daily plan
// with a backup of this morning, and an empty bucket.
func (a *AWS) Production() Site {
	s := Site{
		Endpoint: a.URL, Region: Region, Instance: "i-0ae922662c241c912", Name: "quickport-prod", Volume: "vol-0123456789abcdef0",
		Allocation: "eipalloc-0a1b2c3d4e5f60718", IP: "3.109.42.82", Bucket: "quickport-ops",
	}
	a.Put(Instance{
		ID: s.Instance, Name: s.Name, Volume: s.Volume, Zone: Region + "a", Type: "t3.small", Root: "/dev/sda1", GiB: 30, Tags: map[string]string{"gt06ops:managed": "true"},
		Open: []Port{{"tcp", 22, 22, "203.0.113.7/32"}, {"tcp", 80, 80, "0.0.0.0/0"}, {"tcp", 443, 443, "0.0.0.0/0"}, {"tcp", 5023, 5023, "0.0.0.0/0"}},
	})
	a.PutAddress(s.Allocation, s.IP, s.Instance)
	a.MakeBucket(s.Bucket)
	resource := arn("volume", s.Volume)
	now := a.now()
	a.Protect([]RecycleBinRule{{ID: "rule1", Days: 7}},
		[]BackupPlan{{ID: "plan-1", Name: "gt06-daily", Schedule: "cron(30 20 * * ? *)", KeepDays: 7, Resources: []string{resource}}},
		[]RecoveryPoint{{Resource: resource, ID: "snap-0daily", Created: now.Add(-9 * hour)}})
	return s
}
