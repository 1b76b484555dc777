// Package config reads the server's settings: flags beat the environment, the
// environment beats the file.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"gt06/protocol"
	"gt06/server/control"
)

// Config is all a server can be told. The keys are those of the YAML file.
type Config struct {
	Listen  string `yaml:"listen"`
	Admin   string `yaml:"admin"`
	DataDir string `yaml:"data_dir"`
	Store   Store  `yaml:"-"`
	Kind    string `yaml:"store"`
	DSN     string `yaml:"dsn"`
	DSNFile string `yaml:"dsn_file"`

	Disk      Disk      `yaml:"disk"`
	Spool     Spool     `yaml:"spool"`
	Retention Retention `yaml:"retention"`
	Limits    Limits    `yaml:"limits"`
	Upgrade   Upgrade   `yaml:"upgrade"`
	Commands  Commands  `yaml:"commands"`
	Answers   Answers   `yaml:"answers"`
	Keeper    string    `yaml:"keeper"`
	Log       Log       `yaml:"log"`
	Board     Board     `yaml:"board"`
	Checks    Checks    `yaml:"checks"`

	// Warnings are said once at start.
	Warnings []string `yaml:"-"`
}

// Store is the database after all sources were read.
type Store struct {
	Kind string
	DSN  string
}

// Disk is the room left to others.
type Disk struct {
	MinFree Bytes `yaml:"min_free"`
}

// Spool are the limits of the log.
type Spool struct {
	MaxBytes  Bytes    `yaml:"max_bytes"`
	Retention Duration `yaml:"retention"`
}

// Retention is how long rows stay in the database.
type Retention struct {
	Rows Duration `yaml:"rows"`
}

// Limits of connections; zero means the default.
type Limits struct {
	Connections    int      `yaml:"connections"`
	UnknownDevices int      `yaml:"unknown_devices"`
	Login          Duration `yaml:"login_timeout"`
	Frame          Duration `yaml:"frame_timeout"`
	Idle           Duration `yaml:"idle_timeout"`
	Write          Duration `yaml:"write_timeout"`
}

// Commands is what may be sent to devices.
type Commands struct {
	Allow       []string `yaml:"allow"`         // first words; "*" is any
	CutBelowKMH float64  `yaml:"cut_below_kmh"` // an engine is stopped below this speed only
}

// Answers is whose habit the answers to devices follow: traccar, vendor or
// none. A model outranks a type, a type the policy.
type Answers struct {
	Policy string            `yaml:"policy"`
	Types  map[string]string `yaml:"types"`  // "0x22": none
	Models map[string]string `yaml:"models"` // NT20: vendor
}

// Rules returns the policy as a function.
func (a *Answers) Rules() (func(typ byte, model string) protocol.Policy, error) {
	parse := func(what, s string) (protocol.Policy, error) {
		p, ok := protocol.ParsePolicy(s)
		if !ok {
			return 0, fmt.Errorf("answers: %s is %q: it can be traccar, vendor or none", what, s)
		}
		return p, nil
	}
	all, err := parse("policy", a.Policy)
	if err != nil {
		return nil, err
	}
	var types [256]protocol.Policy
	for i := range types {
		types[i] = all
	}
	for name, s := range a.Types {
		n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(name), "0x"), 16, 8)
		if err != nil {
			return nil, fmt.Errorf("answers: %q is no type: write 0x22", name)
		}
		if types[n], err = parse(name, s); err != nil {
			return nil, err
		}
	}
	models := map[string]protocol.Policy{}
	for name, s := range a.Models {
		if models[strings.ToUpper(name)], err = parse(name, s); err != nil {
			return nil, err
		}
	}
	return func(typ byte, model string) protocol.Policy {
		if model != "" && len(models) > 0 {
			if p, ok := models[strings.ToUpper(model)]; ok {
				return p
			}
		}
		return types[typ]
	}, nil
}

// DefaultAllow are the commands that tell something, and those that move the
// device to nobody else.
func DefaultAllow() []string {
	return []string{"STATUS", "PARAM", "VERSION", "WHERE", "URL", "IMEI", "ICCID", "GPRSSET", "TIMER", "GMT", "GPSON", "RESET", "RELAY", "DYD", "HFYD", "DWXX"}
}

// Upgrade is how `gt06ctl upgrade` goes about it.
type Upgrade struct {
	Probation     Duration `yaml:"probation"`      // how long the new program is watched
	RequireChange bool     `yaml:"require_change"` // only within an open change of gt06ctl ops
}

// Log is what is logged.
type Log struct {
	Level string `yaml:"level"`
}

// Bytes is a size: a number, or one with KiB, MiB, GiB.
type Bytes int64

// UnmarshalText reads a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	unit := int64(1)
	for suffix, u := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if v, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = strings.TrimSpace(v), u
		}
	}
	var n int64
	if _, err := fmt.Sscanf(s, "%d", &n); err != nil || n < 0 || fmt.Sprint(n) != s {
		return fmt.Errorf("%q is no size: write 64MiB or 2GiB", text)
	}
	*b = Bytes(n * unit)
	return nil
}

// UnmarshalYAML reads a size from a file.
func (b *Bytes) UnmarshalYAML(n *yaml.Node) error {
	if err := b.UnmarshalText([]byte(n.Value)); err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	return nil
}

// Duration is a time span: 10s, 5m, 168h.
type Duration time.Duration

// UnmarshalYAML reads a time span from a file.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil || v < 0 {
		return fmt.Errorf("line %d: %q is no time span: write 10s, 5m or 168h", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

// Flags are the settings the command line can give.
type Flags struct {
	set                                                       *pflag.FlagSet
	config, listen, admin, dataDir, store, dsn, level, keeper string
}

// Bind declares the flags.
func Bind(set *pflag.FlagSet) *Flags {
	f := &Flags{set: set}
	set.StringVar(&f.config, "config", "", "YAML file to read (GT06_CONFIG)")
	set.StringVar(&f.listen, "listen", "127.0.0.1:5023", "address the devices connect to (GT06_LISTEN)")
	set.StringVar(&f.admin, "admin", "127.0.0.1:8023", "address of metrics, health and API (GT06_ADMIN)")
	set.StringVar(&f.dataDir, "data-dir", control.DefaultDataDir(), "directory of the log and the SQLite database (GT06_DATA_DIR)")
	set.StringVar(&f.store, "store", "sqlite", "sqlite or mariadb (GT06_STORE)")
	set.StringVar(&f.dsn, "dsn", "", "MariaDB: user:password@tcp(host:port)/database or user@unix(/path)/database; better in GT06_DSN_FILE (GT06_DSN)")
	set.StringVar(&f.keeper, "keeper", "auto", "auto: hold connections in a keeper process, over a crash and an upgrade; off: they end with the server (GT06_KEEPER)")
	set.StringVar(&f.level, "log-level", "info", "debug, info, warn or error (GT06_LOG_LEVEL)")
	return f
}

// Load merges flags, environment and file.
func (f *Flags) Load(env func(string) string) (Config, error) {
	c := Config{
		Listen: f.set.Lookup("listen").DefValue, Admin: f.set.Lookup("admin").DefValue,
		DataDir: f.set.Lookup("data-dir").DefValue, Kind: f.set.Lookup("store").DefValue,
		Log: Log{Level: f.set.Lookup("log-level").DefValue}, Keeper: f.set.Lookup("keeper").DefValue,
		Upgrade:  Upgrade{Probation: Duration(5 * time.Second)},
		Answers:  Answers{Policy: "traccar"},
		Commands: Commands{Allow: DefaultAllow(), CutBelowKMH: 20},
		Checks:   Checks{Window: Duration(10 * time.Minute), Silent: Duration(5 * time.Minute)},
	}
	path := f.pick("config", f.config, env("GT06_CONFIG"), "")
	if path != "" {
		if err := read(path, &c); err != nil {
			return c, err
		}
	}
	c.Listen = f.pick("listen", f.listen, env("GT06_LISTEN"), c.Listen)
	c.Admin = f.pick("admin", f.admin, env("GT06_ADMIN"), c.Admin)
	c.DataDir = f.pick("data-dir", f.dataDir, env("GT06_DATA_DIR"), c.DataDir)
	c.Kind = f.pick("store", f.store, env("GT06_STORE"), c.Kind)
	c.Keeper = f.pick("keeper", f.keeper, env("GT06_KEEPER"), c.Keeper)
	c.Log.Level = f.pick("log-level", f.level, env("GT06_LOG_LEVEL"), c.Log.Level)
	abs, err := filepath.Abs(c.DataDir)
	if err != nil {
		return c, err
	}
	c.DataDir = abs
	if err := c.dsn(f, env); err != nil {
		return c, err
	}
	if err := c.board(env); err != nil {
		return c, err
	}
	return c, c.check()
}

// pick returns the flag when it was given, else the environment, else the rest.
func (f *Flags) pick(name, flag, env, rest string) string {
	switch {
	case f.set.Changed(name):
		return flag
	case env != "":
		return env
	}
	return rest
}

// dsn finds the database: a flag, the environment, a file, systemd's
// credentials, the configuration.
func (c *Config) dsn(f *Flags, env func(string) string) error {
	file := env("GT06_DSN_FILE")
	switch {
	case f.set.Changed("dsn"):
		c.DSN = f.dsn
		if cfg, err := mysql.ParseDSN(c.DSN); err == nil && cfg.Passwd != "" {
			c.Warnings = append(c.Warnings, "the password in --dsn is visible to every user in the process list; GT06_DSN_FILE keeps it out")
		}
	case env("GT06_DSN") != "":
		c.DSN = env("GT06_DSN")
	case file != "":
		c.DSNFile = file
	}
	if c.DSN == "" && c.DSNFile == "" && env("CREDENTIALS_DIRECTORY") != "" {
		if path := filepath.Join(env("CREDENTIALS_DIRECTORY"), "db_dsn"); exists(path) {
			c.DSNFile = path
		}
	}
	if c.DSN == "" && c.DSNFile != "" {
		b, err := os.ReadFile(c.DSNFile)
		if err != nil {
			return fmt.Errorf("dsn file: %w", err)
		}
		c.DSN = strings.TrimSpace(string(b))
	}
	c.Store = Store{Kind: c.Kind, DSN: c.DSN}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (c *Config) check() error {
	if c.Keeper != "auto" && c.Keeper != "off" {
		return fmt.Errorf("keeper is %q: it can be auto or off", c.Keeper)
	}
	if _, err := c.Answers.Rules(); err != nil {
		return err
	}
	switch c.Kind {
	case "sqlite":
	case "mariadb":
		if c.DSN == "" {
			return errors.New("store is mariadb and no database is named: give --dsn, GT06_DSN or GT06_DSN_FILE")
		}
	default:
		return fmt.Errorf("store is %q: it can be sqlite or mariadb", c.Kind)
	}
	return nil
}

// read decodes the file strictly: a key that does not exist is an error with
// its line.
func read(path string, c *Config) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	err = dec.Decode(c)
	if te, ok := errors.AsType[*yaml.TypeError](err); ok {
		lines := make([]string, 0, len(te.Errors))
		for _, e := range te.Errors {
			// "line 3: field lisen not found in type config.Config"
			line, what, found := strings.Cut(strings.TrimPrefix(e, "line "), ": ")
			if !found {
				lines = append(lines, path+": "+e)
				continue
			}
			if key, unknown := strings.CutPrefix(what, "field "); unknown {
				key, _, _ = strings.Cut(key, " ")
				what = fmt.Sprintf("unknown key %q", key)
			}
			lines = append(lines, fmt.Sprintf("%s:%s: %s", path, line, what))
		}
		return errors.New(strings.Join(lines, "\n"))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
