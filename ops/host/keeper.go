package host

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

// KeptBy says what kind of thing keeps a process alive.
type KeptBy string

// The kinds.
const (
	ByNobody    KeptBy = "nobody" // started by hand, or by something not known here
	ByPM2       KeptBy = "pm2"
	ByUnit      KeptBy = "systemd"
	ByContainer KeptBy = "container"
	ByTraccar   KeptBy = "traccar"
	ByGT06      KeptBy = "gt06"
)

// Keeper is who starts a process again when it ends: the one to be asked, when
// its port must become free.
type Keeper struct {
	By   KeptBy
	Name string // of the unit or the container

	// Of pm2: whose daemon it is, where it lives, and which of its children the
	// process is or descends from: 0, when the daemon itself holds the socket, as
	// it does for programs in cluster mode.
	User, Home, Node string
	Child            int
}

// String names the keeper for an operator.
func (k Keeper) String() string {
	switch k.By {
	case ByPM2:
		return fmt.Sprintf("pm2 of %s (%s)", k.User, k.Home)
	case ByUnit:
		return "systemd unit " + k.Name
	case ByContainer:
		return "container " + k.Name
	case ByTraccar:
		return strings.TrimSpace("Traccar " + k.Name)
	case ByGT06, ByNobody:
	}
	return string(k.By)
}

// HowToStop are commands that make it let go of a port, for good.
func (k Keeper) HowToStop(pid int) []string {
	switch k.By {
	case ByUnit:
		return []string{"sudo systemctl disable --now " + k.Name}
	case ByContainer:
		if k.Name == "" {
			return []string{"see which: docker ps", "docker update --restart=no NAME && docker stop NAME"}
		}
		return []string{"docker update --restart=no " + k.Name + " && docker stop " + k.Name, "it is podman, lxc or kubernetes? stop it there, so that it does not come back"}
	case ByTraccar:
		return []string{"take <entry key='gt06.port'> out of /opt/traccar/conf/traccar.xml, then: sudo systemctl restart traccar", "or all of Traccar: sudo systemctl disable --now traccar"}
	case ByNobody:
		return []string{fmt.Sprintf("see who started it: ps -o pid,ppid,user,lstart,args -p %d", pid), fmt.Sprintf("stop it where it is started, or: sudo kill %d", pid)}
	case ByPM2, ByGT06:
	}
	return nil
}

var (
	// daemonTitle is what pm2's daemon calls itself; behind it is its directory,
	// cut off where the title is longer than the arguments were.
	daemonTitle = regexp.MustCompile(`^PM2 v\S+: God Daemon`)
	// containerPath is a cgroup of Docker, containerd, Podman, Kubernetes or LXC; its
	// group is the name of the container.
	containerPath = regexp.MustCompile(`(?:/docker[-/]|/libpod-|/crio-|cri-containerd-|/lxc(?:\.payload\.|/)|/kubepods[^ ]*/)([0-9A-Za-z_.-]+?)(?:\.scope)?(?:/|$)`)
)

// Keeper finds who keeps a process, by its control groups and its ancestors.
func (s System) Keeper(pid int) (Keeper, error) {
	root, err := procfs.NewFS(s.Proc)
	if err != nil {
		return Keeper{}, err
	}
	p, err := root.Proc(pid)
	if err != nil {
		return Keeper{}, fmt.Errorf("process %d: %w", pid, err)
	}
	self := s.process(p)
	if self.Name == "gt06d" {
		return Keeper{By: ByGT06}, nil
	}
	groups, _ := p.Cgroups()
	for _, g := range groups {
		if m := containerPath.FindStringSubmatch(g.Path); m != nil {
			return Keeper{By: ByContainer, Name: shortID(m[1])}, nil
		}
	}
	if self.Name == "docker-proxy" {
		return Keeper{By: ByContainer}, nil
	}
	if k, ok := s.pm2Above(root, pid); ok {
		return k, nil
	}
	if args, _ := p.CmdLine(); self.Unit == "traccar.service" || self.Name == "java" && strings.Contains(strings.Join(args, " "), "traccar") {
		return Keeper{By: ByTraccar, Name: self.Unit}, nil
	}
	// A session of a user is a unit, too, and keeps nothing alive.
	if self.Unit != "" && !strings.HasPrefix(self.Unit, "user@") {
		return Keeper{By: ByUnit, Name: self.Unit}, nil
	}
	return Keeper{By: ByNobody}, nil
}

// shortID is a container's name as its tools print it.
func shortID(name string) string {
	const short, hex = 12, 64
	if len(name) == hex {
		return name[:short]
	}
	return name
}

// pm2Above finds pm2's daemon in a process and its ancestors.
func (s System) pm2Above(root procfs.FS, pid int) (Keeper, bool) {
	for child := 0; pid > 1; {
		p, err := root.Proc(pid)
		if err != nil {
			return Keeper{}, false
		}
		if args, err := p.CmdLine(); err == nil && len(args) > 0 && daemonTitle.MatchString(args[0]) {
			k := Keeper{By: ByPM2, Child: child}
			k.User = owner(filepath.Join(s.Proc, strconv.Itoa(pid)))
			k.Node, _ = os.Readlink(filepath.Join(s.Proc, strconv.Itoa(pid), "exe"))
			env, _ := p.Environ()
			for _, e := range env {
				if home, ok := strings.CutPrefix(e, "PM2_HOME="); ok {
					k.Home = home
				}
			}
			return k, true
		}
		st, err := p.Stat()
		if err != nil {
			return Keeper{}, false
		}
		child, pid = pid, st.PPID
	}
	return Keeper{}, false
}

// PM2Of is the pm2 that keeps a process: of its user, in its directory, with
// its own version of Node, which only that user's login shell may know.
func (s System) PM2Of(k Keeper) PM2 {
	out := PM2{System: s, User: k.User, Home: k.Home}
	if beside := filepath.Join(filepath.Dir(k.Node), "pm2"); k.Node != "" && exists(beside) {
		out.Program = beside
	}
	return out
}
