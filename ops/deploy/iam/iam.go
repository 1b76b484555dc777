// Package iam holds the policies operations need, as they are given to AWS:
// read (preflight, audit, cost), operate (runbooks), deny (everybody). A role
// that looks gets read and deny, one that works all three.
//
// The policies cannot say everything. There is no condition key for the mode of
// a snapshot lock, so they limit its length to a year, and the program asks for
// a typed phrase before compliance mode.
package iam

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed *.json
var files embed.FS

// Names are the policies.
func Names() []string { return []string{"read", "operate", "deny"} }

// Site is what the policies are about.
type Site struct{ Account, Region, Allocation, Bucket string }

// Policy returns a policy with the names of a site in their places.
func Policy(name string, s Site) (string, error) {
	text, err := files.ReadFile(name + ".json")
	if err != nil {
		return "", fmt.Errorf("no policy %q: %w", name, err)
	}
	return strings.NewReplacer("ACCOUNT", s.Account, "REGION", s.Region, "ALLOCATION", s.Allocation, "BUCKET", s.Bucket).Replace(string(text)), nil
}
