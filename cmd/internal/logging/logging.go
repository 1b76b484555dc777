// Package logging makes the server's log: JSON for the journal and for files,
// text on a terminal. Events are logged, not frames; what repeats itself is
// throttled and counted (throttle.go).
package logging

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"go.uber.org/zap"
	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"gt06/cmd/internal/cli"
)

// Logs are the two logs of a program; both write to the same place.
type Logs struct {
	Main  *zap.Logger // what happens, from a level on, throttled
	Trace *zap.Logger // what an operator asked to see: all of it
}

// New returns logs that write to w. The level is debug, info, warn or error; env
// is the environment, for JOURNAL_STREAM and NO_COLOR.
func New(w io.Writer, level string, env func(string) string) (*Logs, error) {
	lv, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("log level %q: it can be debug, info, warn or error", level)
	}
	enc := encoder(w, env)
	out := zapcore.Lock(zapcore.AddSync(w))
	return &Logs{
		Main:  zap.New(throttle(zapcore.NewCore(enc, out, lv))),
		Trace: zap.New(zapcore.NewCore(enc.Clone(), out, zapcore.InfoLevel)).Named("trace"),
	}, nil
}

// encoder chooses the form of a line by where it goes.
func encoder(w io.Writer, env func(string) string) zapcore.Encoder {
	if cli.Terminal(w) {
		c := zap.NewDevelopmentEncoderConfig()
		c.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		c.EncodeLevel = zapcore.LowercaseLevelEncoder
		if cli.Colours(w, env) {
			c.EncodeLevel = zapcore.LowercaseColorLevelEncoder
		}
		return plain{zapcore.NewConsoleEncoder(c)}
	}
	c := zap.NewProductionEncoderConfig()
	c.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	if Journal(w, env) {
		c.TimeKey = "" // the journal has its own
		return priority{zapcore.NewJSONEncoder(c)}
	}
	return zapcore.NewJSONEncoder(c)
}

// Journal says whether w is systemd's journal: JOURNAL_STREAM names its device
// and inode (systemd.exec(5)).
func Journal(w io.Writer, env func(string) string) bool {
	f, ok := w.(*os.File)
	if !ok || env("JOURNAL_STREAM") == "" {
		return false
	}
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	return env("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// ForPeople returns w for lines that are no log, such as the error a program
// ends with: in the journal they have the priority of an error.
func ForPeople(w io.Writer, env func(string) string) io.Writer {
	if Journal(w, env) {
		return failing{w}
	}
	return w
}

// priority puts the priority of syslog before a line, as the journal reads it
// (sd-daemon(3)).
type priority struct{ zapcore.Encoder }

func (p priority) Clone() zapcore.Encoder { return priority{p.Encoder.Clone()} }

func (p priority) EncodeEntry(e zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	line, err := p.Encoder.EncodeEntry(e, fields)
	if err != nil {
		return nil, err
	}
	defer line.Free()
	out := pool.Get()
	out.AppendString(prefix(e.Level))
	_, err = out.Write(line.Bytes())
	return out, err
}

//nolint:gochecknoglobals // a pool is shared
var pool = buffer.NewPool()

func prefix(l zapcore.Level) string {
	switch l {
	case zapcore.DebugLevel:
		return "<7>"
	case zapcore.InfoLevel:
		return "<6>"
	case zapcore.WarnLevel:
		return "<4>"
	case zapcore.ErrorLevel:
		return "<3>"
	default:
		return "<2>"
	}
}

// failing writes lines with the priority of an error.
type failing struct{ io.Writer }

// Write implements io.Writer for whole lines.
func (f failing) Write(b []byte) (int, error) {
	var out bytes.Buffer
	for line := range bytes.Lines(b) {
		out.WriteString(prefix(zapcore.ErrorLevel))
		out.Write(line)
	}
	_, err := f.Writer.Write(out.Bytes())
	return len(b), err
}

// plain keeps what a device wrote from steering the terminal: JSON quotes the
// control characters of ASCII, this the others.
type plain struct{ zapcore.Encoder }

func (p plain) Clone() zapcore.Encoder { return plain{p.Encoder.Clone()} }

func (p plain) EncodeEntry(e zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	line, err := p.Encoder.EncodeEntry(e, fields)
	if err != nil {
		return nil, err
	}
	text := line.String()
	safe := strings.Map(func(r rune) rune {
		if r < 0x7f || unicode.IsPrint(r) { // below: quoted by JSON, or our colours
			return r
		}
		return unicode.ReplacementChar
	}, text)
	if safe != text {
		line.Reset()
		line.AppendString(safe)
	}
	return line, nil
}
