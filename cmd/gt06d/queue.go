package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"gt06/cmd/internal/cli"
	"gt06/protocol"
	"gt06/server/control"
)

const (
	// queueMost is how many commands may wait for devices.
	queueMost = 10_000
	// queueEvery is how often it is looked whether a device has come.
	queueEvery = time.Second
)

// queued is a command that waits for its device.
type queued struct {
	IMEI    string    `json:"imei"`
	Text    string    `json:"text"`
	Flag    uint32    `json:"flag"`
	By      string    `json:"by"`
	Expires time.Time `json:"expires"`
}

// queue keeps commands for devices that are offline, in one file of the data
// directory. A command that was sent is a record of the log with its flag: after
// a kill between sending and forgetting it, the row tells, and it is not sent
// again.
type queue struct {
	path string
	mu   sync.Mutex
	list []queued
	old  map[uint32]bool // of an earlier process: may have been sent already
}

// queueFile is queue.json, see readState.
type queueFile struct {
	Version  int      `json:"version"`
	Commands []queued `json:"commands"`
}

func (q *queue) load(path string) error {
	q.path = path
	var f queueFile
	if err := readState(path, &f); err != nil {
		return err
	}
	q.list, q.old = f.Commands, map[uint32]bool{}
	for _, c := range q.list {
		q.old[c.Flag] = true
	}
	return nil
}

// save writes the file anew. mu is held.
func (q *queue) save() error { return writeState(q.path, queueFile{stateVersion, q.list}) }

func (q *queue) add(c queued) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) >= queueMost {
		return cli.Fail(cli.Refused, fmt.Errorf("%d commands wait for their devices already", len(q.list)))
	}
	q.list = append(q.list, c)
	if err := q.save(); err != nil {
		q.list = q.list[:len(q.list)-1]
		return cli.Fail(cli.NotWritable, err)
	}
	return nil
}

func (q *queue) remove(flag uint32) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = slices.DeleteFunc(q.list, func(c queued) bool { return c.Flag == flag })
	delete(q.old, flag)
	return q.save()
}

func (q *queue) all() []queued {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.list)
}

// enqueue keeps a command for a device that is offline.
func (a *app) enqueue(imei protocol.IMEI, text string, span time.Duration, by string) (*control.Sent, error) {
	if protocol.CutsEngine(text) {
		return nil, cli.Fail(cli.Refused, errors.New("a command that can stop an engine is not kept for later: nobody knows how fast the vehicle is then"))
	}
	c := queued{IMEI: imei.String(), Text: text, Flag: rand.Uint32() | 1, By: by, Expires: time.Now().Add(span).UTC()}
	if err := a.queue.add(c); err != nil {
		return nil, err
	}
	return &control.Sent{IMEI: c.IMEI, Command: text, Flag: c.Flag, Queued: c.Expires.Format(time.RFC3339)}, nil
}

// sendQueued sends what waits to devices that have come.
func (a *app) sendQueued(ctx context.Context) {
	for pause(ctx, queueEvery) {
		for _, c := range a.queue.all() {
			if ctx.Err() != nil {
				return
			}
			if done, err := a.try(ctx, c); done {
				if err := a.queue.remove(c.Flag); err != nil {
					a.log.Error("the queue of commands", zap.Error(err))
				}
			} else if err != nil {
				a.log.Warn("a queued command", zap.String("imei", c.IMEI), zap.Error(err))
			}
		}
	}
}

// try sends one command of the queue; done: it need not be tried again.
func (a *app) try(ctx context.Context, c queued) (done bool, err error) {
	if time.Now().After(c.Expires) {
		a.log.Warn("a queued command has expired", zap.String("imei", c.IMEI), zap.String("command", c.Text))
		return true, nil
	}
	imei, err := protocol.ParseIMEI(c.IMEI)
	if err != nil {
		return true, err
	}
	a.queue.mu.Lock()
	old := a.queue.old[c.Flag]
	a.queue.mu.Unlock()
	if old {
		store, w, _ := a.store.get()
		if store == nil || w.Status().Position < position(uint64(a.spool.First())<<32) {
			return false, nil // what earlier processes sent is not all in the database yet
		}
		if sent, err := store.Sent(ctx, c.IMEI, c.Flag); err != nil || sent {
			return sent, err
		}
	}
	b, err := protocol.AppendCommand(nil, c.Flag, c.Text, false)
	if err != nil {
		return true, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := a.server.Send(ctx, imei, b, c.By); err != nil {
		return false, nil // offline still
	}
	return true, nil
}

func (a *app) queuePath() string { return filepath.Join(a.cfg.DataDir, "queue.json") }
