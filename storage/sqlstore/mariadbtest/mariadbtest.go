// Package mariadbtest gives tests a real MariaDB: the server whose socket
// GT06_TEST_MARIADB names, or one of their own.
package mariadbtest

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // the driver
)

// Server is a MariaDB of a test's own, which it may kill and stop.
type Server struct {
	Dir    string
	Socket string
	Port   int
	cmd    *exec.Cmd
}

//nolint:gochecknoglobals // numbers the schemas of this process
var schemas atomic.Int64

// Schema makes an empty schema on the shared server and returns its DSN. It is
// dropped at the end of the test. Without a server the test is skipped, under
// CI it fails.
func Schema(t testing.TB) string {
	t.Helper()
	socket := os.Getenv("GT06_TEST_MARIADB")
	if socket == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("under CI a MariaDB must run: GT06_TEST_MARIADB is not set")
		}
		t.Skip("no MariaDB: GT06_TEST_MARIADB is not set (make test starts one)")
	}
	return schema(t, "root@unix("+socket+")/")
}

// Password is that of the user in the DSNs: tests look for it where it must not
// be.
const Password = "S3cret-of-the-tests"

const user = "gt06:" + Password + "@"

func schema(t testing.TB, server string) string {
	t.Helper()
	db, err := sql.Open("mysql", server)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("gt06_test_%d_%d", os.Getpid(), schemas.Add(1))
	if _, err := db.ExecContext(context.Background(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = db.ExecContext(context.Background(), "DROP DATABASE "+name)
		_ = db.Close()
	})
	for _, host := range []string{"localhost", "127.0.0.1"} {
		for _, statement := range []string{"CREATE USER IF NOT EXISTS gt06@'%s' IDENTIFIED BY '" + Password + "'", "GRANT ALL ON *.* TO gt06@'%s' WITH GRANT OPTION"} {
			if _, err := db.ExecContext(context.Background(), fmt.Sprintf(statement, host)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return strings.Replace(server, "root@", user, 1) + name
}

// Start runs a server of the test's own in a fresh directory.
func Start(t testing.TB) *Server {
	t.Helper()
	if _, err := exec.LookPath("mariadbd"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("under CI mariadbd must be installed")
		}
		t.Skip("mariadbd is not installed")
	}
	dir, err := os.MkdirTemp("", "gt06-mariadb-") // a short path: sockets have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Dir: dir, Socket: filepath.Join(dir, "s"), Port: freePort(t)}
	install := exec.CommandContext(context.Background(), "mariadb-install-db", "--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db", "--datadir="+filepath.Join(dir, "data"))
	install.Env = append(os.Environ(), "TMPDIR="+dir) // several at a time get in each other's way
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		s.Kill()
		_ = os.RemoveAll(dir)
	})
	s.Restart(t)
	return s
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's own
	return l.Addr().(*net.TCPAddr).Port
}

// Restart starts the server, again after a Kill, and waits until it answers.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.cmd = exec.CommandContext(context.Background(), "mariadbd", "--no-defaults", "--user=root", "--datadir="+filepath.Join(s.Dir, "data"), "--socket="+s.Socket,
		"--bind-address=127.0.0.1", fmt.Sprintf("--port=%d", s.Port), "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M", "--innodb-flush-log-at-trx-commit=1", "--skip-log-bin", "--skip-name-resolve", "--pid-file="+filepath.Join(s.Dir, "pid"))
	log, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the child has it
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("mysql", "root@unix("+s.Socket+")/")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // a test's own
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(60 * time.Second)
	for db.PingContext(context.Background()) != nil {
		select {
		case <-tick.C:
		case <-limit:
			out, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
			t.Fatalf("MariaDB does not come up:\n%s", out)
		}
	}
}

// Kill ends the server as a power cut would, and waits for its end.
func (s *Server) Kill() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Process returns the running server, for signals.
func (s *Server) Process() *os.Process { return s.cmd.Process }

// Schema makes an empty schema and returns its DSN over TCP.
func (s *Server) Schema(t testing.TB) string {
	t.Helper()
	dsn := schema(t, "root@unix("+s.Socket+")/")
	return fmt.Sprintf("%stcp(127.0.0.1:%d)/%s", user, s.Port, filepath.Base(dsn))
}
