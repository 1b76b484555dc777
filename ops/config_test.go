package ops

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigurationsThatAreRefused(t *testing.T) {
	t.Parallel()
	const aws = "aws: {region: ap-south-1, instance_id: i-0ae922662c241c912, eip_allocation_id: eipalloc-1}\n"
	for text, want := range map[string]struct {
		kind Kind
		says string
	}{
		aws:                                   {0, ""},
		aws + "gt06: {port: 6023}\n":          {Forbidden, "devices"},
		aws + "gt06: {prt: 5023}\n":           {Usage, "prt"},
		aws + "gate: {max_age: soon}\n":       {Usage, "soon"},
		aws + "gate: {min_reason: 1}\n":       {Usage, "at least 12"},
		aws + "gate: {lock_required: [x]}\n":  {Usage, "lock_required"},
		aws + "lock: {backend: paper}\n":      {Usage, "s3 or tag"},
		aws + "lock: {backend: s3}\n":         {Usage, "s3_uri"},
		aws + "timezone: Mars/Olympus\n":      {Usage, "timezone"},
		"aws: {region: ap-south-1}\n":         {Usage, "instance_id"},
		"aws: {secret_access_key: hunter2}\n": {Usage, "secret_access_key"},
		strings.Replace(aws, "eip_allocation_id: eipalloc-1", "eip_allocation_id: e, endpoint_url: 'http://169.254.169.254'", 1): {Usage, "loopback"},
	} {
		path := filepath.Join(t.TempDir(), "ops.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadConfig(path)
		if KindOf(err) != want.kind || err != nil && (!strings.Contains(err.Error(), want.says) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: %v, want %+v", text, err, want)
		}
	}
	if _, err := ReadConfig("/nowhere/ops.yaml"); KindOf(err) != Usage {
		t.Error(err)
	}
}
