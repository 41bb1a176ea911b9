package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/armature-go/armature/flow"
)

// Claims is what a verified token says (RFC 7519). It is shared between requests
// that bring the same token: treat it as read-only. Printing and logging it shows
// issuer, subject and id, because other claims often are personal data.
type Claims struct {
	Issuer    string
	Subject   string
	Audience  []string
	ID        string    // "jti"; empty when absent
	ExpiresAt time.Time // zero when absent, as are the two below
	NotBefore time.Time
	IssuedAt  time.Time

	// Principal is the subject with the scopes of "scope" or "scp" and the roles of
	// VerifierConfig.RolesClaim.
	Principal flow.Principal

	raw map[string]json.RawMessage
}

// ErrNoClaim is returned by [Claims.Decode] for a claim that the token does not have.
var ErrNoClaim = errors.New("auth: no such claim")

// Decode stores the claim of that exact name in the value into points to, as
// json.Unmarshal does.
func (c *Claims) Decode(name string, into any) error {
	raw, ok := c.raw[name]
	if !ok {
		return ErrNoClaim
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("auth: decode claim %q: not a %T", name, into)
	}
	return nil
}

// Format prints issuer, subject and id whatever the verb.
func (c *Claims) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "claims of %q about %q, id %q", c.Issuer, c.Subject, c.ID)
}

// LogValue logs issuer, subject and id.
func (c *Claims) LogValue() slog.Value {
	return slog.GroupValue(slog.String("issuer", c.Issuer), slog.String("subject", c.Subject), slog.String("id", c.ID))
}

// payload is the raw claims as the library's parser wants to fill them. Names are
// looked up exactly: struct tags of encoding/json would take "SUB" for "sub".
type payload struct {
	jwt.Claims // never called: this package judges claims itself

	raw map[string]json.RawMessage
}

// UnmarshalJSON takes objects, and leaves raw nil for null. Of two members of one
// name the last one counts (RFC 7519, section 4).
func (p *payload) UnmarshalJSON(data []byte) error { return json.Unmarshal(data, &p.raw) }

// read fills in what every token may have. It returns the name of a claim that is
// there and has another type than it must.
func (c *Claims) read(rolesClaim string) (broken string) {
	for _, s := range []struct {
		name string
		into *string
	}{{"iss", &c.Issuer}, {"sub", &c.Subject}, {"jti", &c.ID}} {
		if raw, ok := c.raw[s.name]; ok && !decodeString(raw, s.into) {
			return s.name
		}
	}
	for _, d := range []struct {
		name string
		into *time.Time
	}{{"exp", &c.ExpiresAt}, {"nbf", &c.NotBefore}, {"iat", &c.IssuedAt}} {
		if raw, ok := c.raw[d.name]; ok && !decodeDate(raw, d.into) {
			return d.name
		}
	}
	if raw, ok := c.raw["aud"]; ok {
		if c.Audience, ok = decodeStrings(raw); !ok {
			return "aud"
		}
	}
	c.Principal.Subject = c.Subject
	for _, name := range []string{"scope", "scp"} {
		raw, ok := c.raw[name]
		if !ok {
			continue
		}
		list, ok := decodeStrings(raw)
		if !ok {
			return name
		}
		if len(list) == 1 && raw[0] == '"' {
			list = strings.Split(list[0], " ")
		}
		c.Principal.Scopes = append(c.Principal.Scopes, words(list)...)
	}
	if raw, ok := lookup(c.raw, rolesClaim); ok {
		list, ok := decodeStrings(raw)
		if !ok {
			return "roles"
		}
		c.Principal.Roles = words(list)
	}
	return ""
}

// lookup finds a claim by its name, or by names joined with dots.
func lookup(claims map[string]json.RawMessage, path string) (json.RawMessage, bool) {
	if raw, ok := claims[path]; ok {
		return raw, true
	}
	head, rest, nested := strings.Cut(path, ".")
	if !nested {
		return nil, false
	}
	var inner map[string]json.RawMessage
	if json.Unmarshal(claims[head], &inner) != nil {
		return nil, false
	}
	return lookup(inner, rest)
}

// words leaves out what cannot travel as one word. Scopes and roles cross the wire
// as a list separated by spaces: the role "not admin" would arrive as two, and the
// second was never given.
func words(list []string) []string {
	kept := list[:0]
	for _, s := range list {
		if word(s) && !strings.Contains(s, " ") {
			kept = append(kept, s)
		}
	}
	return kept
}

// maxWord is the longest value that package flow carries.
const maxWord = 256

// word tells what a principal's subject may be: printable ASCII that the next hop
// can read. Anything else would arrive there as nobody.
func word(s string) bool {
	if s == "" || len(s) > maxWord {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

func decodeString(raw json.RawMessage, into *string) bool {
	return raw[0] == '"' && json.Unmarshal(raw, into) == nil
}

// decodeStrings takes a string for a list of one.
func decodeStrings(raw json.RawMessage) ([]string, bool) {
	var one string
	if decodeString(raw, &one) {
		return []string{one}, true
	}
	var list []*string // null in a list is no string
	if raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
		return nil, false
	}
	values := make([]string, 0, len(list))
	for _, s := range list {
		if s == nil {
			return nil, false
		}
		values = append(values, *s)
	}
	return values, true
}

// maxDate is the end of the year 9999 in seconds.
const maxDate = 253402300799

// decodeDate reads a NumericDate, seconds since 1970 with or without a fraction.
func decodeDate(raw json.RawMessage, into *time.Time) bool {
	seconds, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || !(seconds >= 0 && seconds <= maxDate) {
		return false
	}
	whole := int64(seconds)
	*into = time.Unix(whole, int64((seconds-float64(whole))*1e9))
	return true
}
