package config

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"go.yaml.in/yaml/v3"
)

// Origin is where a setting was said; a later one beats an earlier one.
type Origin int

// The origins, the weakest first.
const (
	FromDefault Origin = iota
	FromFile
	FromEnvironment
	FromFlag
)

// String implements fmt.Stringer.
func (o Origin) String() string {
	return [...]string{"default", "file", "environment", "flag"}[o]
}

// Setting is one key of the configuration, as the struct and its tags say.
type Setting struct {
	Key     string // of the YAML file: limits.idle_timeout
	Type    string
	Default string // a description where it is computed
	Env     string // environment variable, "" where there is none
	Flag    string // without its dashes, "" where there is none
	Help    string
	secret  string // what to hide: dsn, all, or nothing
	value   reflect.Value
}

// settings lists the keys in the order of the struct. Each is a way to its
// field in c. The elements of a list are described once, below list[].
func (c *Config) settings() []Setting {
	return list(nil, reflect.ValueOf(c).Elem(), "")
}

func list(out []Setting, v reflect.Value, prefix string) []Setting {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if name == "-" || !field.IsExported() {
			continue
		}
		key := prefix + name
		if value := v.Field(i); field.Type.Kind() == reflect.Struct {
			out = list(out, value, key+".")
			continue
		} else if field.Type.Kind() == reflect.Pointer { // a kind of an element: described whether it is there or not
			if value.IsNil() {
				value = reflect.New(field.Type.Elem())
			}
			out = list(out, value.Elem(), key+".")
			continue
		}
		s := Setting{
			Key: key, Type: typeName(field.Type), Default: field.Tag.Get("default"), Env: field.Tag.Get("env"),
			Flag: field.Tag.Get("flag"), Help: field.Tag.Get("help"), secret: field.Tag.Get("secret"), value: v.Field(i),
		}
		if s.Default == "" {
			s.Default = s.text()
		}
		out = append(out, s)
		if field.Type.Kind() == reflect.Slice && field.Type.Elem().Kind() == reflect.Struct {
			out = list(out, reflect.New(field.Type.Elem()).Elem(), key+"[].")
		}
	}
	return out
}

func typeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Bytes]():
		return "size"
	case reflect.TypeFor[Duration]():
		return "time span"
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "list"
	case reflect.Map:
		return "map"
	default:
		return "number"
	}
}

// set reads a value from the text of a flag or an environment variable.
func (s *Setting) set(text string) error {
	if s.value.Kind() == reflect.String {
		s.value.SetString(text)
		return nil
	}
	return yaml.Unmarshal([]byte(text), s.value.Addr().Interface())
}

// text returns the value as it is written in the file, "" for none. A secret is
// not shown.
func (s *Setting) text() string {
	switch v := s.value; {
	case s.secret != "" && v.String() != "":
		return redact(s.secret, v.String())
	case v.Kind() == reflect.String:
		return v.String()
	case (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0, v.Kind() != reflect.Bool && v.IsZero():
		return ""
	}
	var n yaml.Node
	if n.Encode(shown(s.value)) != nil {
		return ""
	}
	flow(&n)
	b, err := yaml.Marshal(&n)
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(b)), " ")
}

// flow puts a value on one line.
func flow(n *yaml.Node) {
	n.Style = yaml.FlowStyle
	if n.Kind == yaml.ScalarNode {
		n.Style = 0
	}
	for _, c := range n.Content {
		flow(c)
	}
}

// redact hides what is secret in a dsn or a url, and the whole of anything else.
func redact(kind, text string) string {
	const hidden = "***"
	switch kind {
	case "dsn":
		if cfg, err := mysql.ParseDSN(text); err == nil {
			if cfg.Passwd != "" {
				cfg.Passwd = hidden
			}
			return cfg.FormatDSN()
		}
	case "url":
		all := strings.Split(text, ",") // of one server, or of several
		for i, one := range all {
			u, err := url.Parse(one)
			if err != nil {
				return hidden
			}
			all[i] = u.Redacted()
		}
		return strings.Join(all, ",")
	}
	return hidden
}

// shown returns a value as it may be printed: of a list, a copy without the
// secrets of its elements.
func shown(v reflect.Value) any {
	if v.Kind() != reflect.Slice || v.Type().Elem().Kind() != reflect.Struct {
		return v.Interface()
	}
	// A copy through the file's own form: nothing in it is shared.
	b, err := yaml.Marshal(v.Interface())
	copied := reflect.New(v.Type())
	if err != nil || yaml.Unmarshal(b, copied.Interface()) != nil {
		return nil
	}
	out := copied.Elem()
	for i := range out.Len() {
		for _, s := range list(nil, out.Index(i), "") {
			if s.secret != "" && s.value.Kind() == reflect.String && s.value.String() != "" {
				s.value.SetString(redact(s.secret, s.value.String()))
			}
		}
	}
	return out.Interface()
}

// mark notes which keys a file says.
func (c *Config) mark(file []byte) error {
	var tree map[string]any
	if err := yaml.Unmarshal(file, &tree); err != nil {
		return err
	}
	for _, s := range c.settings() {
		at, said := any(tree), true
		for part := range strings.SplitSeq(s.Key, ".") {
			m, ok := at.(map[string]any)
			if at, said = m[part]; !ok || !said {
				said = false
				break
			}
		}
		if said {
			c.origin[s.Key] = FromFile
		}
	}
	return nil
}

// Effective returns every key with the value in use and where it was said, as a
// YAML file. No password is in it.
func (c *Config) Effective() string {
	lines := [][2]string{}
	widest := 0
	section := ""
	for _, s := range c.settings() {
		if strings.Contains(s.Key, "[].") {
			continue // within the list
		}
		indent, name := "", s.Key
		if head, tail, nested := strings.Cut(s.Key, "."); nested {
			indent, name = "  ", tail
			if head != section {
				lines = append(lines, [2]string{head + ":", ""})
			}
			section = head
		}
		value, where := s.text(), c.origin[s.Key].String()
		if value == "" && s.Default != "" {
			where += ": " + s.Default
		}
		switch {
		case s.value.Kind() == reflect.String:
			value = quote(value)
		case value == "":
			value = "null"
		}
		line := indent + name + ": " + value
		lines = append(lines, [2]string{line, where})
		if len(line) <= 60 {
			widest = max(widest, len(line))
		}
	}
	var b strings.Builder
	for _, l := range lines {
		if l[1] == "" {
			fmt.Fprintln(&b, l[0])
			continue
		}
		fmt.Fprintf(&b, "%-*s  # %s\n", widest, l[0], l[1])
	}
	return b.String()
}

// quote makes text safe where YAML would read something else.
func quote(text string) string {
	b, err := yaml.Marshal(text)
	if err != nil {
		return text
	}
	return strings.TrimSpace(string(b))
}

// Reference returns REFERENCE.md: every key, from the struct.
func Reference() string {
	c := Defaults()
	c.DataDir = "" // of whoever generates it
	var b strings.Builder
	b.WriteString(`# Configuration of gt06d

Generated from config.go: ` + "`go test ./cmd/internal/config -run Reference -update`" + `. The same text: ` + "`gt06d check-config --reference`" + `.

Flags beat environment variables, these beat the one YAML file that ` + "`--config`" + ` or ` + "`GT06_CONFIG`" + ` names. No other file is read. A key that does not
exist is an error with its line; ` + "`gt06d check-config`" + ` prints what would be used and starts nothing. A running server takes a new configuration with
` + "`gt06ctl upgrade`" + `. Sizes are bytes, or with KiB, MiB, GiB; time spans are 10s, 5m, 168h.

| key | type | default | environment | flag | meaning |
|---|---|---|---|---|---|
`)
	cell := func(code bool, s string) string {
		switch {
		case s == "":
			return ""
		case code:
			return "`" + s + "`"
		}
		return strings.ReplaceAll(s, "|", `\|`)
	}
	for _, s := range c.settings() {
		flag := s.Flag
		if flag != "" {
			flag = "--" + flag
		}
		value := s.text()
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", cell(true, s.Key), s.Type, cell(value != "" && value == s.Default, s.Default), cell(true, s.Env), cell(true, flag), cell(false, s.Help))
	}
	return b.String()
}

// MarshalYAML writes a size with the largest unit that fits.
func (b Bytes) MarshalYAML() (any, error) {
	for _, u := range []struct {
		suffix string
		size   Bytes
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if b != 0 && b%u.size == 0 {
			return fmt.Sprintf("%d%s", b/u.size, u.suffix), nil
		}
	}
	return int64(b), nil
}

// MarshalYAML writes a time span as it is read.
func (d Duration) MarshalYAML() (any, error) {
	s := time.Duration(d).String()
	for _, zero := range []string{"m0s", "h0m"} { // 168h0m0s is 168h
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s, nil
}
