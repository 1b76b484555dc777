package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"gt06/cmd/internal/cli"
	"gt06/cmd/internal/config"
	"gt06/server/control"
	"gt06/storage/sqlstore"
)

// finding is one thing that a server needs, and whether it is there.
type finding struct {
	Name string   `json:"name"`
	OK   bool     `json:"ok"`
	Seen string   `json:"seen"`
	Next string   `json:"next,omitempty"` // command to type
	Code cli.Code `json:"code,omitempty"` // what a start would end with
}

// The names of the findings, in the order they are shown.
const (
	tryPort     = "devices' port"
	tryData     = "data directory"
	tryDatabase = "database"
	tryServer   = "server"
)

// serviceUser is who the package's units run as.
const serviceUser = "gt06"

// try finds out what a server with these settings would lack. It changes
// nothing. Root sees who holds the port, and asks for directory and database as
// the user that will serve: a login without a password is that user's alone.
func try(cmd *cobra.Command, cfg *config.Config) []finding {
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
	defer cancel()
	st, serves := serving(ctx, cfg)
	port := findPort(cfg, st, serves)
	data, database := findData(cfg), findDatabase(ctx, cfg)
	if as := servant(cfg.DataDir); as != nil && os.Geteuid() == 0 {
		others, err := tryAs(ctx, as, cmd.Flags())
		if err != nil {
			data = finding{Name: tryData, Seen: fmt.Sprintf("cannot be asked for as uid %d: %v", as.Uid, err), Code: cli.Permission}
		}
		for _, f := range others {
			switch f.Name {
			case tryData:
				data = f
			case tryDatabase:
				database = f
			}
		}
	}
	return []finding{port, data, database, findServer(cfg, st, serves)}
}

func serving(ctx context.Context, cfg *config.Config) (st control.Status, ok bool) {
	path, err := control.Path(cfg.DataDir)
	if err != nil {
		return st, false
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c := control.Client{Path: path}
	return st, c.Call(ctx, "status", nil, &st) == nil
}

func findPort(cfg *config.Config, st control.Status, serves bool) finding {
	f := finding{Name: tryPort, OK: true, Seen: cfg.Listen + " is free"}
	if serves {
		f.Seen = fmt.Sprintf("%s is gt06d's (pid %d)", st.Listen, st.PID)
		return f
	}
	ln, err := net.Listen("tcp", cfg.Listen) //nolint:noctx // a moment
	if err == nil {
		_ = ln.Close()
		return f
	}
	failed, _ := errors.AsType[*cli.Error](inUse("listen", cfg.Listen, err))
	f.OK, f.Seen, f.Code = false, failed.Error(), failed.Code
	if failed.Code == cli.InUse {
		f.Next = "gt06ctl takeover"
	}
	return f
}

func findData(cfg *config.Config) finding {
	f := finding{Name: tryData, OK: true, Seen: cfg.DataDir}
	probe, err := os.CreateTemp(cfg.DataDir, ".try-*")
	switch {
	case err == nil:
		_ = probe.Close()
		_ = os.Remove(probe.Name())
	case errors.Is(err, os.ErrNotExist):
		f.Seen += " will be made"
	default:
		f.OK, f.Seen, f.Code, f.Next = false, err.Error(), cli.NotWritable, "chown -R "+serviceUser+": "+cfg.DataDir
	}
	return f
}

func findDatabase(ctx context.Context, cfg *config.Config) finding {
	f := finding{Name: tryDatabase, OK: true, Seen: "SQLite, " + filepath.Join(cfg.DataDir, "gt06.db")}
	if cfg.Store.Kind == string(sqlstore.SQLite) {
		return f
	}
	f.Seen = "MariaDB"
	err := sqlstore.Try(ctx, sqlstore.Options{Kind: sqlstore.MariaDB, DSN: cfg.Store.DSN})
	if err == nil {
		return f
	}
	f.OK, f.Seen, f.Code = false, cli.Plain(err.Error()), cli.Refused
	switch {
	case errors.Is(err, sqlstore.ErrLogin):
		f.Code, f.Next = cli.Login, "gt06ctl store init --apply"
	case errors.Is(err, sqlstore.ErrUnreachable):
		f.Code, f.Next = cli.Timeout, "systemctl start mariadb"
	}
	return f
}

func findServer(cfg *config.Config, st control.Status, serves bool) finding {
	f := finding{Name: tryServer, OK: true}
	switch {
	case !serves:
		f.Seen, f.Next = "does not run", "gt06d"
		if _, err := os.Stat("/run/systemd/system"); err == nil {
			f.Next = "systemctl enable --now gt06d"
		}
	case st.Store.Kind != cfg.Store.Kind:
		f.Seen, f.Next = fmt.Sprintf("serves with %s, the settings say %s", st.Store.Kind, cfg.Store.Kind), "systemctl reload gt06d"
	default:
		f.Seen = fmt.Sprintf("%s, %d devices online", st.State, st.DevicesOnline)
	}
	return f
}

// servant returns who will serve: the owner of the data directory, else the
// user of the package; nil: nobody in particular.
func servant(dataDir string) *syscall.Credential {
	if st, err := os.Stat(dataDir); err == nil {
		sys, ok := st.Sys().(*syscall.Stat_t)
		if !ok || sys.Uid == 0 {
			return nil
		}
		return &syscall.Credential{Uid: sys.Uid, Gid: sys.Gid}
	}
	u, err := user.Lookup(serviceUser)
	if err != nil {
		return nil
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err1 != nil || err2 != nil {
		return nil
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// tryAs lets this program ask as another user, with the same settings.
func tryAs(ctx context.Context, as *syscall.Credential, flags *pflag.FlagSet) (out []finding, err error) {
	args := []string{"check-config", "--json"}
	flags.Visit(func(f *pflag.Flag) { args = append(args, "--"+f.Name+"="+f.Value.String()) })
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	var b, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &said
	ended := cmd.Run() // a code of its own when something is missing
	if err := json.Unmarshal(b.Bytes(), &out); err != nil {
		return nil, fmt.Errorf("%w: %s", errors.Join(ended, err), bytes.TrimSpace(said.Bytes()))
	}
	return out, nil
}

// sayFindings prints them, and fails with the first thing that is missing.
func sayFindings(cmd *cobra.Command, list []finding, asJSON bool) error {
	out := cmd.OutOrStdout()
	if asJSON {
		b, err := json.MarshalIndent(list, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s\n", b)
	} else {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, f := range list {
			word := "ok"
			if !f.OK {
				word = "MISSING"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", f.Name, word, cli.Printable(f.Seen))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	next := ""
	for _, f := range list {
		if !f.OK {
			var hints []string
			if f.Next != "" {
				hints = []string{f.Next}
			}
			return cli.Fail(f.Code, fmt.Errorf("it cannot serve yet: %s: %s", f.Name, f.Seen), hints...)
		}
		next = f.Next // of the server, the last
	}
	if next != "" && !asJSON {
		fmt.Fprintln(out, "next:", next)
	}
	return nil
}
