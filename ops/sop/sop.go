// Package sop is the operator's two documents, re-issued: every command of the
// paper replaced by ours, because after the takeover of the port some of the
// paper's would be traps.
package sop

import (
	_ "embed"
	"regexp"
	"strings"
)

//go:embed maintenance.md
var maintenance string

//go:embed backup.md
var backup string

// Documents returns both, the maintenance SOP (A) and the backup strategy (B).
func Documents() []string { return []string{maintenance, backup} }

// heading is one of a section, "## A3" or "### A3.1".
var heading = regexp.MustCompile(`^(##+) ([AB][0-9.]+) (.*)$`)

// Section is one heading with what stands below it.
type Section struct {
	ID    string `json:"id"` // A3.1: the number in the paper
	Title string `json:"title"`
	Text  string `json:"text"` // Markdown, with its heading and the sections below it
}

// Sections returns all, in order.
func Sections() []Section {
	var out []Section
	for _, doc := range Documents() {
		lines := strings.SplitAfter(doc, "\n")
		for i, line := range lines {
			m := heading.FindStringSubmatch(strings.TrimSpace(line))
			if m == nil {
				continue
			}
			end := i + 1
			for ; end < len(lines); end++ {
				if below := heading.FindStringSubmatch(strings.TrimSpace(lines[end])); below != nil && len(below[1]) <= len(m[1]) {
					break
				}
			}
			out = append(out, Section{ID: m[2], Title: m[3], Text: strings.Join(lines[i:end], "")})
		}
	}
	return out
}

// Find returns the section of a number, or those whose title has the word,
// whatever its case.
func Find(word string) []Section {
	var out []Section
	for _, s := range Sections() {
		if strings.EqualFold(s.ID, word) {
			return []Section{s}
		}
		if strings.Contains(strings.ToLower(s.Title), strings.ToLower(word)) {
			out = append(out, s)
		}
	}
	return out
}
