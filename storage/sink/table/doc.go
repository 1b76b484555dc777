// Package table writes events as rows of a table that is somebody else's: the
// one that a CRM reads and another server filled before. It reads it, too, so
// that its history can be brought over (Source).
//
//	mapping.yaml ──► Mapping ──► checked against the real table ──► INSERT … ─┐
//	                                                                          ├─ one transaction
//	our tables, in the database of the DSN:  gt06_sink_cursors  how far  ◄────┤
//	                                         gt06_sink_refused  which not ◄───┘
//
// The cursor moves in the transaction of its rows, so no kill of either side
// loses or doubles one. A reply to a commit that is lost is settled by reading
// the cursor.
//
// A row that the table refuses is found by halving and kept in
// gt06_sink_refused with its event and the reason, in the same transaction: it
// does not stop the others and is not lost. What is wrong with the table itself
// (it is locked, altered, dropped, not ours to write) stops this sink only, and
// it goes on by itself when that is mended.
//
// # The mapping
//
// Version 1; ops/deploy/node/mapping.yaml is an example with every key but these:
//
//	columns:
//	  speed: {field: speed_kmh, default: 0}   # for events without it
//	constants:
//	  source: gt06
//
// The fields are those of an event as a webhook gets it, attributes.NAME of its
// attributes, frame (hex, as the device sent it), model, and speed_knots.
package table
