package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"gt06/server/control"
)

// historyBytes is how much of the history of upgrades is read.
const historyBytes = 64 << 10

func (a *app) historyPath() string { return filepath.Join(a.cfg.DataDir, "upgrades.jsonl") }

// record adds an upgrade to the history: a line of JSON each.
func (a *app) record(out control.Upgrade) {
	b, err := json.Marshal(out)
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(a.historyPath(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err == nil {
			_, err = f.Write(append(b, '\n'))
			err = errors.Join(err, f.Sync(), f.Close())
		}
	}
	if err != nil {
		a.log.Warn("the history of upgrades", zap.Error(err))
	}
}

// history returns the upgrades in the last bytes of the file, the oldest first.
func (a *app) history(most int64) (list []control.Upgrade, err error) {
	list = []control.Upgrade{}
	f, err := os.Open(a.historyPath())
	if errors.Is(err, os.ErrNotExist) {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(st.Size(), most))
	if _, err := f.ReadAt(b, st.Size()-int64(len(b))); err != nil {
		return nil, err
	}
	for line := range bytes.Lines(b) {
		var u control.Upgrade
		if json.Unmarshal(line, &u) == nil { // the first may be cut
			list = append(list, u)
		}
	}
	return list, nil
}

// lastUpgrade returns the newest, or nil.
func (a *app) lastUpgrade() *control.Upgrade {
	const enough = 4 << 10 // status is asked often
	list, err := a.history(enough)
	if err != nil || len(list) == 0 {
		return nil
	}
	return &list[len(list)-1]
}
