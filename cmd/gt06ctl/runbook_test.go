package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Who follows the runbook of an alert at night types commands that exist.
func TestCommandsOfTheRunbookExist(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../ops/deploy/prometheus/RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?m)(?:`|^)gt06ctl ([^`#\n]*)").FindAllStringSubmatch(string(b), -1)
	if len(found) < 10 {
		t.Fatalf("only %d commands: the test reads too little", len(found))
	}
	for _, m := range found {
		words := strings.Fields(m[1])
		c, rest, err := command().Find(words)
		if err != nil || !c.HasParent() || c.HasSubCommands() && c.Run == nil && c.RunE == nil {
			t.Errorf("gt06ctl %s: is no command (%v)", m[1], err)
			continue
		}
		if err := c.ParseFlags(rest); err != nil {
			t.Errorf("gt06ctl %s: %v", m[1], err)
		} else if args := c.Flags().Args(); c.Args != nil && c.Args(c, args) != nil {
			t.Errorf("gt06ctl %s: %v", m[1], c.Args(c, args))
		}
	}
}
