package ops

import (
	"fmt"
	"io"
	"strings"
)

// Check is one question: yes, or no with the value seen, the value wanted and
// the command that mends it.
type Check struct {
	ID   string `json:"id"` // G1 … G11, P1 … of the gate and the preflight
	OK   bool   `json:"ok"`
	Text string `json:"text"` // the question
	Seen string `json:"seen"`
	Want string `json:"want"`
	Next string `json:"next,omitempty"` // the command to paste; "" when it is yes
}

// Checks is a set of them: what a gate or a preflight is made of.
type Checks []Check

// OK says whether all are yes.
func (c Checks) OK() bool { return len(c.Failed()) == 0 }

// Failed returns those that are no.
func (c Checks) Failed() Checks {
	var out Checks
	for _, one := range c {
		if !one.OK {
			out = append(out, one)
		}
	}
	return out
}

// Print writes one line a check, and under each that is no what is wanted and
// the next command.
func (c Checks) Print(w io.Writer) {
	for _, one := range c {
		mark := "ok"
		if !one.OK {
			mark = "NO"
		}
		_, _ = fmt.Fprintf(w, "%-3s %-3s %s: %s\n", mark, one.ID, one.Text, one.Seen)
		if !one.OK {
			_, _ = fmt.Fprintf(w, "        wanted: %s\n", one.Want)
			if one.Next != "" {
				_, _ = fmt.Fprintf(w, "        next:   %s\n", one.Next)
			}
		}
	}
}

// refusal makes an error of the checks that are no, nil when there are none.
func (c Checks) refusal(kind Kind, what string) error {
	failed := c.Failed()
	if len(failed) == 0 {
		return nil
	}
	lines := make([]string, 0, len(failed))
	var next []string
	for _, one := range failed {
		lines = append(lines, fmt.Sprintf("%s %s: %s, wanted %s", one.ID, one.Text, one.Seen, one.Want))
		if one.Next != "" {
			next = append(next, one.Next)
		}
	}
	return Fail(kind, fmt.Errorf("%s refused: %s", what, strings.Join(lines, "; ")), next...)
}
