// Package config reads the server's settings: flags beat the environment, the
// environment beats the file.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
	"go.yaml.in/yaml/v3"

	"gt06/protocol"
	"gt06/server/control"
)

// Config is all a server can be told. The keys are those of the YAML file; the
// other tags are the reference (REFERENCE.md, gt06d check-config --reference):
// env and flag name the other two ways to set a key, help says what it means,
// default describes one that is computed.
type Config struct {
	Listen  string `yaml:"listen" env:"GT06_LISTEN" flag:"listen" help:"Address the devices connect to; :5023 is every address of the machine."`
	Admin   string `yaml:"admin" env:"GT06_ADMIN" flag:"admin" help:"Address of metrics, health and API, over HTTP."`
	DataDir string `yaml:"data_dir" env:"GT06_DATA_DIR" flag:"data-dir" help:"Directory of the log and the SQLite database." default:"$STATE_DIRECTORY, else gt06 in $XDG_STATE_HOME (~/.local/state)"`
	Store   Store  `yaml:"-"`
	Kind    string `yaml:"store" env:"GT06_STORE" flag:"store" help:"sqlite or mariadb."`
	DSN     string `yaml:"dsn" env:"GT06_DSN" flag:"dsn" secret:"dsn" help:"MariaDB: user:password@tcp(host:port)/database or user@unix(/path)/database; better in a file, see dsn_file."`
	DSNFile string `yaml:"dsn_file" env:"GT06_DSN_FILE" help:"File that holds the dsn, for its password." default:"$CREDENTIALS_DIRECTORY/db_dsn where that exists"`

	Disk      Disk      `yaml:"disk"`
	Spool     Spool     `yaml:"spool"`
	Retention Retention `yaml:"retention"`
	Limits    Limits    `yaml:"limits"`
	Devices   Devices   `yaml:"devices"`
	Proxies   []string  `yaml:"proxies" help:"Networks of balancers whose connections begin with a PROXY v2 header: [10.0.0.0/24]."`
	Memory    Memory    `yaml:"memory"`
	Clock     Clock     `yaml:"clock"`
	Upgrade   Upgrade   `yaml:"upgrade"`
	Commands  Commands  `yaml:"commands"`
	Answers   Answers   `yaml:"answers"`
	Sinks     []Sink    `yaml:"sinks" help:"Ways out besides the database: events to others, each by a cursor of its own. A name and one of webhook, nats, table and mirror."`
	Keeper    string    `yaml:"keeper" env:"GT06_KEEPER" flag:"keeper" help:"auto: a process of its own holds the connections over a crash and an upgrade; off: they end with the server."`
	Log       Log       `yaml:"log"`
	Board     Board     `yaml:"board"`
	Checks    Checks    `yaml:"checks"`

	// Warnings are said once at start.
	Warnings []string `yaml:"-"`

	origin map[string]Origin
}

// Store is the database after all sources were read.
type Store struct {
	Kind string
	DSN  string
}

// Disk is the room left to others.
type Disk struct {
	MinFree Bytes `yaml:"min_free" help:"Room on the disk that is left to others: reading stops before." default:"the larger of 5 % and 2 GiB, at most 10 % of the file system"`
}

// Spool are the limits of the log.
type Spool struct {
	MaxBytes  Bytes    `yaml:"max_bytes" help:"Largest size of the log." default:"the smaller of 10 % of the file system and 4 GiB"`
	Retention Duration `yaml:"retention" help:"How long the log keeps what is in the database."`
}

// Retention is how long rows stay in the database.
type Retention struct {
	Rows Duration `yaml:"rows" help:"How long rows of positions, alarms, heartbeats and events stay; whole days."`
}

// Commands is what may be sent to devices.
type Commands struct {
	Allow       []string `yaml:"allow" help:"First words of what gt06ctl send may send; * is any."`
	CutBelowKMH float64  `yaml:"cut_below_kmh" help:"An engine is stopped below this speed only, in km/h."`
}

// Answers is whose habit the answers to devices follow: traccar, vendor or
// none. A model outranks a type, a type the policy.
type Answers struct {
	Policy string            `yaml:"policy" help:"Whose habit answers follow: traccar, vendor or none."`
	Types  map[string]string `yaml:"types" help:"The same for a message type: {\"0x22\": none}."`
	Models map[string]string `yaml:"models" help:"The same for a model, which outranks the type: {NT20: vendor}."`
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
	Probation     Duration `yaml:"probation" help:"How long a new program is watched before the old one ends."`
	RequireChange bool     `yaml:"require_change" help:"Upgrade only within an open change of gt06ctl ops."`
}

// Log is what is logged.
type Log struct {
	Level string `yaml:"level" env:"GT06_LOG_LEVEL" flag:"log-level" help:"debug, info, warn or error."`
}

// Defaults returns what holds when nobody says anything.
func Defaults() Config {
	return Config{
		Listen: "127.0.0.1:5023", Admin: "127.0.0.1:8023", DataDir: control.DefaultDataDir(), Kind: "sqlite",
		Spool:     Spool{Retention: Duration(7 * 24 * time.Hour)},
		Retention: Retention{Rows: Duration(90 * 24 * time.Hour)},
		Limits:    defaultLimits(),
		Devices:   Devices{Policy: PolicyOpen, QuarantineRows: 1000},
		Upgrade:   Upgrade{Probation: Duration(5 * time.Second)},
		Commands:  Commands{Allow: DefaultAllow(), CutBelowKMH: 20},
		Answers:   Answers{Policy: "traccar"},
		Checks:    Checks{Window: Duration(10 * time.Minute), Silent: Duration(5 * time.Minute)},
		Keeper:    "auto", Log: Log{Level: "info"},
	}
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
	set    *pflag.FlagSet
	config string
}

// Bind declares the flags: --config, and those of the table.
func Bind(set *pflag.FlagSet) *Flags {
	f := &Flags{set: set}
	set.StringVar(&f.config, "config", "", "YAML file to read (GT06_CONFIG)")
	c := Defaults()
	for _, s := range c.settings() {
		if s.Flag != "" {
			set.String(s.Flag, s.text(), fmt.Sprintf("%s (%s)", strings.TrimSuffix(s.Help, "."), s.Env))
		}
	}
	return f
}

// Load merges flags, environment and file.
func (f *Flags) Load(env func(string) string) (Config, error) {
	c := Defaults()
	c.origin = map[string]Origin{}
	path := f.config
	if !f.set.Changed("config") {
		path = env("GT06_CONFIG")
	}
	if path != "" {
		if err := read(path, &c); err != nil {
			return c, err
		}
	}
	for _, s := range c.settings() {
		if err := f.override(&c, s, env); err != nil {
			return c, err
		}
	}
	abs, err := filepath.Abs(c.DataDir)
	if err != nil {
		return c, err
	}
	c.DataDir = abs
	if err := c.database(env); err != nil {
		return c, err
	}
	if err := c.board(env); err != nil {
		return c, err
	}
	if err := c.sinks(env); err != nil {
		return c, err
	}
	return c, c.check()
}

// override sets a key from its environment variable or its flag.
func (f *Flags) override(c *Config, s Setting, env func(string) string) error {
	if text := env(s.Env); s.Env != "" && text != "" {
		if err := s.set(text); err != nil {
			return fmt.Errorf("%s: %w", s.Env, err)
		}
		c.origin[s.Key] = FromEnvironment
	}
	if s.Flag != "" && f.set.Changed(s.Flag) {
		if err := s.set(f.set.Lookup(s.Flag).Value.String()); err != nil {
			return fmt.Errorf("--%s: %w", s.Flag, err)
		}
		c.origin[s.Key] = FromFlag
	}
	return nil
}

// database finds the database: the dsn itself or the file that holds it,
// whichever was said in the stronger place; else systemd's credentials.
func (c *Config) database(env func(string) string) error {
	if c.DSN != "" && c.origin["dsn"] == FromFlag {
		if cfg, err := mysql.ParseDSN(c.DSN); err == nil && cfg.Passwd != "" {
			c.Warnings = append(c.Warnings, "the password in --dsn is visible to every user in the process list; GT06_DSN_FILE keeps it out")
		}
	}
	if dir := env("CREDENTIALS_DIRECTORY"); c.DSN == "" && c.DSNFile == "" && dir != "" {
		if path := filepath.Join(dir, "db_dsn"); exists(path) {
			c.DSNFile = path
		}
	}
	c.Store = Store{Kind: c.Kind, DSN: c.DSN}
	if c.DSNFile != "" && (c.DSN == "" || c.origin["dsn_file"] > c.origin["dsn"]) {
		b, err := os.ReadFile(c.DSNFile)
		if err != nil {
			return fmt.Errorf("dsn file: %w", err)
		}
		c.Store.DSN = strings.TrimSpace(string(b))
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (c *Config) check() error {
	for _, a := range []struct{ key, addr string }{{"listen", c.Listen}, {"admin", c.Admin}} {
		_, port, err := net.SplitHostPort(a.addr)
		if _, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil {
			return fmt.Errorf("%s is %q: write HOST:PORT, or :PORT for every address", a.key, a.addr)
		}
	}
	if _, err := zapcore.ParseLevel(c.Log.Level); err != nil {
		return fmt.Errorf("log.level is %q: it can be debug, info, warn or error", c.Log.Level)
	}
	if c.Keeper != "auto" && c.Keeper != "off" {
		return fmt.Errorf("keeper is %q: it can be auto or off", c.Keeper)
	}
	if _, err := c.Answers.Rules(); err != nil {
		return err
	}
	if err := CheckPolicy(c.Devices.Policy); err != nil {
		return err
	}
	if _, err := c.Balancers(); err != nil {
		return err
	}
	switch c.Kind {
	case "sqlite":
	case "mariadb":
		if c.Store.DSN == "" {
			return errors.New("store is mariadb and no database is named: give --dsn, GT06_DSN or GT06_DSN_FILE")
		}
	default:
		return fmt.Errorf("store is %q: it can be sqlite or mariadb", c.Kind)
	}
	return nil
}

// plain says what is wrong with a value without the words of YAML and Go.
func plain(what string) string {
	if key, unknown := strings.CutPrefix(what, "field "); unknown {
		key, _, _ = strings.Cut(key, " ")
		return fmt.Sprintf("unknown key %q", key)
	}
	var tag, goType string
	rest, found := strings.CutPrefix(what, "cannot unmarshal ")
	tag, rest, _ = strings.Cut(rest, " ")
	at := strings.LastIndex(rest, " into ")
	if !found || at < 0 {
		return what
	}
	value := strings.Trim(rest[:at], "`")
	goType = rest[at+len(" into "):]
	if value == "" {
		value = map[string]string{"!!seq": "a list", "!!map": "a map"}[tag]
	}
	want := map[string]string{"bool": "true or false", "int": "a whole number", "float64": "a number", "string": "text", "[]string": "a list: [A, B]", "map[string]string": "a map: {A: B}"}[goType]
	if want == "" {
		want = "keys of its own below it"
	}
	return fmt.Sprintf("is %q, and should be %s", value, want)
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
	if err = dec.Decode(c); err == nil {
		return c.mark(b)
	}
	if te, ok := errors.AsType[*yaml.TypeError](err); ok {
		lines := make([]string, 0, len(te.Errors))
		for _, e := range te.Errors {
			// "line 3: field lisen not found in type config.Config"
			line, what, found := strings.Cut(strings.TrimPrefix(e, "line "), ": ")
			if !found {
				lines = append(lines, path+": "+e)
				continue
			}
			what = plain(what)
			lines = append(lines, fmt.Sprintf("%s:%s: %s", path, line, what))
		}
		return errors.New(strings.Join(lines, "\n"))
	}
	return fmt.Errorf("%s: %w", path, err)
}
