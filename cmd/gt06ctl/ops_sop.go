package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/ops/sop"
)

func (o *opsTool) sopCommand() *cobra.Command {
	c := o.looking(&cobra.Command{
		Use: "sop [SECTION]", Short: "Print the operator's documents with our commands in them",
		Long: `sop prints the maintenance SOP (A) and the backup strategy (B), re-issued: every
command of the paper is replaced by ours. SECTION is a number of the paper, A4.2
or B6, or a word of a title.`,
		Example: "  gt06ctl ops sop\n  gt06ctl ops sop A4.2\n  gt06ctl ops sop restore", Args: cobra.MaximumNArgs(1),
	}, func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return o.say(cmd, sop.Sections(), strings.Join(sop.Documents(), "\n"))
		}
		found := sop.Find(args[0])
		if len(found) == 0 {
			return cli.Fail(cli.Usage, fmt.Errorf("no section is called %q", args[0]), "gt06ctl ops sop")
		}
		var b strings.Builder
		for _, s := range found {
			b.WriteString(s.Text)
		}
		return o.say(cmd, found, b.String())
	})
	c.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var ids []string
		for _, s := range sop.Sections() {
			ids = append(ids, s.ID+"\t"+s.Title)
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}
