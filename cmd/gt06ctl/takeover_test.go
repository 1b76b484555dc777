package main

import (
	"bytes"
	"strings"
	"testing"

	"gt06/ops"
)

// TestTakeoverWithOpsIsGated: where ops is configured there is one way only, with
// a change and its snapshot.
func TestTakeoverWithOpsIsGated(t *testing.T) {
	t.Parallel()
	_, site := guarded(t)
	o := newOperator(t, site)
	for _, args := range [][]string{{"takeover"}, {"takeover", "--apply"}, {"takeover", "--back", "--apply"}} {
		var out, say bytes.Buffer
		code := run(append(args, "--ops-config", o.config), strings.NewReader(""), &out, &say)
		if code != int(ops.Refused) || !strings.Contains(say.String(), "no change is open") {
			t.Errorf("%q: exit %d, %s", args, code, &say)
		}
	}
}

// TestPasteKeepsWhatChangesTheMeaning: the command to paste behind a plan is the
// same one.
func TestPasteKeepsWhatChangesTheMeaning(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"gt06ctl takeover --plan --back":                      "gt06ctl takeover --back --apply",
		"gt06ctl takeover --plan=sha256:00 --yes --watch 10m": "gt06ctl takeover --watch 10m --apply",
		"gt06ctl ops restart --plan sha256:00 nginx --apply":  "gt06ctl ops restart nginx --apply",
		"gt06ctl ops run --apply -- touch --plan":             "gt06ctl ops run --apply -- touch --plan",
	} {
		if got := pasteable(strings.Fields(line), "--apply"); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}
