package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gt06/server/control"
	"gt06/storage/sqlstore/mariadbtest"
)

// secret moves the database's password from the arguments into a file and
// returns its path. Who needs no database gets a password all the same, so that
// every run has one to keep.
func (d *daemon) secret(args *[]string) (file string) {
	d.t.Helper()
	dsn := "gt06:" + mariadbtest.Password + "@tcp(127.0.0.1:9)/none"
	if i := slices.Index(*args, "--dsn"); i >= 0 && strings.Contains((*args)[i+1], mariadbtest.Password) {
		dsn = (*args)[i+1]
		*args = slices.Delete(slices.Clone(*args), i, i+2)
	}
	file = filepath.Join(d.t.TempDir(), "dsn")
	if err := os.WriteFile(file, []byte(dsn+"\n"), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return file
}

// keepsSecrets looks for the password where everybody may look: what the
// programs print, what they answer, and the list of processes. It runs at the
// end of every test.
func (d *daemon) keepsSecrets() {
	d.t.Helper()
	public := map[string]string{"the log": d.out.String()}
	var st control.Status
	if d.cmd != nil && d.status(&st) == nil {
		public["status"] = fmt.Sprintf("%+v", st)
		for _, path := range []string{"/metrics", "/readyz", "/api/status", "/api/devices", "/api/validate"} {
			_, public[path] = d.get(path)
		}
	}
	pids := []int{st.PID}
	if st.Keeper != nil {
		pids = append(pids, st.Keeper.PID)
	}
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && pid > 0 {
			public[fmt.Sprintf("the command line of %d", pid)] = string(b)
		}
	}
	for where, text := range public {
		if strings.Contains(text, mariadbtest.Password) {
			d.t.Errorf("the password of the database is in %s", where)
		}
	}
}
