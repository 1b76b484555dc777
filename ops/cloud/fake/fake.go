// Package fake is an AWS on the loopback, for tests and for practice: the part
// of EC2, S3, STS, Recycle Bin, Backup, CloudTrail, SSM and the metadata
// service that operations use, spoken over HTTP as the real SDK expects it.
//
// What it adds to a recorder is time and refusal: snapshots are pending before
// they are completed, instances stop slowly, a volume rests six hours between
// two modifications, does not shrink, does not cross zones and does not leave a
// running instance whose root it is. Faults take the place of an answer, or of
// the reply to a call that had its effect. Every call is recorded with its
// resources and tags, and judged by IAM policies where some are given.
package fake

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Account is the account everything belongs to, Region where it is.
const (
	Account = "123456789012"
	Region  = "ap-south-1"
)

// Delays are how long things take.
type Delays struct {
	Snapshot, Image, Stop, Start, Attach, Modify time.Duration
}

// AWS is the fake. Its exported fields are set before the first call; what
// follows mu is guarded by it.
type AWS struct {
	Delays Delays
	// Skew is added to the Date header of every answer.
	Skew time.Duration
	// On is the instance the metadata service speaks for; "" is none.
	On string
	// Guest runs what SSM is asked to run; nil: no instance is managed by SSM.
	Guest func(instance, command string) (code int, stdout, stderr string)
	// Rescue runs the first-boot script of an instance once it has a second
	// volume, and returns what it prints on the console; nil: what a good one
	// prints.
	Rescue func(script string) string
	// Policies judge the calls by the name of the access key; a caller without
	// an entry may do everything.
	Policies map[string][]Policy
	// Lag is how many lists do not yet show an object that was just made.
	Lag int

	URL string

	mu     sync.Mutex
	server *httptest.Server
	offset time.Duration
	serial int
	world  world
	store  store
	faults []*Fault
	calls  []Call
}

// New starts an empty one; Close ends it.
func New() *AWS {
	a := &AWS{Delays: Delays{Snapshot: 100 * time.Millisecond, Image: 50 * time.Millisecond, Stop: 40 * time.Millisecond, Start: 40 * time.Millisecond, Attach: 20 * time.Millisecond, Modify: 40 * time.Millisecond}, world: newWorld(), store: newStore()}
	a.server = httptest.NewServer(a)
	a.URL = a.server.URL
	return a
}

// Close ends it.
func (a *AWS) Close() { a.server.Close() }

// Advance moves its clock on.
func (a *AWS) Advance(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.offset += d
}

func (a *AWS) now() time.Time { return time.Now().Add(a.offset).UTC() }

func (a *AWS) id(prefix string) string {
	a.serial++
	return fmt.Sprintf("%s-%017x", prefix, 0xfa000+a.serial)
}

// Kind is what a fault does.
type Kind int

// The faults.
const (
	Refuse    Kind = iota // answer Code without an effect
	Throttle              // refused for its rate
	LostReply             // has its effect, the connection is cut
	Broken                // 500 without an effect
)

// Fault takes the place of the answer to an action.
type Fault struct {
	Action string // "CreateSnapshot"
	Kind   Kind
	Code   string // of Refuse
	Skip   int    // calls let through first
	Times  int    // 0 is once
}

// Inject adds a fault.
func (a *AWS) Inject(f Fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f.Times == 0 {
		f.Times = 1
	}
	a.faults = append(a.faults, &f)
}

func (a *AWS) fault(action string) *Fault {
	for _, f := range a.faults {
		switch {
		case f.Action != action || f.Times == 0:
		case f.Skip > 0:
			f.Skip--
		default:
			f.Times--
			return f
		}
	}
	return nil
}

// refusal is an error of AWS.
type refusal struct {
	status  int
	code    string
	message string
}

// Error implements error.
func (r *refusal) Error() string { return r.code + ": " + r.message }

func refuse(code, format string, args ...any) error {
	return &refusal{http.StatusBadRequest, code, fmt.Sprintf(format, args...)}
}

// request is one call as the services see it.
type request struct {
	*http.Request
	service string
	action  string
	caller  string
	body    []byte
}

// answer is what a service says.
type answer struct {
	status int
	header map[string]string
	kind   string // content type
	body   []byte
}

var scope = regexp.MustCompile(`Credential=([^/]+)/\d+/[^/]+/([^/]+)/aws4_request`)

// ServeHTTP implements http.Handler.
func (a *AWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Date", a.now().Add(a.Skew).Format(http.TimeFormat))
	if strings.HasPrefix(r.URL.Path, "/latest/") {
		a.metadata(w, r)
		return
	}
	in := &request{Request: r}
	if m := scope.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
		in.caller, in.service = m[1], m[2]
	}
	service, ok := services[in.service]
	if !ok {
		http.Error(w, "no such service: "+in.service, http.StatusNotImplemented)
		return
	}
	var err error
	if in.body, err = payload(r); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id)
	w.Header().Set("X-Amzn-Requestid", hex.EncodeToString(id))
	in.action = service.action(in)
	a.settle()
	fault := a.fault(in.action)
	var out answer
	switch {
	case fault != nil && fault.Kind == Throttle:
		err = &refusal{http.StatusServiceUnavailable, "RequestLimitExceeded", "Request limit exceeded."}
	case fault != nil && fault.Kind == Broken:
		err = &refusal{http.StatusInternalServerError, "InternalError", "An internal error has occurred"}
	case fault != nil && fault.Kind == Refuse:
		err = refuse(fault.Code, "injected")
	default:
		out, err = service.serve(a, in)
	}
	if fault != nil && fault.Kind == LostReply {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
		return
	}
	if err != nil {
		refused, ok := err.(*refusal) //nolint:errorlint // made here, never wrapped
		if !ok {
			refused = &refusal{http.StatusInternalServerError, "InternalError", err.Error()}
		}
		out = service.refuse(in, refused)
	}
	w.Header().Set("Content-Type", out.kind)
	for k, v := range out.header {
		w.Header().Set(k, v)
	}
	if out.status == 0 {
		out.status = http.StatusOK
	}
	w.WriteHeader(out.status)
	_, _ = w.Write(out.body)
}

// service is how one of AWS' services speaks.
type service struct {
	action func(*request) string
	serve  func(*AWS, *request) (answer, error)
	refuse func(*request, *refusal) answer
}

var services = map[string]service{ //nolint:gochecknoglobals // a table
	"ec2":        {queryAction, (*AWS).ec2, ec2Refusal},
	"sts":        {queryAction, (*AWS).sts, stsRefusal},
	"s3":         {s3Action, (*AWS).s3, s3Refusal},
	"rbin":       {restAction, (*AWS).rest, jsonRefusal},
	"backup":     {restAction, (*AWS).rest, jsonRefusal},
	"ssm":        {targetAction, (*AWS).target, jsonRefusal},
	"cloudtrail": {targetAction, (*AWS).target, jsonRefusal},
}

// Resource is what a call is about: existing ones with their tags, new ones
// with none.
type Resource struct {
	ARN  string
	Tags map[string]string
	New  bool
}

// Call is a recorded call.
type Call struct {
	Time      time.Time
	Caller    string // access key
	Action    string // "ec2:CreateSnapshot"
	Changes   bool   // something, had it been let through
	DryRun    bool
	Resources []Resource
	Context   map[string]string // condition keys: aws:RequestTag/…, ec2:CreateAction, …
	Refused   string            // code, "" where it was done
}

// Calls returns what was called, in order.
func (a *AWS) Calls() []Call {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.calls)
}

// Changes counts the calls that changed something, of one action or of all.
func (a *AWS) Changes(actions ...string) (n int) {
	for _, c := range a.Calls() {
		if c.Changes && !c.DryRun && c.Refused == "" && (len(actions) == 0 || slices.Contains(actions, c.Action)) {
			n++
		}
	}
	return n
}

// admit records a call and judges it.
func (a *AWS) admit(in *request, c Call) error {
	c.Time, c.Caller = a.now(), in.caller
	if policies, ok := a.Policies[in.caller]; ok {
		if why := Judge(policies, c); why != "" {
			c.Refused = "UnauthorizedOperation"
			if !strings.HasPrefix(c.Action, "ec2:") {
				c.Refused = "AccessDenied"
			}
			a.calls = append(a.calls, c)
			return &refusal{http.StatusForbidden, c.Refused, why}
		}
	}
	a.calls = append(a.calls, c)
	return nil
}

// settled notes how the last admitted call ended.
func (a *AWS) settled(err error) {
	if refused, ok := err.(*refusal); ok { //nolint:errorlint // made here, never wrapped
		a.calls[len(a.calls)-1].Refused = refused.code
	}
}
