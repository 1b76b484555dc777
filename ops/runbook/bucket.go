package runbook

import (
	"context"
	"io"

	"gt06/ops/backup"
	"gt06/ops/cloud"
)

// Bucket is a place in S3 for backups: streamed, encrypted at rest, written
// once.
type Bucket struct{ *cloud.Bucket }

// Create begins an object. Of one that is not committed nothing is left, not
// even parts that cost.
func (b Bucket) Create(ctx context.Context, name string) (backup.Object, error) {
	r, w := io.Pipe()
	o := &upload{PipeWriter: w, done: make(chan error, 1)}
	go func() {
		err := b.Upload(ctx, name, r)
		_ = r.CloseWithError(err) // a writer that goes on is told
		o.done <- err
	}()
	return o, nil
}

// Open reads an object.
func (b Bucket) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	r, _, err := b.Bucket.Open(ctx, name)
	return r, err
}

// List returns the names of the objects.
func (b Bucket) List(ctx context.Context) ([]string, error) {
	objects, err := b.Bucket.List(ctx, "")
	names := make([]string, 0, len(objects))
	for _, o := range objects {
		names = append(names, o.Key)
	}
	return names, err
}

type upload struct {
	*io.PipeWriter
	done  chan error
	ended bool
}

// Commit ends the stream and waits for the reply.
func (u *upload) Commit() error {
	u.ended = true
	if err := u.Close(); err != nil {
		return err
	}
	return u.wait()
}

func (u *upload) wait() error { return <-u.done }

// Abort makes the reader fail, so that the upload is given up.
func (u *upload) Abort() {
	if !u.ended {
		u.ended = true
		_ = u.CloseWithError(context.Canceled)
		_ = u.wait()
	}
}
