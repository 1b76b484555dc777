package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
)

// table prints columns. What is in a cell may come from a device.
type table struct {
	w     *tabwriter.Writer
	empty bool // there is a header and nothing below it
}

func newTable(out io.Writer, columns ...string) *table {
	t := &table{tabwriter.NewWriter(out, 0, 4, 2, ' ', 0), len(columns) > 0}
	if len(columns) > 0 {
		fmt.Fprintln(t.w, strings.Join(columns, "\t"))
	}
	return t
}

// row prints a line of cells, each made safe.
func (t *table) row(cells ...any) {
	t.empty = false
	texts := make([]string, 0, len(cells))
	for _, c := range cells {
		if text, ours := c.(tinted); ours {
			texts = append(texts, string(text))
			continue
		}
		texts = append(texts, oneLine(fmt.Sprint(c)))
	}
	fmt.Fprintln(t.w, strings.Join(texts, "\t"))
}

// rowf prints a line of a name and a text.
func (t *table) rowf(name, format string, args ...any) { t.row(name, fmt.Sprintf(format, args...)) }

// end prints the table. One without rows says so.
func (t *table) end() error {
	if t.empty {
		t.row("(none)")
	}
	return t.w.Flush()
}

// printf prints a text, made safe.
func printf(w io.Writer, format string, args ...any) error {
	_, err := io.WriteString(w, cli.Printable(fmt.Sprintf(format, args...)))
	return err
}

// oneLine is cli.Printable for a place that must not be broken.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		return r
	}, cli.Printable(strings.TrimRight(text, "\r\n")))
}

// colour is a colour of terminals.
type colour string

const (
	red    colour = "\x1b[31m"
	green  colour = "\x1b[32m"
	yellow colour = "\x1b[33m"
)

// tinted is a text of our own with its colour.
type tinted string

// tint colours a text where out is a terminal that wants it.
func tint(out io.Writer, c colour, text string) tinted {
	text = oneLine(text)
	if !cli.Colours(out, os.Getenv) {
		return tinted(text)
	}
	return tinted(string(c) + text + "\x1b[0m")
}

// printJSON prints one value on a line.
func printJSON(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return printRaw(w, b)
}

// printRaw prints JSON on a line, with every character that could steer a
// terminal as an escape. They stand in strings only.
func printRaw(w io.Writer, b []byte) error {
	var out bytes.Buffer
	for _, r := range string(b) {
		switch {
		case r < 0x7f, unicode.IsPrint(r):
			out.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+(r-0x10000)>>10, 0xdc00+(r-0x10000)&0x3ff)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	out.WriteByte('\n')
	_, err := w.Write(out.Bytes())
	return err
}

// progress shows how long work moves: on a terminal one line that is written
// over, elsewhere a line each time.
type progress struct {
	w     io.Writer
	live  bool
	shown int
}

func newProgress(w io.Writer) *progress { return &progress{w: w, live: cli.Terminal(w)} }

// say shows a line.
func (p *progress) say(format string, args ...any) {
	line := oneLine(fmt.Sprintf(format, args...))
	if !p.live {
		fmt.Fprintln(p.w, line)
		return
	}
	fmt.Fprintf(p.w, "\r%-*s", p.shown, line)
	p.shown = len(line)
}

// clear takes the line away, so that another can be printed.
func (p *progress) clear() {
	if p.live && p.shown > 0 {
		fmt.Fprintf(p.w, "\r%*s\r", p.shown, "")
		p.shown = 0
	}
}

// follow asks for work that takes its time, shows how far it is, and returns what
// came of it. When the server ends before, again says what to do.
func follow[P, R any](ctx context.Context, t *tool, stderr io.Writer, verb string, args any, line func(*P) string, again string) (*R, error) {
	c, err := t.client()
	if err != nil {
		return nil, cli.Fail(cli.Usage, err)
	}
	var done *R
	live := newProgress(stderr)
	err = c.Stream(ctx, verb, args, func(b json.RawMessage) error {
		var e control.Event[P, R]
		if err := json.Unmarshal(b, &e); err != nil {
			return err
		}
		if e.Progress != nil && !t.json {
			live.say("%s", line(e.Progress))
		}
		if e.Result != nil {
			done = e.Result
		}
		return nil
	})
	live.clear()
	if err == nil && done == nil {
		err = errors.New("the server ended in the middle: " + again)
	}
	if err != nil {
		return nil, explain(err)
	}
	return done, nil
}

// pause waits and says whether it was not interrupted.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// moment reads a time: RFC 3339, a date with or without a time in UTC, or a span
// before now.
func moment(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d.Abs()), nil
	}
	for _, form := range []string{time.RFC3339, time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.Parse(form, s); err == nil {
			return at, nil
		}
	}
	return time.Time{}, cli.Fail(cli.Usage, fmt.Errorf("%q is no time", s), "write 2026-11-24T08:00:00Z, '2026-11-24 08:00' (UTC), or 2h for two hours ago")
}
