package sqlstore

import (
	"sync"

	"gt06/protocol"
	"gt06/storage/event"
)

// judges are what the writer has seen of each device, in memory: after a start
// they see it again.
type judges struct {
	mu sync.Mutex
	of map[protocol.IMEI]event.Judge
}

func (j *judges) get(imei protocol.IMEI) (event.Judge, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	known, ok := j.of[imei]
	return known, ok
}

// put keeps those of a committed transaction.
func (j *judges) put(seen map[protocol.IMEI]*event.Judge) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.of == nil {
		j.of = map[protocol.IMEI]event.Judge{}
	}
	for imei, known := range seen {
		j.of[imei] = *known
	}
}

// Problems lists what the positions of each device say is wrong with it.
func (w *Writer) Problems() map[protocol.IMEI][]event.Problem {
	w.judges.mu.Lock()
	defer w.judges.mu.Unlock()
	all := map[protocol.IMEI][]event.Problem{}
	for imei, j := range w.judges.of {
		if list := j.Problems(); len(list) > 0 {
			all[imei] = list
		}
	}
	return all
}
