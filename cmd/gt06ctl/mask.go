package main

import (
	"bytes"
	"fmt"
	"regexp"
)

// mask hides whose devices these are, and what could be a secret. An IMEI gets
// the same stand-in wherever it is found.
type mask struct {
	keep  bool // the IMEIs
	known map[string]string
}

func newMask(keep bool) *mask { return &mask{keep: keep, known: map[string]string{}} }

// names returns how many IMEIs have a stand-in.
func (m *mask) names() int { return len(m.known) }

// learn returns the stand-in of an IMEI: the model it is assigned to (the first
// eight digits), and a number.
func (m *mask) learn(imei string) string {
	const tac = 8
	if m.keep || len(imei) < tac {
		return imei
	}
	if m.known[imei] == "" {
		m.known[imei] = fmt.Sprintf("%s-d%d", imei[:tac], len(m.known)+1)
	}
	return m.known[imei]
}

var (
	// digits is an IMEI, or one with the leading zero it has in a frame. Longer
	// runs are other numbers; a fraction is one, too.
	digits = regexp.MustCompile(`(^|[^0-9.])0?([0-9]{15})($|[^0-9])`)
	// inHex is an IMEI within a frame in hex: behind the header and type of a
	// login.
	inHex = regexp.MustCompile(`(7878[0-9a-f]{2}01)0([0-9]{15})`)
	// login is the user and password of a dsn or a URL.
	login = regexp.MustCompile(`([A-Za-z0-9_.-]+):[^@/\s"']+@`)
	// secret is a value behind a name that says what it is; a command to a device
	// may have its password.
	secret = regexp.MustCompile(`(?i)("?(?:pass(?:word|wd)?|secret|token|api_?key|command)"?\s*[=:]\s*)("[^"]*"|[^\s,}"]+)`)
)

// text returns b without what is hidden.
func (m *mask) text(b []byte) []byte {
	b = login.ReplaceAll(b, []byte("$1:***@"))
	b = secret.ReplaceAll(b, []byte(`$1"***"`))
	if m.keep {
		return b
	}
	b = inHex.ReplaceAllFunc(b, func(hit []byte) []byte {
		parts := inHex.FindSubmatch(hit)
		return append(append([]byte(nil), parts[1]...), "["+m.learn(string(parts[2]))+"]"...)
	})
	for digits.Match(b) { // neighbours share the character between them
		b = digits.ReplaceAllFunc(b, func(hit []byte) []byte {
			p := digits.FindSubmatch(hit)
			return bytes.Join([][]byte{p[1], []byte(m.learn(string(p[2]))), p[3]}, nil)
		})
	}
	return b
}
