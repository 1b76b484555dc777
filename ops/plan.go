package ops

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Plan is what a runbook would do now.
type Plan struct {
	Book   string
	Change string
	Params Params
	Steps  []Step
}

// plan makes a plan of a runbook and refuses one that cannot be journalled.
func plan(change string, book *Runbook, p Params) (Plan, error) {
	for name, value := range p {
		if secretName.MatchString(name) || redactText(value) != value {
			return Plan{}, Fail(Usage, fmt.Errorf("parameter %s of %s looks like a secret: plan and journal would hold it", name, book.Name), "put it into a file that only root can read, and name the file")
		}
	}
	out := Plan{Book: book.Name, Change: change, Params: p, Steps: book.Steps(p)}
	seen := map[string]bool{}
	for _, s := range out.Steps {
		if s.ID == "" || seen[s.ID] || s.Do == nil || s.Postcheck == nil {
			return Plan{}, fmt.Errorf("step %q of %s is not whole, or there twice", s.ID, book.Name)
		}
		seen[s.ID] = true
	}
	return out, nil
}

// discover makes the plan of a runbook from the world as it is.
func discover(ctx context.Context, change string, book *Runbook) (Plan, error) {
	p := Params{}
	if book.Discover != nil {
		var err error
		if p, err = book.Discover(ctx); err != nil {
			return Plan{}, err
		}
	}
	return plan(change, book, p)
}

// Text is the plan as it is shown and hashed.
func (p Plan) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Plan: %s, change %s\n", p.Book, p.Change)
	for _, name := range slices.Sorted(maps.Keys(p.Params)) {
		fmt.Fprintf(&b, "  %s: %s\n", name, p.Params[name])
	}
	var down time.Duration
	for i, s := range p.Steps {
		down += s.Downtime
		fmt.Fprintf(&b, "%3d. [%-5s] %-20s %s", i+1, s.Class, s.ID, s.Title)
		if s.Downtime > 0 {
			fmt.Fprintf(&b, "; down about %s", s.Downtime)
		}
		if s.Cost != "" {
			fmt.Fprintf(&b, "; cost %s", s.Cost)
		}
		if s.Always {
			b.WriteString("; also after a failure")
		}
		b.WriteByte('\n')
	}
	if len(p.Steps) == 0 {
		b.WriteString("  nothing to do\n")
	}
	fmt.Fprintf(&b, "Expected downtime: %s\n", down)
	return b.String()
}

// Line is a step as programs see it.
type Line struct {
	ID        string  `json:"id"`
	Class     Class   `json:"class"`
	Title     string  `json:"title"`
	DowntimeS float64 `json:"downtime_s"`
	Cost      string  `json:"cost"`
}

// Lines are the steps for --json.
func (p Plan) Lines() []Line {
	out := make([]Line, 0, len(p.Steps))
	for _, s := range p.Steps {
		out = append(out, Line{s.ID, s.Class, s.Title, s.Downtime.Seconds(), s.Cost})
	}
	return out
}

// Hash is "sha256:" and the hash of Text, in hex: what --plan takes.
func (p Plan) Hash() string {
	return "sha256:" + digestBytes([]byte(p.Text()))
}

// cleans says whether a failure leaves something to put back.
func (p Plan) cleans() bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Always })
}

// mutates says whether any step changes anything.
func (p Plan) mutates() bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return s.mutates() })
}

func digestBytes(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// digest is the hash of parts, in hex.
func digest(parts ...any) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = fmt.Fprintf(h, "%v\x00", p)
	}
	return hex.EncodeToString(h.Sum(nil))
}
