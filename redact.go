package armature

import (
	"net/url"
	"regexp"
	"strings"
)

var (
	// secretName matches keys of settings.
	secretName = regexp.MustCompile(`(^|[._])(password|passwd|passphrase|pwd|secret|token|key|credential|credentials)($|[._])`)
	// secretParam matches password=… in URLs, in libpq's connection strings and in the texts of errors.
	secretParam = regexp.MustCompile(`(?i)((?:password|passwd|passphrase|pwd|secret|token|api_?key|credentials?)\s*=\s*)('[^']*'|"[^"]*"|[^\s&;,'"]+)`)
	// userInfo matches user:password@, alone or in a URL, up to the last @ of the
	// word: a password that should have been escaped hides its host, not itself.
	userInfo = regexp.MustCompile(`((?:^|[\s"'(]|://)[^\s/:@"'(]*):[^\s]+@`)
)

// redact hides passwords in the value of a setting: in URLs, lists of URLs and
// connection strings. Any other text is left alone.
func redact(text string) string {
	if strings.Count(text, "://") > 1 && strings.Contains(text, ",") {
		parts := strings.Split(text, ",")
		for i, part := range parts {
			parts[i] = redact(part)
		}
		return strings.Join(parts, ",")
	}
	if !strings.Contains(text, "://") {
		return scrub(text)
	}
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil {
		return RedactedValue // whatever it is, it may hold a password
	}
	if _, has := u.User.Password(); has {
		text = u.Redacted()
	}
	return secretParam.ReplaceAllString(text, "${1}xxxxx")
}

// scrub hides what looks like a password within a text, such as that of an error.
func scrub(text string) string {
	return secretParam.ReplaceAllString(userInfo.ReplaceAllString(text, "${1}:xxxxx@"), "${1}xxxxx")
}
