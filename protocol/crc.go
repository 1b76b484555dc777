package protocol

// slicing holds, for each of sixteen places in a row of bytes, what a byte there
// does to the checksum: sixteen or eight bytes are looked up at once.
//
//nolint:gochecknoglobals // read-only table
var slicing = makeSlicing()

func makeSlicing() (t [16][256]uint16) {
	const reflected = 0x8408 // CRC-ITU polynomial 0x1021, low bit first
	for i := range t[0] {
		c := uint16(i)
		for range 8 {
			c = c>>1 ^ reflected&-(c&1)
		}
		t[0][i] = c
	}
	for k := 1; k < len(t); k++ {
		for i, c := range t[k-1] {
			t[k][i] = c>>8 ^ t[0][byte(c)]
		}
	}
	return t
}

// CRC returns the CRC-ITU (CRC-16/X-25) of b. In a frame it covers the length
// field up to and with the serial (PROTOCOL.md section 1). The check value of
// "123456789" is 0x906E.
func CRC(b []byte) uint16 {
	c := uint16(0xffff)
	t := &slicing
	// What waits for the step before comes last.
	for len(b) >= 16 {
		v := t[13][b[2]] ^ t[12][b[3]] ^ t[11][b[4]] ^ t[10][b[5]] ^ t[9][b[6]] ^ t[8][b[7]] ^ t[7][b[8]] ^
			t[6][b[9]] ^ t[5][b[10]] ^ t[4][b[11]] ^ t[3][b[12]] ^ t[2][b[13]] ^ t[1][b[14]] ^ t[0][b[15]]
		c ^= uint16(b[0]) | uint16(b[1])<<8
		c = v ^ t[15][byte(c)] ^ t[14][c>>8]
		b = b[16:]
	}
	if len(b) >= 8 {
		v := t[5][b[2]] ^ t[4][b[3]] ^ t[3][b[4]] ^ t[2][b[5]] ^ t[1][b[6]] ^ t[0][b[7]]
		c ^= uint16(b[0]) | uint16(b[1])<<8
		c = v ^ t[7][byte(c)] ^ t[6][c>>8]
		b = b[8:]
	}
	if len(b) < 2 {
		for _, v := range b {
			c = c>>8 ^ t[0][byte(c)^v]
		}
		return ^c
	}
	// The last bytes one after the other would each wait for the one before.
	last := b[2:]
	c = t[(len(last)+1)&15][byte(c)^b[0]] ^ t[len(last)&15][byte(c>>8)^b[1]]
	for i, v := range last {
		c ^= t[(len(last)-1-i)&15][v]
	}
	return ^c
}
