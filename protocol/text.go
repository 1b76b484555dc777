package protocol

import (
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Texts and the numbers in them, read where they stand in the frame; what is
// kept is copied once.

// text reads device input byte by byte as Latin-1, so that any bytes make a
// valid string for JSON and SQL.
func text(b []byte) string { return string(latin(b)) }

// latin is text before it is copied: ASCII is what it is.
func latin(b []byte) []byte {
	if ascii(b) {
		return b
	}
	s := make([]byte, 0, 2*len(b))
	for _, v := range b {
		s = utf8.AppendRune(s, rune(v))
	}
	return s
}

// ascii looks at eight bytes at once.
func ascii(b []byte) bool {
	high := uint64(0)
	for ; len(b) >= 8; b = b[8:] {
		high |= binary.NativeEndian.Uint64(b)
	}
	for _, v := range b {
		high |= uint64(v)
	}
	return high&0x8080_8080_8080_8080 == 0
}

// trimmed leaves out blanks and control characters at both ends.
func trimmed(b []byte) []byte {
	for len(b) > 0 && b[0] <= ' ' {
		b = b[1:]
	}
	for len(b) > 0 && b[len(b)-1] <= ' ' {
		b = b[:len(b)-1]
	}
	return b
}

// appendWide reads UTF-16BE; half a character at the end is dropped.
func appendWide(dst, b []byte) []byte {
	for len(b) >= 2 {
		r := rune(binary.BigEndian.Uint16(b))
		b = b[2:]
		if utf16.IsSurrogate(r) && len(b) >= 2 {
			if pair := utf16.DecodeRune(r, rune(binary.BigEndian.Uint16(b))); pair != utf8.RuneError {
				r, b = pair, b[2:]
			}
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst
}

// shaped says whether s is built as form is, in which 0 is any digit.
func shaped(s []byte, form string) bool {
	if len(s) != len(form) {
		return false
	}
	for i, v := range s {
		digit := '0' <= v && v <= '9'
		if form[i] == '0' && !digit || form[i] != '0' && v != form[i] {
			return false
		}
	}
	return true
}

// decimal reads digits, a point and digits: no sign, no exponent, nothing that
// is no number. With strconv, this and hexadecimal cost the captures 5 % of
// their time.
func decimal(b []byte) (float64, bool) {
	const most, exact = 18, 15 // digits on each side; digits that a float64 holds, whatever they are
	whole, digits, n := -1, 0, uint64(0)
	for i, v := range b {
		switch {
		case '0' <= v && v <= '9':
			n = n*10 + uint64(v-'0')
			digits++
		case v == '.' && whole < 0:
			whole = i
		default:
			return 0, false
		}
	}
	part := digits - whole
	if whole < 1 || part < 1 || whole > most || part > most {
		return 0, false
	}
	if digits <= exact {
		return float64(n) / math.Pow10(part), true
	}
	v, err := strconv.ParseFloat(string(b), 64)
	return v, err == nil
}

// hexadecimal reads a number of 32 bits that may have a sign.
func hexadecimal(b []byte) (v int64, ok bool) {
	sign := int64(1)
	if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
		sign = ',' - int64(b[0]) // '+', ',' and '-' are neighbours
		b = b[1:]
	}
	for _, x := range b {
		switch {
		case '0' <= x && x <= '9':
			x -= '0'
		case 'a' <= x|0x20 && x|0x20 <= 'f':
			x = x | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		if v = v<<4 | int64(x); v > 1<<31 {
			return 0, false
		}
	}
	v *= sign
	return v, len(b) > 0 && v <= math.MaxInt32
}
