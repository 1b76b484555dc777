// Package mirror sends what devices sent to another server: Traccar, the server
// before, or a second one of this kind, so that the two can be compared for as
// long as anybody doubts.
//
//	log ──► Mirror ──► a connection for each device: its login, then its frames, byte for byte
//	           │
//	           └──◄ their answers, compared with ours in the log, counted, and dropped
//
// It reads the log as every sink does, behind a durable cursor, and not the
// sockets: so a target that dies, hangs or lies cannot be felt by a device, what
// came while it was away is sent when it is back, and an upgrade needs nothing
// handed over. The price is the time of a batch, 50 ms.
//
// # One device
//
// A frame is written and its answer waited for, before the next of the same
// device; all devices of a batch go at once. Where the log shows a login, the
// connection is made anew, as the device did; where its login was before this
// process began, or before a connection was lost, it is repeated: the frame
// itself, or one that says the same (IMEI and time zone).
//
// A frame whose answer was not seen is sent again on a new connection, so the
// target sees every frame at least once, also over kills of either side.
//
// # Who is wrong
//
// Nobody can be reached: the batch waits. A login is not answered: is it the
// device or the target? Another device that was answered before is asked: when
// its login is answered, the target does not want this one device. Its frames
// count as undelivered, and it is tried again later, with growing pauses. Else
// the target hangs, and the batch waits.
//
// A kind of frame whose answer never comes is not waited for any more after a
// few; it counts as missing each time.
package mirror
