package logging

import (
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// throttleSpan is how long a message is counted, throttleBurst how often it
	// may be logged in that time: a device that reconnects all day must not
	// fill the disk, and what is rare must all be there.
	throttleSpan  = 10 * time.Second
	throttleBurst = 10
	// throttleMost bounds the memory. Messages are constants: there are fewer.
	throttleMost = 1000
)

// throttled passes each message on at most throttleBurst times in throttleSpan.
// The rest is counted, and the count said when the span is over: nothing is
// left out silently.
type throttled struct {
	zapcore.Core
	*repeats
}

// repeats are the counts, shared by loggers with other fields.
type repeats struct {
	mu   sync.Mutex
	seen map[message]*repeat
}

type message struct {
	level zapcore.Level
	text  string
}

type repeat struct{ passed, dropped int }

func throttle(c zapcore.Core) zapcore.Core {
	return &throttled{Core: c, repeats: &repeats{seen: map[message]*repeat{}}}
}

// With implements zapcore.Core.
func (t *throttled) With(fields []zapcore.Field) zapcore.Core {
	return &throttled{t.Core.With(fields), t.repeats}
}

// Check implements zapcore.Core.
func (t *throttled) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !t.Enabled(e.Level) || !t.pass(message{e.Level, e.Message}) {
		return ce
	}
	return ce.AddCore(e, t)
}

// pass counts a message and says whether it may be logged. The first of a span
// starts its clock.
func (t *throttled) pass(m message) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.seen[m]
	if r == nil {
		if len(t.seen) >= throttleMost {
			return true
		}
		r = &repeat{}
		t.seen[m] = r
		time.AfterFunc(throttleSpan, func() { t.over(m) })
	}
	if r.passed < throttleBurst {
		r.passed++
		return true
	}
	r.dropped++
	return false
}

// over ends the span of a message.
func (t *throttled) over(m message) {
	t.say(m)
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.seen, m)
}

// say logs how often a message was left out.
func (t *throttled) say(m message) {
	t.mu.Lock()
	n := t.seen[m].dropped
	t.seen[m].dropped = 0
	t.mu.Unlock()
	if n > 0 {
		_ = t.Write(zapcore.Entry{Level: m.level, Time: time.Now(), Message: "lines were left out"}, []zapcore.Field{zap.String("of", m.text), zap.Int("dropped", n)})
	}
}

// Sync implements zapcore.Core: what was left out so far is said.
func (t *throttled) Sync() error {
	t.mu.Lock()
	open := slices.Collect(maps.Keys(t.seen))
	t.mu.Unlock()
	for _, m := range open {
		t.say(m)
	}
	return t.Core.Sync()
}
