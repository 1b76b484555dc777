package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"gt06/ops"
	"gt06/ops/sop"
)

// looksOnly are the commands below ops that run no runbook, each with what it
// may change at most.
var looksOnly = map[string]string{
	"change open":     "the journal and the lock",
	"change show":     "nothing",
	"change list":     "nothing",
	"change resume":   "what a confirmed plan began, behind the same gate",
	"change close":    "the journal and the lock",
	"change abandon":  "the journal and the lock",
	"change approve":  "the journal",
	"verify-journal":  "nothing",
	"sop":             "nothing",
	"preflight":       "the journal",
	"validate":        "the journal",
	"port":            "nothing",
	"audit":           "nothing",
	"cost":            "nothing",
	"init":            "a configuration file that was not there",
	"selftest":        "nothing: reads and DryRun",
	"snapshot adopt":  "the journal",
	"snapshot list":   "nothing",
	"snapshot verify": "nothing",
	"machine":         "nothing",
	"backup db":       "a new backup: it runs from cron, without a change",
	"backup files":    "a new backup: it runs from cron, without a change",
	"backup list":     "nothing",
	"backup verify":   "a MariaDB of its own that it throws away",
	"backup extract":  "a directory that was not there",
}

// protects are the mutating commands that make a copy and harm nothing: the
// gate's snapshot is not asked for, all the rest is.
var protects = []string{"snapshot create", "snapshot lock", "ami create", "abort"}

func opsTree(t *testing.T) (*opsTool, *cobra.Command, map[string]*cobra.Command) {
	t.Helper()
	o, root := (&tool{}).opsTree()
	leaves := map[string]*cobra.Command{}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if !c.HasSubCommands() {
			leaves[strings.TrimPrefix(c.CommandPath(), "ops ")] = c
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return o, root, leaves
}

// TestEveryMutatingCommandIsGated walks the tree: what is not on the list of
// those that look is made by mutating, so change, plan, confirmation and gate
// are before it; and the list of those that need no snapshot is short.
func TestEveryMutatingCommandIsGated(t *testing.T) {
	t.Parallel()
	o, _, leaves := opsTree(t)
	if len(leaves) < 10 {
		t.Fatalf("only %d commands", len(leaves))
	}
	for path, c := range leaves {
		book, mutating := o.books[c]
		if _, looks := looksOnly[path]; looks == mutating {
			t.Errorf("ops %s: looks only %v, mutating %v", path, looks, mutating)
			continue
		}
		if !mutating {
			continue
		}
		b := book(&opsWork{}, nil)
		if b.Name != path {
			t.Errorf("ops %s has the runbook of %q: a resume would not find it", path, b.Name)
		}
		if b.Protects != slices.Contains(protects, path) {
			t.Errorf("ops %s: passes without a snapshot %v", path, b.Protects)
		}
		if b.Steps == nil {
			t.Errorf("ops %s has no steps", path)
		}
	}
}

// TestNoChangeNoCloud runs every mutating command without an open change:
// refused with 3, at once, with and without --apply, and no cloud is asked.
func TestNoChangeNoCloud(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	dir := t.TempDir()
	config := filepath.Join(dir, "ops.yaml")
	if err := os.WriteFile(config, []byte("aws: {region: ap-south-1, instance_id: i-0ae922662c241c912, eip_allocation_id: eipalloc-1}\njournal: {dir: "+dir+"/journal}\nlock: {file: "+dir+"/lock}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, root, _ := opsTree(t)
	asked := false
	o.connect = func(context.Context, *opsWork) error { asked = true; return errors.New("asked") }
	root.SetOut(io.Discard)
	root.SetErr(io.Discard)
	root.SilenceErrors, root.SilenceUsage = true, true
	for c := range o.books {
		path := strings.TrimPrefix(c.CommandPath(), "ops ")
		for _, more := range [][]string{nil, {"--apply"}, {"--apply", "--yes", "--plan", "sha256:0"}} {
			args := append(strings.Fields(path), "--config", config)
			root.SetArgs(append(append(args, needed[path]...), more...))
			began := time.Now()
			err := root.ExecuteContext(t.Context())
			if code := int(ops.KindOf(err)); code != int(ops.Refused) || time.Since(began) > 20*time.Second {
				t.Errorf("ops %s %v: exit code %d, %v, after %v", path, more, code, err, time.Since(began))
			}
			o.apply, o.yes, o.plan = false, false, ""
		}
	}
	if asked {
		t.Error("the cloud was asked")
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "journal")); err == nil && len(entries) > 0 {
		t.Errorf("the journal has %v", entries)
	}
}

// needed are flags without which a command is a usage error.
var needed = map[string][]string{}

// TestNoCommandDeletesASnapshot: there is no verb for it anywhere.
func TestNoCommandDeletesASnapshot(t *testing.T) {
	t.Parallel()
	_, root, _ := opsTree(t)
	bad := regexp.MustCompile(`(?i)delete|remove|purge|destroy|deregister|unlock|prune|expire|release|disassociate`)
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if names := append([]string{c.Name()}, c.Aliases...); slices.ContainsFunc(names, bad.MatchString) {
			t.Errorf("%s", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	// Whoever tries is told why.
	for _, args := range [][]string{{"snapshot", "delete"}, {"snapshot", "delete", "snap-1"}, {"snapshot", "unlock"}, {"ami", "deregister"}} {
		_, root, _ := opsTree(t)
		root.SetArgs(args)
		root.SilenceErrors, root.SilenceUsage = true, true
		if err := root.ExecuteContext(t.Context()); int(ops.KindOf(err)) != int(ops.Forbidden) {
			t.Errorf("ops %v: %v", args, err)
		}
	}
}

func TestTheCommandToPaste(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"gt06ctl ops run --apply -- sh -c 'echo it'\\''s done'":              {"/usr/bin/gt06ctl", "ops", "run", "--json", "--", "sh", "-c", "echo it's done"},
		"gt06ctl ops resize volume --size 40 --change c-20261122-01 --apply": {"gt06ctl", "ops", "resize", "volume", "--size", "40", "--plan", "sha256:0", "--yes", "--change", "c-20261122-01", "--apply"},
		"gt06ctl ops abort --apply":                                          {"gt06ctl", "ops", "abort", "--plan"},
	} {
		if got := pasteable(args, "--apply"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestTheDocumentsNameOurCommands: what the re-issued documents tell to type is
// there, with its flags.
func TestTheDocumentsNameOurCommands(t *testing.T) {
	t.Parallel()
	command := regexp.MustCompile(`gt06ctl ops ([a-z0-9 -]+?)(?:"[^"]*"| --| [A-Z]|\x60|$|\n)`)
	for _, doc := range sop.Documents() {
		for line := range strings.Lines(doc) {
			for _, m := range command.FindAllStringSubmatch(line, -1) {
				_, root, _ := opsTree(t)
				c, rest, err := root.Find(strings.Fields(m[1]))
				if err != nil || len(rest) > 0 && c.HasSubCommands() || c == root {
					t.Errorf("%q: there is no ops %s", strings.TrimSpace(line), m[1])
					continue
				}
				for _, flag := range regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(line, -1) {
					if strings.HasPrefix(line, "    ") && c.Flags().Lookup(flag[1]) == nil && c.InheritedFlags().Lookup(flag[1]) == nil {
						t.Errorf("%q: ops %s has no --%s", strings.TrimSpace(line), m[1], flag[1])
					}
				}
			}
		}
	}
}

// TestEveryHintIsACommand: what refusals and help tell to paste is there.
func TestEveryHintIsACommand(t *testing.T) {
	t.Parallel()
	hint := regexp.MustCompile(`gt06ctl ops ([a-z-]+(?: [a-z-]+)?)`)
	_, root, _ := opsTree(t)
	n := 0
	for _, dir := range []string{".", "../../ops", "../../ops/runbook", "../../ops/host", "../../ops/backup", "../../ops/cloud"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range hint.FindAllStringSubmatch(string(b), -1) {
				if prose := []string{"it", "works", "needs", "--help"}; slices.Contains(prose, strings.Fields(m[1])[0]) {
					continue
				}
				n++
				if c, rest, err := root.Find(strings.Fields(m[1])); err != nil || c == root || c.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
					t.Errorf("%s: there is no gt06ctl ops %s", file, m[1])
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d hints were looked at", n)
	}
}
