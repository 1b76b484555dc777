package board

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"gt06/protocol"
)

// Point is a fix of a track. Values the device did not send are null.
type Point struct {
	Time      time.Time `json:"time"`
	Latitude  float64   `json:"latitude"`
	Longitude float64   `json:"longitude"`
	SpeedKMH  float64   `json:"speed_kmh"`
	Course    float64   `json:"course"`
	Ignition  *bool     `json:"ignition"`
	Alarm     string    `json:"alarm,omitempty"`
}

// Frames are what Source.Frames found.
type Frames struct {
	Frames []Frame `json:"frames"` // the newest first
	Before uint64  `json:"before"` // to go on from; 0: the log is read to its beginning
	Since  string  `json:"since"`  // RFC 3339: the log was read back to here; "": to its beginning
}

// Frame is one frame of a device as the log has it, and what its bytes mean.
type Frame struct {
	Position uint64   `json:"position"`
	Time     string   `json:"time"` // RFC 3339 with microseconds: when it was received
	Kind     string   `json:"kind"`
	Hex      string   `json:"hex"`
	Ranges   []Range  `json:"ranges"`
	Error    string   `json:"error,omitempty"`
	Answers  []string `json:"answers"` // hex; what was sent to the device in return
}

// Range is a line of the annotated dump: the same as of gt06ctl decode.
type Range struct {
	Offset int    `json:"offset"`
	Len    int    `json:"len"`
	Name   string `json:"name"`
	Value  string `json:"value"`
	Unit   string `json:"unit,omitempty"`
}

const (
	day        = 24 * time.Hour
	maxPoints  = 20_000
	maxFrames  = 50
	lookFrames = 10 * time.Second
)

// track serves /api/devices/{imei}/track?from=&to=: RFC 3339, the last day.
func (b *Board) track(w http.ResponseWriter, r *http.Request) {
	imei, ok := device15(w, r)
	if !ok {
		return
	}
	to, from := time.Now(), time.Time{}
	for key, t := range map[string]*time.Time{"to": &to, "from": &from} {
		if v := r.URL.Query().Get(key); v != "" {
			at, err := time.Parse(time.RFC3339, v)
			if err != nil {
				http.Error(w, key+" is no time: write 2026-02-01T00:00:00Z", http.StatusBadRequest)
				return
			}
			*t = at
		}
	}
	if from.IsZero() {
		from = to.Add(-day)
	}
	points, err := b.opt.Source.Track(r.Context(), imei, from, to, maxPoints)
	if points == nil {
		points = []Point{}
	}
	reply(w, points, err)
}

// frames serves /api/devices/{imei}/frames?before=&most=.
func (b *Board) frames(w http.ResponseWriter, r *http.Request) {
	imei, ok := device15(w, r)
	if !ok {
		return
	}
	before, err := strconv.ParseUint(r.URL.Query().Get("before"), 10, 64)
	if err != nil && r.URL.Query().Get("before") != "" {
		http.Error(w, "before is no position", http.StatusBadRequest)
		return
	}
	most, err := strconv.Atoi(r.URL.Query().Get("most"))
	if err != nil || most < 1 || most > maxFrames {
		most = maxFrames
	}
	select {
	case b.reading <- struct{}{}:
		defer func() { <-b.reading }()
	case <-time.After(lookFrames):
		http.Error(w, "somebody else reads the log: try again", http.StatusServiceUnavailable)
		return
	case <-r.Context().Done():
		return
	}
	found, err := b.opt.Source.Frames(r.Context(), imei, before, most)
	reply(w, found, err)
}

func device15(w http.ResponseWriter, r *http.Request) (string, bool) {
	imei, err := protocol.ParseIMEI(r.PathValue("imei"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return "", false
	}
	return imei.String(), true
}

func reply(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v)
}
