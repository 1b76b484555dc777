// Fakeaws serves the fake AWS for practice: a maintenance, a rescue, the worst case,
// by hand and by day, before it is needed at night.
//
//	go run ./ops/cloud/fake/cmd/fakeaws -dir /tmp/practice
//	gt06ctl ops --config /tmp/practice/ops.yaml change open …
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"gt06/ops/cloud/fake"
)

func main() {
	if err := run(os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(out io.Writer) error {
	dir := flag.String("dir", filepath.Join(os.TempDir(), "gt06ops-practice"), "directory for the configuration and the journal")
	slow := flag.Duration("slow", 10*time.Second, "how long a snapshot takes; the rest in proportion")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	a := fake.New()
	defer a.Close()
	a.Delays = fake.Delays{Snapshot: *slow, Image: *slow, Stop: *slow / 2, Start: *slow / 2, Attach: *slow / 4, Modify: *slow / 2}
	a.Guest = func(string, string) (int, string, string) { return 0, "{}", "" }
	site := a.Production()
	if err := os.MkdirAll(*dir, 0o750); err != nil {
		return err
	}
	config := filepath.Join(*dir, "ops.yaml")
	if err := os.WriteFile(config, []byte(site.Config(*dir)), 0o600); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "AWS of practice at %s, until ^C. In another terminal:\n\n  export GT06_OPS_CONFIG=%s\n  gt06ctl ops change open --action disk-resize --reason \"the disk is at 91 percent\"\n  gt06ctl ops snapshot create --apply\n  gt06ctl ops resize volume --size 40 --apply\n", site.Endpoint, config)
	<-ctx.Done()
	return nil
}
