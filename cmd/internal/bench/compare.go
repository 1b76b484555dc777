package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"text/tabwriter"
)

// ErrApart means that ratios of two runs differ by more than Apart, so at least one of the
// runs was not alone on its machine.
var ErrApart = errors.New("gt06/bench: the runs do not agree")

// Apart is how far the ratios of two runs may be from each other.
const Apart = 0.15

// earlier reads the results of another run; none are named by "".
func earlier(path string) (figures []Figure, err error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &figures); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return figures, nil
}

// compare sets the ratios beside those of an earlier run, and says whether all
// of them agree.
func compare(out io.Writer, before, now []Figure) error {
	then := map[string]float64{}
	for i := range before {
		then[before[i].Name] = before[i].Ratio
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "\nratio\tthen\tnow\tchange")
	both, apart := 0, []string{}
	for i := range now {
		f := &now[i]
		r := then[f.Name]
		if r == 0 || f.Ratio == 0 {
			continue
		}
		both++
		change := f.Ratio/r - 1
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%+.0f %%\n", f.Name, r, f.Ratio, 100*change)
		if math.Abs(change) > Apart {
			apart = append(apart, f.Name)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if both == 0 {
		return fmt.Errorf("%w: they have no ratio in common", ErrApart)
	}
	fmt.Fprintf(out, "%d of %d ratios are within %.0f %% of the earlier run's\n", both-len(apart), both, 100*Apart)
	if len(apart) > 0 {
		return fmt.Errorf("%w: more than %.0f %% apart: %s", ErrApart, 100*Apart, strings.Join(apart, "; "))
	}
	return nil
}
