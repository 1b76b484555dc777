package runbook_test

import (
	"strings"
	"testing"

	"gt06/ops/cloud"
	"gt06/ops/cloud/fake"
)

// TestPreflightOfTheCloud: what only the cloud knows, each wrong alone; a daily
// copy that is missing is told and stops nothing.
func TestPreflightOfTheCloud(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(*fake.AWS, fake.Site)
		no    string
		note  string
	}{
		"in order": {func(*fake.AWS, fake.Site) {}, "", "automated: 9h0m0s ago"},
		"a rescue instance": {func(a *fake.AWS, _ fake.Site) {
			a.Put(fake.Instance{ID: "i-0123456789abcdef0", Volume: "vol-0aaaaaaaaaaaaaaaa", Root: "/dev/sda1", Tags: map[string]string{cloud.TagRole: cloud.RoleRescue}})
		}, "C5", ""},
		"the address is away": {func(a *fake.AWS, s fake.Site) { a.PutAddress(s.Allocation, s.IP, "") }, "C7", ""},
		"no daily copy":       {func(a *fake.AWS, _ fake.Site) { a.Protect(nil, nil, nil) }, "", "the daily one ran never"},
		"nobody may look at it": {func(a *fake.AWS, _ fake.Site) {
			a.Inject(fake.Fault{Action: "ListRecoveryPointsByResource", Code: "AccessDeniedException", Times: 9})
		}, "", "cannot be seen"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := fake.New()
			t.Cleanup(a.Close)
			site := a.Production()
			_, at := session(t, site)
			a.On = site.Instance
			c.spoil(a, site)
			checks, notes, err := at.Preflight(t.Context())
			if err != nil || len(checks) != 3 || len(notes) != 1 || !strings.Contains(notes[0], c.note) {
				t.Fatalf("%+v, %q, %v", checks, notes, err)
			}
			no := ""
			for _, k := range checks.Failed() {
				no += k.ID
				if k.Next == "" || k.Want == "" {
					t.Errorf("%+v", k)
				}
			}
			if no != c.no {
				t.Errorf("no: %q", no)
			}
		})
	}
}
