package cli

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	err := Fail(InUse, fmt.Errorf("gt06/spool: held: %w", errors.New("cause")), "stop it", "or not")
	if code := Report(&b, "gt06d", err); code != 20 || b.String() != "gt06d: held: cause\nhint: stop it\nhint: or not\n" {
		t.Errorf("%d, %q", code, b.String())
	}
	if code := Report(&b, "gt06d", errors.New("x")); code != 1 {
		t.Errorf("code %d of an error without one", code)
	}
	if code := Report(&b, "gt06d", nil); code != 0 {
		t.Errorf("code %d of no error", code)
	}
}

func TestTableNamesEveryCode(t *testing.T) {
	t.Parallel()
	for _, c := range []Code{Done, Internal, Usage, Refused, Preflight, Busy, StepFailed, Red, Permission, Timeout, Changes, Declined, Journal, Forbidden, NoDevice, InUse, NotWritable, Login, Newer} {
		if !strings.Contains(Table, fmt.Sprintf(" %d ", c)) {
			t.Errorf("code %d is not in the table", c)
		}
	}
}
