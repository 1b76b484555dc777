// Package spool is the log: every byte that was taken from a device and every
// byte it was answered with, in the order in which that happened.
//
// # Format
//
// A spool is a directory of segments, NNNNNNNNNN.seg, numbered from 1 without
// order of birth: a number is used once. All integers are little-endian.
//
//	segment
//	+---------+---------+------------+----------+-------+-------+-------+
//	| magic 6 | vers. 2 | generat. 8 | number 4 | cut 4 | of  4 | crc 4 |
//	+---------+---------+------------+----------+-------+-------+-------+
//	| record | record | ... | zeros that are not used yet             |
//
//	record
//	+---------+-------+--------+------+--------+---------+-------+-----------+
//	| magic 4 | crc 4 | size 4 | conn8| in end8| ans end8| time 8| device  8 |
//	+---------+-------+--------+------+--------+---------+-------+-----------+
//	| utc offset 4 | flags 1 | model size 1 | 0 2 | input size 4 | model |
//	+-----------------------------------------------------------------------+
//	| input | answer                                                        |
//
// magic and version are checked before anything that depends on them; an
// unknown version is refused (ErrVersion). cut is how much of segment number
// of is valid, 0 for all: what lies behind was written again in this segment
// after a sync failed. size is the length of the record behind
// the size field; crc is CRC32C of everything behind itself. model is the
// operator's, or, where there is no input, who asked for the bytes.
//
// # What is assumed, and what is not
//
// One owner at a time writes (server/handover), to segments of its own: nobody
// appends to another's. Who is about to become owner may claim its segment
// before (Claim) and begins with Own, under the lock: a claimed number that
// others have passed meanwhile is given back for a higher one, so that the order
// of the numbers is the order of the records. A kill may cut the last write at any byte. A power
// failure may lose or keep anything that was not synced. fdatasync that returns
// nil has made durable what was written before; one that fails may have
// dropped the dirty pages, and the next one may lie: so after a failed sync the
// segment is never trusted again, and what was not durable is written anew
// elsewhere from memory.
//
// Damage (a flipped bit, a hole) costs the records it touches: the reader finds
// the next record by its magic and proves it by its checksum. It is counted and
// reported, never deleted.
//
// # Speed
//
// Segments are written with zeros ahead of use: a sync then has no file size to
// write. Callers of Sync share an fdatasync; who is alone gets one at once.
package spool
