package config

import (
	"fmt"
	"net/netip"

	"gt06/server"
)

// Limits bound what devices and strangers can use; of the numbers without a
// unit of time zero means the default and -1 no limit.
type Limits struct {
	Connections    int      `yaml:"connections" help:"Open connections; more are closed at once." default:"the descriptor limit less 256"`
	UnknownDevices int      `yaml:"unknown_devices" help:"A device that nobody has registered comes in while fewer than this many are known."`
	Login          Duration `yaml:"login_timeout" help:"From the connection to the login."`
	Frame          Duration `yaml:"frame_timeout" help:"For the rest of half a frame, plus a second for each 256 bytes of it."`
	Idle           Duration `yaml:"idle_timeout" help:"Without any input."`
	Write          Duration `yaml:"write_timeout" help:"For a device that does not take its answers."`

	Accepts             int `yaml:"accepts" help:"Connections accepted a second; more wait in the kernel. -1 is no limit, here and below."`
	NetworkAccepts      int `yaml:"network_accepts" help:"The same of one network (IPv4 /24, IPv6 /48); more are refused."`
	FailedLogins        int `yaml:"failed_logins" help:"Connections a minute without a login, or of a flapping device without a frame behind it; then only networks that a device has come from within a day are let in."`
	NetworkFailedLogins int `yaml:"network_failed_logins" help:"The same of one network; then it is refused."`
	AddressDevices      int `yaml:"address_devices" help:"Devices that nobody has registered, an hour and address."`
	DeviceLogins        int `yaml:"device_logins" help:"Logins a minute of one device; more are flagged as flapping."`
	Frames              int `yaml:"frames" help:"Frames a second of one connection, four seconds' worth at once; more wait in the kernel."`
}

func defaultLimits() Limits {
	d := server.DefaultLimits()
	return Limits{
		UnknownDevices: d.UnknownDevices, Login: Duration(d.Login), Frame: Duration(d.Frame), Idle: Duration(d.Idle), Write: Duration(d.Write),
		Accepts: d.Accepts, NetworkAccepts: d.NetworkAccepts, FailedLogins: d.FailedLogins, NetworkFailedLogins: d.NetworkFailedLogins,
		AddressDevices: d.AddressDevices, DeviceLogins: d.DeviceLogins, Frames: d.Frames,
	}
}

// The policies for devices that nobody has registered.
const (
	PolicyOpen       = "open"
	PolicyQuarantine = "quarantine"
	PolicyAllow      = "allow"
)

// Devices is who may come in.
type Devices struct {
	Policy         string `yaml:"policy" help:"Devices that nobody has registered are: open: served; quarantine: served, with few rows, until gt06ctl devices allow; allow: refused. gt06ctl devices policy outranks it."`
	QuarantineRows int    `yaml:"quarantine_rows" help:"Rows of each device in quarantine; the log keeps the rest as long as it keeps anything."`
	CheckDigit     bool   `yaml:"check_digit" help:"Refuse IMEIs whose check digit is wrong; many clones have such."`
}

// CheckPolicy says whether a policy exists.
func CheckPolicy(s string) error {
	switch s {
	case PolicyOpen, PolicyQuarantine, PolicyAllow:
		return nil
	}
	return fmt.Errorf("devices.policy is %q: it can be open, quarantine or allow", s)
}

// Memory bounds the heap.
type Memory struct {
	Limit Bytes `yaml:"limit" help:"Of the heap; the environment's GOMEMLIMIT outranks it." default:"four fifths of the cgroup's limit, where there is one"`
}

// Clock is what is asked of the machine's clock.
type Clock struct {
	MustSync bool `yaml:"must_sync" help:"Be degraded while nothing synchronises the clock of the machine."`
}

// Balancers returns the networks of proxies.
func (c *Config) Balancers() ([]netip.Prefix, error) {
	list := make([]netip.Prefix, 0, len(c.Proxies))
	for _, s := range c.Proxies {
		p, err := netip.ParsePrefix(s)
		if err != nil || p != p.Masked() {
			return nil, fmt.Errorf("proxies: %q is no network: write 10.0.0.0/24, or 192.0.2.7/32", s)
		}
		list = append(list, p)
	}
	return list, nil
}
