package sqlstore_test

import (
	"testing"

	"github.com/jmoiron/sqlx"

	"gt06/storage/logtest"
	"gt06/storage/sqlstore"
)

// Records that come while a full batch is stored, behind what was read ahead,
// wait for nothing: no other record may follow them for hours.
func TestRecordsBehindAFullBatch(t *testing.T) {
	t.Parallel()
	databases(t, func(t *testing.T, opt sqlstore.Options, open func() *sqlx.DB) {
		log := logtest.NewLog()
		log.Add(mixed(0, 10)...)
		later := func(name string) {
			if n := int(log.Durable()); name == "store.committed" && n < 13 {
				log.Add(mixed(n, 13)...)
			}
		}
		drainAs(t, openStore(t, opt), log, sqlstore.WriterOptions{Epoch: 1, Batch: 10, Failpoint: later})
		whole(t, open(), 13)
	})
}
