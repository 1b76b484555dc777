// Suite runs the suites of `make test` one after the other and prints a table:
// seconds, what passed, failed and was skipped, and why.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// suite is a command, or tests of Go with their flags and packages.
type suite struct {
	name     string
	args     []string
	packages []string // behind args, for tests of Go
}

// soak is the long form of the fault loops: only when it is named.
const soak = "soak"

const e2e = "./cmd/gt06d/e2e"

// The decoder and the log on another processor, without the two tests of the log
// that take half a minute each there.
const (
	arm64 = "arm64"
	qemu  = "qemu-aarch64-static"
	slow  = "PowerLoss|FlippedByte"
)

var suites = []suite{
	{name: "format", args: []string{"sh", "-c", `out=$(.bin/gofumpt -l $(git ls-files '*.go')); test -z "$out" || { echo "not formatted: $out"; exit 1; }`}},
	{name: "lint", args: []string{".bin/golangci-lint", "run", "./..."}},
	{name: "no ignored inserts", args: []string{"sh", "-c", `! git grep -niE 'insert +(or +)?ignore' -- '*.go' '*.sql' ':!.ci'`}},
	{name: "dead code", args: []string{"sh", "-c", `out=$(.bin/deadcode -test ./... | grep -v mariadbtest); test -z "$out" || { echo "$out"; exit 1; }`}},
	{name: "unit", args: []string{"go", "test", "-json", "-timeout", "15m"}, packages: without(e2e)},
	{name: "e2e", args: []string{"go", "test", "-json", "-timeout", "30m", "-parallel", "8"}, packages: []string{e2e}},
	{name: arm64, args: []string{"env", "GOARCH=arm64", "CGO_ENABLED=0", "go", "test", "-json", "-timeout", "15m", "-exec", qemu, "-skip", slow}, packages: []string{"./protocol", "./storage/spool"}},
	{name: "other systems", args: []string{"make", "-s", "elsewhere"}},
	{name: "fuzz", args: []string{"make", "-s", "fuzz", "FUZZTIME=3s"}},
	{name: soak, args: []string{"env", "GT06_SOAK=1", "go", "test", "-json", "-timeout", "80m", "-parallel", "6"}, packages: []string{e2e, "./storage/..."}},
	{name: "race", args: []string{"go", "test", "-json", "-race", "-timeout", "15m"}, packages: []string{"./server/...", "./storage/...", "./protocol/..."}},
}

// without returns all packages but one.
func without(one string) []string {
	out, err := exec.Command("go", "list", "./...").Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "go list:", err)
		os.Exit(1)
	}
	return slices.DeleteFunc(strings.Fields(string(out)), func(p string) bool { return strings.HasSuffix(p, strings.TrimPrefix(one, ".")) })
}

type result struct {
	name                    string
	seconds                 float64
	passed, failed, skipped int
	ok                      bool
}

func main() {
	only := map[string]bool{}
	for _, a := range os.Args[1:] {
		only[a] = true
	}
	var results []result
	notes := notes{skipped: map[string]string{}, again: map[string]string{}}
	for _, s := range suites {
		if len(only) > 0 && !only[s.name] || len(only) == 0 && s.name == soak {
			continue
		}
		fmt.Printf("== %s\n", s.name)
		if _, err := exec.LookPath(qemu); s.name == arm64 && err != nil && os.Getenv("CI") == "" {
			notes.skipped[arm64] = "NOTHING IS TESTED ON ARM64: qemu-user-static is not installed"
			continue
		}
		results = append(results, run(s, notes))
	}
	os.Exit(report(results, notes))
}

// notes are what the table says of single tests.
type notes struct {
	skipped map[string]string // why
	again   map[string]string // what it said when it failed first
}

func run(s suite, n notes) result {
	r := result{name: s.name}
	begin := time.Now()
	if len(s.packages) == 0 {
		var out []byte
		out, r.ok = output(s.args)
		if r.passed = 1; !r.ok {
			r.passed, r.failed = 0, 1
			fmt.Println(string(out))
		}
		r.seconds = time.Since(begin).Seconds()
		return r
	}
	out, ok := output(append(slices.Clone(s.args), s.packages...))
	o := parse(out)
	r.passed, r.ok = o.passed, ok
	r.skipped = len(o.skipped)
	maps.Copy(n.skipped, o.skipped)
	for key, text := range o.failed {
		if again(s, key, text, o) {
			n.again[key] = text
			r.passed++
			continue
		}
		r.failed++
		fmt.Printf("FAIL %s\n%s\n", key, text)
	}
	if r.ok = ok || r.failed == 0 && len(o.failed) > 0; !r.ok && r.failed == 0 {
		r.failed = 1
		fmt.Println(o.rest)
	}
	r.seconds = time.Since(begin).Seconds()
	return r
}

func output(args []string) ([]byte, bool) {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	return out, err == nil
}

const (
	// promise marks what no second run makes good: something was lost, doubled,
	// or noticed by a device.
	promise = "a promise is broken"
	// forgiven is how many tests of a suite may fail at first: a machine that is
	// busy for a moment makes few of them late, a bug as many as it likes.
	forgiven = 3
)

// again runs a failed test twice more, alone, and says whether both were good.
// A test that waits for other programs may be late on a machine that does
// something else; it is named in the table all the same. A broken promise, a
// panic and a race stay what they are.
func again(s suite, key, text string, o outcome) bool {
	pkg, test, _ := strings.Cut(key, " ")
	if test == "" || len(o.failed) > forgiven || o.died {
		return false
	}
	for _, never := range []string{promise, "panic: ", "DATA RACE"} {
		if strings.Contains(text, never) {
			return false
		}
	}
	fmt.Printf("again, alone: %s\n", key)
	for range 2 {
		if out, ok := output(append(slices.Clone(s.args), "-count=1", "-run", "^"+test+"$", pkg)); !ok {
			fmt.Println(parse(out).failed[key])
			return false
		}
	}
	return true
}

type event struct{ Action, Package, Test, Output string }

// outcome of top-level tests, by package and name.
type outcome struct {
	passed          int
	failed, skipped map[string]string
	died            bool   // a package ended early: some of its tests did not run
	rest            string // of packages and the compiler
}

func parse(out []byte) outcome {
	o := outcome{failed: map[string]string{}, skipped: map[string]string{}}
	text := map[string]*strings.Builder{}
	var rest strings.Builder
	scan := bufio.NewScanner(bytes.NewReader(out))
	scan.Buffer(nil, 1<<24)
	for scan.Scan() {
		var e event
		if json.Unmarshal(scan.Bytes(), &e) != nil {
			rest.WriteString(scan.Text() + "\n") // the compiler speaks plainly
			continue
		}
		top, _, sub := strings.Cut(e.Test, "/")
		key := e.Package + " " + top
		if text[key] == nil {
			text[key] = &strings.Builder{}
		}
		switch e.Action {
		case "output", "build-output":
			text[key].WriteString(e.Output)
			if e.Test == "" {
				rest.WriteString(e.Output)
			}
			if strings.HasPrefix(e.Output, "panic: ") || strings.HasPrefix(e.Output, "fatal error: ") {
				o.died = true
			}
		case "skip":
			if e.Test != "" {
				o.skipped[e.Package+" "+e.Test] = reason(text[key].String())
			}
		case "pass":
			if e.Test != "" && !sub {
				o.passed++
			}
		case "fail":
			if e.Test != "" && !sub {
				o.failed[key] = text[key].String()
			}
		}
	}
	o.rest = rest.String()
	return o
}

func reason(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	for _, line := range slices.Backward(lines) {
		if line := strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			return line
		}
	}
	return "no reason given"
}

func report(results []result, n notes) int {
	fmt.Printf("\n%-20s %8s %7s %7s %8s\n", "suite", "seconds", "passed", "failed", "skipped")
	var passed, failed, skipped int
	for _, r := range results {
		mark := ""
		if !r.ok {
			mark = "  FAILED"
		}
		fmt.Printf("%-20s %8.1f %7d %7d %8d%s\n", r.name, r.seconds, r.passed, r.failed, r.skipped, mark)
		passed, failed, skipped = passed+r.passed, failed+r.failed, skipped+r.skipped
	}
	for _, name := range slices.Sorted(maps.Keys(n.skipped)) {
		fmt.Printf("skipped: %s: %s\n", name, n.skipped[name])
	}
	for _, name := range slices.Sorted(maps.Keys(n.again)) {
		fmt.Printf("FAILED FIRST, then passed twice alone: %s\n%s\n", name, n.again[name])
	}
	fmt.Printf("%d passed, %d failed, %d skipped, %d only when run again\n", passed, failed, skipped, len(n.again))
	if failed > 0 {
		return 1
	}
	return 0
}
