package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gt06/ops/cloud/fake"
	"gt06/protocol/device/fleet"
	"gt06/server/control"
)

// opsHost is a machine gt06ctl ops runs on: a configuration and a journal of
// its own.
type opsHost struct {
	t      *testing.T
	config string
}

func newOpsHost(t *testing.T, site fake.Site) opsHost {
	t.Helper()
	dir := t.TempDir()
	h := opsHost{t, filepath.Join(dir, "ops.yaml")}
	text := fmt.Sprintf("aws: {region: %s, instance_id: %s, eip_allocation_id: %s, eip: %s, endpoint_url: %q}\njournal: {dir: %q, s3_uri: \"s3://%s\"}\nlock: {file: %q}\n",
		site.Region, site.Instance, site.Allocation, site.IP, site.Endpoint, filepath.Join(dir, "journal"), site.Bucket, filepath.Join(dir, "lock"))
	if err := os.WriteFile(h.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h opsHost) ops(args ...string) (stdout, stderr string, code int) {
	h.t.Helper()
	cmd := exec.CommandContext(context.Background(), filepath.Join(programs, "gt06ctl"), append([]string{"ops", "--config", h.config}, args...)...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err, exit := cmd.Run(), (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// TestUpgradeInAChange: the change is opened and gets its snapshot on a laptop;
// the server's machine upgrades in it, by the gate as it is at that moment. The
// devices notice nothing, and both records name the change.
func TestUpgradeInAChange(t *testing.T) {
	t.Parallel()
	a := fake.New()
	t.Cleanup(a.Close)
	site := a.Production()
	laptop, machine := newOpsHost(t, site), newOpsHost(t, site)
	path := filepath.Join(t.TempDir(), "gt06.yaml")
	if err := os.WriteFile(path, []byte("upgrade: {require_change: true, probation: 1s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t, "--config", path)
	d.start()
	f, wait := d.loaded(fleet.Options{Devices: 50, Rate: 5, Duration: 15 * time.Second})
	refused := func(why string, args ...string) {
		t.Helper()
		out, errs, code := d.ctl(append([]string{"upgrade", "--json", "--ops-config", machine.config}, args...)...)
		if code != 3 || !strings.Contains(out+errs, why) {
			t.Errorf("exit code %d, want 3 and %q: %s%s", code, why, out, errs)
		}
	}
	refused("require_change")
	refused("no change c-20260101-01", "--change", "c-20260101-01")

	out, errs, code := laptop.ops("change", "open", "--action", "gt06-upgrade", "--reason", "the version of November", "--json")
	var change struct{ ID string }
	if err := json.Unmarshal([]byte(out), &change); code != 0 || err != nil {
		t.Fatalf("exit code %d, %s%s", code, out, errs)
	}
	refused("G1", "--change", change.ID)
	out, errs, _ = laptop.ops("snapshot", "create", "--json")
	var plan struct{ Plan string }
	if err := json.Unmarshal([]byte(out), &plan); err != nil {
		t.Fatalf("%s%s", out, errs)
	}
	if out, errs, code = laptop.ops("snapshot", "create", "--apply", "--yes", "--plan", plan.Plan); code != 0 {
		t.Fatalf("exit code %d, %s%s", code, out, errs)
	}
	a.PutAddress(site.Allocation, site.IP, "")
	refused("G10", "--change", change.ID)
	a.PutAddress(site.Allocation, site.IP, site.Instance)
	refused("G10", "--change", change.ID) // given back is another association: somebody was there

	// A second change, with the address as it is now.
	if out, errs, code = laptop.ops("change", "abandon", change.ID, "--reason", "the address was moved"); code != 0 {
		t.Fatalf("exit code %d, %s%s", code, out, errs)
	}
	refused("abandoned", "--change", change.ID)
	out, errs, code = laptop.ops("change", "open", "--action", "gt06-upgrade", "--reason", "the version of November", "--json")
	if err := json.Unmarshal([]byte(out), &change); code != 0 || err != nil {
		t.Fatalf("exit code %d, %s%s", code, out, errs)
	}
	out, _, _ = laptop.ops("snapshot", "create", "--json")
	if err := json.Unmarshal([]byte(out), &plan); err != nil {
		t.Fatal(err)
	}
	if out, errs, code = laptop.ops("snapshot", "create", "--apply", "--yes", "--plan", plan.Plan); code != 0 {
		t.Fatalf("exit code %d, %s%s", code, out, errs)
	}
	u, code := d.upgrade("--ops-config", machine.config, "--change", change.ID)
	if code != 0 || u.Result != control.Upgraded || u.Change == nil || u.Change.ID != change.ID {
		t.Errorf("exit code %d, %+v", code, u)
	}
	res := wait()
	nobodyNoticed(t, &res, 0)
	d.check(f, res)

	// Both records have it, and the laptop sees what the machine did.
	var list []control.Upgrade
	out, _, _ = d.ctl("upgrades", "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) == 0 || list[len(list)-1].Change == nil {
		t.Fatalf("%v, %s", err, out)
	}
	report, errs, code := laptop.ops("change", "show", change.ID)
	if proof := list[len(list)-1].Change; code != 0 || !strings.Contains(report, "upgrade done") || !strings.HasPrefix(proof.Head, "sha256:") {
		t.Errorf("exit code %d, %s%s, %+v", code, report, errs, proof)
	}
	if out, errs, code = laptop.ops("verify-journal"); code != 0 {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}
