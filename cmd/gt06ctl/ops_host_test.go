package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/go-sql-driver/mysql" // the driver

	"gt06/ops"
	"gt06/ops/host"
	"gt06/ops/runbook"
)

// keys adds settings to the configuration of an operator.
func (o *operator) keys(text string) {
	o.Helper()
	f, err := os.OpenFile(o.config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		o.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a test's own
	if _, err := f.WriteString(text); err != nil {
		o.Fatal(err)
	}
}

// TestNothingBeginsOnAFullOrLoadedMachine: exit code 4 on the machine itself,
// before the plan is confirmed; the cloud sees no call that changes anything.
// A copy is made all the same, and a cleanup on a full disk.
func TestNothingBeginsOnAFullOrLoadedMachine(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]string{
		"disk":   "limits: {disk_pct: 0, load_factor: 1000, load_rise: 1000}\n",
		"inodes": "limits: {inode_pct: 0, load_factor: 1000, load_rise: 1000}\n",
		"load":   "limits: {load_factor: -1}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, site := guarded(t)
			a.On = site.Instance
			o := newOperator(t, site)
			o.keys(limits)
			o.open("os-update", "updates of November")
			o.done("snapshot", "create")
			marker := filepath.Join(t.TempDir(), "marker")
			before := a.Changes()
			text := o.must(4, "run", "--apply", "--", "touch", marker)
			if !strings.Contains(text, "not safe to begin") || !strings.Contains(text, "hint: ") {
				t.Error(text)
			}
			if _, err := os.Stat(marker); err == nil {
				t.Error("it was run")
			}
			if n := a.Changes() - before; n != 0 {
				t.Errorf("%d calls changed something", n)
			}
		})
	}
}

// TestFollowingThePastesEndsAtSafe: a machine with everything wrong, looked at
// over ssh. What preflight says next is done, one after the other; it ends at
// safe, in the change it told to open.
func TestFollowingThePastesEndsAtSafe(t *testing.T) {
	t.Parallel()
	a, site := guarded(t)
	_ = a
	o := newOperator(t, site)
	dir := t.TempDir()
	v := runbook.Vitals{
		Host: "prod", Load: host.Load{One: 1, Fifteen: 1, CPUs: 2, MemoryTotal: 100, MemoryAvailable: 50}, Clock: host.Clock{Synchronised: true},
		Disks: []host.Usage{{Path: "/", Used: 96, Available: 4, Bytes: 100}}, Port: runbook.Port{Number: 5023},
		Services: map[string]string{"mariadb": "connection refused", "nginx": `unknown directive "lissen"`},
	}
	// What ssh brings: the machine's answer to `gt06ctl ops machine --json`.
	if err := os.WriteFile(dir+"/ssh", []byte("#!/bin/sh\ncase \"$*\" in *'ubuntu@prod sudo gt06ctl ops machine --json'*) cat "+dir+"/answer;; *) exit 255;; esac\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var followed []string
	for range 12 {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/answer", b, 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, say := o.ops("PATH="+dir+":"+os.Getenv("PATH"), "preflight", "--json", "--host", "ubuntu@prod")
		var said struct {
			Safe   bool
			Next   string
			Checks ops.Checks
		}
		if err := json.Unmarshal([]byte(out), &said); err != nil {
			t.Fatalf("exit %d, %v\n%s%s", code, err, out, say)
		}
		if said.Safe != (code == 0) || !said.Safe && code != 4 {
			t.Errorf("safe %v and exit %d", said.Safe, code)
		}
		if said.Safe {
			if want := "gt06ctl ops cleanup disk"; said.Next != want {
				t.Errorf("next is %q, not %q", said.Next, want)
			}
			break
		}
		followed = append(followed, said.Next)
		switch {
		case strings.HasPrefix(said.Next, "gt06ctl ops change open --action disk-cleanup --reason "):
			o.open("disk-cleanup", "disk over the limit, clean up first")
		case strings.HasPrefix(said.Next, "gt06ctl ops snapshot create --change "):
			o.done("snapshot", "create")
		case said.Next == "sudo systemctl start gt06d.service":
			v.Port = runbook.Port{Number: 5023, Taken: true, Ours: true, Holders: []host.Process{{PID: 1, Name: "gt06d"}}}
		case said.Next == "sudo systemctl status mariadb.service":
			v.Services["mariadb"] = ""
		case said.Next == "sudo nginx -t":
			v.Services["nginx"] = ""
		default:
			t.Fatalf("what is %q?", said.Next)
		}
	}
	if len(followed) != 5 {
		t.Errorf("followed %q", followed)
	}
	if code, _, say := o.ops("PATH="+dir+":"+os.Getenv("PATH"), "preflight", "--host", "ubuntu@other"); code != 8 || !strings.Contains(say, "ssh-recover") {
		t.Errorf("a machine that cannot be reached: exit %d, %s", code, say)
	}
}

// TestBackupCommands: from cron, without a change; in the directory and in S3;
// proven; and nothing that is less than whole.
func TestBackupCommands(t *testing.T) {
	t.Parallel()
	socket := os.Getenv("GT06_TEST_MARIADB")
	if socket == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("under CI a MariaDB must run: GT06_TEST_MARIADB is not set")
		}
		t.Skip("no MariaDB: GT06_TEST_MARIADB is not set (make test starts one)")
	}
	db, err := sql.Open("mysql", "root@unix("+socket+")/?multiStatements=true")
	if err != nil {
		t.Fatal(err)
	}
	schema := fmt.Sprintf("cli_%d", os.Getpid())
	t.Cleanup(func() { _, _ = db.ExecContext(context.Background(), "DROP DATABASE "+schema); _ = db.Close() })
	if _, err := db.ExecContext(t.Context(), fmt.Sprintf("CREATE DATABASE %[1]s; CREATE TABLE %[1]s.a (id INT PRIMARY KEY); INSERT INTO %[1]s.a VALUES (1), (2)", schema)); err != nil {
		t.Fatal(err)
	}
	a, site := guarded(t)
	o := newOperator(t, site)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/my.cnf", []byte("[client]\nuser=root\nsocket="+socket+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.keys(fmt.Sprintf("backup: {dbs: [%s], dir: %s/backups, defaults_file: %[2]s/my.cnf}\n", schema, dir))
	o.must(3, "backup", "verify") // there is none
	text := o.must(0, "backup", "db")
	name, _, _ := strings.Cut(text, " ")
	if !strings.Contains(text, "1 tables, 2 rows") {
		t.Error(text)
	}
	if list := o.must(0, "backup", "list"); !strings.Contains(list, name) {
		t.Error(list)
	}
	if text := o.must(0, "backup", "verify"); !strings.Contains(text, "restored and compared, the same") {
		t.Error(text)
	}
	before := a.Changes()
	s3 := "s3://" + site.Bucket + "/backup"
	text = o.must(0, "backup", "db", "--s3", s3)
	stored, _, _ := strings.Cut(text, " ")
	if text := o.must(0, "backup", "verify", stored, "--s3", s3); !strings.Contains(text, "the same") {
		t.Error(text)
	}
	if n := a.Changes() - before; n != 3 { // data, checksum, manifest
		t.Errorf("%d objects written", n)
	}
	path := filepath.Join(dir, "backups", name)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	o.must(7, "backup", "verify", name)
	o.must(2, "backup", "files") // nobody to encrypt for
	o.must(3, "backup", "verify", "db-20200101T000000Z.sql.gz")
	// A dump that would be restored is read first: the damaged one is refused.
	o.open("restart", "the database is wrong")
	o.must(7, "restore", "db", name)
	o.must(3, "restore", "db", "nothing")
}

// TestPortAndMachine look and need no cloud.
func TestPortAndMachine(t *testing.T) {
	t.Parallel()
	_, site := guarded(t)
	site.Endpoint = "http://127.0.0.1:1"
	o := newOperator(t, site)
	o.keys("gt06: {port: 1, devices_updated: \"none dials this one: a test\"}\nservices: {mariadb: \"\", nginx_unit: \"\", laravel_dir: \"\", pm2_user: \"\"}\n")
	if text := o.must(0, "port"); !strings.Contains(text, "port 1: nobody listens") {
		t.Error(text)
	}
	var v runbook.Vitals
	if err := json.Unmarshal([]byte(o.must(0, "machine", "--json")), &v); err != nil || v.Load.CPUs == 0 || len(v.Disks) == 0 {
		t.Errorf("%+v, %v", v, err)
	}
}
