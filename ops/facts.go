package ops

import (
	"context"
	"time"
)

// FactSource reads the cloud as it is now. One answer is one look: nothing in
// it comes from a configuration or a cache.
type FactSource interface {
	// Facts answers a question. The snapshot is the named one; else the newest
	// one tagged gt06ops:change with the change, of whatever volume; else nil.
	Facts(ctx context.Context, q Question) (Facts, error)
}

// Question says what the facts are about.
type Question struct {
	Instance string
	Change   string
	Snapshot string // an adopted one; "": look for the change's tag
}

// Facts are what gate and change are decided on.
type Facts struct {
	LocalTime      time.Time // when the answer came, by the clock of this machine
	CloudTime      time.Time // the Date header of that answer
	Account        string
	Instance       Instance
	Root           Volume  // attached at Instance.RootDevice now; zero: none is
	Address        Address // of the configured allocation
	Snapshot       *Snapshot
	RecycleBinDays int // the longest rule for EBS_SNAPSHOT; 0: none
}

// Instance is the machine; a zero ID: it is not in this account and region.
type Instance struct {
	ID, Name, State, Zone, RootDevice string
}

// Volume is what a restore must make again.
type Volume struct {
	ID         string `json:"id"`
	Type       string `json:"type"`
	KMS        string `json:"kms"`
	GiB        int    `json:"gib"`
	IOPS       int    `json:"iops"`
	Throughput int    `json:"throughput"` // MiB/s
	Encrypted  bool   `json:"encrypted"`
}

// Address is an Elastic IP and where it points.
type Address struct {
	Allocation  string `json:"allocation"`
	Association string `json:"association"` // "": to nothing
	IP          string `json:"ip"`
	Instance    string `json:"instance"`
}

// Snapshot is one, as DescribeSnapshots tells it.
type Snapshot struct {
	ID, Volume, State, Owner, Name, Description string
	Progress                                    int // percent
	Start                                       time.Time
	Tags                                        map[string]string
	Public                                      bool
	Lock                                        string // governance, compliance, "" for none
}

// The tags everything we make carries.
const (
	TagInstance = "gt06ops:instance"
	TagChange   = "gt06ops:change"
	TagStep     = "gt06ops:step"
)

// Backend is what a cloud gives. What is not configured is nil.
type Backend struct {
	Facts  FactSource
	Mirror Mirror
	Anchor Anchor
	Lock   CloudLock
	// Self returns the instance this program runs on, "" when on none.
	Self func(ctx context.Context) (string, error)
	// ARN returns who we are to the cloud.
	ARN func(ctx context.Context) (string, error)
}
