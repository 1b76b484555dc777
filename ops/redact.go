package ops

import "regexp"

const redacted = "[redacted]"

// secretName is what a name of a secret looks like.
var secretName = regexp.MustCompile(`(?i)pass|secret|token|key`)

// secretText is a secret in a command line, an environment or a message:
// DB_PASSWORD=x, --token x, "secret": "x", scheme://user:x@host; mysql -px.
var (
	secretText  = regexp.MustCompile(`(?i)([\w-]*(?:pass|secret|token|key)[\w-]*["']?\s*[=:]\s*["']?|--[\w-]*(?:pass|secret|token|key)[\w-]*\s+|://[^\s:/@]+:)([^\s"'@]+)`)
	secretMySQL = regexp.MustCompile(`((?:mysql|mariadb)[\w-]*\s(?:.*\s)?-p)(\S+)`)
)

// redact hides what looks like a secret in the members of a record.
func redact(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string]string, len(m))
	for name, value := range m {
		if secretName.MatchString(name) {
			value = redacted
		}
		out[name] = redactText(value)
	}
	return out
}

func redactText(s string) string {
	return secretMySQL.ReplaceAllString(secretText.ReplaceAllString(s, "${1}"+redacted), "${1}"+redacted)
}
