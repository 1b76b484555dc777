package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrIMEI is returned by ParseIMEI.
var ErrIMEI = errors.New("gt06/protocol: an IMEI has 15 digits")

// ParseIMEI reads 15 decimal digits.
func ParseIMEI(s string) (IMEI, error) {
	if len(s) != 15 {
		return 0, fmt.Errorf("%w: %q has %d characters", ErrIMEI, s, len(s))
	}
	var id IMEI
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%w: %q", ErrIMEI, s)
		}
		id = id<<4 | IMEI(c-'0')
	}
	return id, nil
}

// imeiFromWire drops the pad digit in front.
func imeiFromWire(b []byte) IMEI {
	return IMEI(binary.BigEndian.Uint64(b) & 0x0fff_ffff_ffff_ffff)
}

// AppendBCD appends the 8 bytes of a login frame.
func (id IMEI) AppendBCD(dst []byte) []byte { return binary.BigEndian.AppendUint64(dst, uint64(id)) }

// String returns the 15 digits.
func (id IMEI) String() string { return string(id.AppendText(nil)) }

// AppendText appends the 15 digits.
func (id IMEI) AppendText(dst []byte) []byte {
	const digits = "0123456789abcdef"
	for shift := 56; shift >= 0; shift -= 4 {
		dst = append(dst, digits[id>>shift&0xf])
	}
	return dst
}

// Valid says whether the IMEI has digits only and is not zero.
func (id IMEI) Valid() bool {
	// A nibble above 9 carries into the next when 6 is added.
	const sixes = 0x0666_6666_6666_6666
	carries := (uint64(id) + sixes) ^ uint64(id) ^ sixes
	return id != 0 && carries&0x1111_1111_1111_1110 == 0
}

// LuhnOK says whether the last digit is the check digit of the others.
func (id IMEI) LuhnOK() bool {
	sum := IMEI(0)
	for i := range 15 {
		d := id >> (4 * i) & 0xf
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}
