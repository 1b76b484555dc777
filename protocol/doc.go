// Package protocol is the GT06/Concox wire: frames, checksums, messages,
// answers and commands. It is pure: no I/O, no clock, no log.
//
// # Frames
//
// All integers are big-endian (PROTOCOL.md section 1).
//
//	+-------+--------+------+---------+--------+-----+-------+
//	| 78 78 | L 1    | type | content | serial | crc | 0D 0A |   L counts type to crc
//	+-------+--------+------+---------+--------+-----+-------+
//	| 79 79 | L 2    | type | content | serial | crc | 0D 0A |
//	+-------+--------+------+---------+--------+-----+-------+
//	    2     1 or 2     1      L-5        2      2      2
//
// Nothing is escaped: 78 78, 79 79 and 0D 0A occur inside a frame.
//
// # Messages
//
// The table (table.go) has a row for each kind of frame and dialect: type,
// length and model choose a layout, a list of named fields. The decoder, the
// annotated dump and the answers read the same rows. A type without a row is a
// Message of KindUnknown, which is kept and answered like any other.
//
//	type        name                          answered   source
//	01          login                         yes        PROTOCOL.md section 4
//	10 11 12 22 location                      yes        sections 5 and 6
//	2D 37 A0 A3
//	13 23 36    heartbeat                     yes        section 7
//	16 26 27 A4 alarm with a fix              yes        section 7
//	19 A5       alarm without GPS             yes        section 7
//	18 24 28 2C cells, access points          yes        section 9
//	2E A1 A2
//	17 69       access points, BCD time       12 bytes   section 13
//	15 21       replies to commands           15 only    section 10
//	8A          time request                  UTC        section 8
//	2A A7       address request               yes        section 9
//	94 9B       information, serial port      no         section 11
//	80          command, downlink             -          section 10
//	others      kept                          78 78 only section 13
package protocol
