package ops

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Action is what a change is for: a fixed list, because the snapshot's name
// ends with it.
type Action string

// The actions.
const (
	DiskCleanup  Action = "disk-cleanup"
	DiskResize   Action = "disk-resize"
	SSHFix       Action = "ssh-fix"
	OSUpdate     Action = "os-update"
	Kernel       Action = "kernel"
	Architecture Action = "architecture"
	Refactor     Action = "service-refactor"
	Migrate      Action = "migrate"
	Financial    Action = "financial"
	Restart      Action = "restart"
	Upgrade      Action = "gt06-upgrade"
	Other        Action = "other"
)

// Actions are all of them, as help shows them.
func Actions() []Action {
	return []Action{DiskCleanup, DiskResize, SSHFix, OSUpdate, Kernel, Architecture, Refactor, Migrate, Financial, Restart, Upgrade, Other}
}

// Status says how far a change is.
type Status string

// The states of a change.
const (
	Open      Status = "open"
	Frozen    Status = "frozen" // aborted: only restore, resume of it, and close
	Closed    Status = "closed"
	Abandoned Status = "abandoned"
)

// Change is the object all work belongs to, as its journal tells it.
type Change struct {
	ID         string    `json:"id"` // c-20261122-01: the day in the zone of the configuration, and a count
	Action     Action    `json:"action"`
	Reason     string    `json:"reason"`
	Status     Status    `json:"status"`
	Instance   string    `json:"instance"`
	Root       Volume    `json:"root"`    // attached when it was opened
	Address    Address   `json:"address"` // the Elastic IP when it was opened
	OpenedAt   time.Time `json:"opened_at"`
	OpenedBy   Actor     `json:"opened_by"`
	Snapshot   string    `json:"snapshot,omitempty"` // that passed the gate, or was adopted
	Adopted    bool      `json:"adopted,omitempty"`
	LastEffect time.Time `json:"last_effect"`          // when its last mutating step ended; zero: none
	Validated  time.Time `json:"validated"`            // when a validation was green last
	Unfinished string    `json:"unfinished,omitempty"` // the runbook of a run that has not ended
	BreakGlass string    `json:"break_glass,omitempty"`
}

// changeID is the form of a change's name; it becomes a file name.
var changeID = regexp.MustCompile(`^c-\d{8}-\d{2,}$`)

// reasonWords are what a reason has at least; its length is a setting.
const reasonWords = 2

// validReason refuses a reason that is none.
func validReason(reason string, action Action, shortest int) error {
	r := strings.TrimSpace(reason)
	if len(r) < shortest || len(strings.Fields(r)) < reasonWords || strings.EqualFold(r, string(action)) {
		return fmt.Errorf("the reason %q is none: at least %d characters and %d words that say why", reason, shortest, reasonWords)
	}
	return nil
}

// validAction refuses an action that is not on the list.
func validAction(a Action) error {
	if slices.Contains(Actions(), a) {
		return nil
	}
	names := make([]string, 0, len(Actions()))
	for _, one := range Actions() {
		names = append(names, string(one))
	}
	return fmt.Errorf("action %q is not one of %s", a, strings.Join(names, ", "))
}

// changeOf tells a change from its records.
func changeOf(records []Record) Change {
	var c Change
	for i := range records {
		r := &records[i]
		switch r.Kind {
		case KindOpen:
			c = Change{
				ID: r.Change, Action: Action(r.In["action"]), Reason: r.In["reason"], Status: Open, Instance: r.In["instance"],
				OpenedAt: r.Time, OpenedBy: r.Actor,
				Address: Address{Allocation: r.In["eip_allocation"], Association: r.In["eip_association"], IP: r.In["eip"], Instance: r.In["eip_instance"]},
			}
			_ = json.Unmarshal([]byte(r.In["root"]), &c.Root) // written by Open
		case KindGate:
			if r.RC == 0 && !c.Adopted {
				c.Snapshot = r.Out["snapshot"]
			}
		case KindAdopt:
			c.Snapshot, c.Adopted = r.In["snapshot"], true
		case KindPlan:
			c.Unfinished = r.In["book"]
		case KindPlanEnd:
			c.Unfinished = ""
		case KindResult:
			if r.In["class"] != string(Read) {
				c.LastEffect = r.Time
			}
		case KindCheck:
			if r.In["name"] == CheckValidate && r.RC == 0 {
				c.Validated = r.Time
			}
		case KindBreakGlass:
			c.BreakGlass = r.In["reason"]
		case KindFreeze:
			c.Status, c.Unfinished = Frozen, ""
		case KindClose:
			c.Status = Closed
		case KindAbandon:
			c.Status = Abandoned
		}
	}
	return c
}

// live says whether work may go on in the change.
func (c *Change) live() bool { return c.Status == Open || c.Status == Frozen }
