package ops

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrExists is what a Mirror says of a place that is taken.
var ErrExists = errors.New("gt06/ops: the place is taken")

// Mirror keeps the copies of the records away from the machine:
// journal/<change>/<seq>.json, seq with eight digits, each put once
// (If-None-Match: *).
type Mirror interface {
	// Put stores a line in its place; ErrExists (wrapped or not) when another
	// one, or the same, is there.
	Put(ctx context.Context, change string, seq int, line []byte) error
	// Get returns the line of a place; os.ErrNotExist when there is none.
	Get(ctx context.Context, change string, seq int) ([]byte, error)
	// Last returns the number of the last record of each change.
	Last(ctx context.Context) (map[string]int, error)
}

// Anchor keeps the end of the journal in a third place, a tag of the instance:
// "<change> <seq> <hash>".
type Anchor interface {
	SetHead(ctx context.Context, head string) error
	Head(ctx context.Context) (string, error)
}

// copyOut sends what the mirror does not have, in order, and the head to the
// anchor.
func (j *Journal) copyOut(ctx context.Context) error {
	if j.all.Mirror != nil {
		for ; j.copied < len(j.records); j.copied++ {
			line, err := json.Marshal(j.records[j.copied])
			if err != nil {
				return err
			}
			if err := j.put(ctx, j.copied+1, line); err != nil {
				return err
			}
		}
	}
	if a := j.all.Anchor; a != nil {
		last := j.records[len(j.records)-1]
		if err := a.SetHead(ctx, fmt.Sprintf("%s %d %s", last.Change, last.Seq, last.Hash)); err != nil {
			return Fail(StepFailed, fmt.Errorf("journal head: %w", err), resume(j.id))
		}
	}
	return nil
}

func (j *Journal) put(ctx context.Context, seq int, line []byte) error {
	err := j.all.Mirror.Put(ctx, j.id, seq, line)
	if errors.Is(err, ErrExists) {
		there, err := j.all.Mirror.Get(ctx, j.id, seq)
		if err != nil {
			return fmt.Errorf("journal copy: %w", err)
		}
		if !bytes.Equal(there, line) {
			return broken(j.id, seq, "the copy has another record in this place: two hosts wrote, or one was taken back in time")
		}
		return nil // sent before a crash
	}
	if err != nil {
		return Fail(StepFailed, fmt.Errorf("journal copy: %w", err), "the record is safe here and will be sent before the next one; nothing was done after it", resume(j.id))
	}
	return nil
}

// catchUp makes file and mirror equal before anything is appended: what only
// the mirror has (the root volume was restored, or another host went on) is
// written here, what only the file has is sent.
func (j *Journal) catchUp(ctx context.Context) error {
	m := j.all.Mirror
	if m == nil {
		return nil
	}
	last, err := m.Last(ctx)
	if err != nil {
		return fmt.Errorf("journal copy: %w", err)
	}
	there := last[j.id]
	if n := min(len(j.records), there); n > 0 { // the chain makes one comparison enough
		line, err := m.Get(ctx, j.id, n)
		if err != nil {
			return fmt.Errorf("journal copy: %w", err)
		}
		own, err := json.Marshal(j.records[n-1])
		if err != nil {
			return err
		}
		if !bytes.Equal(line, own) {
			return broken(j.id, n, "file and copy differ")
		}
	}
	for seq := len(j.records) + 1; seq <= there; seq++ {
		if seq == 1 {
			if err := j.all.makeDir(); err != nil {
				return err
			}
		} else if err := j.cutTorn(); err != nil {
			return err
		}
		line, err := m.Get(ctx, j.id, seq)
		if err != nil {
			return fmt.Errorf("journal copy: %w", err)
		}
		r, err := parse(j.id, line, j.records)
		if err != nil {
			return err
		}
		if err := j.write(append(line, '\n'), r); err != nil {
			return err
		}
	}
	j.copied = there
	if there < len(j.records) {
		return j.copyOut(ctx)
	}
	return nil
}

// Sync brings the journals of all changes here: a host that opens one knows
// what the others did.
func (a *Journals) Sync(ctx context.Context) error {
	if a.Mirror == nil {
		return nil
	}
	last, err := a.Mirror.Last(ctx)
	if err != nil {
		return fmt.Errorf("journal copy: %w", err)
	}
	for _, id := range slices.SortedFunc(maps.Keys(last), compareIDs) {
		if !changeID.MatchString(id) {
			continue
		}
		records, err := a.read(id)
		if err != nil {
			return err
		}
		if len(records) == last[id] {
			continue
		}
		if _, err := a.Open(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// Verified is what verify-journal found.
type Verified struct {
	Changes int    `json:"changes"`
	Records int    `json:"records"`
	Copies  int    `json:"copies"`  // compared with the mirror
	Fetched int    `json:"fetched"` // records that were not here: of another host, or of after a restore
	Anchor  string `json:"anchor,omitempty"`
}

// Verify reads everything again: each chain, the chain of the changes, the
// copies, the anchor. The error names the first record that is not as it was
// written.
func (a *Journals) Verify(ctx context.Context) (Verified, error) {
	var v Verified
	ids, err := a.ids()
	if err != nil {
		return v, err
	}
	heads := map[string]Record{}
	all := map[string][]Record{}
	for _, id := range ids {
		records, err := a.read(id)
		if err != nil {
			return v, err
		}
		if len(records) == 0 {
			continue
		}
		all[id], heads[id] = records, records[len(records)-1]
		v.Changes++
		v.Records += len(records)
	}
	if a.Mirror != nil {
		if err := a.verifyCopies(ctx, all, &v); err != nil {
			return v, err
		}
	}
	for id := range all {
		if err := follows(id, all); err != nil {
			return v, err
		}
	}
	if a.Anchor != nil {
		if v.Anchor, err = a.Anchor.Head(ctx); err != nil {
			return v, fmt.Errorf("journal head: %w", err)
		}
		var id, hash string
		var seq int
		if _, err := fmt.Sscan(v.Anchor, &id, &seq, &hash); err != nil && v.Records > 0 {
			return v, broken("the instance", 0, fmt.Sprintf("its tag is %q and there are records", v.Anchor))
		}
		if records := all[id]; v.Anchor != "" && (len(records) < seq || seq > 0 && records[seq-1].Hash != hash) {
			return v, broken(id, seq, "the tag of the instance names a record that is not here")
		}
	}
	return v, nil
}

// follows checks that the first record of a change follows the last of the one
// it names.
func follows(id string, all map[string][]Record) error {
	records := all[id]
	if len(records) == 0 {
		return nil
	}
	first := records[0]
	before := first.In["previous"]
	if before == "" {
		if first.Prev != noPrevious {
			return broken(id, 1, "it names no change before it")
		}
		return nil
	}
	if len(all[before]) == 0 {
		return broken(before, 0, "it is gone: "+id+" follows it")
	}
	if !slices.ContainsFunc(all[before], func(r Record) bool { return r.Hash == first.Prev }) {
		return broken(before, len(all[before]), id+" follows a record that is not in it")
	}
	return nil
}

func (a *Journals) verifyCopies(ctx context.Context, all map[string][]Record, v *Verified) error {
	last, err := a.Mirror.Last(ctx)
	if err != nil {
		return fmt.Errorf("journal copy: %w", err)
	}
	for id, n := range last {
		if len(all[id]) >= n {
			continue
		}
		// Another host wrote it, or the root volume was restored. The head says
		// that nothing was cut off here; the copy has all of it.
		j, err := a.Open(ctx, id)
		if err != nil {
			return err
		}
		v.Fetched += len(j.records) - len(all[id])
		all[id] = j.records
	}
	for _, id := range slices.SortedFunc(maps.Keys(all), compareIDs) {
		// A crash between file and copy leaves one, which the next command sends.
		if last[id] < len(all[id])-1 {
			return broken(id, len(all[id]), fmt.Sprintf("the copy has only %d records", last[id]))
		}
		for i := range last[id] {
			line, err := a.Mirror.Get(ctx, id, i+1)
			if err != nil {
				return broken(id, i+1, "the copy: "+err.Error())
			}
			own, err := json.Marshal(all[id][i])
			if err != nil {
				return err
			}
			if !bytes.Equal(own, line) {
				return broken(id, i+1, "file and copy differ")
			}
			v.Copies++
		}
	}
	return nil
}
