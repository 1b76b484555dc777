package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"time"
)

// PM2 is the process manager of one user. What it lists holds the whole
// environment of every program, with its secrets: only what App names is read.
type PM2 struct {
	System
	User    string // whose it is; "": the one of this process
	Home    string // PM2_HOME; "": .pm2 in the user's home
	Program string // "": pm2 of the PATH, or of the user's nvm
}

// App is a program of pm2.
type App struct {
	ID       int
	Name     string
	PID      int
	Status   string // online, stopped, errored, …
	Restarts int
	Since    time.Time // of the last start
	Script   string
	Dir      string
	Cluster  bool // its workers share a socket that pm2's daemon holds
}

// Place returns PM2_HOME.
func (p PM2) Place() (string, error) {
	if p.Home != "" {
		return p.Home, nil
	}
	if p.User == "" {
		dir, err := os.UserHomeDir()
		return filepath.Join(dir, ".pm2"), err
	}
	u, err := user.Lookup(p.User)
	if err != nil {
		return "", err
	}
	return filepath.Join(u.HomeDir, ".pm2"), nil
}

// command is pm2 with arguments. Node's own directory goes in front of the
// PATH, since pm2 under nvm is found by a login shell only.
func (p PM2) command(args ...string) (Command, error) {
	home, err := p.Place()
	if err != nil {
		return Command{}, err
	}
	program := p.Program
	if program == "" {
		program, err = p.LookPath("pm2")
		if err != nil {
			found, _ := filepath.Glob(filepath.Join(filepath.Dir(home), ".nvm/versions/node/*/bin/pm2"))
			if len(found) == 0 {
				return Command{}, fmt.Errorf("pm2 is neither in the PATH nor in %s/.nvm: %w", filepath.Dir(home), err)
			}
			program = found[len(found)-1]
		}
	}
	return Command{
		Name: program, Args: args, User: p.User,
		Env: []string{"PM2_HOME=" + home, "PATH=" + filepath.Dir(program) + ":" + searchPath()},
	}, nil
}

func (p PM2) run(ctx context.Context, args ...string) error {
	c, err := p.command(args...)
	if err != nil {
		return err
	}
	_, err = p.System.run(ctx, c)
	return err
}

// listed is what is read of a program in `pm2 jlist` and dump.pm2.
type listed struct {
	ID   int    `json:"pm_id"`
	Name string `json:"name"`
	PID  int    `json:"pid"`
	Env  struct {
		Status   string `json:"status"`
		Restarts int    `json:"restart_time"`
		Uptime   int64  `json:"pm_uptime"` // milliseconds since 1970, of the start
		Script   string `json:"pm_exec_path"`
		Dir      string `json:"pm_cwd"`
		Mode     string `json:"exec_mode"`
	} `json:"pm2_env"`
}

// List returns the programs of pm2. The list is the last line it prints: others
// are before it when it had to start its daemon.
func (p PM2) List(ctx context.Context) ([]App, error) {
	var out bytes.Buffer
	c, err := p.command("jlist")
	if err != nil {
		return nil, err
	}
	c.Stdout = &out // it may be long, and every byte of it counts
	if _, err := p.System.run(ctx, c); err != nil {
		return nil, err
	}
	text := bytes.TrimSpace(out.Bytes())
	if i := bytes.LastIndexByte(text, '\n'); i >= 0 {
		text = text[i+1:]
	}
	var list []listed
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("pm2 jlist: its last line is no list: %w", err)
	}
	apps := make([]App, 0, len(list))
	for _, l := range list {
		apps = append(apps, App{
			ID: l.ID, Name: l.Name, PID: l.PID, Status: l.Env.Status, Restarts: l.Env.Restarts,
			Since: time.UnixMilli(l.Env.Uptime), Script: l.Env.Script, Dir: l.Env.Dir, Cluster: l.Env.Mode == "cluster_mode",
		})
	}
	return apps, nil
}

// Stop stops a program, Delete takes it from the list.
func (p PM2) Stop(ctx context.Context, name string) error {
	return p.run(ctx, "stop", name)
}

// Delete takes a program from the list.
func (p PM2) Delete(ctx context.Context, name string) error {
	return p.run(ctx, "delete", name)
}

// Again starts a program of the list that was stopped.
func (p PM2) Again(ctx context.Context, name string) error { return p.run(ctx, "start", name) }

// Start starts a script under a name.
func (p PM2) Start(ctx context.Context, dir, script, name string) error {
	c, err := p.command("start", script, "--name", name)
	if err != nil {
		return err
	}
	c.Dir = dir
	_, err = p.System.run(ctx, c)
	return err
}

// Description is all that pm2 knows of the processes of a program, in the form
// of its own saved list: script, arguments, directory, interpreter, mode and the
// whole environment, with its secrets.
type Description []json.RawMessage

// Describe returns what is needed to start a program again as it runs now, or as
// the list that starts with the machine has it. pm2 writes its list into a directory that only its user can read;
// the list that starts with the machine stays as it is.
func (p PM2) Describe(ctx context.Context, name string) (Description, error) {
	dir, err := p.private()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a directory of our own
	at := filepath.Join(dir, "list")
	if err := p.with(ctx, at, "save", "--force"); err != nil {
		return nil, err
	}
	d, err := described(at, name)
	if err != nil || len(d) > 0 {
		return d, err
	}
	home, err := p.Place()
	if err != nil {
		return nil, err
	}
	if d, err = described(filepath.Join(home, savedFile), name); err == nil && len(d) == 0 {
		err = fmt.Errorf("pm2 knows nothing of %s that it could be started from", name)
	}
	return d, err
}

// described are the entries of a program in a list that pm2 saved.
func described(list, name string) (own Description, err error) {
	b, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	var all Description
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("what pm2 saves of its list: %w", err)
	}
	for _, raw := range all {
		var one struct {
			Name   string `json:"name"`
			Script string `json:"pm_exec_path"`
		}
		if err := json.Unmarshal(raw, &one); err != nil {
			return nil, fmt.Errorf("what pm2 saves of its list: %w", err)
		}
		if one.Name == name && one.Script != "" {
			own = append(own, raw)
		}
	}
	return own, nil
}

// Recreate starts a program as it was described; one that is in the list
// already is left alone.
func (p PM2) Recreate(ctx context.Context, d Description) error {
	dir, err := p.private()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a directory of our own
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	at := filepath.Join(dir, "list")
	if err := os.WriteFile(at, b, 0o600); err != nil {
		return err
	}
	if err := p.give(at); err != nil {
		return err
	}
	return p.with(ctx, at, "resurrect")
}

// with runs a command of pm2 that takes another file for its saved list.
func (p PM2) with(ctx context.Context, list string, args ...string) error {
	c, err := p.command(args...)
	if err != nil {
		return err
	}
	c.Env = append(c.Env, "PM2_DUMP_FILE_PATH="+list, "PM2_DUMP_BACKUP_FILE_PATH="+list+".bak")
	_, err = p.System.run(ctx, c)
	return err
}

// private makes a directory that nobody but pm2's user can enter.
func (p PM2) private() (string, error) {
	dir, err := os.MkdirTemp("", "gt06-pm2-")
	if err != nil {
		return "", err
	}
	return dir, p.give(dir)
}

// give makes a path pm2's user's own.
func (p PM2) give(path string) error {
	if p.User == "" || os.Geteuid() != 0 {
		return nil
	}
	_, id, err := identity(p.User)
	if err != nil {
		return err
	}
	return os.Chown(path, int(id.Uid), int(id.Gid))
}

// Resurrect starts what the saved list names and does not run.
func (p PM2) Resurrect(ctx context.Context) error {
	return p.run(ctx, "resurrect")
}

// Save makes the list of now the one that starts with the machine, and reads it
// back: of an empty list `pm2 save` saves nothing, says so on a line nobody
// reads and ends well, so that the next boot starts a program which was deleted.
func (p PM2) Save(ctx context.Context) error {
	apps, err := p.List(ctx)
	if err != nil {
		return err
	}
	args := []string{"save"}
	if len(apps) == 0 {
		args = append(args, "--force")
	}
	if err := p.run(ctx, args...); err != nil {
		return err
	}
	saved, err := p.Saved()
	if err != nil {
		return err
	}
	var names []string
	for _, a := range apps {
		names = append(names, a.Name)
	}
	slices.Sort(names)
	if !slices.Equal(names, saved) {
		return fmt.Errorf("pm2 saved %q and runs %q", saved, names)
	}
	// The list before this one is kept beside it and taken where this one cannot
	// be read: what was deleted must not be in it either.
	kept, err := p.list(backupFile)
	if err == nil && slices.ContainsFunc(kept, func(name string) bool { return !slices.Contains(names, name) }) {
		err = p.run(ctx, args...)
	}
	return err
}

// The lists that pm2 saves, in its directory.
const (
	savedFile  = "dump.pm2"
	backupFile = "dump.pm2.bak"
)

// Saved returns the names in the list that starts with the machine, sorted.
func (p PM2) Saved() ([]string, error) { return p.list(savedFile) }

func (p PM2) list(file string) ([]string, error) {
	home, err := p.Place()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(home, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var names []string
	for _, l := range list {
		names = append(names, l.Name)
	}
	slices.Sort(names)
	return names, nil
}

// Exposed says whether others than its owner can read the saved list, which
// holds the environment of every program.
func (p PM2) Exposed() (path string, yes bool) {
	home, err := p.Place()
	if err != nil {
		return "", false
	}
	path = filepath.Join(home, savedFile)
	info, err := os.Stat(path)
	return path, err == nil && info.Mode().Perm()&0o044 != 0
}

// Sick watches programs for a time and returns what is wrong with each that is
// not well: "online" is what pm2 says of a program it restarts three times a
// second.
func (p PM2) Sick(ctx context.Context, names []string, watch time.Duration) (map[string]string, error) {
	before, err := p.List(ctx)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(watch)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	after, err := p.List(ctx)
	if err != nil {
		return nil, err
	}
	sick := map[string]string{}
	for _, name := range names {
		is := func(a App) bool { return a.Name == name }
		was, now := slices.IndexFunc(before, is), slices.IndexFunc(after, is)
		switch {
		case now < 0:
			sick[name] = "not in the list"
		case after[now].Status != "online":
			sick[name] = after[now].Status
		case was >= 0 && after[now].Restarts > before[was].Restarts:
			sick[name] = fmt.Sprintf("restarted %d times in %s", after[now].Restarts-before[was].Restarts, watch)
		case was >= 0 && after[now].PID != before[was].PID:
			sick[name] = fmt.Sprintf("process %d became %d in %s", before[was].PID, after[now].PID, watch)
		case !exists(filepath.Join(p.Proc, fmt.Sprint(after[now].PID))):
			sick[name] = fmt.Sprintf("its process %d does not exist", after[now].PID)
		}
	}
	return sick, nil
}

// Of returns the program of pm2 that a process is.
func Of(apps []App, pid int) (App, bool) {
	i := slices.IndexFunc(apps, func(a App) bool { return a.PID == pid && pid != 0 })
	if i < 0 {
		return App{}, false
	}
	return apps[i], true
}
