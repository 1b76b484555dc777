package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
	"go.uber.org/zap"
)

// MariaDB takes rows as text at half the processor time of an INSERT of the
// same rows (6 us a row instead of 11: its parser). But LOAD DATA LOCAL never
// fails: a value that does not fit is cut, a row that is there already is left
// out, each with a warning. So the warnings are counted before the commit: with
// a single one the transaction is undone and its rows go the strict way, where
// merged rows are counted and a refused row is found.
const (
	// loadRows is how many rows of a table are worth it.
	loadRows = 500
	// strictly is how many batches go the strict way after one that had to: a
	// fleet that sends its fixes again will go on for a while.
	strictly = 20
)

// errWarned means that LOAD DATA was not clean.
var errWarned = errors.New("gt06/sqlstore: rows were changed or left out")

// loader decides which way rows go, and is what the driver reads them from: the
// database loads the first ones while the last ones are written.
type loader struct {
	strict int // batches left to go the strict way; negative: for good

	st   *statement
	row  int    // the next
	text values // of those before it
	read int    // how much of text was read
}

// loads numbers the readers registered with the driver, which has one list of
// them for the whole process.
var loads atomic.Uint64 //nolint:gochecknoglobals // the driver's list is, too

// Read returns the next bytes of the rows.
func (l *loader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if l.read == len(l.text.dst) {
			if l.row == l.st.rows {
				break
			}
			l.text.dst, l.read = l.text.dst[:0], 0
			l.st.fill(&l.text, l.row)
			l.row++
		}
		c := copy(p[n:], l.text.dst[l.read:])
		n, l.read = n+c, l.read+c
	}
	if n == 0 && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

// loads says whether a statement is loaded. Rows that may replace others, or
// are only asked about, are not: their writers have no loader.
func (w *Writer) loads(st *statement) bool {
	_, maria := w.s.d.(mariaDialect)
	return maria && st.loadable && w.load != nil && st.rows >= loadRows && w.load.strict == 0
}

// loadData writes the rows of a statement; all of them are new.
func (w *Writer) loadData(ctx context.Context, tx *sqlx.Tx, st *statement) (int64, error) {
	l, name := w.load, strconv.FormatUint(loads.Add(1), 10)
	mysql.RegisterReaderHandler(name, func() io.Reader { return l })
	defer mysql.DeregisterReaderHandler(name)
	l.st, l.row, l.read = st, 0, 0
	l.text = values{d: w.s.d, plain: true, dst: l.text.dst[:0]}
	res, err := tx.ExecContext(ctx, "LOAD DATA LOCAL INFILE 'Reader::"+name+"' INTO TABLE "+st.table+" CHARACTER SET utf8mb4 ("+st.columns+")")
	if err != nil {
		if my, ok := errors.AsType[*mysql.MySQLError](err); ok && (my.Number == 1148 || my.Number == 3948 || my.Number == 4166) {
			w.s.log.Info("the database does not take rows as text (local_infile is off): they are inserted, at twice its processor time", zap.Error(err))
			w.load.strict = -1
			return 0, errWarned
		}
		return 0, err
	}
	var warnings int
	if err := tx.GetContext(ctx, &warnings, "SELECT @@warning_count"); err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	if err == nil && (warnings != 0 || n != int64(st.rows)) {
		w.load.strict = strictly
		err = fmt.Errorf("%w: %d of %d, %d warnings", errWarned, n, st.rows, warnings)
	}
	return n, err
}
