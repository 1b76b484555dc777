package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gt06/cmd/internal/cli"
	"gt06/ops/host"
	"gt06/server/control"
)

func (t *tool) supportBundleCommand() *cobra.Command {
	var out string
	var imeis bool
	var lines int
	c := &cobra.Command{
		Use: "support-bundle", Short: "Collect what support asks for in one file, without secrets",
		Long: `support-bundle writes a .tar.gz with status, checks, configuration, versions,
metrics, upgrades, devices, a summary of the quarantine, and the last lines of the
log, and prints what is in it. Without a server it collects what there is.

There are no passwords, no places, no names and no frames in it. IMEIs are masked,
each the same in all files (35630738-d1: model and a number of its own); --imeis
keeps them. Read it before you send it: it is text.`,
		Example: "  gt06ctl support-bundle\n  gt06ctl support-bundle --out /tmp/gt06.tar.gz --log-lines 10000",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				out = "gt06-support-" + time.Now().UTC().Format("20060102-150405") + ".tar.gz"
			}
			b := &bundle{tool: t, mask: newMask(imeis), lines: lines}
			b.collect(cmd.Context())
			if err := b.write(out); err != nil {
				return cli.Fail(cli.NotWritable, err, "give a file that does not exist, in a directory that this user may write: --out FILE")
			}
			return b.say(cmd.OutOrStdout(), out)
		},
	}
	c.Flags().StringVar(&out, "out", "", "file to write; default gt06-support-TIME.tar.gz here")
	c.Flags().BoolVar(&imeis, "imeis", false, "keep the IMEIs, and the frames that a trace logged")
	c.Flags().IntVar(&lines, "log-lines", 2000, "how many lines of the log")
	return c
}

// bundle is what is collected. What cannot be had is said, and is no error.
type bundle struct {
	*tool
	mask  *mask
	lines int
	parts []part
}

// part is one file of the bundle.
type part struct {
	Name    string `json:"name"`
	Bytes   int    `json:"bytes"`
	What    string `json:"what"`
	Missing string `json:"missing,omitempty"` // why it is not there
	data    []byte
}

// add puts a file into the bundle; err says why it is missing.
func (b *bundle) add(name, what string, data []byte, err error) {
	p := part{Name: name, What: what, data: b.mask.text(data)}
	if err != nil {
		p.Missing, p.data = oneLine(string(b.mask.text([]byte(err.Error())))), nil
	}
	p.Bytes = len(p.data)
	b.parts = append(b.parts, p)
}

// object adds what the server answers to a verb.
func (b *bundle) object(ctx context.Context, name, what, verb string) {
	var v json.RawMessage
	err := b.call(ctx, verb, &v)
	var pretty bytes.Buffer
	if err == nil {
		err = json.Indent(&pretty, v, "", "  ")
	}
	b.add(name, what, pretty.Bytes(), err)
}

func (b *bundle) collect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	b.devices(ctx) // first: the mask learns whose IMEIs there are
	b.object(ctx, "status.json", "gt06ctl status", "status")
	b.object(ctx, "validate.json", "the three checks", "validate")
	b.object(ctx, "upgrades.json", "past upgrades", "upgrades")
	var s control.Support
	err := b.call(ctx, "support", &s)
	b.add("config.yaml", "the settings in use and where each was said, without passwords", []byte(s.Config), err)
	b.add("metrics.txt", "what Prometheus sees", []byte(s.Metrics), err)
	quarantine, _ := json.MarshalIndent(s.Quarantine, "", "  ")
	if err == nil && s.Missing != "" {
		err = errors.New(s.Missing)
	}
	b.add("quarantine.json", "how many frames nobody could place, by reason", quarantine, err)
	b.add("versions.txt", "programs, schema, kernel, distribution", versions(&s), nil)
	var st control.Status
	if err := b.call(ctx, "status", &st); err != nil {
		st.PID = 0
	}
	b.add("process.txt", "limits and memory of the server", process(st.PID), running(st.PID))
	files, err := b.files()
	b.add("files.txt", "names and sizes in the data directory, and room on its disk", files, err)
	log, err := b.log(ctx, st.PID)
	b.add("log.txt", fmt.Sprintf("the last lines of the server's log, %d at most", b.lines), log, err)
}

// devices adds the devices without names, places and addresses.
func (b *bundle) devices(ctx context.Context) {
	var list []control.Device
	err := b.call(ctx, "devices", &list)
	type device struct {
		IMEI     string `json:"imei"`
		Model    string `json:"model,omitempty"`
		Status   string `json:"status"`
		Online   bool   `json:"online"`
		LastSeen string `json:"last_seen,omitempty"`
		FixTime  string `json:"fix_time,omitempty"`
	}
	short := make([]device, 0, len(list))
	for i := range list {
		d := &list[i]
		b.mask.learn(d.IMEI)
		short = append(short, device{d.IMEI, d.Model, d.Status, d.Online, d.LastSeen, d.FixTime})
	}
	text, _ := json.MarshalIndent(short, "", " ")
	b.add("devices.json", "who is known and who is online, without names and places", text, err)
}

func running(pid int) error {
	if pid == 0 {
		return errors.New("no server is running")
	}
	return nil
}

func versions(s *control.Support) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "gt06ctl  %s\n", cli.Version())
	if s.Version != "" {
		fmt.Fprintf(&out, "gt06d    %s, %s\nschema   %d, this version makes %d\n", s.Version, s.Go, s.Schema, s.SchemaOwn)
	}
	if version, err := os.ReadFile("/proc/version"); err == nil {
		fmt.Fprintf(&out, "kernel   %s", version)
	}
	if release, err := os.ReadFile("/etc/os-release"); err == nil {
		for line := range strings.Lines(string(release)) {
			if name, found := strings.CutPrefix(line, "PRETTY_NAME="); found {
				fmt.Fprintf(&out, "system   %s\n", strings.Trim(name, "\"\n"))
			}
		}
	}
	return out.Bytes()
}

func process(pid int) []byte {
	var out bytes.Buffer
	for _, name := range []string{"limits", "status", "cgroup"} {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name)); err == nil {
			fmt.Fprintf(&out, "== /proc/PID/%s\n%s\n", name, b)
		}
	}
	return out.Bytes()
}

// files lists the data directory.
func (b *bundle) files() ([]byte, error) {
	var out bytes.Buffer
	room, err := host.DiskUsage(b.dataDir)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(&out, "disk  %d MiB free of %d MiB, %d inodes free of %d\n", room.Available>>20, room.Bytes>>20, room.FilesFree, room.Files)
	err = filepath.WalkDir(b.dataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			fmt.Fprintln(&out, err)
			return nil
		}
		if st, err := d.Info(); err == nil {
			name, _ := filepath.Rel(b.dataDir, path)
			fmt.Fprintf(&out, "%s %12d %s %s\n", st.Mode(), st.Size(), st.ModTime().UTC().Format(time.RFC3339), name)
		}
		return nil
	})
	return out.Bytes(), err
}

// logBytes is how much of a log is read at most.
const logBytes = 4 << 20

// log returns the last lines of the server's log: what its standard error is,
// or the journal of its unit.
func (b *bundle) log(ctx context.Context, pid int) ([]byte, error) {
	unit := "gt06d.service"
	if pid > 0 {
		path := fmt.Sprintf("/proc/%d/fd/2", pid)
		st, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		switch mode := st.Mode(); {
		case mode.IsRegular():
			text, err := tail(path, logBytes)
			return b.last(text), err
		case mode&os.ModeSocket == 0:
			where, _ := os.Readlink(path)
			return nil, fmt.Errorf("the server logs to %s, which cannot be read again", where)
		}
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)); err == nil {
			if name := filepath.Base(strings.TrimSpace(string(text))); strings.HasSuffix(name, ".service") {
				unit = name
			}
		}
	}
	var errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "journalctl", "--no-pager", "--output=short-iso", fmt.Sprintf("--lines=%d", b.lines), "--unit="+unit) //nolint:gosec // no shell
	cmd.Stderr = &errs
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("journalctl: %w %s", err, oneLine(errs.String()))
	}
	return b.last(text), nil
}

// last returns the last lines. What a trace logged are frames.
func (b *bundle) last(text []byte) []byte {
	var kept [][]byte
	for line := range bytes.Lines(text) {
		if b.mask.keep || !bytes.Contains(line, []byte(`"logger":"trace"`)) {
			kept = append(kept, line)
		}
	}
	return bytes.Join(kept[max(0, len(kept)-b.lines):], nil)
}

// tail returns the end of a file from the first whole line on.
func tail(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := max(0, st.Size()-most)
	b, err := io.ReadAll(io.NewSectionReader(f, from, most))
	if from > 0 {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	return b, err
}

// write makes the file; nobody else can read it.
func (b *bundle) write(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	packed := gzip.NewWriter(f)
	w := tar.NewWriter(packed)
	now := time.Now()
	dir := strings.TrimSuffix(filepath.Base(path), ".tar.gz")
	for _, p := range append(b.parts, part{Name: "README.txt", data: []byte(b.summary())}) {
		if p.Missing == "" {
			err = errors.Join(err, w.WriteHeader(&tar.Header{Name: dir + "/" + p.Name, Mode: 0o600, Size: int64(len(p.data)), ModTime: now}))
			_, werr := w.Write(p.data)
			err = errors.Join(err, werr)
		}
	}
	return errors.Join(err, w.Close(), packed.Close(), f.Sync(), f.Close())
}

// summary is the list of what is in the bundle and what is not.
func (b *bundle) summary() string {
	var out strings.Builder
	t := newTable(&out)
	for _, p := range b.parts {
		if p.Missing != "" {
			t.row("  -", p.Name, "missing: "+p.Missing)
			continue
		}
		t.row(fmt.Sprintf("  %d", p.Bytes), p.Name, p.What)
	}
	_ = t.end()
	return out.String()
}

func (b *bundle) say(out io.Writer, path string) error {
	if b.json {
		return printJSON(out, map[string]any{"file": path, "contents": b.parts, "masked": b.mask.names()})
	}
	masked := fmt.Sprintf("%d IMEIs are masked", b.mask.names())
	if b.mask.keep {
		masked = "IMEIs are as they are"
	}
	_, err := fmt.Fprintf(out, "%s: %s; no passwords, places, names or frames\n%s", path, masked, b.summary())
	return err
}
