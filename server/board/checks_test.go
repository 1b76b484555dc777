package board

import (
	"strings"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	const window, silent = 10 * time.Minute, 5 * time.Minute
	// A fleet of a hundred on a good day; each case says what is other.
	good := facts{Settings: Settings{window, silent}, age: time.Hour, rated: window, accepted: 7, devices: 100, online: 99, expected: 100, spoke: 98, moving: 60, parked: 30}
	for what, c := range map[string]struct {
		change func(*facts)
		red    string // names of red checks
		warm   bool
		says   string
	}{
		"a good day":                     {func(*facts) {}, "", false, "98 of 100 devices spoke within 5m, 2 silent"},
		"devices silent":                 {func(f *facts) { f.spoke, f.moving, f.parked = 70, 40, 20 }, "timestamps", false, "70 of 100 devices spoke within 5m, 30 silent"},
		"all silent":                     {func(f *facts) { f.spoke, f.moving, f.parked = 0, 0, 0 }, "timestamps locations", false, "no device speaks"},
		"all gone for long":              {func(f *facts) { *f = facts{Settings: f.Settings, age: f.age, rated: window, devices: 100} }, "timestamps locations", false, "none of 100 devices spoke within 1h"},
		"no device yet":                  {func(f *facts) { *f = facts{Settings: f.Settings, age: f.age, rated: window} }, "", false, "no device has connected yet"},
		"no device yet, young":           {func(f *facts) { *f = facts{Settings: f.Settings} }, "", true, "no device has connected yet"},
		"positions frozen":               {func(f *facts) { f.moving, f.frozen = 0, 60 }, "locations", false, "60 say they drive and stay where they are"},
		"half of the positions frozen":   {func(f *facts) { f.moving, f.frozen = 30, 30 }, "locations", false, "30 say they drive"},
		"one receiver is broken":         {func(f *facts) { f.moving, f.frozen = 59, 1 }, "", false, "1 say they drive"},
		"nobody moves":                   {func(f *facts) { f.moving = 0 }, "locations", false, "0 of 98 devices moved within 10m"},
		"at night":                       {func(f *facts) { f.moving, f.parked = 0, 98 }, "", false, "all 98 devices are parked, ignition off"},
		"a storm":                        {func(f *facts) { f.accepted = 500 }, "reconnects", false, "500 connections opened within 10m, 99 of 100 devices online"},
		"everybody came back once":       {func(f *facts) { f.accepted = 198 }, "", false, ""},
		"a few devices on a bad network": {func(f *facts) { f.online, f.expected, f.spoke, f.moving, f.accepted = 2, 2, 2, 2, 9 }, "", false, ""},
		"all hang up at once":            {func(f *facts) { f.online, f.accepted = 0, 100 }, "", false, "0 of 100 devices online"},
		"a storm of which none stays":    {func(f *facts) { f.online, f.accepted = 0, 201 }, "reconnects", false, ""},
		"behind an upgrade":              {func(f *facts) { f.age, f.adopted, f.spoke = time.Second, 90, 8 }, "", true, "8 of 10 devices spoke"},
		"behind an upgrade, none spoke":  {func(f *facts) { f.age, f.adopted, f.spoke, f.moving, f.parked = time.Second, 100, 0, 0, 0 }, "", true, "100 devices were taken over"},
		"a storm behind an upgrade":      {func(f *facts) { f.age, f.accepted = time.Second, 500 }, "reconnects", true, ""},
		"a storm at the server's start":  {func(f *facts) { f.age, f.rated, f.accepted = time.Second, time.Second, 500 }, "", true, "500 connections"},
		"silent at the server's start":   {func(f *facts) { f.age, f.spoke, f.moving, f.parked = time.Minute, 0, 0, 0 }, "", true, "0 of 100"},
	} {
		f := good
		c.change(&f)
		v := judge(f)
		var red, text []string
		for _, check := range v.Checks {
			if !check.OK {
				red = append(red, check.Name)
			}
			text = append(text, check.Text)
			if good := check.Value >= check.Limit; check.Name != "reconnects" && !check.WarmingUp && good != check.OK {
				t.Errorf("%s: %+v: value and limit say the other", what, check)
			}
		}
		if got := strings.Join(red, " "); got != c.red || v.OK != (c.red == "") || v.WarmingUp != c.warm || !strings.Contains(strings.Join(text, "\n"), c.says) {
			t.Errorf("%s: red %q, ok %v, warming up %v, %q", what, got, v.OK, v.WarmingUp, text)
		}
	}
}
