// Package bench measures the server beside a reference in the same run: the
// goals of PERFORMANCE.md section 1, each with the figure it is compared with.
// On a machine that others use, too, ratios mean something and times do not.
package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"
)

// Options of a run.
type Options struct {
	Server  string   // path of gt06d
	Only    string   // regular expression: names of the figures wanted; "": all
	Quick   bool     // shorter and smaller: to see that it works
	Vectors []string // files of frames for the mixed stream, JSON lines with a member hex
	Socket  string   // of a MariaDB where root has no password; "": its figures are left out
	Out     string   // directory for the table, the plots and results.json; "": none
	Compare string   // results.json of an earlier run
	Rows    int      // of the large table; 0: it is left out
}

// Figure is one line of the table.
type Figure struct {
	Name      string  `json:"name"`
	Value     float64 `json:"value"`
	Unit      string  `json:"unit"`
	Reference string  `json:"reference,omitempty"` // what it is compared with
	Beside    float64 `json:"beside,omitempty"`    // the reference's value, in the same unit
	Ratio     float64 `json:"ratio,omitempty"`     // Value / Beside
	Goal      string  `json:"goal,omitempty"`
	Met       *bool   `json:"met,omitempty"` // null: no goal
	Note      string  `json:"note,omitempty"`
}

// bench is a run.
type bench struct {
	ctx     context.Context //nolint:containedctx // the lifetime of the run
	opt     Options
	dir     string // for what the run writes: on the disk that is measured
	say     func(format string, args ...any)
	figures []Figure
	plots   []plot

	newReference func() (*target, error) // nil: no compiler
	durable      float64                 // answers a second of the whole server, when measured
}

// group is what is measured together.
type group struct {
	name string
	run  func(*bench) error
}

func groups() []group {
	return []group{
		{"decode", (*bench).decode},
		{"start", (*bench).start},
		{"memory", (*bench).memory},
		{"cpu", (*bench).answers},
		{"storm", (*bench).storm},
		{"durable", (*bench).durably},
		{"latency", (*bench).latency},
		{"rows", (*bench).rows},
		{"large", (*bench).large},
	}
}

// Run measures and prints the table to out; progress goes to progress.
func Run(ctx context.Context, opt Options, out, progress io.Writer, asJSON bool) error {
	only, err := regexp.Compile(opt.Only)
	if err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	before, err := earlier(opt.Compare) // the results may be written to the same file
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(opt.Out, "gt06-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	begin := time.Now()
	b := &bench{ctx: ctx, opt: opt, dir: dir, say: func(format string, args ...any) {
		fmt.Fprintf(progress, "%4.0f s  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}}
	if b.newReference, err = b.reference(); err != nil {
		return err
	}
	if b.newReference == nil {
		b.say("no C compiler (cc): the bare epoll server is left out")
	}
	for _, g := range groups() {
		if !only.MatchString(g.name) || ctx.Err() != nil {
			continue
		}
		b.say("%s", g.name)
		if err := g.run(b); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
	}
	if err := b.write(); err != nil {
		return err
	}
	if asJSON {
		err, out = json.NewEncoder(out).Encode(b.figures), io.Discard
	} else {
		err = b.table(out)
	}
	if err != nil || opt.Compare == "" {
		return err
	}
	return compare(out, before, b.figures)
}

// note adds a figure.
func (b *bench) note(f Figure) {
	if f.Beside != 0 {
		f.Ratio = f.Value / f.Beside
	}
	b.figures = append(b.figures, f)
}

// atMost and atLeast are goals.
func atMost(v, limit float64) *bool  { met := v <= limit; return &met }
func atLeast(v, limit float64) *bool { met := v >= limit; return &met }

func (b *bench) table(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "figure\tvalue\treference\t\tratio\tgoal\t")
	for i := range b.figures {
		f := &b.figures[i]
		beside, ratio := "", ""
		if f.Beside != 0 {
			beside, ratio = round(f.Beside), fmt.Sprintf("%.2f", f.Ratio)
		}
		fmt.Fprintf(w, "%s\t%s %s\t%s\t%s\t%s\t%s\t%s\n", f.Name, round(f.Value), f.Unit, f.Reference, beside, ratio, f.Goal, f.verdict())
	}
	return w.Flush()
}

func (f *Figure) verdict() string {
	s := f.Note
	if f.Met != nil && !*f.Met {
		s = strings.TrimSpace("SHORT " + s)
	}
	return s
}

// round gives three digits.
func round(v float64) string {
	if v == 0 || math.Abs(v) >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.*f", max(0, 2-int(math.Floor(math.Log10(math.Abs(v))))), v)
}

// write leaves the results for others to read.
func (b *bench) write() error {
	if b.opt.Out == "" {
		return nil
	}
	var md strings.Builder
	md.WriteString("| figure | value | reference | beside | ratio | goal | |\n|---|---|---|---|---|---|---|\n")
	for i := range b.figures {
		f := &b.figures[i]
		fmt.Fprintf(&md, "| %s | %s %s | %s | %s | %.2f | %s | %s |\n", f.Name, round(f.Value), f.Unit, f.Reference, round(f.Beside), f.Ratio, f.Goal, f.verdict())
	}
	results, err := json.MarshalIndent(b.figures, "", "\t")
	if err != nil {
		return err
	}
	files := map[string][]byte{"bench.md": []byte(md.String()), "results.json": results}
	for _, p := range b.plots {
		files[p.file+".svg"] = p.svg()
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(b.opt.Out, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
