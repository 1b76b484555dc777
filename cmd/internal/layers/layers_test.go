// Package layers holds the direction of the packages: the test reads what the
// compiler sees (DESIGN.md section 4).
package layers

import (
	"os/exec"
	"strings"
	"testing"
)

// forbidden says which packages may not reach which others, themselves or
// through anything they import.
var forbidden = []struct {
	from    string // package or tree/...
	reach   []string
	because string
}{
	{"gt06/protocol", []string{"net", "os", "log", "gt06/server", "gt06/storage", "go.uber.org/zap"}, "the wire is pure"},
	{"gt06/protocol/device", []string{"net", "gt06/server", "gt06/storage"}, "the device's side is pure; fleet dials"},
	{"gt06/server/...", []string{"gt06/storage", "gt06/ops", "gt06/cmd"}, "server declares what it needs, cmd wires it"},
	{"gt06/server/keeper", []string{"gt06/protocol", "gt06/server", "gt06/storage", "go.uber.org/zap", "github.com/prometheus/client_golang/prometheus"}, "it holds descriptors and understands nothing; what does little ends seldom"},
	{"gt06/server/control", []string{"gt06/protocol", "net/http", "github.com/prometheus/client_golang/prometheus"}, "operations import it"},
	{"gt06/storage/...", []string{"gt06/server", "gt06/ops", "gt06/cmd"}, "storage does not know who feeds it"},
	{"gt06/storage/spool", []string{"gt06/storage/sqlstore", "gt06/storage/event", "database/sql"}, "the log knows no database"},
	{"gt06/storage/sink", []string{"gt06/storage/sqlstore", "gt06/storage/spool", "net/http", "database/sql", "github.com/nats-io/nats.go"}, "a sink knows no outside technology; its receivers do"},
	{"gt06/cmd/gt06ctl", []string{"gt06/storage/sink"}, "the tool asks the server"},
	{"gt06/storage/event", []string{"net", "database/sql"}, "it is pure"},
	{"gt06/ops/...", []string{"gt06/server$", "gt06/server/handover", "gt06/server/keeper", "gt06/server/admin", "gt06/server/board", "gt06/storage", "gt06/cmd"}, "operations talk to the server through its control socket"},
	{"gt06/ops", []string{"gt06/ops/cloud", "gt06/ops/host", "gt06/ops/runbook", "os/exec", "net/http"}, "the discipline knows neither cloud nor machine"},
	{"gt06/cmd/gt06d", []string{"gt06/ops", "github.com/aws/aws-sdk-go-v2", "github.com/aws/smithy-go"}, "the server never links the cloud"},
}

func TestDirectionOfPackages(t *testing.T) {
	t.Parallel()
	for _, rule := range forbidden {
		// Own packages and modules count through whatever they import, the
		// standard library directly: fmt itself imports os. A $ ends a name
		// whose subpackages are allowed.
		out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}}{{range .Deps}} {{.}}{{end}}{{range .Imports}} direct:{{.}}{{end}}`, rule.from).Output()
		if err != nil {
			t.Fatalf("go list %s: %v", rule.from, err)
		}
		for line := range strings.Lines(string(out)) {
			fields := strings.Fields(line)
			for _, dep := range fields[1:] {
				for _, bad := range rule.reach {
					name, exact := strings.CutSuffix(bad, "$")
					module := strings.HasPrefix(name, "gt06/") || strings.Contains(name, ".")
					if module && (dep == name || !exact && strings.HasPrefix(dep, name+"/")) || dep == "direct:"+name {
						t.Errorf("%s reaches %s: %s", fields[0], bad, rule.because)
					}
				}
			}
		}
	}
}
