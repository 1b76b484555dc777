package ops

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report is a change as a Markdown document for the file: what was done, by
// whom, when in the operator's zone and in UTC.
func (j *Journal) Report(zone *time.Location) string {
	c := j.Change()
	both := func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return t.In(zone).Format("2006-01-02 15:04:05 MST") + " (" + t.UTC().Format("15:04:05") + " UTC)"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Change %s: %s\n\n%s\n\n", c.ID, c.Action, c.Reason)
	for _, row := range [][2]string{
		{"Status", string(c.Status)},
		{"Instance", c.Instance},
		{"Opened", both(c.OpenedAt) + " by " + c.OpenedBy.User + " on " + c.OpenedBy.Host},
		{"Root volume", c.Root.ID},
		{"Elastic IP", c.Address.IP + " " + c.Address.Allocation + " " + c.Address.Association},
		{"Snapshot", orNone(c.Snapshot)},
		{"Validated", both(c.Validated)},
		{"Not ended", c.Unfinished},
		{"Glass broken", c.BreakGlass},
	} {
		if row[1] != "" {
			fmt.Fprintf(&b, "- %s: %s\n", row[0], row[1])
		}
	}
	b.WriteString("\n| # | when | what | step | by | result |\n|---|---|---|---|---|---|\n")
	for i := range j.records {
		r := &j.records[i]
		fmt.Fprintf(&b, "| %d | %s | %s | %s | %s | %s |\n", r.Seq, both(r.Time), r.Kind, r.Step, r.Actor.User+"@"+r.Actor.Host, cell(r))
	}
	if n := len(j.records); n > 0 {
		fmt.Fprintf(&b, "\nJournal head: `%s`\n", j.records[n-1].Hash)
	}
	return b.String()
}

// cell is the members of a record in one cell of a table.
func cell(r *Record) string {
	var parts []string
	if r.RC != 0 {
		parts = append(parts, fmt.Sprintf("**failed (%d)**", r.RC))
	}
	if r.MS > 0 {
		parts = append(parts, (time.Duration(r.MS) * time.Millisecond).String())
	}
	for _, m := range []map[string]string{r.In, r.Out} {
		// G2 stands before G10.
		names := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
			if a[0] == 'G' && b[0] == 'G' && len(a) != len(b) {
				return len(a) - len(b)
			}
			return strings.Compare(a, b)
		})
		for _, name := range names {
			if name == "text" || name == "params" || m[name] == "" {
				continue
			}
			parts = append(parts, name+" "+m[name])
		}
	}
	return strings.NewReplacer("|", "\\|", "\n", " ").Replace(strings.Join(parts, "; "))
}
