package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Errors of CommandText.
var (
	// ErrCommandName: no command of that name.
	ErrCommandName = errors.New("gt06/protocol: no such command")
	// ErrCommandArgs: too few or too many arguments, or one that is not valid.
	ErrCommandArgs = errors.New("gt06/protocol: wrong arguments")
)

// CommandOptions are what the text of a command depends on.
type CommandOptions struct {
	Model       string // the operator's model attribute
	Alternative bool   // the older texts, with a password
	Password    string // of those; "" is 123456, which devices come with
}

// CommandName is one named command, as help shows it.
type CommandName struct {
	Name string
	Args []string
	Help string
	Cuts bool // stops an engine
}

// namedCommand is a row of the table: its texts by dialect. %s stands for an
// argument, %p for the password.
type namedCommand struct {
	CommandName
	text, alternative, g109 string
	least, most             int // of a number
}

// namedCommands are the texts that devices of this family share (PROTOCOL.md
// section 10; the SMS command lists of the vendors).
//
//nolint:gochecknoglobals // read-only table
var namedCommands = []namedCommand{
	{CommandName: CommandName{Name: "engine-stop", Help: "cut fuel or ignition through the relay", Cuts: true}, text: "Relay,1#", alternative: "DYD,%p#", g109: "DYD#"},
	{CommandName: CommandName{Name: "engine-resume", Help: "close the relay again"}, text: "Relay,0#", alternative: "HFYD,%p#", g109: "HFYD#"},
	{CommandName: CommandName{Name: "position", Help: "ask where it is"}, text: "WHERE#"},
	{CommandName: CommandName{Name: "status", Help: "ask for battery, network, GPS"}, text: "STATUS#"},
	{CommandName: CommandName{Name: "parameters", Help: "ask for the settings"}, text: "PARAM#"},
	{CommandName: CommandName{Name: "version", Help: "ask for the firmware"}, text: "VERSION#"},
	{CommandName: CommandName{Name: "reboot", Help: "start the device again"}, text: "RESET#"},
	{CommandName: CommandName{Name: "interval", Args: []string{"SECONDS"}, Help: "seconds between two fixes while it moves"}, text: "TIMER,%s#", least: 5, most: 18000},
}

// CommandNames lists the named commands.
func CommandNames() []CommandName {
	list := make([]CommandName, len(namedCommands))
	for i := range namedCommands {
		list[i] = namedCommands[i].CommandName
	}
	return list
}

// CommandText returns the text of a named command.
func CommandText(name string, args []string, o CommandOptions) (string, error) {
	i := slices.IndexFunc(namedCommands, func(c namedCommand) bool { return c.Name == name })
	if i < 0 {
		return "", fmt.Errorf("%w: %q", ErrCommandName, name)
	}
	c := &namedCommands[i]
	if len(args) != len(c.Args) {
		return "", fmt.Errorf("%w: %s takes %d (%s)", ErrCommandArgs, name, len(c.Args), strings.Join(c.Args, " "))
	}
	text := c.text
	switch {
	case c.g109 != "" && strings.EqualFold(o.Model, "G109"):
		text = c.g109
	case o.Alternative && c.alternative != "":
		text = c.alternative
	}
	for _, a := range args {
		n, err := strconv.Atoi(a)
		if err != nil || n < c.least || n > c.most {
			return "", fmt.Errorf("%w: %s takes a number from %d to %d, not %q", ErrCommandArgs, name, c.least, c.most, a)
		}
		text = strings.Replace(text, "%s", strconv.Itoa(n), 1)
	}
	password := o.Password
	if password == "" {
		password = "123456"
	}
	return strings.Replace(text, "%p", password, 1), nil
}

// CutsEngine says whether a command may stop an engine, whatever its spelling.
func CutsEngine(text string) bool {
	verb, rest, _ := strings.Cut(strings.TrimRight(strings.ToUpper(strings.TrimSpace(text)), "#"), ",")
	switch verb {
	case "DYD", "STOP", "STOPENGINE", "CUT":
		return true
	case "RELAY":
		return !strings.HasPrefix(rest, "0")
	}
	return false
}

// Verb returns the first word of a command, in capitals.
func Verb(text string) string {
	end := strings.IndexFunc(text, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') })
	if end < 0 {
		end = len(text)
	}
	return strings.ToUpper(text[:end])
}

// ParseCommand reads a frame that AppendCommand made.
func ParseCommand(frame []byte) (serverFlag uint32, command string, ok bool) {
	const flag, textAt = 4, 9
	if len(frame) < textAt+trailer || frame[0] != headerBasic || frame[3] != typeCommand {
		return 0, "", false
	}
	n := int(frame[4]) - flag
	if n < 0 || textAt+n > len(frame)-trailer {
		return 0, "", false
	}
	return binary.BigEndian.Uint32(frame[5:]), text(frame[textAt : textAt+n]), true
}
