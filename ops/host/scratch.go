package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"time"
)

// Scratch is a MariaDB that holds nothing, is reached by nobody else, and is
// thrown away.
type Scratch struct {
	MariaDB
	dir    string
	cancel context.CancelFunc
	ended  chan struct{}
	end    error // why it ended, once ended is closed
}

// StartScratch starts one in a temporary directory. It listens on a socket
// there, fires no events, and needs about 150 MiB of memory.
func StartScratch(ctx context.Context, s System) (*Scratch, error) {
	for _, program := range []string{"mariadb-install-db", "mariadbd", "mariadb"} {
		if !s.has(program) {
			return nil, fmt.Errorf("%s is not installed here: apt-get install mariadb-server", program)
		}
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "gt06-scratch-")
	if err != nil {
		return nil, err
	}
	data, socket, log := filepath.Join(dir, "data"), filepath.Join(dir, "s"), filepath.Join(dir, "log")
	_, err = s.run(ctx, Command{Name: "mariadb-install-db", Env: []string{"TMPDIR=" + dir}, Args: []string{
		"--no-defaults", "--user=" + me.Username, "--auth-root-authentication-method=normal", "--skip-test-db", "--datadir=" + data,
	}})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	defaults := filepath.Join(dir, "client.cnf")
	if err := os.WriteFile(defaults, []byte("[client]\nuser=root\nsocket="+socket+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	running, cancel := context.WithCancel(ctx)
	x := &Scratch{MariaDB: MariaDB{System: s, Defaults: defaults}, dir: dir, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(x.ended)
		_, x.end = s.run(running, Command{Name: "mariadbd", Ours: true, Env: []string{"TMPDIR=" + dir}, Args: []string{
			"--no-defaults", "--user=" + me.Username, "--datadir=" + data, "--socket=" + socket, "--log-error=" + log,
			"--skip-networking", "--skip-log-bin", "--event-scheduler=OFF", "--max-allowed-packet=1G",
			"--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0",
		}})
	}()
	err = poll(ctx, time.Minute, 50*time.Millisecond, func() (bool, string, error) {
		select {
		case <-x.ended:
			text, _ := os.ReadFile(log)
			return false, "", fmt.Errorf("a MariaDB to restore into does not start: %w: %s", x.end, text[max(0, len(text)-500):])
		default:
		}
		return exists(socket) && x.Ping(ctx) == nil, "it does not answer yet", nil
	})
	if err != nil {
		x.Close()
		return nil, err
	}
	return x, nil
}

// Close ends it and deletes all of it.
func (x *Scratch) Close() {
	x.cancel()
	<-x.ended
	_ = os.RemoveAll(x.dir)
}
