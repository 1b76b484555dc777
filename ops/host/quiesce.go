package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// holdLimit is how long Hold waits for queries that run: whoever waits behind
// the lock waits as long.
const holdLimit = 20 * time.Second

// Hold keeps every table still while during runs, and says for how long. The
// lock is that of a connection: it ends with during, with this process, and
// with the context. Devices are answered all the while; their rows wait in the
// spool.
func (m MariaDB) Hold(ctx context.Context, during func() error) (held time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A real pipe: a client that ends at once is not waited for to read it.
	in, say, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	said, out := io.Pipe()
	c := m.Client("mariadb", "--batch", "--skip-column-names", "--unbuffered")
	c.Stdin, c.Stdout, c.Ours = in, out, true
	ended := make(chan error, 1)
	go func() {
		_, err := m.run(ctx, c)
		_ = in.Close()
		_ = out.CloseWithError(errors.Join(io.ErrUnexpectedEOF, err))
		ended <- err
	}()
	// The client ends with its input; its own end is awaited in any case.
	defer func() {
		_ = say.Close()
		err = errors.Join(err, <-ended)
	}()
	answer := bufio.NewReader(said)
	if _, err := fmt.Fprintf(say, "SET SESSION lock_wait_timeout=%d; FLUSH TABLES WITH READ LOCK; SELECT 'held';\n", int(holdLimit.Seconds())); err != nil {
		return 0, fmt.Errorf("hold the database: %w", err)
	}
	line, err := answer.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "held" {
		return 0, fmt.Errorf("hold the database: it says %q: %w", line, err)
	}
	began := time.Now()
	syncDisks()
	err = during()
	if _, unlocked := fmt.Fprintln(say, "UNLOCK TABLES; SELECT 'free';"); unlocked == nil {
		line, _ = answer.ReadString('\n')
	}
	held = time.Since(began)
	if err == nil && strings.TrimSpace(line) != "free" {
		err = errors.New("the database let go before the end")
	}
	return held, err
}
