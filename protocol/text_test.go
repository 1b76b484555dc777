package protocol

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
)

// Numbers and texts that are read by hand are what the library reads.
func TestNumbersOfTexts(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(letters string, most int) string {
		s := make([]byte, r.IntN(most+1))
		for i := range s {
			s[i] = letters[r.IntN(len(letters))]
		}
		return string(s)
	}
	for range 200_000 {
		s := pick("0017fFaAgG+-8", 11)
		want, err := strconv.ParseInt(s, 16, 32)
		if got, ok := hexadecimal([]byte(s)); ok != (err == nil) || ok && got != want {
			t.Fatalf("%q: %d, %v; want %d, %v", s, got, ok, want, err)
		}
		s = pick("0123456789", 19) + pick(".", 1) + pick("0123456789e-.", 19)
		value, err := strconv.ParseFloat(s, 64)
		whole, part, pointed := strings.Cut(s, ".")
		plain := err == nil && pointed && !strings.ContainsAny(s, "e-") && whole != "" && part != "" && len(whole) <= 18 && len(part) <= 18
		if got, ok := decimal([]byte(s)); ok != plain || ok && got != value {
			t.Fatalf("%q: %v, %v; want %v, %v", s, got, ok, value, plain)
		}
	}
	for _, s := range []string{"80000000", "-80000000", "-80000001", "7fffffff", "0000000000007fffffff", "", "+", "-"} {
		want, err := strconv.ParseInt(s, 16, 32)
		if got, ok := hexadecimal([]byte(s)); ok != (err == nil) || ok && got != want {
			t.Errorf("%q: %d, %v; want %d, %v", s, got, ok, want, err)
		}
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for n := range 10_000 {
		units := make([]uint16, n%20)
		for i := range units {
			units[i] = [...]uint16{'a', 0xe9, 0x4e2d, 0xd83d, 0xde00, 0xd800, 0xdfff, 0xfffd}[r.IntN(8)]
		}
		var b []byte
		for _, u := range units {
			b = binary.BigEndian.AppendUint16(b, u)
		}
		want := string(utf16.Decode(units))
		if got := string(appendWide(nil, append(b, 0xd8)[:len(b)+n%2])); got != want {
			t.Fatalf("%04x: %q, want %q", units, got, want)
		}
		runes := []rune{}
		for _, v := range b {
			runes = append(runes, rune(v))
		}
		if got := text(b); got != string(runes) {
			t.Fatalf("%x: %q", b, got)
		}
		blank := func(r rune) bool { return r <= ' ' }
		if got, want := text(trimmed(b)), strings.TrimFunc(string(runes), blank); got != want {
			t.Fatalf("%x: %q, want %q", b, got, want)
		}
	}
	if !slices.Equal(latin([]byte("12345678\x809")), []byte("12345678\u00809")) {
		t.Error("a high byte in the first eight")
	}
}
