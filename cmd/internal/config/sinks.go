package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Sink is a way out besides the database. It is of exactly one kind.
type Sink struct {
	Name    string   `yaml:"name" help:"Names its cursor and its metrics, for good: lower-case letters, digits, - and _."`
	Start   string   `yaml:"start" default:"now" help:"Where a new sink begins: now (what this server receives) or oldest (what the log still has)."`
	Events  []string `yaml:"events" default:"all" help:"Types that are sent: position, alarm, heartbeat, device_event, command, command_reply, quarantined."`
	Webhook *Webhook `yaml:"webhook"`
	NATS    *NATS    `yaml:"nats"`
	Table   *Table   `yaml:"table"`
	Mirror  *Mirror  `yaml:"mirror"`
}

// Webhook posts events to an HTTP server.
type Webhook struct {
	URL        string   `yaml:"url" secret:"url" help:"http or https; redirects are not followed."`
	Format     string   `yaml:"format" default:"gt06" help:"gt06: an array of events; traccar: one position with a fix, as Traccar forwards it."`
	Timeout    Duration `yaml:"timeout" default:"10s" help:"Of a request as a whole."`
	SecretFile string   `yaml:"secret_file" help:"File with the secret that signs requests (HMAC-SHA256); a name alone is one of systemd's credentials."`
	TokenFile  string   `yaml:"token_file" help:"File with a bearer token."`

	Secret Secret `yaml:"-"`
	Token  Secret `yaml:"-"`
}

// NATS publishes events to a stream of JetStream.
type NATS struct {
	URL             string   `yaml:"url" secret:"url" help:"nats://host:4222 or tls://, several with commas."`
	Stream          string   `yaml:"stream" default:"GT06" help:"Stream; made when there is none."`
	Subject         string   `yaml:"subject" default:"gt06" help:"Prefix of subjects: PREFIX.type.imei."`
	Timeout         Duration `yaml:"timeout" default:"10s" help:"Until a batch is acknowledged."`
	CredentialsFile string   `yaml:"credentials_file" help:"Credentials of NATS (.creds)."`
}

// Mirror sends what devices sent to another server, and compares the answers.
type Mirror struct {
	Address     string   `yaml:"address" help:"HOST:PORT of the other server: Traccar, or the one before on another port."`
	Timeout     Duration `yaml:"timeout" default:"10s" help:"How long an answer is waited for."`
	Connections int      `yaml:"connections" default:"5000" help:"Connections at most; whose device was silent for longest goes, and logs in again."`
}

// Table writes events as rows of somebody else's table.
type Table struct {
	Mapping string `yaml:"mapping" help:"File that says which fields are which columns; the example is ops/deploy/node/mapping.yaml."`
	DSNFile string `yaml:"dsn_file" help:"File with the dsn of the MariaDB that has the table; a name alone is one of systemd's credentials." default:"the dsn of the store"`

	Text []byte `yaml:"-"` // of the mapping
	DSN  Secret `yaml:"-"`
}

// Secret is text that is never shown.
type Secret string

// String implements fmt.Stringer.
func (Secret) String() string { return "(not shown)" }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return "(not shown)" }

var sinkName = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)

// sinks fills in the defaults and reads the secrets.
func (c *Config) sinks(env func(string) string) error {
	const timeout = Duration(10 * time.Second)
	names := map[string]bool{}
	for i := range c.Sinks {
		s := &c.Sinks[i]
		where := fmt.Sprintf("sinks: %q", s.Name)
		switch {
		case !sinkName.MatchString(s.Name):
			return fmt.Errorf("sinks: the name of number %d is %q: lower-case letters, digits, - and _, at most 32", i+1, s.Name)
		case names[s.Name]:
			return fmt.Errorf("%s is there twice", where)
		case s.kinds() != 1:
			return fmt.Errorf("%s must have one of webhook, nats, table and mirror", where)
		}
		names[s.Name] = true
		s.Start = or(s.Start, "now")
		if !slices.Contains([]string{"now", "oldest"}, s.Start) {
			return fmt.Errorf("%s: start is %q: it can be now or oldest", where, s.Start)
		}
		var err error
		if w := s.Webhook; w != nil {
			w.Format, w.Timeout = or(w.Format, "gt06"), or(w.Timeout, timeout)
			if w.Secret, err = secret(w.SecretFile, env); err == nil {
				w.Token, err = secret(w.TokenFile, env)
			}
		}
		if n := s.NATS; n != nil {
			n.Stream, n.Subject, n.Timeout = or(n.Stream, "GT06"), or(n.Subject, "gt06"), or(n.Timeout, timeout)
			n.CredentialsFile = credential(n.CredentialsFile, env)
			if n.CredentialsFile != "" && !exists(n.CredentialsFile) {
				err = fmt.Errorf("%s: no such file", n.CredentialsFile)
			}
		}
		if m := s.Mirror; m != nil {
			m.Timeout, m.Connections = or(m.Timeout, timeout), or(m.Connections, 5000)
		}
		if t := s.Table; t != nil {
			err = t.read(env, c.Store)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
	}
	return nil
}

func (s *Sink) kinds() (n int) {
	for _, there := range []bool{s.Webhook != nil, s.NATS != nil, s.Table != nil, s.Mirror != nil} {
		if there {
			n++
		}
	}
	return n
}

// read reads the mapping, and finds the database: where the store is, or another.
func (t *Table) read(env func(string) string, store Store) (err error) {
	if t.Text, err = os.ReadFile(t.Mapping); err != nil {
		return fmt.Errorf("mapping: %w", err)
	}
	if t.DSN, err = secret(t.DSNFile, env); err != nil || t.DSN != "" {
		return err
	}
	if store.Kind != "mariadb" {
		return errors.New("table: the store is SQLite: dsn_file must name the MariaDB that has the table")
	}
	t.DSN = Secret(store.DSN)
	return nil
}

func or[T comparable](v, d T) T {
	var zero T
	if v == zero {
		return d
	}
	return v
}

// credential returns the path of a file with a secret: a name alone is one of
// systemd's credentials.
func credential(path string, env func(string) string) string {
	if dir := env("CREDENTIALS_DIRECTORY"); path != "" && dir != "" && filepath.Base(path) == path {
		return filepath.Join(dir, path)
	}
	return path
}

func secret(path string, env func(string) string) (Secret, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(credential(path, env))
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		return "", errors.New(path + " is empty")
	}
	return Secret(text), nil
}
