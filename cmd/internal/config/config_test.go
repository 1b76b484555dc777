package config

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"gt06/protocol"
)

func load(t *testing.T, env map[string]string, args ...string) (Config, error) {
	t.Helper()
	set := pflag.NewFlagSet("gt06d", pflag.ContinueOnError)
	f := Bind(set)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	return f.Load(func(k string) string { return env[k] })
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gt06.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	a := Answers{Policy: "vendor", Types: map[string]string{"0x22": "traccar", "13": "none"}, Models: map[string]string{"nt20": "none"}}
	rules, err := a.Rules()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		typ   byte
		model string
		want  protocol.Policy
	}{{0x12, "", protocol.AnswerVendor}, {0x22, "", protocol.AnswerTraccar}, {0x13, "X", protocol.AnswerNone}, {0x22, "NT20", protocol.AnswerNone}} {
		if got := rules(c.typ, c.model); got != c.want {
			t.Errorf("0x%02x %q: %v, want %v", c.typ, c.model, got, c.want)
		}
	}
	for _, bad := range []Answers{{Policy: "all"}, {Policy: "none", Types: map[string]string{"x": "none"}}, {Policy: "none", Types: map[string]string{"0x22": "x"}}, {Policy: "none", Models: map[string]string{"A": "x"}}, {}} {
		if _, err := bad.Rules(); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func TestFlagsBeatEnvironmentBeatsFile(t *testing.T) {
	t.Parallel()
	path := file(t, "listen: file:1\nadmin: 127.0.0.1:2\ndata_dir: /file\nspool: {max_bytes: 2GiB, retention: 24h}\ndisk: {min_free: 64MiB}\nlimits: {connections: 7, idle_timeout: 5m}\n")
	c, err := load(t, map[string]string{"GT06_CONFIG": path, "GT06_LISTEN": "env:1", "GT06_ADMIN": "127.0.0.2:2"}, "--listen", "flag:1")
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "flag:1" || c.Admin != "127.0.0.2:2" || c.DataDir != "/file" {
		t.Errorf("%+v", c)
	}
	if c.Spool.MaxBytes != 2<<30 || c.Disk.MinFree != 64<<20 || time.Duration(c.Spool.Retention) != 24*time.Hour || c.Limits.Connections != 7 || time.Duration(c.Limits.Idle) != 5*time.Minute {
		t.Errorf("%+v", c)
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, err := load(t, nil)
	if err != nil || c.Listen != "127.0.0.1:5023" || c.Admin != "127.0.0.1:8023" || c.Store.Kind != "sqlite" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestMistakesAreSaidWithTheirPlace(t *testing.T) {
	t.Parallel()
	for name, now := range map[string]struct{ text, want string }{
		"unknown key":    {"listen: x\nlisen: y\n", `:2: unknown key "lisen"`},
		"nested key":     {"spool:\n  max: 1\n", `:2: unknown key "max"`},
		"size":           {"disk:\n  min_free: lots\n", "line 2"},
		"negative size":  {"disk: {min_free: -5}\n", "no size"},
		"time span":      {"limits: {idle_timeout: soon}\n", "no time span"},
		"kind of store":  {"store: oracle\n", "sqlite or mariadb"},
		"not true":       {"upgrade: {require_change: maybe}\n", `:1: is "maybe", and should be true or false`},
		"no number":      {"listen: :1\nlimits: {connections: many}\n", `:2: is "many", and should be a whole number`},
		"no list":        {"commands: {allow: STATUS}\n", `is "STATUS", and should be a list`},
		"no section":     {"limits: 5\n", `is "5", and should be keys of its own`},
		"no address":     {"listen: 5023\n", `listen is "5023": write HOST:PORT`},
		"two lines":      {"listen: :1\n  bad\n", `listen is ":1 bad"`},
		"no level":       {"log: {level: loud}\n", `log.level is "loud"`},
		"no database":    {"store: mariadb\n", "no database is named"},
		"no YAML at all": {"{", "yaml"},
	} {
		_, err := load(t, nil, "--config", file(t, now.text))
		if err == nil || !strings.Contains(err.Error(), now.want) {
			t.Errorf("%s: %v, want %q", name, err, now.want)
		}
	}
}

func TestWhereTheDatabaseIsNamed(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(secret, []byte("user:pw@unix(/s)/db\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := load(t, map[string]string{"GT06_DSN_FILE": secret, "GT06_STORE": "mariadb"})
	if err != nil || c.Store.DSN != "user:pw@unix(/s)/db" || len(c.Warnings) != 0 {
		t.Errorf("file: %+v, %v", c, err)
	}
	credentials := t.TempDir()
	if err := os.WriteFile(filepath.Join(credentials, "db_dsn"), []byte("a@unix(/s)/db"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err = load(t, map[string]string{"CREDENTIALS_DIRECTORY": credentials, "GT06_STORE": "mariadb"})
	if err != nil || c.Store.DSN != "a@unix(/s)/db" {
		t.Errorf("credentials: %+v, %v", c, err)
	}
	c, err = load(t, nil, "--store", "mariadb", "--dsn", "user:s3cret@unix(/s)/db")
	if err != nil || len(c.Warnings) != 1 || strings.Contains(c.Warnings[0], "s3cret") {
		t.Errorf("flag: %+v, %v", c.Warnings, err)
	}
}

func TestBoard(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef0123\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tiles := "board: {tiles_url: 'https://tiles.example/{z}/{x}/{y}.png', tiles_attribution: 'Example'}\n"
	for text, says := range map[string]string{
		"admin: 127.0.0.1:8023\n":                            "",
		"admin: '[::1]:8023'\n":                              "",
		"admin: localhost:8023\n":                            "",
		"admin: :8023\n":                                     "board.token_file is not set",
		"admin: 10.0.0.7:8023\n":                             "board.token_file is not set",
		"admin: gt06.example:8023\n":                         "board.token_file is not set",
		"admin: :8023\nboard: {token_file: " + token + "}\n": "",
		"board: {token_file: " + token + ".not}\n":           "board.token_file: ",
		"board: {token_file: " + file(t, "short") + "}\n":    "shorter than 16",
		tiles: "",
		"board: {tiles_url: 'https://tiles.example/{z}'}\n": "tiles_attribution",
		"board: {tiles_url: 'tiles.example/{z}'}\n":         "write https://",
		"checks: {window: 5s}\n":                            "checks: ",
		"checks: {window: 10m, silent: 20m}\n":              "checks: ",
		"checks: {window: 10s, silent: 2s}\n":               "",
	} {
		c, err := load(t, map[string]string{"GT06_CONFIG": file(t, text)})
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
		if err != nil && strings.Contains(err.Error(), "0123456789abcdef") {
			t.Errorf("the token is shown: %v", err)
		}
		if says == "" && strings.Contains(text, "token_file") && c.Board.Token != "0123456789abcdef0123" {
			t.Errorf("%q: token %q", text, c.Board.Token)
		}
	}
}

var update = flag.Bool("update", false, "write REFERENCE.md")

func TestReferenceIsTheCode(t *testing.T) {
	t.Parallel()
	want := Reference()
	if *update {
		if err := os.WriteFile("REFERENCE.md", []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("REFERENCE.md")
	if err != nil || string(have) != want {
		t.Errorf("REFERENCE.md is not what the code says (%v): go test ./cmd/internal/config -run Reference -update", err)
	}
	c := Defaults()
	for _, s := range c.settings() {
		if s.Help == "" || s.Key == "" || strings.HasSuffix(s.Key, ".") {
			t.Errorf("the key %q has no help", s.Key)
		}
	}
}

func TestTheREADMEsExampleIsTaken(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "```yaml\n")
	text, _, found := strings.Cut(text, "```")
	if !found {
		t.Fatal("no YAML in the README")
	}
	text = regexp.MustCompile(`/etc/gt06/[a-z.]+`).ReplaceAllString(text, file(t, "long-enough@unix(/s)/db")) // a dsn, and a token
	if _, err := load(t, nil, "--config", file(t, text)); err != nil {
		t.Error(err)
	}
}

func TestEffectiveSaysWhereAndHidesSecrets(t *testing.T) {
	t.Parallel()
	path := file(t, "limits: {connections: 7}\nspool: {max_bytes: 1536MiB}\ndsn: 'fleet:s3cret@tcp(db:3306)/gt06'\n")
	c, err := load(t, map[string]string{"GT06_CONFIG": path, "GT06_LOG_LEVEL": "warn"}, "--listen", ":5023")
	if err != nil {
		t.Fatal(err)
	}
	text := c.Effective()
	if strings.Contains(text, "s3cret") {
		t.Errorf("a password is shown:\n%s", text)
	}
	for _, want := range []string{"listen: :5023 # flag", "level: warn # environment", "connections: 7 # file", "max_bytes: 1536MiB # file", "idle_timeout: 10m # default", "fleet:***@tcp(db:3306)/gt06", "min_free: null # default: the larger"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	// What is printed is a file that says the same.
	again, err := load(t, nil, "--config", file(t, text))
	if err != nil {
		t.Fatal(err)
	}
	if again.Listen != c.Listen || again.Limits != c.Limits || again.Spool != c.Spool || again.Upgrade != c.Upgrade {
		t.Errorf("read again: %+v, was %+v", again, c)
	}
}

func TestTheStrongerPlaceNamesTheDatabase(t *testing.T) {
	t.Parallel()
	inFile := file(t, "dsn: file@unix(/s)/db\nstore: mariadb\n")
	secret := file(t, "secret@unix(/s)/db")
	for name, now := range map[string]struct {
		env  map[string]string
		args []string
		want string
	}{
		"file":                       {nil, nil, "file@unix(/s)/db"},
		"environment's file beats":   {map[string]string{"GT06_DSN_FILE": secret}, nil, "secret@unix(/s)/db"},
		"flag beats":                 {map[string]string{"GT06_DSN_FILE": secret}, []string{"--dsn", "flag@unix(/s)/db"}, "flag@unix(/s)/db"},
		"environment's dsn and file": {map[string]string{"GT06_DSN_FILE": secret, "GT06_DSN": "env@unix(/s)/db"}, nil, "env@unix(/s)/db"},
	} {
		c, err := load(t, now.env, append(now.args, "--config", inFile)...)
		if err != nil || c.Store.DSN != now.want {
			t.Errorf("%s: %q, %v", name, c.Store.DSN, err)
		}
	}
}

func TestSecretsOfListsAreHidden(t *testing.T) {
	t.Parallel()
	type way struct {
		URL string `yaml:"url" secret:"url"`
	}
	type sink struct {
		URL   string   `yaml:"url" secret:"url"`
		Token string   `yaml:"token" secret:"all"`
		Wait  Duration `yaml:"wait"`
		Way   *way     `yaml:"way"`
	}
	given := []sink{{"https://u:s3cret@h/x", "s3cret", Duration(time.Minute), &way{"nats://u:s3cret@h:1,nats://v:s3cret@i:2"}}}
	b, err := yaml.Marshal(shown(reflect.ValueOf(given)))
	if err != nil || strings.Contains(string(b), "s3cret") || !strings.Contains(string(b), "h/x") || !strings.Contains(string(b), "@i:2") || !strings.Contains(string(b), "wait: 1m") || given[0].Token != "s3cret" || !strings.Contains(given[0].Way.URL, "s3cret") {
		t.Errorf("%s, %v, %v", b, err, given)
	}
}

func TestSinksAreShownWithoutTheirSecrets(t *testing.T) {
	t.Parallel()
	text := "sinks:\n  - name: crm\n    webhook: {url: 'https://crm.example/x', secret_file: " + file(t, "h1dden-secret") + ", token_file: " + file(t, "h1dden-token") + "}\n  - {name: stream, nats: {url: 'nats://h:4222'}}\n"
	c, err := load(t, map[string]string{"GT06_CONFIG": file(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	if c.Sinks[0].Webhook.Secret != "h1dden-secret" || c.Sinks[0].Webhook.Token != "h1dden-token" {
		t.Error("the secrets were not read")
	}
	shown := c.Effective() + fmt.Sprintf("%v %+v %#v", c.Sinks[0].Webhook, c.Sinks[0].Webhook, c.Sinks[0].Webhook)
	if strings.Contains(shown, "h1dden") || !strings.Contains(shown, "crm.example") {
		t.Errorf("shown:\n%s", shown)
	}
	// What is shown is a file that says the same.
	again, err := load(t, map[string]string{"GT06_CONFIG": file(t, c.Effective())})
	if err != nil {
		t.Fatalf("%v in\n%s", err, c.Effective())
	}
	if len(again.Sinks) != 2 || *again.Sinks[0].Webhook != *c.Sinks[0].Webhook || *again.Sinks[1].NATS != *c.Sinks[1].NATS {
		t.Errorf("read again: %+v", again.Sinks)
	}
}
