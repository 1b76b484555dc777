// Package control is the socket between the server and its operator's tool:
// messages, server side and client. It is all that operations may import of
// the server.
//
// A connection carries one request and its reply, each message a line of JSON:
//
//	request  {"version":1,"verb":"status","args":{…}}
//	reply    {"result":…}  or  {"error":"…","code":3}
//
// A streaming verb sends one reply line for each event until either side ends.
// A request of another version is refused, unknown members are ignored.
package control

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// Version of the messages.
const Version = 1

// maxMessage bounds a request: the longest names the IMEIs of a fleet.
const maxMessage = 4 << 20

// ErrNoServer means that no server listens on the socket.
var ErrNoServer = errors.New("gt06/control: no server is running")

// Request asks for one thing.
type Request struct {
	Version int             `json:"version"`
	Verb    string          `json:"verb"`
	User    string          `json:"user,omitempty"` // who became root to ask, for the records
	Args    json.RawMessage `json:"args,omitempty"`
}

// Reply answers it.
type Reply struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
	Code   int             `json:"code,omitempty"` // exit code for the tool
	Hints  []string        `json:"hints,omitempty"`
}

// Error is a refusal of the server with the exit code it asks for.
type Error struct {
	Text  string
	Code  int
	Hints []string // what to do next
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// Status is `gt06ctl status --json`.
type Status struct {
	State         string    `json:"state"` // starting, ready, degraded, draining
	Reasons       []string  `json:"reasons"`
	Version       string    `json:"version"`
	PID           int       `json:"pid"`
	Generation    uint64    `json:"generation"`
	UptimeS       int64     `json:"uptime_s"`
	Connections   int       `json:"connections"`
	DevicesOnline int       `json:"devices_online"`
	Listen        string    `json:"listen"` // address of the device port
	Spool         SpoolInfo `json:"spool"`
	Store         StoreInfo `json:"store"`
	Sinks         []Sink    `json:"sinks"`
	Clock         ClockInfo `json:"clock"`
	Memory        Memory    `json:"memory"`
	Keeper        *Keeper   `json:"keeper"`       // null: none
	LastUpgrade   *Upgrade  `json:"last_upgrade"` // null: none yet
}

// ClockInfo is the machine's clock in Status.
type ClockInfo struct {
	Synchronised string `json:"synchronised"` // yes, no, unknown: the kernel does not say
}

// Memory is the process' memory in Status, bytes.
type Memory struct {
	Resident int64  `json:"resident"`
	Limit    int64  `json:"limit"` // of the heap; 0: none
	From     string `json:"from"`  // of the limit: GOMEMLIMIT, configuration, cgroup, none
}

// Keeper is the descriptor keeper's part of Status.
type Keeper struct {
	PID  int `json:"pid"`
	Held int `json:"held"` // connections and the listener
}

// Program is a server that took part in an upgrade.
type Program struct {
	PID        int    `json:"pid"`
	Version    string `json:"version"`
	Generation uint64 `json:"generation"`
}

// The results of an upgrade.
const (
	Upgraded   = "upgraded"
	RolledBack = "rolled_back"
	Refused    = "refused"
)

// Upgrade is `gt06ctl upgrade --json`.
type Upgrade struct {
	Result  string  `json:"result"`
	Reason  string  `json:"reason"`
	From    Program `json:"from"`
	To      Program `json:"to"`
	Moved   int     `json:"moved"`    // connections
	Dropped int     `json:"dropped"`  // of them, because kernel and log contradict each other
	StallMS float64 `json:"stall_ms"` // from the last batch of the old one until the new one served
	FreeMS  float64 `json:"free_ms"`  // of it, without an owner
	TotalMS float64 `json:"total_ms"`
	At      string  `json:"at"` // RFC 3339
	Change  *Change `json:"change,omitempty"`
}

// UpgradeArgs asks for an upgrade.
type UpgradeArgs struct {
	Binary string `json:"binary,omitempty"` // absolute; "": the one that was started
	NoWait bool   `json:"no_wait,omitempty"`
	// Change is the change it is done in; required by upgrade.require_change.
	Change *Change `json:"change,omitempty"`
}

// Change is the evidence that a change of gt06ctl ops is open and that its gate
// was read just before: what the journal of the change holds, too.
type Change struct {
	ID        string `json:"id"`
	Snapshot  string `json:"snapshot"`
	CheckedAt string `json:"checked_at"` // RFC 3339: when the gate said yes
	Head      string `json:"head"`       // hash of the journal record that says so
	Host      string `json:"host"`       // where it was asked
}

// proofAge is how old evidence may be: the gate is read again for each step.
const proofAge = 10 * time.Minute

var (
	changeID = regexp.MustCompile(`^c-\d{8}-\d{2,}$`)
	headHash = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// Check refuses evidence that is incomplete or old.
func (c *Change) Check(now time.Time) error {
	at, err := time.Parse(time.RFC3339, c.CheckedAt)
	switch {
	case !changeID.MatchString(c.ID):
		return fmt.Errorf("%q is no change", c.ID)
	case c.Snapshot == "" || !headHash.MatchString(c.Head):
		return fmt.Errorf("change %s comes without the evidence of its gate", c.ID)
	case err != nil || now.Sub(at).Abs() > proofAge:
		return fmt.Errorf("the gate of change %s was read at %s, more than %s from now", c.ID, c.CheckedAt, proofAge)
	}
	return nil
}

// UpgradeEvent is one line of the stream of an upgrade: a step, or the result.
type UpgradeEvent struct {
	Step   string   `json:"step,omitempty"`
	Result *Upgrade `json:"result,omitempty"`
}

// SendArgs asks to send a command to a device.
type SendArgs struct {
	IMEI        string        `json:"imei"`
	Command     string        `json:"command"`        // a text that ends in #, or a name
	Args        []string      `json:"args,omitempty"` // of a named command
	Flag        uint32        `json:"flag,omitempty"` // the device sends it back with its reply; 0: the server chooses
	Wait        time.Duration `json:"wait,omitempty"` // for the reply; 0: return when it is sent
	CutEngine   bool          `json:"cut_engine,omitempty"`
	Queue       time.Duration `json:"queue,omitempty"` // keep it this long for a device that is offline
	Alternative bool          `json:"alternative,omitempty"`
	Password    string        `json:"password,omitempty"`
}

// Sent is what came of it: `gt06ctl send --json`.
type Sent struct {
	IMEI    string  `json:"imei"`
	Command string  `json:"command"` // the text that was sent
	Flag    uint32  `json:"flag"`
	SentAt  string  `json:"sent_at"` // RFC 3339
	Reply   *string `json:"reply"`   // null: none came, or nobody waited
	AfterMS float64 `json:"after_ms"`
	Queued  string  `json:"queued,omitempty"` // RFC 3339: it waits for the device until then
}

// QuarantineArgs asks what is in quarantine.
type QuarantineArgs struct {
	ID   int64 `json:"id"` // 0: the last ones
	Most int   `json:"most"`
}

// Quarantined is a frame in quarantine.
type Quarantined struct {
	ID         int64  `json:"id"`
	IMEI       string `json:"imei"` // "": the connection had not logged in
	ReceivedAt string `json:"received_at"`
	Hex        string `json:"hex"`
	Reason     string `json:"reason"`
}

// Event is one line of the stream of work that takes its time: how far it is,
// or, in the last one, what came of it.
type Event[Progress, Result any] struct {
	Progress *Progress `json:"progress,omitempty"`
	Result   *Result   `json:"result,omitempty"`
}

// HistoryArgs asks to bring over the rows of somebody else's table.
type HistoryArgs struct {
	Mapping string `json:"mapping"` // its text
	DSN     string `json:"dsn"`     // of the MariaDB that has the table; "": the store's
	Plan    bool   `json:"plan"`    // say what would be read, and change nothing
	Again   bool   `json:"again"`   // from the beginning
}

// HistoryProgress is how far it is.
type HistoryProgress struct {
	Read int64 `json:"read"` // rows, by all runs
	Of   int64 `json:"of"`   // as many as there were at the beginning
}

// History is what came of it, by all runs together.
type History struct {
	Source  string           `json:"source"`
	Waiting int64            `json:"waiting"` // rows behind the last one that was read
	Read    int64            `json:"read"`    // rows = written + there + refused
	Written int64            `json:"written"` // rows of positions
	There   int64            `json:"there"`   // whose fix was in positions already
	Refused map[string]int64 `json:"refused"` // by reason
}

// ReplayArgs asks to decode again what the log holds: of a time, or what is in
// quarantine.
type ReplayArgs struct {
	From       time.Time `json:"from"`
	To         time.Time `json:"to"`
	Quarantine bool      `json:"quarantine"`
	ID         int64     `json:"id"` // of one frame in quarantine
}

// Replayed is what came of it.
type Replayed struct {
	Read     int `json:"read"`     // records of the log looked at
	Frames   int `json:"frames"`   // decoded and stored again
	Left     int `json:"left"`     // frames that left the quarantine
	Remained int `json:"remained"` // frames that are in quarantine still
	Refused  int `json:"refused"`  // frames whose rows the database refuses
	Gone     int `json:"gone"`     // frames in quarantine that the log does not hold any more
}

// ImportArgs asks to store what the log of another data directory holds.
type ImportArgs struct {
	Dir string `json:"dir"` // as the server sees it
}

// Imported is what came of it.
type Imported struct {
	Stream       string    `json:"stream"`        // its name in the database
	Records      int64     `json:"records"`       // in that log
	First        time.Time `json:"first"`         // receipt of its oldest record
	Last         time.Time `json:"last"`          // and of its newest
	Next         time.Time `json:"next"`          // where this server's log goes on after it; zero: it does not
	Stored       int64     `json:"stored"`        // records, by this run; the others were by one before it
	Recovered    int64     `json:"recovered"`     // rows that were not there
	Merged       int64     `json:"merged"`        // rows that were
	Damaged      int       `json:"damaged"`       // places
	SkippedBytes int64     `json:"skipped_bytes"` // passed over as damaged
	Gaps         int       `json:"gaps"`          // places where bytes of a connection are missing
	MissingBytes int64     `json:"missing_bytes"` // so many
}

// ImportProgress is how far an import is.
type ImportProgress struct {
	Step    string `json:"step"` // verified, stored
	Records int64  `json:"records"`
}

// Budget is how the disk fills: what log and database take, and how fast.
type Budget struct {
	WindowS    float64    `json:"window_s"` // the rates were measured over so many seconds
	Log        BudgetPart `json:"log"`
	Database   BudgetPart `json:"database"`
	Rows       int64      `json:"rows"`
	RowsPerDay int64      `json:"rows_per_day"`
	OnThisDisk bool       `json:"on_this_disk"` // the database
	Total      int64      `json:"disk_bytes"`
	Free       int64      `json:"disk_free_bytes"`
	// Days until the disk is 95 % full at this rate; absent: it will not be,
	// because retention and limits end the growth before.
	Days *float64 `json:"days_until_95,omitempty"`
}

// BudgetPart is one of the two.
type BudgetPart struct {
	Kind       string  `json:"kind"`
	Bytes      int64   `json:"bytes"`
	BytesPerD  int64   `json:"bytes_per_day"`
	KeepDays   float64 `json:"keep_days"`             // retention
	LimitBytes int64   `json:"limit_bytes,omitempty"` // it never takes more
}

// VerifyArgs asks whether what was received in a time is in the database.
type VerifyArgs struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Verified is what came of it.
type Verified struct {
	Records int64     `json:"records"` // of the log, in that time
	Rows    int64     `json:"rows"`    // they stand for
	Missing int64     `json:"missing"` // of these, not in the database
	Places  []Missing `json:"places"`  // when: the first of them
}

// Missing is a run of records some of whose rows are not there.
type Missing struct {
	From time.Time `json:"from"` // receipt
	To   time.Time `json:"to"`
	Rows int64     `json:"rows"`
}

// SchemaInfo is how the tables are and how this program wants them.
type SchemaInfo struct {
	Version int64 `json:"version"` // of the tables
	Known   int64 `json:"known"`   // to this program
	Pending int64 `json:"pending"` // migrations between the two
}

// CommandsArgs asks what was sent to a device.
type CommandsArgs struct {
	IMEI string `json:"imei"`
	Most int    `json:"most"`
}

// SpoolInfo is the log's part of Status.
type SpoolInfo struct {
	Position uint64 `json:"position"`
	Durable  uint64 `json:"durable"`
	Settled  uint64 `json:"settled"`
	Bytes    int64  `json:"bytes"`
	Oldest   string `json:"oldest"` // RFC 3339, "" when empty
}

// StoreInfo is the database's part of Status.
type StoreInfo struct {
	Kind      string `json:"kind"`
	State     string `json:"state"` // opening, ok, down, schema, fenced
	Lag       int64  `json:"lag"`   // records that are not committed yet
	LastError string `json:"last_error"`
}

// Serves says whether devices are served and stored as they should be: that a
// receiver of a sink is away is no reason to send devices to another server.
func (s *Status) Serves() bool {
	stuck := 0
	for i := range s.Sinks {
		if st := s.Sinks[i].State; st == SinkStuck || st == SinkStopped {
			stuck++
		}
	}
	return s.State == "ready" || s.State == "degraded" && len(s.Reasons) == stuck
}

// The states of a sink that an operator must do something about; each is a
// reason of Status.
const (
	SinkStuck   = "stuck"   // its receiver takes nothing
	SinkStopped = "stopped" // its cursor is not understood
)

// Sink is a way out's part of Status.
type Sink struct {
	Name      string  `json:"name"`
	Kind      string  `json:"kind"`     // webhook, nats, table, mirror
	State     string  `json:"state"`    // opening, ok, failing, stuck, stopped
	Lag       int64   `json:"lag"`      // records that its receiver has not taken yet
	OldestS   float64 `json:"oldest_s"` // age of the oldest of them that is being sent, 0: none is
	Sent      int64   `json:"sent"`     // records since this server began
	Missed    uint64  `json:"missed"`   // records that the log dropped before they were sent, ever
	LastError string  `json:"last_error"`

	Counts map[string]int64 `json:"counts,omitempty"` // what its receiver counts, by its own words, since this server began
}

// Device is a line of `gt06ctl devices --json`.
type Device struct {
	IMEI      string   `json:"imei"`
	Name      string   `json:"name,omitempty"`
	Model     string   `json:"model,omitempty"`
	Status    string   `json:"status"`
	Online    bool     `json:"online"`
	Remote    string   `json:"remote,omitempty"`
	LastSeen  string   `json:"last_seen,omitempty"` // RFC 3339
	FixTime   string   `json:"fix_time,omitempty"`
	Latitude  *float64 `json:"latitude,omitempty"`
	Longitude *float64 `json:"longitude,omitempty"`
	SpeedKMH  *float64 `json:"speed_kmh,omitempty"`
	Course    *float64 `json:"course,omitempty"` // degrees
	Ignition  *bool    `json:"ignition,omitempty"`
	Battery   *int64   `json:"battery,omitempty"` // per cent
	Alarm     string   `json:"alarm,omitempty"`   // the last one
	AlarmTime string   `json:"alarm_time,omitempty"`
	Problems  []string `json:"problems"` // of a closed set; empty: none
}

// DeviceChange is what an operator says of one device; null leaves it as it is.
// A device that is not known is registered.
type DeviceChange struct {
	IMEI      string  `json:"imei"`
	Status    *string `json:"status,omitempty"` // allowed, quarantined, blocked
	Name      *string `json:"name,omitempty"`   // "": none
	Model     *string `json:"model,omitempty"`  // "": none
	UTCOffset *int32  `json:"utc_offset_s,omitempty"`
	OwnOffset bool    `json:"own_offset,omitempty"` // the device's own again, from its next login on
}

// DevicesChanged is what came of it.
type DevicesChanged struct {
	Changed    int `json:"changed"`
	Registered int `json:"registered"` // of them, that were not known
}

// PolicyArgs asks for a policy for devices that are not known.
type PolicyArgs struct {
	Policy string `json:"policy"` // open, quarantine, allow; config: the configuration's again; "": only tell
}

// DevicePolicy is the one that holds.
type DevicePolicy struct {
	Policy   string `json:"policy"`
	From     string `json:"from"` // configuration, operator
	Known    int    `json:"known"`
	Enforced bool   `json:"enforced"` // false until the devices were read once: nobody is refused
}

// Problem is something wrong with a device: a line of `gt06ctl devices
// --problems --json`.
type Problem struct {
	IMEI  string `json:"imei"`
	Name  string `json:"name,omitempty"`
	Kind  string `json:"kind"`
	Count int    `json:"count"` // since the server began
	Last  string `json:"last"`  // RFC 3339; "": not known
	Text  string `json:"text"`
	Do    string `json:"do"` // what mends it
}

// Validation is `gt06ctl validate --json`: the three checks of SOP section 7.
type Validation struct {
	OK        bool    `json:"ok"`
	WarmingUp bool    `json:"warming_up"` // of one of the checks: nothing is red for the server's own start
	Checks    []Check `json:"checks"`
}

// Check is one of them.
type Check struct {
	Name      string  `json:"name"` // timestamps, locations, reconnects
	OK        bool    `json:"ok"`
	WarmingUp bool    `json:"warming_up"` // its evidence is shorter than its span: it is not red yet
	Value     float64 `json:"value"`
	Limit     float64 `json:"limit"`
	Text      string  `json:"text"`
}

// RowsArgs asks for what is stored of devices.
type RowsArgs struct {
	IMEIs []string  `json:"imeis"`
	Since time.Time `json:"since"` // received at or after
}

// Path returns where the socket of a data directory is: in $RUNTIME_DIRECTORY,
// else below /run/gt06, for others than root below $XDG_RUNTIME_DIR. Two data
// directories never share one (DESIGN.md section 6).
func Path(dataDir string) (string, error) {
	dir, err := RuntimeDir(dataDir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "gt06d.sock")
	const longest = 107 // sun_path
	if len(path) > longest {
		return "", fmt.Errorf("socket path %s is longer than %d bytes", path, longest)
	}
	return path, nil
}

// system is where the runtime files of servers that root or systemd started lie.
const system = "/run/gt06"

// Find returns where the socket of a data directory is for somebody who asks:
// that of a server of theirs, or, when the directory belongs to another user,
// of the system's, so that they learn what they lack.
func Find(dataDir string) (string, error) {
	path, err := Path(dataDir)
	if err != nil || os.Geteuid() == 0 || os.Getenv("RUNTIME_DIRECTORY") != "" {
		return path, err
	}
	st, err := os.Stat(dataDir)
	if err == nil {
		if mine(st) {
			return path, nil
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		return path, nil
	}
	name, err := runtimeName(dataDir)
	return filepath.Join(system, name, "gt06d.sock"), err
}

// RuntimeDir returns the directory of the runtime files of a data directory.
func RuntimeDir(dataDir string) (string, error) {
	if dir := os.Getenv("RUNTIME_DIRECTORY"); dir != "" {
		return dir, nil
	}
	base := system
	if os.Geteuid() != 0 {
		base = os.Getenv("XDG_RUNTIME_DIR")
		if base == "" {
			base = os.TempDir()
		}
		base = filepath.Join(base, "gt06")
	}
	name, err := runtimeName(dataDir)
	return filepath.Join(base, name), err
}

// runtimeName is the name that no two data directories share.
func runtimeName(dataDir string) (string, error) {
	abs, err := filepath.Abs(dataDir)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(abs))
	return hex.EncodeToString(sum[:])[:12], nil
}

// DefaultDataDir returns where data lies when nobody says: $STATE_DIRECTORY, or
// gt06 below $XDG_STATE_HOME.
func DefaultDataDir() string {
	if dir := os.Getenv("STATE_DIRECTORY"); dir != "" {
		return dir
	}
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = os.TempDir()
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "gt06")
}
