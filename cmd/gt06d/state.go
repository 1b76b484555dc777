package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// What the data directory holds beside log and database are small JSON files,
// each an object with its version:
//
//	{"version": 1, …}
//
// A file of another version is refused: who knows better wrote it.
const stateVersion = 1

// readState reads a file into what it holds, which stays as it is when there is
// no file.
func readState(path string, into any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var f struct {
		Version int `json:"version"`
	}
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err == nil && f.Version != stateVersion {
		err = fmt.Errorf("it has version %d, this program reads %d", f.Version, stateVersion)
	}
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// writeState writes a file anew, so that a kill leaves the old or the new one.
func writeState(path string, what any) error {
	b, err := json.Marshal(what)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Sync(), f.Close(), os.Rename(path+".new", path))
}
