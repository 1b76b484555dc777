package main

import (
	"context"
	"encoding/json"
	"runtime"
	"strings"

	"github.com/prometheus/common/expfmt"

	"gt06/cmd/internal/cli"
	"gt06/server/control"
	"gt06/storage/sqlstore"
)

// handleSupport is what the server adds to a support bundle. A database that is
// away is said, and no error: that is when bundles are made.
func (a *app) handleSupport(ctx context.Context, _ json.RawMessage, _ func(any) error) (any, error) {
	s := control.Support{Version: cli.Version(), Go: runtime.Version(), Config: a.cfg.Effective(), SchemaOwn: sqlstore.Schema(), Quarantine: []control.QuarantineReason{}}
	families, err := a.reg.Gather()
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			return nil, err
		}
	}
	s.Metrics = text.String()
	store, _, why := a.store.get()
	if store == nil {
		s.Missing = "the database is away: " + why
		return s, nil
	}
	s.Schema = store.Version()
	reasons, err := store.QuarantineReasons(ctx)
	if err != nil {
		s.Missing = err.Error()
	}
	for _, r := range reasons {
		s.Quarantine = append(s.Quarantine, control.QuarantineReason(r))
	}
	return s, nil
}
