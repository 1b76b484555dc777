package runbook

import (
	"testing"

	"gt06/ops"
)

// TestForbiddenCommands: each line of both documents' section 9 that a command
// line can break, and ordinary maintenance beside it.
func TestForbiddenCommands(t *testing.T) {
	t.Parallel()
	for _, argv := range [][]string{
		{"rm", "-rf", "/var/lib/mysql"},
		{"sh", "-c", "cd / && rm -rf var /var/lib/mysql/crm"},
		{"find", "/var/lib/mysql", "-name", "*.ibd", "-delete"},
		{"aws", "ec2", "delete-snapshot", "--snapshot-id", "snap-1"},
		{"aws", "ec2", "unlock-snapshot", "--snapshot-id", "snap-1"},
		{"aws", "rbin", "delete-rule", "--identifier", "x"},
		{"aws", "ec2", "stop-instances", "--instance-ids", "i-1"},
		{"aws", "ec2", "release-address", "--allocation-id", "x"},
		{"sudo", "shutdown", "-h", "now"},
		{"aws", "ec2", "detach-volume", "--volume-id", "vol-1"},
		{"pm2", "start", "index.js", "--name", "gt06-gps-service"},
		{"sed", "-i", "s/5023/5024/", "/etc/gt06/gt06.yaml"},
		{"gt06d", "--listen", ":5024"},
		{"rm", "/var/lib/gt06ops/journal/c-20261122-01.jsonl"},
	} {
		if _, err := Run(nil, argv).Discover(t.Context()); ops.KindOf(err) != ops.Forbidden {
			t.Errorf("%v: %v", argv, err)
		}
	}
	for _, argv := range [][]string{
		{"apt-get", "upgrade", "-y"}, {"systemctl", "restart", "php8.2-fpm"}, {"rm", "/var/log/old.gz"}, {"gt06d", "--listen", ":5023"}, {"pm2", "restart", "crm"},
	} {
		if _, err := Run(nil, argv).Discover(t.Context()); err != nil {
			t.Errorf("%v: %v", argv, err)
		}
	}
}
