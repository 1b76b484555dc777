// Package cli is how both programs speak: exit codes, errors with a hint.
package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Code is an exit code of DESIGN.md section 6.
type Code int

// The exit codes, the same in all commands.
const (
	Done        Code = 0
	Internal    Code = 1
	Usage       Code = 2
	Refused     Code = 3
	Preflight   Code = 4
	Busy        Code = 5
	StepFailed  Code = 6
	Red         Code = 7
	Permission  Code = 8
	Timeout     Code = 9
	Changes     Code = 10
	Declined    Code = 11
	Journal     Code = 12
	Forbidden   Code = 13
	NoDevice    Code = 14
	InUse       Code = 20
	NotWritable Code = 21
	Login       Code = 22
	Newer       Code = 23
)

// Table is the exit codes as help shows them.
const Table = `Exit codes:
   0 done                                  9 time-out, no reply
   1 internal error                       10 a plan has changes
   2 usage or configuration               11 the operator said no
   3 refused by a gate or check           12 journal broken
   4 preflight failed                     13 forbidden action
   5 busy: another change or server       14 no such device, or offline
   6 step failed, undone or resumable     20 gt06d: address in use
   7 a check is red                       21 gt06d: directory not writable
   8 permission                           22 gt06d: database login refused
                                          23 gt06d: spool of a newer version`

// Error is what an operator is told: what is wrong, what to do, and the exit
// code.
type Error struct {
	Code  Code
	Err   error
	Hints []string
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Fail makes an Error.
func Fail(code Code, err error, hints ...string) error {
	return &Error{Code: code, Err: err, Hints: hints}
}

// Report prints an error for an operator and returns the exit code.
func Report(w io.Writer, program string, err error) int {
	if err == nil {
		return int(Done)
	}
	_, _ = fmt.Fprintf(w, "%s: %s\n", program, Printable(Plain(err.Error()))) // it may quote a device
	code := Internal
	if e, ok := errors.AsType[*Error](err); ok {
		code = e.Code
		for _, h := range e.Hints {
			_, _ = fmt.Fprintf(w, "hint: %s\n", Printable(h))
		}
	}
	return int(code)
}

// Plain returns the text of an error without the names of packages: they help a
// developer, an operator reads what is wrong.
func Plain(text string) string {
	for _, name := range []string{"spool", "sqlstore", "server", "handover", "control", "protocol"} {
		text = strings.ReplaceAll(text, "gt06/"+name+": ", "")
	}
	return text
}

// HelpTemplate is cobra's, with the exit codes at the end.
const HelpTemplate = `{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}

{{end}}{{if or .Runnable .HasSubCommands}}{{.UsageString}}{{end}}
` + Table + "\n"
