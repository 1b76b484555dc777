package ops

import (
	"fmt"
	"io"
	"time"
)

// waitEvery is how often a wait is told where lines stay.
const waitEvery = 10 * time.Second

// screen is where a run is seen: lines, and under them the wait of the moment.
type screen struct {
	w        io.Writer
	terminal bool
	waiting  bool // the last thing shown is a wait
	told     time.Time
}

func (s *screen) line(text string) {
	if s.waiting {
		_, _ = io.WriteString(s.w, "\r\x1b[K")
		s.waiting = false
	}
	_, _ = fmt.Fprintln(s.w, "     "+text)
}

func (s *screen) wait(text string) {
	if s.terminal {
		_, _ = io.WriteString(s.w, "\r\x1b[K     "+text)
		s.waiting = true
		return
	}
	if now := time.Now(); now.Sub(s.told) >= waitEvery {
		s.told = now
		_, _ = fmt.Fprintln(s.w, "     "+text)
	}
}
