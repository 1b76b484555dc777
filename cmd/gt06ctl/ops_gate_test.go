package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gt06/ops/cloud"
	"gt06/ops/cloud/fake"
)

// TestRefusedAndNothingChanged: what a tired hand takes for a snapshot of this
// change. The command is refused with 3 and the check's id, neither the machine
// nor production is touched, and what is to be typed next is said.
func TestRefusedAndNothingChanged(t *testing.T) {
	t.Parallel()
	ist := time.FixedZone("IST", 5*3600+1800)
	put := func(a *fake.AWS, site fake.Site, id string, spoil func(s *fake.Snapshot)) {
		s := fake.Snapshot{Volume: site.Volume, Age: 10 * time.Minute, Tags: map[string]string{cloud.TagInstance: site.Instance, cloud.TagChange: id}}
		spoil(&s)
		date := time.Now().Add(-s.Age).In(ist).Format(time.DateOnly)
		s.Tags["Name"], s.Description = "prod-root-"+date+"-before-os-update", date+": security updates of November"
		a.PutSnapshot(s)
	}
	good := func(*fake.Snapshot) {}
	cases := []struct {
		situation string
		id        string
		do        func(a *fake.AWS, site fake.Site, change string)
		stops     bool
	}{
		{"no snapshot", "G1", func(*fake.AWS, fake.Site, string) {}, false},
		{"another change's snapshot", "G1", func(a *fake.AWS, s fake.Site, _ string) { put(a, s, "c-20261101-01", good) }, false},
		{"snapshot in error", "G1", func(a *fake.AWS, s fake.Site, c string) { put(a, s, c, func(s *fake.Snapshot) { s.State = "error" }) }, false},
		{"wrong volume", "G2", func(a *fake.AWS, s fake.Site, c string) {
			put(a, s, c, func(s *fake.Snapshot) { s.Volume = "vol-0dada000000000001" })
		}, false},
		{"another instance's", "G3", func(a *fake.AWS, s fake.Site, c string) {
			put(a, s, c, func(s *fake.Snapshot) { s.Tags[cloud.TagInstance] = "i-0fedcba9876543210" })
		}, false},
		{"stale snapshot", "G6", func(a *fake.AWS, s fake.Site, c string) {
			put(a, s, c, func(s *fake.Snapshot) { s.Age = 5 * time.Hour })
		}, false},
		{"clock skew", "G6", func(a *fake.AWS, s fake.Site, c string) { put(a, s, c, good); a.Skew = 3 * time.Minute }, false},
		{"automated snapshot", "G7", func(a *fake.AWS, s fake.Site, c string) {
			put(a, s, c, func(s *fake.Snapshot) { s.Tags["aws:backup:source-resource"] = "x" })
		}, false},
		{"public snapshot", "G8", func(a *fake.AWS, s fake.Site, c string) { put(a, s, c, func(s *fake.Snapshot) { s.Shared = true }) }, false},
		{"no Recycle Bin", "G9", func(a *fake.AWS, s fake.Site, c string) { put(a, s, c, good); a.Protect(nil, nil, nil) }, true},
		{"lost Elastic IP", "G10", func(a *fake.AWS, s fake.Site, c string) { put(a, s, c, good); a.PutAddress(s.Allocation, s.IP, "") }, false},
	}
	for _, c := range cases {
		t.Run(c.situation, func(t *testing.T) {
			t.Parallel()
			a, site := guarded(t)
			o := newOperator(t, site)
			action := "os-update"
			if c.stops {
				action = "ssh-fix"
			}
			change := o.open(action, "security updates of November")
			c.do(a, site, change)
			before := changes(a)
			touched := filepath.Join(t.TempDir(), "touched")
			args := []string{"run", "--", "touch", touched}
			if c.stops {
				args = []string{"ssh-recover"}
			}
			code, text := o.attempt(args...)
			if code != 3 || !strings.Contains(text, c.id+" ") || !strings.Contains(text, "wanted") || !strings.Contains(text, "hint: ") {
				t.Errorf("exit code %d, want 3 by %s: %s", code, c.id, text)
			}
			if n := changes(a) - before; n != 0 {
				t.Errorf("%d calls changed production", n)
			}
			if _, err := os.Stat(touched); err == nil {
				t.Error("the command ran")
			}
			// The refusal is in the journal, and the change can go on.
			if report := o.must(0, "change", "show"); !strings.Contains(report, c.id+" NO: ") {
				t.Errorf("the journal does not tell: %s", report)
			}
		})
	}
	t.Run("good", func(t *testing.T) {
		t.Parallel()
		a, site := guarded(t)
		o := newOperator(t, site)
		put(a, site, o.open("os-update", "security updates of November"), good)
		touched := filepath.Join(t.TempDir(), "touched")
		if code, text := o.attempt("run", "--", "touch", touched); code != 0 {
			t.Errorf("exit code %d: %s", code, text)
		}
		if _, err := os.Stat(touched); err != nil {
			t.Error(err)
		}
	})
}

// TestKilledBetweenEffectAndRecord kills gt06ctl at every place of the other
// runbooks, also between an effect and its record, again and again, until one
// process comes to the end: each effect is there once.
func TestKilledBetweenEffectAndRecord(t *testing.T) {
	t.Parallel()
	for _, book := range []struct {
		action string
		args   []string
		calls  map[string]int
	}{
		{"other", []string{"snapshot", "create"}, map[string]int{"ec2:CreateSnapshot": 1}},
		{"kernel", []string{"ami", "create"}, map[string]int{"ec2:CreateImage": 1, "ec2:CreateSnapshot": 1}},
		{"migrate", []string{"snapshot", "lock", "--days", "30"}, map[string]int{"ec2:LockSnapshot": 1, "ec2:CreateSnapshot": 1}},
		{"other", []string{"abort"}, map[string]int{"ec2:CreateSnapshot": 2}},
		{"disk-resize", []string{"resize", "volume", "--size", "40", "--mode", "stop"}, map[string]int{"ec2:ModifyVolume": 1, "ec2:StopInstances": 1, "ec2:StartInstances": 1}},
		{"ssh-fix", []string{"ssh-recover"}, map[string]int{"ec2:RunInstances": 1, "ec2:TerminateInstances": 1, "ec2:StopInstances": 1}},
		{"other", []string{"restore", "instance", "--guest", "ssm"}, map[string]int{"ec2:CreateVolume": 1, "ec2:StopInstances": 1}},
	} {
		t.Run(strings.Join(book.args, " "), func(t *testing.T) {
			t.Parallel()
			a, site := guarded(t)
			a.Guest = func(string, string) (int, string, string) { return 0, `{"imported":1}`, "" }
			o := newOperator(t, site)
			o.open(book.action, "killed at every place there is")
			if book.args[0] != "snapshot" || book.args[1] != "create" {
				o.done("snapshot", "create")
			}
			// Three records a step: gate, intent, result; and the place between the
			// last two. A process gets at most as far as its number.
			points := []string{"record:1", "record:2", "did:1", "record:3"}
			code, text := o.apply("GT06_FAILPOINT=record:2", book.args...)
			kills := 0
			for ; code == -1; kills++ {
				if kills > 200 {
					t.Fatal("it does not come to an end")
				}
				_, out, say := o.ops("GT06_FAILPOINT="+points[kills%len(points)], "change", "resume")
				text = out + say
				code = 0
				if strings.Contains(o.must(0, "change", "list", "--json"), `"unfinished"`) {
					code = -1
				}
			}
			if code != 0 {
				t.Fatalf("exit code %d: %s", code, text)
			}
			for action, want := range book.calls {
				if n := a.Changes(action); n != want {
					t.Errorf("%s was called %d times, want %d (killed %d times)", action, n, want, kills)
				}
			}
			for _, i := range a.Instances(nil) {
				if i.Tags[cloud.TagRole] != "" && i.State != "terminated" {
					t.Errorf("a helper lives: %+v", i)
				}
			}
			o.must(0, "verify-journal")
			t.Logf("killed %d times", kills)
		})
	}
}

// TestACommandThatWasInterrupted: nobody can see whether the operator's own
// command was done; a resume asks.
func TestACommandThatWasInterrupted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		answer string
		lines  int
	}{{"--skip", 1}, {"--redo", 2}} {
		_, site := guarded(t)
		o := newOperator(t, site)
		o.open("other", "a command of my own")
		o.done("snapshot", "create")
		log := filepath.Join(t.TempDir(), "log")
		if code, text := o.try("GT06_FAILPOINT=did:1", "run", "--", "sh", "-c", "echo done >> "+log); code != -1 {
			t.Fatalf("exit code %d: %s", code, text)
		}
		if text := o.must(6, "change", "resume"); !strings.Contains(text, "--skip") || !strings.Contains(text, "--redo") {
			t.Errorf("it does not ask: %s", text)
		}
		o.must(0, "change", "resume", c.answer)
		if b, err := os.ReadFile(log); err != nil || strings.Count(string(b), "done") != c.lines {
			t.Errorf("%s: %q, %v", c.answer, b, err)
		}
		o.must(0, "verify-journal")
	}
}

// TestAJournalIsProven: a record altered, removed, cut off, here or in the
// bucket, is found by the program, exit code 12, and nothing goes on in it.
func TestAJournalIsProven(t *testing.T) {
	t.Parallel()
	for name, tamper := range map[string]func(lines []string) []string{
		"altered":   func(l []string) []string { l[1] = strings.Replace(l[1], `"rc":0`, `"rc":1`, 1); return l },
		"removed":   func(l []string) []string { return append(l[:1], l[2:]...) },
		"cut off":   func(l []string) []string { return l[:len(l)-1] },
		"cut short": func(l []string) []string { l[len(l)-1] = l[len(l)-1][:40]; return l },
		"swapped":   func(l []string) []string { l[1], l[2] = l[2], l[1]; return l },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, site := guarded(t)
			o := newOperator(t, site)
			id := o.open("other", "somebody edits the journal")
			o.done("snapshot", "create")
			path := filepath.Join(filepath.Dir(o.config), "journal", id+".jsonl")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := tamper(strings.SplitAfter(strings.TrimSuffix(string(b), "\n"), "\n"))
			if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{"verify-journal"}, {"change", "show", id}, {"run", "--change", id, "--", "true"}, {"change", "close", id}} {
				if code, out, say := o.ops("", args...); code != 12 {
					t.Errorf("%v: exit code %d: %s%s", args, code, out, say)
				}
			}
		})
	}
}

// TestASnapshotOfTheConsole is adopted: its missing tag is forgiven, nothing
// else is.
func TestASnapshotOfTheConsole(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{true, false} {
		a, site := guarded(t)
		o := newOperator(t, site)
		o.open("other", "made in the console")
		date := time.Now().In(time.FixedZone("IST", 5*3600+1800)).Format(time.DateOnly)
		s := fake.Snapshot{Volume: site.Volume, Description: date + ": made in the console", Tags: map[string]string{cloud.TagInstance: site.Instance}}
		if named {
			s.Tags["Name"] = "prod-root-" + date + "-before-other"
		}
		id := a.PutSnapshot(s)
		o.must(3, "snapshot", "adopt", "snap-0123456789abcdef0")
		if code, text := o.attempt("run", "--", "true"); code != 3 {
			t.Errorf("not adopted: exit code %d: %s", code, text)
		}
		o.must(0, "snapshot", "adopt", id)
		code, text := o.attempt("run", "--", "true")
		if named && code != 0 || !named && (code != 3 || !strings.Contains(text, "G4")) {
			t.Errorf("named %v: exit code %d: %s", named, code, text)
		}
	}
}
