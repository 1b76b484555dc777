package ops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// devicePort is the port the fleet has in its settings.
const devicePort = 5023

// DefaultConfig is where the configuration lies unless --config says.
const DefaultConfig = "/etc/gt06/ops.yaml"

// Config is /etc/gt06/ops.yaml: strict, an unknown key is an error.
type Config struct {
	AWS       AWS      `yaml:"aws"`
	Gate      GateKeys `yaml:"gate"`
	Limits    Limits   `yaml:"limits"`
	GT06      GT06     `yaml:"gt06"`
	Services  Services `yaml:"services"`
	Backup    Backup   `yaml:"backup"`
	Protect   []string `yaml:"protect"` // what must survive, paths in the order of priority
	Journal   Storage  `yaml:"journal"`
	Lock      LockKeys `yaml:"lock"`
	Approvals struct {
		Min int `yaml:"min"` // people besides the operator who have read a plan
	} `yaml:"approvals"`
	Timezone         string  `yaml:"timezone"`
	SOPVersion       string  `yaml:"sop_version"`       // when the documents were last validated: 2026-02
	AllowBreakGlass  bool    `yaml:"allow_break_glass"` // the strategy allows no exception: off
	DowntimeCostHour float64 `yaml:"downtime_cost_hour"`
	Cost             Cost    `yaml:"cost"`

	zone *time.Location
}

// AWS names what is operated.
type AWS struct {
	Region        string `yaml:"region"`
	InstanceID    string `yaml:"instance_id"`
	EIPAllocation string `yaml:"eip_allocation_id"`
	EIP           string `yaml:"eip"`
	Profile       string `yaml:"profile"`      // an SSO profile; "": the role of the instance
	EndpointURL   string `yaml:"endpoint_url"` // tests: a loopback address
	NamePrefix    string `yaml:"name_prefix"`
}

// GateKeys are the settings of the gate.
type GateKeys struct {
	MaxAge       Span     `yaml:"max_age"`
	LockRequired []Action `yaml:"lock_required"`
	MinReason    int      `yaml:"min_reason"`
}

// Limits of the preflight.
type Limits struct {
	DiskPct    int     `yaml:"disk_pct"`
	InodePct   int     `yaml:"inode_pct"`
	LoadFactor float64 `yaml:"load_factor"` // of the number of CPUs
	LoadRise   float64 `yaml:"load_rise"`   // of a minute, over that of 15 minutes
}

// GT06 is the ingest server.
type GT06 struct {
	Port        int     `yaml:"port"`
	Devices     string  `yaml:"devices_updated"` // when and how the devices were told of another port than 5023
	Unit        string  `yaml:"unit"`
	DataDir     string  `yaml:"data_dir"`
	StormFactor float64 `yaml:"storm_factor"` // of the logins at the preflight, what is still no storm
}

// Services are the others on the machine.
type Services struct {
	MariaDB    string   `yaml:"mariadb"` // unit
	LaravelDir string   `yaml:"laravel_dir"`
	PM2User    string   `yaml:"pm2_user"`
	PM2Apps    []string `yaml:"pm2_apps"`
	NginxUnit  string   `yaml:"nginx_unit"`
	NginxPID   string   `yaml:"nginx_pid"` // file with the process of nginx' master
	Page       string   `yaml:"page"`      // URL of the application, on this machine
	Traccar    bool     `yaml:"traccar"`
}

// Backup is where logical backups go.
type Backup struct {
	DBs          []string `yaml:"dbs"`
	SQLite       []string `yaml:"sqlite"` // files
	Dir          string   `yaml:"dir"`
	S3URI        string   `yaml:"s3_uri"`
	Keep         int      `yaml:"keep"`
	DefaultsFile string   `yaml:"defaults_file"` // of MariaDB's client: user and password, mode 0600
	Recipient    string   `yaml:"recipient"`     // age public key secrets are encrypted to
}

// Storage is where the journal is and where its copies go.
type Storage struct {
	Dir   string `yaml:"dir"`
	S3URI string `yaml:"s3_uri"`
}

// LockKeys choose the lock of the cloud: s3 or tag; "": s3 where the journal
// has a bucket, else tag.
type LockKeys struct {
	Backend string `yaml:"backend"`
	File    string `yaml:"file"`
}

// Cost is the price list.
type Cost struct {
	Prices   map[string]float64 `yaml:"prices"` // by item, in currency
	AsOf     string             `yaml:"as_of"`  // 2026-11-01
	Source   string             `yaml:"source"`
	Currency string             `yaml:"currency"`
	FX       float64            `yaml:"fx"` // rupees for one unit of it
}

// Span is a time span: 90s, 4h.
type Span time.Duration

// D is the span as the standard library has it.
func (s Span) D() time.Duration { return time.Duration(s) }

// UnmarshalYAML reads a time span.
func (s *Span) UnmarshalYAML(n *yaml.Node) error {
	d, err := time.ParseDuration(n.Value)
	if err != nil || d <= 0 {
		return fmt.Errorf("line %d: %q is no time span: write 90s or 4h", n.Line, n.Value)
	}
	*s = Span(d)
	return nil
}

// Zone is the time zone of names and reports.
func (c *Config) Zone() *time.Location { return c.zone }

// ReadConfig reads and checks the file. Its error names the line.
func ReadConfig(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		hint := "gt06ctl ops init writes it"
		if errors.Is(err, os.ErrPermission) {
			return Config{}, Fail(Denied, err, "run it with sudo")
		}
		return Config{}, Fail(Usage, fmt.Errorf("configuration: %w", err), hint, "or name it: --config FILE")
	}
	c, err := ParseConfig(b)
	if KindOf(err) == Forbidden {
		return c, err
	}
	if err != nil {
		return c, Fail(Usage, fmt.Errorf("%s: %w", path, err), "gt06ctl ops --help")
	}
	return c, nil
}

// WithoutCloud is the configuration of a machine that has none: the defaults, and
// nothing of AWS.
func WithoutCloud() (Config, error) {
	c := defaults()
	var err error
	c.zone, err = time.LoadLocation(c.Timezone)
	return c, err
}

// ParseConfig is ReadConfig without the file.
func ParseConfig(b []byte) (Config, error) {
	c := defaults()
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return c, err
	}
	return c, c.check()
}

func defaults() Config {
	c := Config{
		AWS:      AWS{NamePrefix: "prod-root"},
		Gate:     GateKeys{MaxAge: Span(4 * time.Hour), LockRequired: []Action{Migrate, Financial}, MinReason: 12},
		Limits:   Limits{DiskPct: 95, InodePct: 95, LoadFactor: 2, LoadRise: 3},
		GT06:     GT06{Port: devicePort, Unit: "gt06d.service", DataDir: "/var/lib/gt06", StormFactor: 3},
		Services: Services{MariaDB: "mariadb.service", LaravelDir: "/var/www/quickport-laravel", PM2User: "ubuntu", NginxUnit: "nginx.service", NginxPID: "/run/nginx.pid", Page: "http://127.0.0.1/"},
		Backup:   Backup{DBs: []string{"quickport_crm_laravel", "gt06"}, Dir: "/var/backups", Keep: 7, DefaultsFile: "/etc/gt06/backup.cnf"},
		Journal:  Storage{Dir: "/var/lib/gt06ops/journal"},
		Lock:     LockKeys{File: "/run/gt06ops.lock"},
		Timezone: "Asia/Kolkata", SOPVersion: "2026-02",
	}
	if os.Geteuid() != 0 { // an operator's own machine
		c.Journal.Dir, c.Lock.File = ownPlaces()
	}
	return c
}

// ownPlaces are where the journal and the lock of a user are who is not root.
func ownPlaces() (journal, lock string) {
	state, run := os.Getenv("XDG_STATE_HOME"), os.Getenv("XDG_RUNTIME_DIR")
	if state == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = os.TempDir()
		}
		state = filepath.Join(home, ".local", "state")
	}
	state = filepath.Join(state, "gt06ops")
	if run == "" {
		run = state
	}
	return filepath.Join(state, "journal"), filepath.Join(run, "gt06ops.lock")
}

var (
	instanceID = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)
	prefixForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
)

func (c *Config) check() error {
	zone, err := time.LoadLocation(c.Timezone)
	if err != nil {
		return fmt.Errorf("timezone: %w", err)
	}
	c.zone = zone
	switch {
	case c.AWS.Region == "":
		return errors.New("aws.region is missing")
	case !instanceID.MatchString(c.AWS.InstanceID):
		return fmt.Errorf("aws.instance_id is %q: it looks like i-0ae922662c241c912", c.AWS.InstanceID)
	case c.AWS.EIPAllocation == "":
		return errors.New("aws.eip_allocation_id is missing")
	case !prefixForm.MatchString(c.AWS.NamePrefix):
		return fmt.Errorf("aws.name_prefix is %q: lower-case words with dashes", c.AWS.NamePrefix)
	case c.Lock.Backend != "" && c.Lock.Backend != "s3" && c.Lock.Backend != "tag":
		return fmt.Errorf("lock.backend is %q: it can be s3 or tag", c.Lock.Backend)
	case c.Lock.Backend == "s3" && c.Journal.S3URI == "":
		return errors.New("lock.backend is s3 and journal.s3_uri is missing")
	case c.GT06.Port != devicePort && len(strings.TrimSpace(c.GT06.Devices)) < c.Gate.MinReason:
		return Fail(Forbidden, fmt.Errorf("forbidden action: gt06.port is %d, the devices dial %d and nobody says that they were updated", c.GT06.Port, devicePort), "update the devices first, then say when and how in gt06.devices_updated")
	case c.Gate.MinReason < 12:
		return fmt.Errorf("gate.min_reason is %d: at least 12", c.Gate.MinReason)
	}
	for _, a := range c.Gate.LockRequired {
		if err := validAction(a); err != nil {
			return fmt.Errorf("gate.lock_required: %w", err)
		}
	}
	if c.AWS.EndpointURL != "" {
		u, err := url.Parse(c.AWS.EndpointURL)
		if err != nil || net.ParseIP(u.Hostname()) == nil || !net.ParseIP(u.Hostname()).IsLoopback() {
			return fmt.Errorf("aws.endpoint_url is %q: it is for tests, and only a loopback address", c.AWS.EndpointURL)
		}
	}
	return nil
}
