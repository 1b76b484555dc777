package webhook

import (
	"context"
	"encoding/json"
	"time"

	"gt06/storage/event"
	"gt06/storage/sink"
)

// knot is how many km/h a knot has.
const knot = 1.852

// forwarded is a body as Traccar's forward.type=json makes it.
type forwarded struct {
	Position tPosition `json:"position"`
	Device   tDevice   `json:"device"`
}

type tPosition struct {
	ID         uint64          `json:"id"` // of the record in the log
	Attributes json.RawMessage `json:"attributes"`
	DeviceID   uint64          `json:"deviceId"` // the IMEI as a number
	Protocol   string          `json:"protocol"`
	ServerTime string          `json:"serverTime"`
	DeviceTime string          `json:"deviceTime"`
	FixTime    string          `json:"fixTime"`
	Outdated   bool            `json:"outdated"`
	Valid      bool            `json:"valid"`
	Latitude   float64         `json:"latitude"`
	Longitude  float64         `json:"longitude"`
	Altitude   float64         `json:"altitude"` // metres, 0 where the device does not say
	Speed      float64         `json:"speed"`    // knots
	Course     float64         `json:"course"`
	Address    *string         `json:"address"`
	Accuracy   float64         `json:"accuracy"`
	Network    *tNetwork       `json:"network"`
}

type tNetwork struct {
	RadioType  string  `json:"radioType"`
	ConsiderIP bool    `json:"considerIp"`
	Towers     []tCell `json:"cellTowers"`
}

type tCell struct {
	CID uint64 `json:"cellId"`
	LAC uint32 `json:"locationAreaCode"`
	MCC uint16 `json:"mobileCountryCode"`
	MNC uint16 `json:"mobileNetworkCode"`
}

type tDevice struct {
	ID         uint64         `json:"id"`
	Attributes map[string]any `json:"attributes"`
	GroupID    int            `json:"groupId"`
	Name       string         `json:"name"`
	UniqueID   string         `json:"uniqueId"`
	Status     string         `json:"status"`
	LastUpdate string         `json:"lastUpdate"`
	PositionID uint64         `json:"positionId"`
	Model      *string        `json:"model"`
	Disabled   bool           `json:"disabled"`
}

// request is a body and its key.
type request struct {
	key  string
	body []byte
}

// traccar posts the positions of a batch one by one. After a failure it goes on
// where it stopped; after a kill at the head of the batch, with the same keys.
func (w *Webhook) traccar(ctx context.Context, b *sink.Batch) error {
	list, err := w.forwards(b.Items)
	if err != nil {
		return err
	}
	for ; b.Taken < len(list); b.Taken++ {
		if err := w.post(ctx, list[b.Taken].key, list[b.Taken].body); err != nil {
			return err
		}
	}
	return nil
}

func (w *Webhook) forwards(items []sink.Item) (list []request, err error) {
	w.opt.Events.Rows(items, func(it *sink.Item, rows *event.Rows) {
		for i := range rows.Positions {
			p := &rows.Positions[i]
			if !p.HasFix {
				continue
			}
			body, fault := json.Marshal(forward(it, p))
			if fault != nil {
				err = fault
			}
			list = append(list, request{w.opt.Events.ID(it, i), body})
		}
	})
	return list, err
}

func forward(it *sink.Item, p *event.Position) forwarded {
	number := numeral(p.Device.String())
	f := forwarded{
		Position: tPosition{
			ID: uint64(it.End), Attributes: attributes(p), DeviceID: number, Protocol: "gt06",
			ServerTime: stamp(time.UnixMicro(p.ReceivedAt)), DeviceTime: stamp(time.Unix(p.FixTime, 0)), FixTime: stamp(time.Unix(p.FixTime, 0)),
			Valid: p.Valid, Latitude: p.Latitude, Longitude: p.Longitude, Speed: p.SpeedKMH / knot, Course: p.Course,
		},
		Device: tDevice{
			ID: number, Attributes: map[string]any{}, Name: p.Device.String(), UniqueID: p.Device.String(), Status: "online",
			LastUpdate: stamp(time.UnixMicro(p.ReceivedAt)), PositionID: uint64(it.End),
		},
	}
	if p.Altitude != nil {
		f.Position.Altitude = *p.Altitude
	}
	if c := p.Cell; c != nil {
		f.Position.Network = &tNetwork{RadioType: "gsm", Towers: []tCell{{c.CID, c.LAC, c.MCC, c.MNC}}}
	}
	if model := it.Record.Model; model != "" {
		f.Device.Model = &model
	}
	return f
}

// attributes adds the alarm to what has no key of its own: Traccar's place for
// it.
func attributes(p *event.Position) json.RawMessage {
	if p.Alarm == "" {
		return p.Attributes
	}
	b := append(json.RawMessage(nil), p.Attributes[:len(p.Attributes)-1]...)
	if len(b) > 1 {
		b = append(b, ',')
	}
	name, _ := json.Marshal(p.Alarm) //nolint:errchkjson // a string
	return append(append(append(b, `"alarm":`...), name...), '}')
}

// numeral reads the digits of an IMEI: below 2^53, so that every receiver can
// hold it.
func numeral(imei string) (n uint64) {
	for _, c := range imei {
		if c >= '0' && c <= '9' {
			n = 10*n + uint64(c-'0')
		}
	}
	return n
}

// stamp is how Traccar writes a time.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000+00:00") }
