package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"gt06ctl": func() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }, //nolint:forbidigo // a main of its own
	})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}
