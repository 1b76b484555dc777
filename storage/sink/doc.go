// Package sink is the way out of the log to others than the database: a sink
// reads it by a cursor of its own and hands batches to a receiver, the next one
// only when the last was taken.
//
//	log ──► Sink ──► Receiver (webhook, jetstream, …) ──► somebody else's machine
//	          │
//	          └──► Cursor: how far, and which batch is on its way
//
// A sink never holds the log up: segments go by age and room whether a sink has
// read them or not (DESIGN.md section 6 of the log's rules), and what it missed
// so is counted and said. It shares no lock with the devices' path.
//
// # The order
//
// note the batch in the cursor, fdatasync → send → note that it was taken. The
// limits of a batch that was noted never change: after a kill of either side the
// same records are sent again under the same key. So a receiver sees every event
// at least once, and knows a repetition by the key of the batch or the id of the
// event; JetStream does that by itself.
//
// One process sends: the cursor is locked (flock) by who owns the log, and the
// kernel lets go of it with the process, as of the owner's lock.
package sink
