package host

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// MariaDB is the database of the machine, asked through its own client: the
// login comes from a file alone, so no password is ever in an argument, in the
// environment or in this process.
type MariaDB struct {
	System
	// Defaults is a file with a [client] section, mode 0600. It is the only one
	// read: those in a home directory would win over it. "": the client's own.
	Defaults string
}

// Client returns the command of a client program of MariaDB, by its new or its
// old name.
func (m MariaDB) Client(name string, args ...string) Command {
	if old, known := map[string]string{"mariadb": "mysql", "mariadb-dump": "mysqldump"}[name]; known && !m.has(name) {
		name = old
	}
	if m.Defaults != "" {
		// This option is the first one, or the client refuses it.
		args = append([]string{"--defaults-file=" + m.Defaults}, args...)
	}
	return Command{Name: name, Args: args}
}

// Query returns the rows of a statement, each cell as text; NULL is "NULL".
func (m MariaDB) Query(ctx context.Context, statement string) ([][]string, error) {
	r, err := m.run(ctx, m.Client("mariadb", "--batch", "--skip-column-names", "--execute="+statement))
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for line := range strings.Lines(r.Stdout) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return rows, nil
}

// Ping asks for SELECT 1: an answer is proof that it works, a running unit is
// not.
func (m MariaDB) Ping(ctx context.Context) error {
	rows, err := m.Query(ctx, "SELECT 1")
	if err != nil {
		return err
	}
	if len(rows) != 1 || rows[0][0] != "1" {
		return fmt.Errorf("SELECT 1 answers %q", rows)
	}
	return nil
}

// DataDirs returns the directories MariaDB keeps data in: nothing of ours may
// ever delete there.
func (m MariaDB) DataDirs(ctx context.Context) ([]string, error) {
	rows, err := m.Query(ctx, "SELECT @@datadir, COALESCE(@@log_bin_basename, ''), COALESCE(@@innodb_data_home_dir, ''), COALESCE(@@innodb_log_group_home_dir, ''), COALESCE(@@innodb_undo_directory, '')")
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 || len(rows[0]) != 5 {
		return nil, fmt.Errorf("MariaDB's directories are %q", rows)
	}
	cells := rows[0]
	data := cells[0]
	if cells[1] != "" {
		cells[1] = filepath.Dir(cells[1]) // the variable names files
	}
	var dirs []string
	for _, dir := range cells {
		if dir == "" {
			continue
		}
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(data, dir)
		}
		dirs = append(dirs, filepath.Clean(dir))
	}
	return dirs, nil
}

// Unprotected returns the tables of schemas that a consistent read does not
// cover, as schema.table (engine).
func (m MariaDB) Unprotected(ctx context.Context, schemas []string) ([]string, error) {
	list, err := quoteStrings(schemas)
	if err != nil {
		return nil, err
	}
	rows, err := m.Query(ctx, "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' AND ENGINE <> 'InnoDB' AND TABLE_SCHEMA IN ("+list+") ORDER BY 1, 2")
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(rows))
	for _, r := range rows {
		out = append(out, fmt.Sprintf("%s.%s (%s)", r[0], r[1], r[2]))
	}
	return out, nil
}

// quoteStrings makes a list for IN of names that need no escaping.
func quoteStrings(names []string) (string, error) {
	out := make([]string, 0, len(names))
	for _, n := range names {
		if n == "" || strings.ContainsAny(n, "'\\`\x00\n") {
			return "", fmt.Errorf("%q is no name of a schema", n)
		}
		out = append(out, "'"+n+"'")
	}
	if len(out) == 0 {
		return "", errors.New("no schema is named")
	}
	return strings.Join(out, ", "), nil
}
