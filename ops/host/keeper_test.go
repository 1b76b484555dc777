package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKeeper: who keeps the holder of a port, in a procfs of our own: what was
// seen of pm2 7.0.4, systemd, Docker, Podman and Traccar.
func TestKeeper(t *testing.T) {
	t.Parallel()
	type process struct{ name, args, group, exe string }
	const daemon = "PM2 v7.0.4: God Daemon (/home/ubuntu/.pm2)"
	session := "/user.slice/user-1000.slice/session-3.scope"
	for name, c := range map[string]struct {
		line []process // the last one is asked for, each the child of the one before
		want Keeper
		hint string
	}{
		"pm2, a program in fork mode":            {[]process{{"PM2 v7.0.4: God", daemon, session, "/home/ubuntu/.nvm/versions/node/v20.1.0/bin/node"}, {"node", "node /srv/index.js", session, ""}}, Keeper{By: ByPM2, Home: "/home/ubuntu/.pm2", Node: "/home/ubuntu/.nvm/versions/node/v20.1.0/bin/node", Child: 101}, ""},
		"pm2, behind npm and a shell":            {[]process{{"PM2 v7.0.4: God", daemon, session, ""}, {"npm start", "npm start", session, ""}, {"sh", "sh -c", session, ""}, {"node", "node x", session, ""}}, Keeper{By: ByPM2, Home: "/home/ubuntu/.pm2", Child: 101}, ""},
		"pm2 itself, for programs in cluster":    {[]process{{"PM2 v7.0.4: God", daemon, session, ""}}, Keeper{By: ByPM2, Home: "/home/ubuntu/.pm2"}, ""},
		"pm2 that its unit started":              {[]process{{"PM2 v7.0.4: God", daemon, "/system.slice/pm2-ubuntu.service", ""}, {"node", "node x", "/system.slice/pm2-ubuntu.service", ""}}, Keeper{By: ByPM2, Home: "/home/ubuntu/.pm2", Child: 101}, ""},
		"pm2 in a container":                     {[]process{{"PM2 v7.0.4: God", daemon, "/docker/" + strings.Repeat("ab", 32), ""}}, Keeper{By: ByContainer, Name: "abababababab"}, "docker update --restart=no abababababab"},
		"a unit":                                 {[]process{{"node", "node /srv/index.js", "/system.slice/gps.service", ""}}, Keeper{By: ByUnit, Name: "gps.service"}, "systemctl disable --now gps.service"},
		"Traccar by its unit":                    {[]process{{"java", "/opt/traccar/jre/bin/java -jar tracker-server.jar conf/traccar.xml", "/system.slice/traccar.service", ""}}, Keeper{By: ByTraccar, Name: "traccar.service"}, "traccar.xml"},
		"Traccar by hand":                        {[]process{{"java", "java -jar /opt/traccar/tracker-server.jar", session, ""}}, Keeper{By: ByTraccar}, "traccar.xml"},
		"Docker under systemd":                   {[]process{{"node", "node x", "/system.slice/docker-" + strings.Repeat("01", 32) + ".scope", ""}}, Keeper{By: ByContainer, Name: "010101010101"}, "docker stop"},
		"Podman":                                 {[]process{{"node", "node x", "/machine.slice/libpod-" + strings.Repeat("cd", 32) + ".scope/container", ""}}, Keeper{By: ByContainer, Name: "cdcdcdcdcdcd"}, "podman"},
		"LXC":                                    {[]process{{"node", "node x", "/lxc.payload.gps/system.slice/gps.service", ""}}, Keeper{By: ByContainer, Name: "gps"}, "lxc"},
		"a port that Docker publishes":           {[]process{{"docker-proxy", "docker-proxy -proto tcp", "/system.slice/docker.service", ""}}, Keeper{By: ByContainer}, "docker ps"},
		"by hand, in a session":                  {[]process{{"node", "node index.js", session, ""}}, Keeper{By: ByNobody}, "sudo kill 100"},
		"by hand, below the user's systemd":      {[]process{{"node", "node index.js", "/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope", ""}}, Keeper{By: ByNobody}, "sudo kill 100"},
		"gt06d":                                  {[]process{{"gt06d", "gt06d --config x", "/system.slice/gt06d.service", ""}}, Keeper{By: ByGT06}, ""},
		"a program that is only called like one": {[]process{{"node", "node PM2 v7.0.4: God Daemon", session, ""}}, Keeper{By: ByNobody}, "kill"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proc := t.TempDir()
			pid := 99
			for _, p := range c.line {
				parent := max(pid, 1)
				if pid == 99 {
					parent = 1
				}
				pid++
				dir := filepath.Join(proc, fmt.Sprint(pid))
				if err := os.Mkdir(dir, 0o750); err != nil {
					t.Fatal(err)
				}
				write(t, dir+"/comm", p.name+"\n")
				arg := strings.ReplaceAll(p.args, " ", "\x00")
				if strings.HasPrefix(p.args, "PM2") {
					arg = p.args // a title is one
				}
				write(t, dir+"/cmdline", arg+"\x00")
				write(t, dir+"/environ", "HOME=/home/ubuntu\x00PM2_HOME=/home/ubuntu/.pm2\x00")
				write(t, dir+"/cgroup", "0::"+p.group+"\n")
				write(t, dir+"/stat", fmt.Sprintf("%d (%s) S %d%s\n", pid, p.name, parent, strings.Repeat(" 0", 48)))
				if p.exe != "" {
					if err := os.Symlink(p.exe, dir+"/exe"); err != nil {
						t.Fatal(err)
					}
				}
			}
			got, err := System{Proc: proc}.Keeper(pid)
			got.User = "" // of the files here
			if err != nil || got != c.want {
				t.Errorf("%+v, %v, want %+v", got, err, c.want)
			}
			if hints := strings.Join(got.HowToStop(pid), "\n"); (hints == "") != (c.hint == "") || !strings.Contains(hints, c.hint) {
				t.Errorf("hints %q, want %q", hints, c.hint)
			}
		})
	}
	if _, err := New().Keeper(1 << 22); err == nil {
		t.Error("a process that is not there")
	}
}
