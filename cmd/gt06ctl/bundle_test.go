package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
)

func TestMask(t *testing.T) {
	t.Parallel()
	m := newMask(false)
	for text, want := range map[string]string{
		`{"imei":"356307386449991"}`:                          `{"imei":"35630738-d"}`,
		"356307386449991 356307386449991\n0356307386449991,":  "35630738-d 35630738-d\n35630738-d,",
		"78781101035630738644999136080000000153ce0d0a":        "78781101[35630738-d]36080000000153ce0d0a",
		"gt06_batch_seconds_sum 0.123456789012345":            "gt06_batch_seconds_sum 0.123456789012345",
		"1764077515123456789":                                 "1764077515123456789",
		"dsn: fleet:s3cret@tcp(db:3306)/gt06":                 "dsn: fleet:***@tcp(db:3306)/gt06",
		"nats://u:s3cret@h:4222":                              "nats://u:***@h:4222",
		`{"command":"PWSW,s3cret#","imei":"x"}`:               `{"command":"***","imei":"x"}`,
		"password=s3cret token: s3cret":                       `password="***" token: "***"`,
		"token_file: /etc/gt06/token":                         "token_file: /etc/gt06/token",
		"2026-11-25T15:05:33.137755Z pid 4121 127.0.0.1:5023": "2026-11-25T15:05:33.137755Z pid 4121 127.0.0.1:5023",
	} {
		got := strings.ReplaceAll(string(m.text([]byte(text))), "-d1", "-d")
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if got := string(newMask(true).text([]byte("356307386449991 u:s3cret@h"))); got != "356307386449991 u:***@h" {
		t.Errorf("%s", got)
	}
}

// unpack returns the files of a bundle by their names.
func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a test's own
	st, err := f.Stat()
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	packed, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(packed); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(h.Name)] = string(b)
	}
}

func TestSupportBundle(t *testing.T) {
	t.Parallel()
	const imei = "356307386449991"
	place := 12.345
	value := func(v any) control.Handler {
		return func(context.Context, json.RawMessage, func(any) error) (any, error) { return v, nil }
	}
	socket := filepath.Join(t.TempDir(), "s")
	s, err := control.Serve(socket, map[string]control.Handler{
		"status":   value(control.Status{State: "degraded", Reasons: []string{"store is down: fleet:s3cret@tcp(db)/x and " + imei}, PID: os.Getpid()}),
		"devices":  value([]control.Device{{IMEI: imei, Name: "Ravi's van", Status: "allowed", Latitude: &place, Longitude: &place, Remote: "203.0.113.9:4000"}}),
		"upgrades": value([]control.Upgrade{}),
		"support":  value(control.Support{Version: "v1", Go: "go1", Config: "listen: :5023 # flag\n", Metrics: "gt06_build_info 1\n", Missing: "the database is away"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	path := filepath.Join(t.TempDir(), "b.tar.gz")
	var stdout, stderr bytes.Buffer
	if code := run([]string{"support-bundle", "--socket", socket, "--data-dir", t.TempDir(), "--out", path}, nil, &stdout, &stderr); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	files := unpack(t, path)
	for name, want := range map[string]string{
		"status.json": "35630738-d1", "devices.json": "35630738-d1", "config.yaml": "listen: :5023 # flag", "metrics.txt": "gt06_build_info 1",
		"versions.txt": "kernel", "process.txt": "Max open files", "files.txt": "inodes free", "README.txt": "missing: the database is away",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s has no %q:\n%s", name, want, files[name])
		}
		if name != "README.txt" && !strings.Contains(stdout.String(), name) {
			t.Errorf("%s is not among what is printed:\n%s", name, stdout.String())
		}
	}
	if files["validate.json"] != "" || !strings.Contains(stdout.String(), `missing: this server does not know "validate"`) {
		t.Errorf("what is missing is not said:\n%s", stdout.String())
	}
	for name, text := range files {
		for _, hidden := range []string{imei, "s3cret", "Ravi", "12.345", "203.0.113.9"} {
			if strings.Contains(text, hidden) {
				t.Errorf("%s shows %q", name, hidden)
			}
		}
	}
	// It never writes over a file; without a server it has what there is.
	if code := run([]string{"support-bundle", "--socket", socket, "--out", path}, nil, &stdout, &stderr); code != int(cli.NotWritable) {
		t.Errorf("exit %d", code)
	}
	stdout.Reset()
	alone := filepath.Join(t.TempDir(), "alone.tar.gz")
	if code := run([]string{"support-bundle", "--socket", socket + "x", "--data-dir", t.TempDir(), "--out", alone, "--json"}, nil, &stdout, &stderr); code != 0 {
		t.Errorf("exit %d: %s", code, stderr.String())
	}
	wantJSON(t, []string{"support-bundle"}, stdout.String())
	if files := unpack(t, alone); !strings.Contains(files["README.txt"], "no server is running") || files["files.txt"] == "" || files["versions.txt"] == "" {
		t.Errorf("%v", files)
	}
}
