package sqlstore

import (
	"errors"
	"io"

	"go.uber.org/zap"

	"gt06/protocol"
	"gt06/storage"
	"gt06/storage/event"
)

// batch is records of the log and the rows they stand for. A writer that is
// behind has two: one is read and decoded while the database stores the other,
// so that both processors work.
type batch struct {
	items []Item
	bytes []byte // the frames of items
	rows  event.Rows
	msg   protocol.Message
	err   error // why reading ended early
}

// next returns the batch behind the last one.
func (w *Writer) next() *batch {
	if w.coming != nil {
		b := <-w.coming
		w.coming = nil
		if len(b.items) > 0 || b.err != nil {
			return b
		}
		w.done(b) // the log may have moved since
	}
	return w.read(w.take(), w.log.Durable())
}

// ahead begins the batch behind a full one.
func (w *Writer) ahead() {
	coming, b, limit := make(chan *batch, 1), w.take(), w.log.Durable()
	w.coming = coming
	go func() {
		background()
		coming <- w.read(b, limit)
	}()
}

// settle waits until nothing is being read. What was read is kept.
func (w *Writer) settle() {
	if w.coming != nil {
		b := <-w.coming
		w.coming <- b
	}
}

func (w *Writer) closeReader() {
	if w.coming != nil {
		w.done(<-w.coming)
		w.coming = nil
	}
	if w.reader != nil {
		_ = w.reader.Close()
		w.reader = nil
	}
}

// take returns a batch to fill.
func (w *Writer) take() *batch {
	b := w.spare
	w.spare = nil
	if b == nil {
		b = &batch{}
	}
	return b
}

// done keeps the memory of a batch for the next one, but not that of a large
// one when the writer has caught up.
func (w *Writer) done(b *batch) {
	if cap(b.items) < w.batch || len(b.items) > w.batch/8 {
		w.spare = b
	}
}

// read fills a batch with what is in the log before a limit.
func (w *Writer) read(b *batch, limit storage.Position) *batch {
	b.items, b.bytes, b.err = b.items[:0], b.bytes[:0], nil
	var rec storage.Record
	for len(b.items) < w.batch {
		end, err := w.reader.Next(limit, &rec)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			b.err = err
			return b
		}
		if event.IsCommand(&rec) {
			rec.Answer = b.copy(rec.Answer)
		} else {
			rec.Answer = nil
		}
		rec.Input = b.copy(rec.Input)
		b.items = append(b.items, Item{Record: rec, End: end})
	}
	w.build(b, b.items)
	return b
}

func (b *batch) copy(p []byte) []byte {
	at := len(b.bytes)
	b.bytes = append(b.bytes, p...)
	return b.bytes[at:len(b.bytes):len(b.bytes)]
}

// build makes the rows of items.
func (w *Writer) build(b *batch, items []Item) {
	b.rows.Reset()
	for i := range items {
		w.add(b, &items[i])
	}
}

// add makes the rows of an item.
func (w *Writer) add(b *batch, it *Item) {
	rec, end := &it.Record, it.End
	if event.IsCommand(rec) {
		event.BuildCommands(&b.rows, rec, end)
		return
	}
	if !event.IsFrame(rec) {
		return
	}
	w.decoder.Decode(&b.msg, rec.Input, protocol.Session{IMEI: rec.Device, UTCOffset: rec.UTCOffset, Model: rec.Model})
	event.Build(&b.rows, rec, end, &b.msg)
	if b.msg.Has&protocol.HasPhoto != 0 && w.photos != nil && rec.Device != 0 && b.msg.Error == "" {
		w.photo(b, rec)
	}
}

// photo keeps a part of a photo; the row of its last part names the file. What
// fails here is in the log, and a replay tries it again.
func (w *Writer) photo(b *batch, rec *storage.Record) {
	p := &b.msg.Photo
	file, err := w.photos.Add(rec.Device, p, rec.Input[p.At:p.At+p.Len])
	if err != nil {
		w.s.log.Warn("a photo", zap.Stringer("imei", rec.Device), zap.Error(err))
		return
	}
	if events := b.rows.Events; file != "" && len(events) > 0 {
		events[len(events)-1].Attributes = protocol.AppendAttributes(nil, []protocol.Attribute{{Key: "image", Type: protocol.String, Text: file}})
	}
}
