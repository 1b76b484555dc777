package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/protocol"
)

func (t *tool) protocolCommand() *cobra.Command {
	return &cobra.Command{
		Use: "protocol [TYPE]", Short: "Show how messages are built, of one type or of all",
		Long:    "protocol prints the table that the decoder works by: bytes, fields, units, answers,\nand when a dialect applies. TYPE is a number: 22, 0x22.",
		Example: "  gt06ctl protocol 0x22\n  gt06ctl protocol --json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var only func(byte) bool
			if len(args) == 1 {
				n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(args[0]), "0x"), 16, 8)
				if err != nil {
					return cli.Fail(cli.Usage, fmt.Errorf("%q is no type", args[0]), "a type is two hexadecimal digits: 22 or 0x22")
				}
				only = func(typ byte) bool { return typ == byte(n) }
			}
			if t.json {
				list := []protocol.Entry{}
				for _, e := range protocol.Reference() {
					if only == nil || only(e.Type) {
						list = append(list, e)
					}
				}
				return printJSON(cmd.OutOrStdout(), list)
			}
			text := protocol.ReferenceText(only)
			if text == "" {
				text = "The type is in no document: such a frame is kept, and answered when its header is 78 78.\n"
			}
			_, err := fmt.Fprint(cmd.OutOrStdout(), strings.TrimPrefix(text, "\n"))
			return err
		},
	}
}
