package bench

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"gt06/protocol"
	"gt06/server"
	"gt06/server/control"
	"gt06/server/keeper"
)

// Bare serves without a log and without a database, with the keeper of a data
// directory, and prints its address: what durability costs is measured against
// it.
func Bare(ctx context.Context, dataDir string, stdout io.Writer) error {
	dir, err := control.RuntimeDir(dataDir)
	if err != nil {
		return err
	}
	link := keeper.New(filepath.Join(dir, "keeper.sock"), func(string, ...any) {})
	if err := link.Connect(); err != nil {
		return err
	}
	defer link.Close() //nolint:errcheck // the process ends
	var end atomic.Uint64
	s, err := server.New(server.Config{
		Generation: 1, Keeper: link, NewAppender: func() server.Appender { return &nowhere{end: &end} }, Directory: nobody{},
		Decoder: &protocol.Decoder{}, Limits: server.Limits{Frames: -1}, Logger: zap.NewNop(), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		return err
	}
	ln, err := server.Listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	link.Register(keeper.Listener, ln.FD(), nil)
	if err := link.Serve(0); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(stdout, ln.Addr()); err != nil {
		return err
	}
	return s.Serve(ctx, ln)
}

// nowhere is a log that keeps nothing.
type nowhere struct{ end *atomic.Uint64 }

func (n *nowhere) Append(recs []*server.Record) (uint64, error) {
	return n.end.Add(uint64(len(recs))), nil
}
func (n *nowhere) Sync(uint64, time.Duration) error { return nil }
func (n *nowhere) Room() error                      { return nil }
func (n *nowhere) End() uint64                      { return n.end.Load() }

type nobody struct{}

// Len implements server.Directory.
func (nobody) Len() int { return 0 }

func (nobody) Device(protocol.IMEI) (server.DeviceSettings, bool) {
	return server.DeviceSettings{}, false
}
