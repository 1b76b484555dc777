package runbook

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/backup"
	"gt06/ops/host"
	"gt06/server/control"
)

// Machine is the machine as the configuration describes it: what the runbooks
// of this file's neighbours work on.
type Machine struct {
	host.System
	Config  ops.Config
	DB      host.MariaDB
	PM2     host.PM2
	Nginx   host.Nginx
	Laravel host.Laravel
	Server  control.Client // of gt06d
	Logs    string         // directory of the logs
	Page    string         // URL of the application
	Paths   []string       // whose file systems must have room
	Now     func() time.Time
	Watch   time.Duration // how long the programs of pm2 are watched: one that cannot start is started again within a second
	Before  string        // file: who held the devices' port before gt06d

	// Places opens where backups are: a bucket by its s3:// URI, "" for the
	// directory of the configuration.
	Places func(uri string) (backup.Place, error)
}

// NewMachine is the machine this process runs on. The socket is that of gt06d's
// control.
func NewMachine(c ops.Config, socket string) Machine {
	s := host.New()
	m := Machine{
		System: s, Config: c,
		DB:      host.MariaDB{System: s},
		PM2:     host.PM2{System: s, User: c.Services.PM2User},
		Nginx:   host.Nginx{System: s, PIDFile: c.Services.NginxPID},
		Laravel: host.Laravel{System: s, Dir: c.Services.LaravelDir},
		Server:  control.Client{Path: socket},
		Logs:    "/var/log", Page: c.Services.Page, Now: time.Now, Watch: 3 * time.Second,
		Paths:  []string{"/", "/boot", "/var", "/var/lib/mysql", c.Backup.Dir},
		Before: filepath.Join(filepath.Dir(c.Journal.Dir), "takeover.json"),
	}
	// Without the file root logs in by unix_socket, as the client does.
	if _, err := os.Stat(c.Backup.DefaultsFile); err == nil {
		m.DB.Defaults = c.Backup.DefaultsFile
	}
	return m
}

// where is the place a run uses: the one that is named, else that of the
// configuration.
func (m *Machine) where(uri string) string {
	if uri == "" {
		return m.Config.Backup.S3URI
	}
	return uri
}

// guard is where nothing is deleted, by the configuration and by what MariaDB
// says of itself. That it does not answer is no reason to protect less.
func (m *Machine) guard(ctx context.Context) host.Guard {
	more := append([]string{m.Config.Journal.Dir, m.Config.Backup.Dir, m.Config.Services.LaravelDir}, m.Config.Protect...)
	if dirs, err := m.DB.DataDirs(ctx); err == nil {
		more = append(more, dirs...)
	}
	return host.NewGuard(slices.DeleteFunc(more, func(s string) bool { return !filepath.IsAbs(s) })...)
}

// Vitals is what the machine says of itself: everything a preflight and a
// validation judge. It travels as JSON when they are made from a laptop.
type Vitals struct {
	Host      string       `json:"host"`
	At        time.Time    `json:"at"`
	Load      host.Load    `json:"load"`
	Clock     host.Clock   `json:"clock"`
	Disks     []host.Usage `json:"disks"`
	Port      Port         `json:"port"` // of the devices
	Listening []uint16     `json:"listening"`
	// Errors by service: "" is well. A service that is not configured is not
	// there.
	Services map[string]string   `json:"services"`
	Notes    []string            `json:"notes"`  // worth knowing, no reason to refuse
	Backup   time.Time           `json:"backup"` // when the newest dump on this machine was made
	GT06     *control.Status     `json:"gt06"`
	Checks   *control.Validation `json:"checks"` // of gt06d, SOP section 7
}

// Port is the devices' port and who holds it.
type Port struct {
	Number  int            `json:"number"`
	Taken   bool           `json:"taken"`
	Holders []host.Process `json:"holders"`
	Ours    bool           `json:"ours"` // all are gt06d and its keeper
	PM2     string         `json:"pm2"`  // the program of pm2 that holds it

	programs []string // of pm2 that it may be: several, when they are in cluster mode
}

// Resources reads what every change depends on: load, memory, clock, disks.
func (m *Machine) Resources() (Vitals, error) {
	v := Vitals{At: m.Now().UTC(), Services: map[string]string{}}
	v.Host, _ = os.Hostname()
	var err error
	if v.Load, err = m.Load(); err != nil {
		return v, err
	}
	if v.Clock, err = host.ReadClock(); err != nil {
		return v, err
	}
	seen := map[host.Usage]bool{}
	for _, path := range m.Paths {
		u, err := host.DiskUsage(path)
		same := u
		same.Path = ""
		if err == nil && !seen[same] {
			seen[same] = true
			v.Disks = append(v.Disks, u)
		}
	}
	if len(v.Disks) == 0 {
		return v, fmt.Errorf("none of %q can be looked at", m.Paths)
	}
	return v, nil
}

// Look reads all of the machine.
func (m *Machine) Look(ctx context.Context) (Vitals, error) {
	v, err := m.Resources()
	if err != nil {
		return v, err
	}
	if v.Port, v.Listening, err = m.port(ctx, m.Config.GT06.Port); err != nil {
		return v, err
	}
	m.services(ctx, &v)
	if last, ok, err := backup.Last(ctx, backup.Dir(m.Config.Backup.Dir), backup.MariaDB, ""); err == nil && ok {
		v.Backup = last.Begun
	}
	var status control.Status
	if err := m.Server.Call(ctx, "status", nil, &status); err == nil {
		v.GT06 = &status
		var checks control.Validation
		if m.Server.Call(ctx, "validate", nil, &checks) == nil {
			v.Checks = &checks
		}
	}
	return v, nil
}

func (m *Machine) services(ctx context.Context, v *Vitals) {
	say := func(name string, err error) {
		v.Services[name] = ""
		if err != nil {
			v.Services[name] = err.Error()
		}
	}
	s := m.Config.Services
	if s.MariaDB != "" {
		say("mariadb", m.DB.Ping(ctx))
	}
	if s.NginxUnit != "" {
		err := m.Nginx.Test(ctx)
		if err == nil {
			_, err = m.Nginx.Workers()
		}
		say("nginx", err)
	}
	if len(s.PM2Apps) > 0 {
		sick, err := m.PM2.Sick(ctx, s.PM2Apps, m.Watch)
		say("pm2", err)
		for _, name := range s.PM2Apps {
			if sick[name] != "" {
				v.Services["pm2 "+name] = sick[name]
			}
		}
	}
	if s.Traccar {
		u, err := m.Unit(ctx, "traccar.service")
		if err == nil && !u.Active() {
			err = fmt.Errorf("unit %s is %s", u.Name, u.State)
		}
		say("traccar", err)
	}
	if path, yes := m.PM2.Exposed(); yes {
		v.Notes = append(v.Notes, path+" holds the environment of every program of pm2 and can be read by others: chmod 600 "+path)
	}
}

// Port says who holds the devices' port.
func (m *Machine) Port(ctx context.Context) (Port, error) {
	p, _, err := m.port(ctx, m.Config.GT06.Port)
	return p, err
}

// port looks who listens.
func (m *Machine) port(ctx context.Context, number int) (Port, []uint16, error) {
	p := Port{Number: number}
	list, err := m.Listeners()
	if err != nil {
		return p, nil, err
	}
	var ports []uint16
	for _, l := range list {
		if l.Namespace == "" && !slices.Contains(ports, l.Addr.Port()) {
			ports = append(ports, l.Addr.Port())
		}
	}
	p.Holders, p.Taken = host.HoldersOf(list, uint16(number)) //nolint:gosec // a port of the configuration
	p.Ours = p.Taken && len(p.Holders) > 0 && !slices.ContainsFunc(p.Holders, func(h host.Process) bool { return h.Name != "gt06d" })
	if p.Taken && !p.Ours {
		if _, names, err := m.pm2Holding(ctx, p.Holders); err == nil {
			p.programs, p.PM2 = names, strings.Join(names, " or ")
		}
	}
	return p, ports, nil
}

// String says who holds the port.
func (p Port) String() string {
	if !p.Taken {
		return "nobody listens"
	}
	names := make([]string, 0, len(p.Holders))
	for _, h := range p.Holders {
		names = append(names, h.String())
	}
	text := strings.Join(names, " and ")
	if text == "" {
		text = "somebody, whom only root can see"
	}
	if p.PM2 != "" {
		text += ", pm2 program " + p.PM2
	}
	return text
}

// Remote reads another machine by ssh: the same command there, its JSON here.
func Remote(ctx context.Context, s host.System, target, config string) (Vitals, error) {
	var v Vitals
	if strings.HasPrefix(target, "-") {
		return v, ops.Fail(ops.Usage, fmt.Errorf("%q is no machine", target), "--host USER@ADDRESS")
	}
	c := host.Command{Name: "ssh", Args: []string{"-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "--", target, "sudo", "gt06ctl", "ops", "machine", "--json", "--config", config}}
	if agent := os.Getenv("SSH_AUTH_SOCK"); agent != "" {
		c.Env = []string{"SSH_AUTH_SOCK=" + agent}
	}
	r, err := s.Exec(ctx, c)
	if err == nil && r.Code != 0 {
		err = &host.ExitError{Command: c.String(), Result: r}
	}
	if err == nil {
		err = json.Unmarshal([]byte(r.Stdout), &v)
	}
	if err != nil {
		return v, ops.Fail(ops.Denied, fmt.Errorf("%s cannot be looked at: %w", target, err), "ssh "+target+" true", "SSH broken: gt06ctl ops change open --action ssh-fix --reason \"…\", then gt06ctl ops ssh-recover")
	}
	return v, nil
}
