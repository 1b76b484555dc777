package ops

import (
	"fmt"
	"regexp"
)

// forbidden are the actions no gate opens for, as they look in a command line.
// The list helps a tired hand; what holds against a will is the explicit deny
// of the cloud's policies (ops/deploy/iam).
var forbidden = []struct { //nolint:gochecknoglobals // a table, never changed
	rule string
	form *regexp.Regexp
	way  string // what to do instead
}{
	{"free disk by deleting the database", regexp.MustCompile(`\b(rm|unlink|shred|truncate|find|mv)\b.*(/var/lib/(mysql|mariadb)|\bibdata1\b|\bib_logfile)`), "gt06ctl ops cleanup disk"},
	{"delete a snapshot", regexp.MustCompile(`(?i)delete-?snapshot|\bsnapshot\s+(delete|remove|unlock|rm)\b|\bami\s+(deregister|delete|remove)\b|deregister-?image|unlock-?snapshot|recycle-?bin.*delete|rbin\s+(delete|update)-rule`), "snapshots are the undo button: the daily ones expire by themselves"},
	{"give the Elastic IP away", regexp.MustCompile(`(?i)(release|disassociate)-?address`), "gt06ctl ops preflight"},
	{"stop or end an instance blindly", regexp.MustCompile(`(?i)(stop|terminate|reboot)-?instances|\b(shutdown|poweroff|halt|reboot)\b|\binit\s+[06]\b`), "gt06ctl ops resize volume --mode stop, gt06ctl ops ssh-recover or gt06ctl ops restore instance"},
	{"change volumes past the plan", regexp.MustCompile(`(?i)(modify|detach|delete|attach)-?volume`), "gt06ctl ops resize volume"},
	{"start the old GT06 service on the port", regexp.MustCompile(`\bpm2\b.*\b(start|resurrect|restart)\b.*gt06`), "gt06ctl ops takeover --back"},
	{"change the GT06 port without updating the devices", regexp.MustCompile(`\bsed\b.*\b5023\b|(--listen|GT06_LISTEN)[ =]\S*:(?:[0-46-9]\d*|5(?:[1-9]\d*)?|50(?:[013-9]\d*)?|502(?:[0-24-9]\d*)?|5023\d+)\b`), "update the devices first, then set gt06.port and gt06.devices_updated in the configuration"},
	{"touch the journal", regexp.MustCompile(`gt06ops/journal|\bchattr\b.*gt06ops`), "gt06ctl ops verify-journal"},
}

// Permitted refuses a command line that does what the documents forbid.
func Permitted(line string) error {
	for i := range forbidden {
		if f := &forbidden[i]; f.form.MatchString(line) {
			return Fail(Forbidden, fmt.Errorf("forbidden action: %s", f.rule), "instead: "+f.way)
		}
	}
	return nil
}
