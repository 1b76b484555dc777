package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// ManCommand returns the command that writes the manual of all commands of
// root, a page each, from the same texts as their help.
func ManCommand(root *cobra.Command) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "man --dir DIR", Short: "Write manual pages", Args: cobra.NoArgs,
		Long:    "man writes a manual page for each command into a directory, from the same texts as\ntheir help. It prints what it wrote where, and has no --json.",
		Example: "  " + root.Name() + " man --dir /usr/local/share/man/man1\n  " + root.Name() + " man --dir /tmp/man && man -l /tmp/man/" + root.Name() + ".1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return Fail(Usage, errors.New("where to? give a directory"), root.Name()+" man --dir DIR")
			}
			if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // manuals are for all
				return Fail(NotWritable, err, "give a directory that this user may write")
			}
			root.DisableAutoGenTag = true
			exitCodes(root)
			header := &doc.GenManHeader{Title: root.Name(), Section: "1", Source: "gt06 " + Version(), Manual: "gt06"}
			if err := doc.GenManTree(root, header, dir); err != nil {
				return Fail(NotWritable, err)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "the manual of %s is in %s\n", root.Name(), dir)
			return err
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "directory to write to; it is made when it does not exist")
	return c
}

// exitCodes adds them to the description of each command, where help has them
// at its end.
func exitCodes(c *cobra.Command) {
	if c.Long == "" {
		c.Long = c.Short
	}
	c.Long += "\n\n" + Table
	for _, sub := range c.Commands() {
		exitCodes(sub)
	}
}
