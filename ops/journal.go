package ops

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A journal is a file of a change, <dir>/<change>.jsonl, mode 0640: a line of
// JSON a record, appended and synced before the next thing happens.
//
//	{"v":1,"seq":7,"t":"2026-11-22T20:15:03.123456Z","change":"c-20261122-01",
//	 "kind":"step.result","run":4,"step":"volume.modify",
//	 "actor":{"uid":0,"user":"ravi","tty":"pts/0","ssh":"203.0.113.9","host":"ops1"},
//	 "in":{…},"out":{…},"rc":0,"ms":812,"prev":"sha256:…","hash":"sha256:…"}
//
//	seq   1, 2, 3 … in the change
//	prev  the hash of the record before; of the first: of the last record of
//	      the change before it ("previous" in its in), or sha256:0 for the first of all
//	hash  SHA-256 of the line with "hash":"" in its place
//
// A line is exactly what encoding/json makes of the record: an altered byte,
// a member more, a space more are found. Beside it lies <change>.head, "seq
// hash" of the last record, written after it: it tells a record that was cut
// off from one that a crash left half written. Copies go to a Mirror, because
// restoring the root volume takes the file back in time; the hash of the last
// record goes to an Anchor. The members of in and out are redacted.
const journalVersion = 1

const noPrevious = "sha256:0"

// The kinds of records.
const (
	KindOpen       = "change.open"
	KindCheck      = "check"
	KindGate       = "gate"
	KindAdopt      = "snapshot.adopt"
	KindPlan       = "plan"
	KindApprove    = "approve"
	KindIntent     = "step.intent"
	KindResult     = "step.result"
	KindUndo       = "step.undo"
	KindPlanEnd    = "plan.end"
	KindNote       = "note"
	KindForbidden  = "forbidden"
	KindBreakGlass = "break_glass"
	KindFreeze     = "change.freeze"
	KindAbandon    = "change.abandon"
	KindClose      = "change.close"
)

// The names of checks that are recorded, in["name"].
const (
	CheckPreflight = "preflight"
	CheckValidate  = "validate"
)

// Actor is who did it.
type Actor struct {
	UID  int    `json:"uid"`
	User string `json:"user"`
	TTY  string `json:"tty,omitempty"`
	SSH  string `json:"ssh,omitempty"` // address of the client
	Host string `json:"host"`
	ARN  string `json:"arn,omitempty"`
}

// Record is one line of a journal.
type Record struct {
	Version int               `json:"v"`
	Seq     int               `json:"seq"`
	Time    time.Time         `json:"t"`
	Change  string            `json:"change"`
	Kind    string            `json:"kind"`
	Run     int               `json:"run,omitempty"` // seq of the plan it belongs to
	Step    string            `json:"step,omitempty"`
	Actor   Actor             `json:"actor"`
	In      map[string]string `json:"in,omitempty"`
	Out     map[string]string `json:"out,omitempty"`
	RC      int               `json:"rc"`
	MS      int64             `json:"ms"`
	Prev    string            `json:"prev"`
	Hash    string            `json:"hash"`
}

// sum is the hash of a record.
func (r Record) sum() (string, error) {
	r.Hash = ""
	b, err := json.Marshal(r)
	return "sha256:" + digestBytes(b), err
}

// Journals is the directory of the journals of all changes.
type Journals struct {
	Dir       string
	Mirror    Mirror // nil: none
	Anchor    Anchor // nil: none
	Actor     Actor
	Now       func() time.Time
	Failpoint func(name string) // tests: called when a record is safe
}

// Journal is that of one change, to be appended to by the holder of the lock.
type Journal struct {
	all     *Journals
	id      string
	records []Record
	headDue bool // the last record is safe and its head may not be written
	copied  int  // records the mirror has
}

// Change is what the records say.
func (j *Journal) Change() Change { return changeOf(j.records) }

// Records are all of it; not to be changed.
func (j *Journal) Records() []Record { return j.records }

// makeDir makes the directory, root's for the group adm to read: its files get
// the group of the directory.
func (a *Journals) makeDir() error {
	if _, err := os.Stat(a.Dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(a.Dir, 0o750); err != nil {
		return err
	}
	adm, err := user.LookupGroup("adm")
	if err != nil || os.Geteuid() != 0 {
		return nil //nolint:nilerr // no such group on this machine: root alone reads
	}
	gid, err := strconv.Atoi(adm.Gid)
	if err != nil {
		return err
	}
	return errors.Join(os.Chown(a.Dir, 0, gid), os.Chmod(a.Dir, 0o750|os.ModeSetgid))
}

func (a *Journals) path(id, suffix string) string { return filepath.Join(a.Dir, id+suffix) }

// ids lists the changes that have a file here, the oldest first.
func (a *Journals) ids() ([]string, error) {
	entries, err := os.ReadDir(a.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".jsonl"); ok && changeID.MatchString(id) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, compareIDs)
	return ids, nil
}

// compareIDs orders changes by day and count: the 100th of a day is not before
// the 99th.
func compareIDs(a, b string) int {
	if len(a) != len(b) && a[:10] == b[:10] {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// List returns the changes known here, the oldest first.
func (a *Journals) List() ([]Change, error) {
	ids, err := a.ids()
	if err != nil {
		return nil, err
	}
	out := make([]Change, 0, len(ids))
	for _, id := range ids {
		records, err := a.read(id)
		if err != nil {
			return nil, err
		}
		if len(records) > 0 {
			out = append(out, changeOf(records))
		}
	}
	return out, nil
}

// next names the next change of a day.
func (a *Journals) next(zone *time.Location) (string, error) {
	ids, err := a.ids()
	if err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		if id := fmt.Sprintf("c-%s-%02d", a.Now().In(zone).Format("20060102"), n); !slices.Contains(ids, id) {
			return id, nil
		}
	}
}

// create begins the journal of a new change with its first record.
func (a *Journals) create(ctx context.Context, id string, in map[string]string) (*Journal, error) {
	if err := a.makeDir(); err != nil {
		return nil, permission(err)
	}
	ids, err := a.ids()
	if err != nil {
		return nil, err
	}
	prev := noPrevious
	for _, before := range slices.Backward(ids) {
		records, err := a.read(before)
		if err != nil {
			return nil, err
		}
		if len(records) > 0 { // none: a crash when it was made
			in["previous"], prev = before, records[len(records)-1].Hash
			break
		}
	}
	f, err := os.OpenFile(a.path(id, ".jsonl"), os.O_WRONLY|os.O_CREATE, 0o640)
	if err != nil {
		return nil, permission(err)
	}
	st, err := f.Stat()
	if err := errors.Join(err, f.Sync(), f.Close(), syncDir(a.Dir)); err != nil {
		return nil, err
	}
	if st.Size() > 0 { // an empty one is what a crash left here
		return nil, fmt.Errorf("journal of %s: %w", id, os.ErrExist)
	}
	j := &Journal{all: a, id: id}
	return j, j.append(ctx, Record{Kind: KindOpen, In: in, Prev: prev})
}

// Open reads the journal of a change, checks it, and takes over from the mirror
// what is not here. A half-written last line is cut off: nothing was done
// after it.
func (a *Journals) Open(ctx context.Context, id string) (*Journal, error) {
	if !changeID.MatchString(id) {
		return nil, Fail(Usage, fmt.Errorf("%q is no change: they are named like c-20261122-01", id), "gt06ctl ops change list")
	}
	records, err := a.read(id)
	if err != nil {
		return nil, err
	}
	j := &Journal{all: a, id: id, records: records, headDue: len(records) > 0}
	if err := j.catchUp(ctx); err != nil {
		return nil, err
	}
	if len(j.records) == 0 {
		return nil, Fail(Refused, fmt.Errorf("there is no change %s here", id), "gt06ctl ops change list")
	}
	return j, j.cutTorn()
}

// append makes a record durable here, then in the mirror. A record that is
// here and not there is sent before the next one: see catchUp.
func (j *Journal) append(ctx context.Context, r Record) error {
	a := j.all
	r.Version, r.Seq, r.Time, r.Change, r.Actor = journalVersion, len(j.records)+1, a.Now().UTC().Truncate(time.Microsecond), j.id, a.Actor
	r.In, r.Out = redact(r.In), redact(r.Out)
	if n := len(j.records); n > 0 {
		r.Prev = j.records[n-1].Hash
	}
	var err error
	if r.Hash, err = r.sum(); err != nil {
		return err
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := j.write(append(line, '\n'), r); err != nil {
		return fmt.Errorf("journal %s: %w", j.id, err)
	}
	if a.Failpoint != nil {
		a.Failpoint("record")
	}
	return j.copyOut(ctx)
}

// write makes a line durable and then its head. A line that does not fit on the
// disk is taken back whole; a head that does not is owed before the next line.
func (j *Journal) write(line []byte, r Record) error {
	if j.headDue {
		if err := j.writeHead(j.records[len(j.records)-1]); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(j.all.path(j.id, ".jsonl"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return permission(err)
	}
	before, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if _, err := f.Write(line); err != nil {
		return errors.Join(err, f.Truncate(before), f.Close())
	}
	if err := f.Sync(); err != nil { // what is on the disk is not known
		return errors.Join(err, f.Truncate(before), f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	j.records = append(j.records, r)
	return j.writeHead(r)
}

func (j *Journal) writeHead(r Record) error {
	j.headDue = true
	temporary := j.all.path(j.id, ".head.new")
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f, "%d %s\n", r.Seq, r.Hash); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(temporary, j.all.path(j.id, ".head")), syncDir(j.all.Dir)); err != nil {
		return err
	}
	j.headDue = false
	return nil
}

// cutTorn removes a half-written last line.
func (j *Journal) cutTorn() error {
	path := j.all.path(j.id, ".jsonl")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || len(b) == 0 || b[len(b)-1] == '\n' {
		return err
	}
	return os.Truncate(path, int64(bytes.LastIndexByte(b, '\n')+1))
}

// read returns the records of a change whose chain holds; nil when it has no
// file here.
func (a *Journals) read(id string) ([]Record, error) {
	b, err := os.ReadFile(a.path(id, ".jsonl"))
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(a.path(id, ".head")); err == nil {
			return nil, broken(id, 0, "the file is gone and its head is there")
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var records []Record
	for line := range bytes.Lines(b) {
		whole, ok := bytes.CutSuffix(line, []byte("\n"))
		if !ok {
			break // half written; the head tells whether it was ever whole
		}
		r, err := parse(id, whole, records)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, a.checkHead(id, records)
}

// parse reads a line that follows records.
func parse(id string, line []byte, records []Record) (Record, error) {
	n := len(records) + 1
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return r, broken(id, n, "not JSON: "+err.Error())
	}
	if r.Version != journalVersion {
		return r, broken(id, n, fmt.Sprintf("version %d, this program knows %d", r.Version, journalVersion))
	}
	same, err := json.Marshal(r)
	if err != nil {
		return r, err
	}
	sum, err := r.sum()
	switch {
	case err != nil:
		return r, err
	case !bytes.Equal(same, line):
		return r, broken(id, n, "not as it was written")
	case r.Seq != n:
		return r, broken(id, n, fmt.Sprintf("number %d stands there", r.Seq))
	case r.Change != id:
		return r, broken(id, n, "it belongs to "+r.Change)
	case r.Hash != sum:
		return r, broken(id, n, "its hash is not its own")
	case n > 1 && r.Prev != records[n-2].Hash:
		return r, broken(id, n, "it does not follow the one before")
	}
	return r, nil
}

func (a *Journals) checkHead(id string, records []Record) error {
	b, err := os.ReadFile(a.path(id, ".head"))
	if errors.Is(err, os.ErrNotExist) {
		if len(records) > 1 {
			return broken(id, len(records), "its head file is gone")
		}
		return nil
	}
	if err != nil {
		return err
	}
	number, hash, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	seq, err := strconv.Atoi(number)
	switch {
	case err != nil || seq < 1:
		return broken(id, len(records), "its head file is no head")
	case seq > len(records):
		return broken(id, seq, fmt.Sprintf("it is cut off: %d records are left", len(records)))
	case records[seq-1].Hash != hash:
		return broken(id, seq, "it is not the one its head names")
	case len(records) > seq+1: // one may have been written and its head not
		return broken(id, seq, "its head is too old")
	}
	return nil
}

func broken(id string, seq int, what string) error {
	return Fail(JournalBroken, fmt.Errorf("journal of %s is broken at record %d: %s", id, seq, what),
		"do nothing more in this change; compare with the copy: gt06ctl ops verify-journal")
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
