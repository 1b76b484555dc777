package sqlstore_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"

	"gt06/storage/powertest"
)

// sqliteDisk lies between SQLite and the files of one directory: a VFS in front
// of SQLite's own, which is the way SQLite's own tests of crashes go. What
// changes files counts; when left has come down to zero, happens is called in
// front of the operation and says what SQLite hears of it.
type sqliteDisk struct {
	*powertest.Disk
	dir     string
	left    int
	syncs   bool                // only those count
	happens func() (code int32) // in Do
	met     bool                // it happened
	dead    bool                // the process is gone: what it still does reaches nothing
}

// shim is the VFS: the default one of this process, which hands on what is not
// in a directory that is watched.
var shim struct {
	once    sync.Once
	under   *sqlite3.Tsqlite3_vfs
	mu      sync.Mutex
	watched map[string]*sqliteDisk // by directory
	files   map[uintptr]*shimFile
	methods map[uintptr]uintptr // SQLite's tables of methods, and ours of the same kind
}

type shimFile struct {
	disk    *sqliteDisk
	path    string
	journal bool // its first sync syncs the directory, too
	methods *sqlite3.Tsqlite3_io_methods
}

// watch puts a disk under a directory.
func watch(t testing.TB, d *sqliteDisk) {
	t.Helper()
	shim.once.Do(func() {
		tls := libc.NewTLS()
		under := sqlite3.Xsqlite3_vfs_find(tls, 0)
		shim.under = deref[sqlite3.Tsqlite3_vfs](under)
		shim.watched, shim.files, shim.methods = map[string]*sqliteDisk{}, map[uintptr]*shimFile{}, map[uintptr]uintptr{}
		over := libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(*shim.under)))
		vfs := deref[sqlite3.Tsqlite3_vfs](over)
		*vfs = *shim.under
		name, err := libc.CString("gt06-test")
		if err != nil {
			t.Fatal(err)
		}
		vfs.FzName = name
		vfs.FxOpen = pointer(shimOpen)
		vfs.FxDelete = pointer(shimDelete)
		if rc := sqlite3.Xsqlite3_vfs_register(tls, over, 1); rc != sqlite3.SQLITE_OK {
			t.Fatalf("register a VFS: %d", rc)
		}
	})
	shim.mu.Lock()
	defer shim.mu.Unlock()
	shim.watched[d.dir] = d
	t.Cleanup(func() {
		shim.mu.Lock()
		defer shim.mu.Unlock()
		delete(shim.watched, d.dir)
	})
}

// SQLite as Go keeps its structs and functions behind numbers: deref gives the
// struct, pointer the number of a function, and function the function.

func deref[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

func pointer[F any](f F) uintptr { return *(*uintptr)(unsafe.Pointer(&f)) }

func function[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&p)) }

type (
	openFunc     = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32
	deleteFunc   = func(tls *libc.TLS, vfs, name uintptr, sync int32) int32
	closeFunc    = func(tls *libc.TLS, file uintptr) int32
	writeFunc    = func(tls *libc.TLS, file, b uintptr, n int32, at int64) int32
	truncateFunc = func(tls *libc.TLS, file uintptr, size int64) int32
)

func diskOf(path string) *sqliteDisk {
	shim.mu.Lock()
	defer shim.mu.Unlock()
	return shim.watched[filepath.Dir(path)]
}

func fileOf(file uintptr) *shimFile {
	shim.mu.Lock()
	defer shim.mu.Unlock()
	return shim.files[file]
}

// change is an operation that changes files, or off when there is no power.
func (d *sqliteDisk) change(off int32, op func() int32) (rc int32) {
	counts := !d.syncs || off == sqlite3.SQLITE_IOERR_FSYNC
	rc = off
	_ = d.Do(func() error {
		if d.dead {
			return nil
		}
		if counts {
			d.left--
		}
		if counts && d.left == 0 && d.happens != nil {
			d.met = true
			if rc = d.happens(); rc != sqlite3.SQLITE_OK {
				return nil
			}
		}
		rc = op()
		return nil
	})
	return rc
}

func shimOpen(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32 {
	open := function[openFunc](shim.under.FxOpen)
	path := libc.GoString(name)
	d := diskOf(path)
	if d == nil {
		return open(tls, vfs, name, file, flags, out)
	}
	var rc int32
	_, err := os.Lstat(path)
	if err == nil || flags&sqlite3.SQLITE_OPEN_CREATE == 0 {
		rc = open(tls, vfs, name, file, flags, out)
	} else {
		rc = d.change(sqlite3.SQLITE_CANTOPEN, func() int32 {
			rc := open(tls, vfs, name, file, flags, out)
			if rc == sqlite3.SQLITE_OK {
				d.Created(path)
			}
			return rc
		})
	}
	if rc != sqlite3.SQLITE_OK {
		deref[sqlite3.Tsqlite3_file](file).FpMethods = 0 // nothing to close
		return rc
	}
	f := deref[sqlite3.Tsqlite3_file](file)
	shim.mu.Lock()
	defer shim.mu.Unlock()
	own := deref[sqlite3.Tsqlite3_io_methods](f.FpMethods)
	ours, ok := shim.methods[f.FpMethods]
	if !ok {
		ours = libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(*own)))
		m := deref[sqlite3.Tsqlite3_io_methods](ours)
		*m = *own
		m.FxClose, m.FxWrite, m.FxTruncate, m.FxSync = pointer(shimClose), pointer(shimWrite), pointer(shimTruncate), pointer(shimSync)
		shim.methods[f.FpMethods] = ours
	}
	f.FpMethods = ours
	shim.files[file] = &shimFile{disk: d, path: path, methods: own, journal: flags&(sqlite3.SQLITE_OPEN_WAL|sqlite3.SQLITE_OPEN_MAIN_JOURNAL) != 0}
	return rc
}

func shimClose(tls *libc.TLS, file uintptr) int32 {
	f := fileOf(file)
	shim.mu.Lock()
	delete(shim.files, file)
	shim.mu.Unlock()
	return function[closeFunc](f.methods.FxClose)(tls, file)
}

func shimWrite(tls *libc.TLS, file, b uintptr, n int32, offset int64) int32 {
	f := fileOf(file)
	return f.disk.change(sqlite3.SQLITE_IOERR_WRITE, func() int32 { return function[writeFunc](f.methods.FxWrite)(tls, file, b, n, offset) })
}

func shimTruncate(tls *libc.TLS, file uintptr, size int64) int32 {
	f := fileOf(file)
	return f.disk.change(sqlite3.SQLITE_IOERR_TRUNCATE, func() int32 { return function[truncateFunc](f.methods.FxTruncate)(tls, file, size) })
}

func shimSync(_ *libc.TLS, file uintptr, _ int32) int32 {
	f := fileOf(file)
	return f.disk.change(sqlite3.SQLITE_IOERR_FSYNC, func() int32 {
		now, err := os.ReadFile(f.path)
		if err != nil || f.disk.Synced(f.path, now) != nil {
			return sqlite3.SQLITE_IOERR_FSYNC
		}
		if f.journal {
			f.disk.DirSynced(f.disk.dir)
			f.journal = false
		}
		return sqlite3.SQLITE_OK
	})
}

func shimDelete(tls *libc.TLS, vfs, name uintptr, sync int32) int32 {
	remove := function[deleteFunc](shim.under.FxDelete)
	path := libc.GoString(name)
	d := diskOf(path)
	if d == nil {
		return remove(tls, vfs, name, sync)
	}
	return d.change(sqlite3.SQLITE_IOERR_DELETE, func() int32 {
		rc := remove(tls, vfs, name, sync)
		if rc == sqlite3.SQLITE_OK {
			d.Removed(path)
			if sync != 0 {
				d.DirSynced(d.dir)
			}
		}
		return rc
	})
}
