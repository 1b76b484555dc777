package host

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Unit is a service of systemd as it is now.
type Unit struct {
	Name    string
	State   string // active, inactive, failed, …; "no systemd", "not found"
	MainPID int
	Enabled bool // starts with the machine
}

// Active says whether it runs.
func (u Unit) Active() bool { return u.State == "active" }

// NoSystemd is the state of every unit of a machine that was not started by
// systemd: ops says so instead of guessing.
const NoSystemd = "no systemd"

// Unit asks systemd for a service. MariaDB's is known under two names, hence
// alternatives: the first one that is loaded counts.
func (s System) Unit(ctx context.Context, names ...string) (Unit, error) {
	if len(names) == 0 {
		return Unit{}, errors.New("no unit is named")
	}
	out := Unit{Name: names[0], State: "not found"}
	if !s.has("systemctl") {
		out.State = NoSystemd
		return out, nil
	}
	for _, name := range names {
		r, err := s.Exec(ctx, Command{Name: "systemctl", Args: []string{"show", "--property=LoadState,ActiveState,MainPID,UnitFileState", "--", name}})
		if err != nil {
			return out, err
		}
		if r.Code != 0 {
			if strings.Contains(r.Stderr, "not been booted with systemd") || strings.Contains(r.Stderr, "connect to bus") {
				out.State = NoSystemd
				return out, nil
			}
			return out, &ExitError{Command: "systemctl show " + name, Result: r}
		}
		values := map[string]string{}
		for line := range strings.Lines(r.Stdout) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			values[key] = value
		}
		if values["LoadState"] == "not-found" {
			continue
		}
		out = Unit{Name: name, State: values["ActiveState"], Enabled: values["UnitFileState"] == "enabled"}
		out.MainPID, _ = strconv.Atoi(values["MainPID"])
		return out, nil
	}
	return out, nil
}

// Systemctl starts, stops, restarts, enables or disables a unit and waits until
// it is done.
func (s System) Systemctl(ctx context.Context, verb, unit string) error {
	_, err := s.run(ctx, Command{Name: "systemctl", Args: []string{verb, "--", unit}})
	return err
}

// HTTPStatus asks for a page without following redirects, within 10 s, and
// returns the status.
func HTTPStatus(ctx context.Context, url string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true}, // no proxy: the page is this machine's
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", url, err)
	}
	return resp.StatusCode, resp.Body.Close()
}
