// Suite runs the suites of `make test` one after the other and prints a table:
// seconds, what passed, failed and was skipped, and why.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sort"
	"strings"
	"time"
)

type suite struct {
	name string
	args []string
}

// soak is the long form of the fault loops: only when it is named.
const soak = "soak"

var suites = []suite{
	{"format", []string{"sh", "-c", `out=$(.bin/gofumpt -l $(git ls-files '*.go')); test -z "$out" || { echo "not formatted: $out"; exit 1; }`}},
	{"lint", []string{".bin/golangci-lint", "run", "./..."}},
	{"no ignored inserts", []string{"sh", "-c", `! git grep -niE 'insert +(or +)?ignore' -- '*.go' '*.sql' ':!.ci'`}},
	{"dead code", []string{"sh", "-c", `out=$(.bin/deadcode -test ./... | grep -v mariadbtest); test -z "$out" || { echo "$out"; exit 1; }`}},
	{"unit", []string{"sh", "-c", `go test -json -timeout 10m $(go list ./... | grep -v /e2e)`}},
	{"e2e", []string{"go", "test", "-json", "-timeout", "15m", "-parallel", "8", "./cmd/gt06d/e2e"}},
	{"fuzz", []string{"make", "-s", "fuzz", "FUZZTIME=3s"}},
	{soak, []string{"env", "GT06_SOAK=1", "go", "test", "-json", "-timeout", "80m", "-parallel", "6", "./cmd/gt06d/e2e", "./storage/..."}},
	{"race", []string{"go", "test", "-json", "-race", "-timeout", "10m", "./server/...", "./storage/...", "./protocol/..."}},
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
	skips := map[string]string{}
	for _, s := range suites {
		if len(only) > 0 && !only[s.name] || len(only) == 0 && s.name == soak {
			continue
		}
		fmt.Printf("== %s\n", s.name)
		results = append(results, run(s, skips))
	}
	os.Exit(report(results, skips))
}

func run(s suite, skips map[string]string) result {
	r := result{name: s.name}
	begin := time.Now()
	cmd := exec.Command(s.args[0], s.args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	r.seconds = time.Since(begin).Seconds()
	r.ok = err == nil
	if !slices.Contains(s.args, "-json") && !strings.Contains(s.args[len(s.args)-1], "-json") {
		if r.ok {
			r.passed = 1
		} else {
			r.failed = 1
			fmt.Println(out.String())
		}
		return r
	}
	parse(&out, &r, skips)
	if !r.ok && r.failed == 0 {
		r.failed = 1
	}
	return r
}

type event struct{ Action, Package, Test, Output string }

// parse counts top-level tests and shows the output of those that failed.
func parse(out *bytes.Buffer, r *result, skips map[string]string) {
	text := map[string]*strings.Builder{}
	scan := bufio.NewScanner(out)
	scan.Buffer(nil, 1<<24)
	for scan.Scan() {
		var e event
		if json.Unmarshal(scan.Bytes(), &e) != nil {
			fmt.Println(scan.Text()) // the compiler speaks plainly
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
		case "skip":
			if e.Test != "" {
				r.skipped++
				skips[e.Package+" "+e.Test] = reason(text[key].String())
			}
		case "pass":
			if e.Test != "" && !sub {
				r.passed++
			}
		case "fail":
			if !sub {
				if e.Test != "" {
					r.failed++
				}
				fmt.Printf("FAIL %s\n%s\n", key, text[key])
			}
		}
	}
}

func reason(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if line := strings.TrimSpace(lines[i]); line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			return line
		}
	}
	return "no reason given"
}

func report(results []result, skips map[string]string) int {
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
	names := make([]string, 0, len(skips))
	for n := range skips {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		fmt.Printf("skipped: %s: %s\n", n, skips[n])
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if failed > 0 {
		return 1
	}
	return 0
}
