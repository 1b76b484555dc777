package protocol

import "slices"

// readCell takes one cell: country (bit 15: the network code has two bytes),
// network, area, cell. The widths are the layout's.
func readCell(c *cursor, f *field) {
	mcc, mnc := c.operator(f.wideMNC)
	lac := c.number(int(f.lac))
	cid := c.number(int(f.cid))
	if !c.ok() {
		return
	}
	c.m.Cells = append(c.m.Cells, Cell{MCC: mcc, MNC: mnc, LAC: uint32(lac), CID: cid})
	if c.trace != nil {
		c.say("mcc %d mnc %d lac %d cid %d", mcc, mnc, lac, cid)
	}
}

func (c *cursor) operator(wide bool) (mcc, mnc uint16) {
	w := uint16(c.number(2))
	if w&0x8000 != 0 || wide {
		mnc = uint16(c.number(2))
	} else {
		mnc = uint16(c.number(1))
	}
	return w & 0x7fff, mnc
}

// readCellSized takes the length of the cell first. A length of zero means no
// cell: its place may be there all the same, as zeros. What a longer one
// covers besides the cell is passed over.
func readCellSized(c *cursor, f *field) {
	const known = 9 // a 2G cell and the length byte itself
	n := int(c.number(1))
	if n == 0 && c.ok() {
		const place = 45
		rest := c.frame[min(c.base+c.at, len(c.frame)):]
		// An empty place is recognised by what follows the cell, tail and all.
		for i := known; i < min(place, len(rest)); i++ {
			if rest[i] != 0 {
				return
			}
		}
		c.at += min(place, len(rest))
		if c.trace != nil {
			c.say("none")
		}
		return
	}
	readCell(c, f)
	if n > known && c.ok() {
		c.take(n - known)
	}
}

// trailer is serial, checksum and tail.
const trailer = 6

// readCells takes the operator once and then f.size cells, each with its
// strength. Size 0: a byte says how many. Unused places are zeros.
func readCells(c *cursor, f *field) {
	mcc, mnc := c.operator(f.wideMNC)
	n := int(f.size)
	if n == 0 {
		n = int(c.number(1))
	}
	c.cells(f, mcc, mnc, n)
}

// cells takes n cells of one operator.
func (c *cursor) cells(f *field, mcc, mnc uint16, n int) {
	for range n {
		b := c.take(int(f.lac + f.cid + 1))
		if b == nil {
			return
		}
		lac, cid, rssi := int32(bigEndian(b[:f.lac])), bigEndian(b[f.lac:f.lac+f.cid]), int16(b[len(b)-1])
		if f.cid >= 4 {
			cid = uint64(int32(cid)) // as others keep it
		}
		if lac > 0 {
			c.addCell(Cell{MCC: mcc, MNC: mnc, LAC: uint32(lac), CID: cid, RSSI: -rssi, HasRSSI: true})
		}
	}
	if c.trace != nil {
		c.say("%d places, mcc %d mnc %d, %d used", n, mcc, mnc, len(c.m.Cells))
	}
}

// readCountedCells: a count, the operator, and cells of five bytes whose
// strength has its own sign (types 0x17 and 0x69).
func readCountedCells(c *cursor, _ *field) {
	n := int(c.number(1))
	mcc := uint16(c.number(2))
	mnc := uint16(c.number(1))
	for range n {
		lac, cid, rssi := c.number(2), c.number(2), c.number(1)
		if !c.ok() {
			return
		}
		c.addCell(Cell{MCC: mcc, MNC: mnc, LAC: uint32(lac), CID: cid, RSSI: -int16(rssi), HasRSSI: true})
	}
	if c.trace != nil {
		c.say("%d cells, mcc %d mnc %d", n, mcc, mnc)
	}
}

func readWiFi(c *cursor, _ *field) { c.accessPoints(int(c.number(1))) }

// readCountedWiFi: the number of access points stands where the length of the
// frame belongs.
func readCountedWiFi(c *cursor, _ *field) { c.accessPoints(int(c.frame[2])) }

func (c *cursor) accessPoints(n int) {
	for range n {
		b := c.take(7)
		if b == nil {
			return
		}
		c.addAccessPoint(AccessPoint{MAC: [6]byte(b), RSSI: -int16(b[6]), HasRSSI: true})
	}
	if c.trace != nil {
		c.say("%d access points", n)
	}
}

// addAccessPoint and addCell keep what is there once: devices fill unused places
// with copies.
func (c *cursor) addAccessPoint(a AccessPoint) {
	if !slices.Contains(c.m.WiFi, a) {
		c.m.WiFi = append(c.m.WiFi, a)
	}
}

func (c *cursor) addCell(cell Cell) {
	for i := range c.m.Cells { // the id first, which tells most apart: 3 % of the time of the captures
		if c.m.Cells[i].CID == cell.CID && c.m.Cells[i] == cell {
			return
		}
	}
	c.m.Cells = append(c.m.Cells, cell)
}
