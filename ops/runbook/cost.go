package runbook

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gt06/ops"
	"gt06/ops/cloud"
)

// Price list, in dollars, where the configuration has none: list prices of
// ap-south-1. They age; priceAge is when the table says so.
var builtIn = ops.Cost{ //nolint:gochecknoglobals // a table
	Prices: map[string]float64{
		"snapshot_gib_month": 0.05, "snapshot_archive_gib_month": 0.0125, "address_hour": 0.005, "s3_gib_month": 0.025,
		"t3.micro_hour": 0.0112, "t3.small_hour": 0.0224,
	},
	AsOf: "2025-01-01", Source: "built in: list prices of ap-south-1; set cost.prices", Currency: "USD", FX: 84,
}

const (
	priceAge   = 90 * 24 * time.Hour
	monthHours = 730
	gib        = 1 << 30
)

// CostRow is a line of the strategy's table (section 10) from what is there
// now. Amounts in rupees a month; low and high are what can be said without
// reading every block, typical takes a gibibyte a day for an increment.
type CostRow struct {
	Item     string  `json:"item"`
	Seen     string  `json:"seen"`
	Low      float64 `json:"low"`
	Typical  float64 `json:"typical"`
	High     float64 `json:"high"`
	Document string  `json:"document,omitempty"` // the document's figure for what is there
	Fits     bool    `json:"fits"`               // typical is within it, or it names none
}

// CostTable is all of it.
type CostTable struct {
	Rows         []CostRow `json:"rows"`
	Low          float64   `json:"low"`
	Typical      float64   `json:"typical"`
	High         float64   `json:"high"`
	Prices       string    `json:"prices"`
	Stale        bool      `json:"stale"` // the prices are older than 90 days
	DowntimeHour float64   `json:"downtime_hour,omitempty"`
}

// Cost adds up what protection costs. It never proposes to have less of it.
func (m Site) Cost(ctx context.Context) (CostTable, error) {
	list := m.Config.Cost
	if len(list.Prices) == 0 {
		list = builtIn
	}
	if list.FX == 0 {
		list.FX = 1
	}
	now, _, err := m.Cloud.Now(ctx)
	if err != nil {
		return CostTable{}, cloudError(err)
	}
	t := CostTable{Prices: fmt.Sprintf("%s of %s, 1 %s = %.2f rupees", list.Source, list.AsOf, list.Currency, list.FX), DowntimeHour: m.Config.DowntimeCostHour}
	asOf, err := time.Parse(time.DateOnly, list.AsOf)
	t.Stale = err != nil || now.Sub(asOf) > priceAge
	price := func(name string) float64 { return list.Prices[name] * list.FX }
	for _, part := range []func() ([]CostRow, error){
		func() ([]CostRow, error) { return m.costSnapshots(ctx, now, price) },
		func() ([]CostRow, error) { return m.costThings(ctx, now, price) },
		func() ([]CostRow, error) { return m.costBuckets(ctx, price) },
	} {
		rows, err := part()
		if err != nil {
			return t, cloudError(err)
		}
		t.Rows = append(t.Rows, rows...)
	}
	for _, r := range t.Rows {
		t.Low, t.Typical, t.High = t.Low+r.Low, t.Typical+r.Typical, t.High+r.High
	}
	return t, nil
}

func (m Site) costSnapshots(ctx context.Context, now time.Time, price func(string) float64) ([]CostRow, error) {
	_, root, err := m.root(ctx)
	if err != nil {
		return nil, err
	}
	all, err := m.Cloud.SnapshotsOf(ctx, root.ID, nil)
	if err != nil {
		return nil, err
	}
	slices.Reverse(all) // the first holds all blocks, those after it what changed
	locks, err := m.Cloud.SnapshotLocks(ctx)
	if err != nil {
		return nil, err
	}
	manual := CostRow{Item: "manual snapshots", Fits: true}
	daily := CostRow{Item: "daily snapshots, 7 days", Fits: true}
	locked := CostRow{Item: "of these, locked", Fits: true}
	counts := map[string]int{}
	for k, s := range all {
		full := float64(s.FullBytes) / gib
		if s.FullBytes == 0 {
			full = float64(s.SizeGiB)
		}
		each := price("snapshot_gib_month")
		if s.Tier == "archive" {
			each = price("snapshot_archive_gib_month")
		}
		low, typical, high := full*each, full*each, full*each
		if k > 0 && s.Tier != "archive" {
			changed := min(full, max(1, s.Started.Sub(all[k-1].Started).Hours()/24))
			low, typical = 0, changed*each
		}
		row := &manual
		if s.Tags.Automated() != "" {
			row = &daily
		}
		row.Low, row.Typical, row.High = row.Low+low, row.Typical+typical, row.High+high
		counts[row.Item]++
		for _, l := range locks {
			if l.Snapshot == s.ID {
				days := max(0, l.Expires.Sub(now).Hours()/24)
				locked.Seen += fmt.Sprintf("%s, %.0f days left at %.1f a month; ", s.ID, days, typical)
			}
		}
	}
	manual.Seen = fmt.Sprintf("%d of %s, %d GiB", counts[manual.Item], root.ID, root.SizeGiB)
	manual.compare(2*float64(root.SizeGiB), 3*float64(root.SizeGiB), fmt.Sprintf("for the first of %d GiB (30 GB: 60 to 90)", root.SizeGiB))
	daily.Seen = fmt.Sprintf("%d", counts[daily.Item])
	daily.compare(15, 25, "for seven days")
	rows := []CostRow{manual, daily}
	if locked.Seen != "" {
		locked.Seen = strings.TrimSuffix(locked.Seen, "; ")
		rows = append(rows, locked)
	}
	return rows, nil
}

// compare sets the document's band. Above it is worth a look; below is fine.
func (r *CostRow) compare(low, high float64, what string) {
	r.Document = fmt.Sprintf("%.0f to %.0f %s", low, high, what)
	r.Fits = r.Typical <= high
}

func (m Site) costThings(ctx context.Context, now time.Time, price func(string) float64) ([]CostRow, error) {
	images, err := m.Cloud.Images(ctx, cloud.Tags{cloud.TagInstance: m.Config.AWS.InstanceID})
	if err != nil {
		return nil, err
	}
	rows := []CostRow{{Item: "images", Seen: fmt.Sprintf("%d", len(images)), Document: "their snapshots only", Fits: true}}
	addresses, err := m.Cloud.Addresses(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range addresses {
		if a.Association == "" {
			each := monthHours * price("address_hour")
			rows = append(rows, CostRow{Item: "address at nothing", Seen: a.IP, Low: each, Typical: each, High: each, Fits: true})
		}
	}
	for _, role := range []string{cloud.RoleRescue, cloud.RoleTemp} {
		helpers, err := m.Cloud.Instances(ctx, cloud.Tags{cloud.TagRole: role})
		if err != nil {
			return nil, err
		}
		for _, i := range helpers {
			if i.State != "terminated" {
				each := monthHours * price(i.Type+"_hour")
				rows = append(rows, CostRow{Item: "left-over " + role + " instance", Seen: fmt.Sprintf("%s, %s, for %s", i.ID, i.Type, now.Sub(i.Launched).Round(time.Minute)), Low: each, Typical: each, High: each, Document: "0: never left running"})
			}
		}
	}
	return rows, nil
}

func (m Site) costBuckets(ctx context.Context, price func(string) float64) ([]CostRow, error) {
	places := map[string]string{}
	if uri := m.Config.Journal.S3URI; uri != "" {
		places["journal in S3"] = strings.TrimSuffix(uri, "/") + "/journal"
	}
	if uri := m.Config.Backup.S3URI; uri != "" {
		places["backups in S3"] = uri
	}
	var rows []CostRow
	for _, item := range slices.Sorted(maps.Keys(places)) {
		b, err := m.Cloud.Bucket(places[item])
		if err != nil {
			return nil, ops.Fail(ops.Usage, err)
		}
		objects, err := b.List(ctx, "")
		if err != nil {
			return nil, err
		}
		var bytes int64
		for _, o := range objects {
			bytes += o.Bytes
		}
		each := float64(bytes) / gib * price("s3_gib_month")
		rows = append(rows, CostRow{Item: item, Seen: fmt.Sprintf("%d objects, %.2f GiB", len(objects), float64(bytes)/gib), Low: each, Typical: each, High: each, Fits: true})
	}
	return rows, nil
}
