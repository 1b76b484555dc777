package ops

import "errors"

// Kind says how something ended; its number is the exit code of gt06ctl.
type Kind int

// The kinds an operation ends with.
const (
	Internal      Kind = 1
	Usage         Kind = 2  // the command or the configuration is wrong
	Refused       Kind = 3  // by the gate or a check
	Unsafe        Kind = 4  // preflight failed
	Busy          Kind = 5  // another change, or another process works on this one
	StepFailed    Kind = 6  // undone, or to be resumed
	Red           Kind = 7  // a check after the fact
	Denied        Kind = 8  // permission
	TimedOut      Kind = 9  // no reply
	Pending       Kind = 10 // a plan has changes that were not applied
	Declined      Kind = 11 // the operator said no
	JournalBroken Kind = 12
	Forbidden     Kind = 13 // no gate opens for this
)

// Error is what an operator is told.
type Error struct {
	Kind  Kind
	Err   error
	Hints []string // what to do next: commands to paste where there are some
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Fail makes an Error.
func Fail(kind Kind, err error, hints ...string) error {
	return &Error{Kind: kind, Err: err, Hints: hints}
}

// KindOf returns the kind of an error: 0 of none, Internal when it has no kind.
func KindOf(err error) Kind {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}
