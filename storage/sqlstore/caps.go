package sqlstore

import (
	"context"
	"fmt"
	"maps"

	"github.com/jmoiron/sqlx"

	"gt06/protocol"
	"gt06/storage/event"
)

// Caps bound what those may fill the tables with whom nobody has confirmed.
// What is left out is counted, and in the log: `gt06ctl replay` stores it once
// the device is allowed. Zero values mean the defaults.
type Caps struct {
	Quarantined int // rows in all tables of a device in quarantine [1,000]
	Nameless    int // rows an hour in quarantined_frames of connections without a login [1,000]
}

// caps is the state of Caps: how much is used.
type caps struct {
	Caps
	held  map[protocol.IMEI]int // rows of each device in quarantine
	hour  int64                 // of the last nameless row
	named int                   // how many there were in it
	left  int                   // rows left out of the batch

	// In the open transaction.
	next struct {
		held  map[protocol.IMEI]int
		hour  int64
		named int
	}
}

// unread: the rows of a device in quarantine have not been counted yet.
const unread = -1

func newCaps(c Caps) caps {
	if c.Quarantined == 0 {
		c.Quarantined = 1000
	}
	if c.Nameless == 0 {
		c.Nameless = 1000
	}
	return caps{Caps: c, held: map[protocol.IMEI]int{}}
}

// hold notes that a device is in quarantine.
func (c *caps) hold(imei protocol.IMEI) { c.held[imei] = unread }

// commit takes over what the transaction used.
func (c *caps) commit() {
	maps.Copy(c.held, c.next.held)
	c.hour, c.named = c.next.hour, c.next.named
}

// apply takes out of rows what is beyond the caps.
func (c *caps) apply(ctx context.Context, tx *sqlx.Tx, rows *event.Rows, ids map[protocol.IMEI]int64) error {
	c.next.held, c.next.hour, c.next.named = map[protocol.IMEI]int{}, c.hour, c.named
	var count []any
	of := map[int64]protocol.IMEI{}
	for imei := range rows.Seen {
		n, ok := c.held[imei]
		if !ok {
			continue
		}
		if n == unread {
			n = 0
			count = append(count, ids[imei])
			of[ids[imei]] = imei
		}
		c.next.held[imei] = n
	}
	if len(count) > 0 {
		for _, t := range partitioned {
			if err := c.count(ctx, tx, t.table, count, of); err != nil {
				return fmt.Errorf("count rows of %s: %w", t.table, err)
			}
		}
	}
	may := func(imei protocol.IMEI) bool {
		n, ok := c.next.held[imei]
		if !ok {
			return true
		}
		if n >= c.Quarantined {
			c.left++
			return false
		}
		c.next.held[imei] = n + 1
		return true
	}
	rows.Positions = keep(rows.Positions, func(p *event.Position) bool { return may(p.Device) })
	rows.Alarms = keep(rows.Alarms, func(a *event.Alarm) bool { return may(a.Device) })
	rows.Heartbeats = keep(rows.Heartbeats, func(h *event.Heartbeat) bool { return may(h.Device) })
	rows.Events = keep(rows.Events, func(e *event.DeviceEvent) bool { return may(e.Device) })
	rows.Quarantined = keep(rows.Quarantined, func(q *event.Quarantined) bool {
		if q.Device != 0 {
			return may(q.Device)
		}
		return c.nameless(q.ReceivedAt)
	})
	return nil
}

func (c *caps) nameless(received int64) bool {
	const hour = 3600e6
	if h := received / hour; h > c.next.hour {
		c.next.hour, c.next.named = h, 0
	}
	if c.next.named >= c.Nameless {
		c.left++
		return false
	}
	c.next.named++
	return true
}

func (c *caps) count(ctx context.Context, tx *sqlx.Tx, table string, ids []any, of map[int64]protocol.IMEI) error {
	query, args, err := sqlx.In("SELECT device_id, COUNT(*) AS n FROM "+table+" WHERE device_id IN (?) GROUP BY device_id", ids)
	if err != nil {
		return err
	}
	var found []struct {
		ID int64 `db:"device_id"`
		N  int   `db:"n"`
	}
	if err := tx.SelectContext(ctx, &found, query, args...); err != nil {
		return err
	}
	for _, f := range found {
		c.next.held[of[f.ID]] += f.N
	}
	return nil
}

// keep filters in place.
func keep[T any](list []T, ok func(*T) bool) []T {
	kept := list[:0]
	for i := range list {
		if ok(&list[i]) {
			kept = append(kept, list[i])
		}
	}
	return kept
}
