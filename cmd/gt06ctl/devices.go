package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/protocol"
	"gt06/server/control"
)

// deviceCommands are the verbs below devices.
func (t *tool) deviceCommands() []*cobra.Command {
	status := func(word, status, short string) *cobra.Command {
		return &cobra.Command{
			Use: word + " IMEI…", Short: short, Example: "  gt06ctl devices " + word + " 490154203237518",
			Args: cobra.MinimumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				list := make([]control.DeviceChange, len(args))
				for i, imei := range args {
					list[i] = control.DeviceChange{IMEI: imei, Status: &status}
				}
				return t.change(cmd, list)
			},
		}
	}
	set := func(use, short, long, example string, fill func(*control.DeviceChange, string) error) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Long: long, Example: "  gt06ctl devices " + example, Args: cobra.ExactArgs(2),
			RunE: func(cmd *cobra.Command, args []string) error {
				c := control.DeviceChange{IMEI: args[0]}
				if err := fill(&c, args[1]); err != nil {
					return cli.Fail(cli.Usage, err, cmd.CommandPath()+" --help")
				}
				return t.change(cmd, []control.DeviceChange{c})
			},
		}
	}
	return []*cobra.Command{
		status("allow", "allowed", "Let devices in, known or not, and end their quarantine"),
		status("block", "blocked", "Refuse devices, and hang them up now"),
		set("name IMEI NAME", "Give a device a name", "", `name 490154203237518 "Truck 7"`, func(c *control.DeviceChange, s string) error {
			c.Name = &s
			return nil
		}),
		set("model IMEI MODEL", "Say what model a device is", "Dialects that only the model tells apart follow it from the next frame on; gt06ctl replay decodes\nwhat the log still has again. An empty MODEL takes it back.",
			"model 490154203237518 NT20", func(c *control.DeviceChange, s string) error {
				c.Model = &s
				return nil
			}),
		set("timezone IMEI ZONE", "Say by how much a device's clock is off UTC", "ZONE is +05:30, -03:00 or UTC; device gives the device's own back, from its next login on. It holds\nfrom the next frame on, and gt06ctl devices --problems says which devices need it.",
			"timezone 490154203237518 +05:30", func(c *control.DeviceChange, s string) error {
				if s == "device" {
					c.OwnOffset = true
					return nil
				}
				offset, err := parseZone(s)
				c.UTCOffset = &offset
				return err
			}),
		t.importCommand(), t.policyCommand(),
	}
}

func (t *tool) change(cmd *cobra.Command, list []control.DeviceChange) error {
	for i := range list {
		if _, err := protocol.ParseIMEI(list[i].IMEI); err != nil {
			return cli.Fail(cli.Usage, err, "nothing was changed")
		}
	}
	const portion = 5000
	var all control.DevicesChanged
	for part := range slices.Chunk(list, portion) {
		var done control.DevicesChanged
		if err := t.ask(cmd.Context(), "devices-change", part, &done); err != nil {
			if all.Changed > 0 {
				err = fmt.Errorf("%d devices were changed, the rest was not; the same again does no harm: %w", all.Changed, err)
			}
			return err
		}
		all.Changed += done.Changed
		all.Registered += done.Registered
	}
	if t.json {
		return printJSON(cmd.OutOrStdout(), all)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d changed, %d of them new\n", all.Changed, all.Registered)
	return err
}

var zonePattern = regexp.MustCompile(`^([+-])(\d{1,2}):?(\d{2})$`)

// parseZone reads "+05:30" as seconds east of UTC.
func parseZone(s string) (int32, error) {
	if strings.EqualFold(s, "UTC") {
		return 0, nil
	}
	m := zonePattern.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is no time zone: write +05:30, -03:00 or UTC", s)
	}
	hours, _ := strconv.Atoi(m[2])
	minutes, _ := strconv.Atoi(m[3])
	offset := int32(hours*60+minutes) * 60
	if minutes > 59 || offset > 14*3600 {
		return 0, fmt.Errorf("%q is no time zone: they end at 14:00", s)
	}
	if m[1] == "-" {
		offset = -offset
	}
	return offset, nil
}

func (t *tool) importCommand() *cobra.Command {
	return &cobra.Command{
		Use: "import FILE", Short: "Register devices of a CSV file",
		Long: `import reads a CSV file, - for stdin, whose first line names its columns: imei, and
any of name, model, timezone, status. An empty cell leaves what is there. The
file is read to its end before anything is changed; a line that is wrong is
named, and nothing is done. Again does no harm.`,
		Example: "  gt06ctl devices import fleet.csv\n  printf 'imei,name,timezone\\n490154203237518,Truck 7,+05:30\\n' | gt06ctl devices import -",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := cmd.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return cli.Fail(cli.Usage, err)
				}
				defer f.Close() //nolint:errcheck // read only
				in = f
			}
			list, err := readDevices(in)
			if err != nil {
				return cli.Fail(cli.Usage, fmt.Errorf("%s: %w", args[0], err), "nothing was changed")
			}
			return t.change(cmd, list)
		},
	}
}

// readDevices reads the CSV file of an import.
func readDevices(in io.Reader) ([]control.DeviceChange, error) {
	r := csv.NewReader(in)
	r.TrimLeadingSpace = true
	head, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("its first line must name the columns: %w", err)
	}
	if !slices.Contains(head, "imei") {
		return nil, fmt.Errorf("its first line names no column imei but %q", head)
	}
	var list []control.DeviceChange
	for {
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		var c control.DeviceChange
		for i, cell := range cells {
			if cell == "" {
				continue
			}
			if err := readCell(&c, head[i], cell); err != nil {
				line, _ := r.FieldPos(i)
				return nil, fmt.Errorf("line %d: %w", line, err)
			}
		}
		if c.IMEI == "" {
			line, _ := r.FieldPos(0)
			return nil, fmt.Errorf("line %d: no IMEI", line)
		}
		list = append(list, c)
	}
}

func readCell(c *control.DeviceChange, column, cell string) error {
	switch column {
	case "imei":
		_, err := protocol.ParseIMEI(cell)
		c.IMEI = cell
		return err
	case "name":
		c.Name = &cell
	case "model":
		c.Model = &cell
	case "timezone":
		offset, err := parseZone(cell)
		c.UTCOffset = &offset
		return err
	case "status":
		if !slices.Contains([]string{"allowed", "quarantined", "blocked"}, cell) {
			return fmt.Errorf("status %q: it can be allowed, quarantined or blocked", cell)
		}
		c.Status = &cell
	default:
		return fmt.Errorf("column %q: it can be imei, name, model, timezone or status", column)
	}
	return nil
}

func (t *tool) policyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "policy [open|quarantine|allow|config]", Short: "Say, or show, what happens to devices nobody has registered",
		Long: `open         they are registered and served
quarantine   they are registered and served, with few rows, until somebody allows them
allow        they are refused: hung up at their login, and listed by devices --problems
config       the configuration's devices.policy again

A tracker that is refused comes back for ever, at the cost of its SIM: block or
allow what devices --problems shows. The policy holds at once, over restarts
and upgrades, and needs no database.`,
		Example:   "  gt06ctl devices policy\n  gt06ctl devices policy quarantine",
		ValidArgs: []string{"open", "quarantine", "allow", "config"}, Args: cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			var want control.PolicyArgs
			if len(args) == 1 {
				want.Policy = args[0]
			}
			var p control.DevicePolicy
			if err := t.ask(cmd.Context(), "devices-policy", want, &p); err != nil {
				return err
			}
			if t.json {
				return printJSON(cmd.OutOrStdout(), p)
			}
			note := ""
			if p.Policy == "allow" && !p.Enforced {
				note = "; not enforced before the devices were read from the database once"
			}
			return printf(cmd.OutOrStdout(), "%s (from the %s), %d devices are registered%s\n", p.Policy, p.From, p.Known, note)
		},
	}
}

// problems is `gt06ctl devices --problems`.
func (t *tool) problems(cmd *cobra.Command) error {
	var list []control.Problem
	if err := t.call(cmd.Context(), "problems", &list); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if t.json {
		return printJSON(out, list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, "nothing is known to be wrong with any device")
		return err
	}
	w := newTable(out, "IMEI", "PROBLEM", "TIMES", "LAST", "WHAT IT MEANS")
	for _, p := range list {
		w.row(p.IMEI, p.Kind, p.Count, ago(p.Last), p.Text)
		w.row("", "", "", "", "→ "+p.Do)
	}
	return w.end()
}
