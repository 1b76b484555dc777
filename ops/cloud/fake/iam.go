package fake

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Policy is an IAM policy document, the part of the language ours are written
// in: Effect, Action, NotAction, Resource and Condition.
type Policy struct {
	Version   string
	Statement []Statement
}

// Statement is one of a policy's.
type Statement struct {
	Sid       string
	Effect    string
	Action    words
	NotAction words
	Resource  words
	Condition map[string]map[string]words
}

// words is a string or a list of strings.
type words []string

// UnmarshalJSON implements json.Unmarshaler.
func (w *words) UnmarshalJSON(b []byte) error {
	var single any
	if err := json.Unmarshal(b, &single); err != nil {
		return err
	}
	list, ok := single.([]any)
	if !ok {
		list = []any{single}
	}
	for _, v := range list {
		*w = append(*w, fmt.Sprint(v))
	}
	return nil
}

// ParsePolicy reads a policy document and refuses what it does not know.
func ParsePolicy(text []byte) (Policy, error) {
	var p Policy
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return Policy{}, err
	}
	for _, s := range p.Statement {
		for op := range s.Condition {
			_, plain, _ := quantified(op)
			if _, ok := operators[strings.TrimSuffix(plain, "IfExists")]; !ok {
				return Policy{}, fmt.Errorf("statement %s: condition %s is not known here", s.Sid, op)
			}
		}
	}
	return p, nil
}

// operators compare a value that is there with one of a condition's.
var operators = map[string]func(seen, want string) bool{ //nolint:gochecknoglobals // a table
	"StringEquals":             func(seen, want string) bool { return seen == want },
	"StringNotEquals":          func(seen, want string) bool { return seen != want },
	"StringLike":               func(seen, want string) bool { return like(want, seen) },
	"Null":                     nil, // whether it is there, see holds
	"NumericLessThanEquals":    func(seen, want string) bool { a, b := number(seen), number(want); return a <= b },
	"NumericGreaterThanEquals": func(seen, want string) bool { a, b := number(seen), number(want); return a >= b },
}

func number(s string) float64 {
	n, _ := strconv.ParseFloat(s, 64)
	return n
}

// like matches with *, which is what our policies use, in any case of letters.
func like(pattern, s string) bool {
	parts := strings.Split(strings.ToLower(pattern), "*")
	s = strings.ToLower(s)
	if len(parts) == 1 {
		return s == parts[0]
	}
	s, ok := strings.CutPrefix(s, parts[0])
	for _, p := range parts[1 : len(parts)-1] {
		if !ok {
			return false
		}
		_, s, ok = strings.Cut(s, p)
	}
	return ok && strings.HasSuffix(s, parts[len(parts)-1])
}

func anyLike(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return like(p, s) })
}

// Judge returns why a call is not allowed, or "". As IAM does: every resource
// needs a statement that allows it, and one that denies is enough.
func Judge(policies []Policy, c Call) string {
	for _, r := range c.Resources {
		context := maps.Clone(c.Context)
		if context == nil {
			context = map[string]string{}
		}
		context["aws:RequestedRegion"] = Region
		if !r.New {
			for k, v := range r.Tags {
				context["aws:ResourceTag/"+k], context["ec2:ResourceTag/"+k], context["ssm:resourceTag/"+k] = v, v, v
			}
		}
		allowed := false
		for _, p := range policies {
			for _, s := range p.Statement {
				if !s.covers(c.Action, r.ARN, context) {
					continue
				}
				if s.Effect == "Deny" {
					return fmt.Sprintf("%s on %s is denied by %s", c.Action, r.ARN, s.Sid)
				}
				allowed = true
			}
		}
		if !allowed {
			return fmt.Sprintf("%s on %s is allowed by nothing", c.Action, r.ARN)
		}
	}
	return ""
}

func (s Statement) covers(action, arn string, context map[string]string) bool {
	if len(s.Action) > 0 && !anyLike(s.Action, action) || len(s.NotAction) > 0 && anyLike(s.NotAction, action) {
		return false
	}
	if !anyLike(s.Resource, arn) {
		return false
	}
	for op, keys := range s.Condition {
		for key, want := range keys {
			if !holds(op, key, want, context) {
				return false
			}
		}
	}
	return true
}

// quantified takes ForAllValues: or ForAnyValue: off an operator.
func quantified(op string) (quantifier, plain string, ok bool) {
	quantifier, plain, ok = strings.Cut(op, ":")
	if !ok {
		return "", op, false
	}
	return quantifier, plain, true
}

// holds says whether a condition is met. Of the keys with several values only
// aws:TagKeys is known.
func holds(op, key string, want []string, context map[string]string) bool {
	if quantifier, plain, ok := quantified(op); ok {
		meets := func(tag string) bool {
			return slices.ContainsFunc(want, func(w string) bool { return operators[plain](tag, w) })
		}
		keys := slices.Collect(maps.Keys(requested(context)))
		if quantifier == "ForAnyValue" {
			return slices.ContainsFunc(keys, meets)
		}
		return !slices.ContainsFunc(keys, func(tag string) bool { return !meets(tag) })
	}
	seen, there := context[key]
	if op == "Null" {
		return slices.Contains(want, strconv.FormatBool(!there))
	}
	name, ifExists := strings.CutSuffix(op, "IfExists")
	if !there {
		return ifExists || name == "StringNotEquals"
	}
	compare := operators[name]
	if name == "StringNotEquals" { // none of them
		return !slices.Contains(want, seen)
	}
	return slices.ContainsFunc(want, func(w string) bool { return compare(seen, w) })
}
