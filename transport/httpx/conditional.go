package httpx

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/armature-go/armature/transport"
)

// AutoETag makes the ETag of a 200 answer from a hash of its body, and answers a GET
// or HEAD whose If-None-Match names it with 304. That saves the transfer, not the
// work: a response type with an ETag() string method knows its version without
// looking at the body.
func AutoETag() RouteOption { return func(rt *route) { rt.tagged = true } }

// CheckMatch compares the If-Match header of a request that changes something with
// the current entity tag of what it changes, and returns the error for the answer
// (412, reason PRECONDITION_FAILED) when somebody else was faster. An empty ifMatch
// asks for nothing and passes; "*" passes when current is not empty. Weak tags never
// match (RFC 9110, 13.1.1).
func CheckMatch(ifMatch, current string) error {
	if ifMatch == "" || strings.TrimSpace(ifMatch) == "*" && current != "" {
		return nil
	}
	for tag := range entityTags(ifMatch) {
		if tag == current && !strings.HasPrefix(tag, "W/") && current != "" {
			return nil
		}
	}
	return transport.Errorf(transport.FailedPrecondition, "PRECONDITION_FAILED", "it was changed since it was read").
		WithDomain(domain).WithStatus(http.StatusPreconditionFailed)
}

// validators are what a client compares its copy with.
type validators struct {
	etag     string
	modified time.Time
}

// validators reads the methods ETag() string and LastModified() time.Time of a
// response and puts them on the answer. A tag without quotes gets them.
func (res *response) validators(resp any) (v validators) {
	header := res.Header()
	if e, ok := resp.(interface{ ETag() string }); ok {
		if v.etag = quoted(e.ETag()); v.etag != "" {
			header.Set("ETag", v.etag)
		}
	}
	if m, ok := resp.(interface{ LastModified() time.Time }); ok {
		if v.modified = m.LastModified(); !v.modified.IsZero() {
			header.Set("Last-Modified", v.modified.UTC().Format(http.TimeFormat))
		}
	}
	return v
}

func quoted(tag string) string {
	if tag == "" || strings.HasSuffix(tag, `"`) && (strings.HasPrefix(tag, `"`) || strings.HasPrefix(tag, `W/"`)) {
		return tag
	}
	return `"` + strings.ReplaceAll(tag, `"`, "") + `"`
}

// unchanged reports whether the client's copy is as good as the answer. An
// If-None-Match that is there decides alone (RFC 9110, 13.1.3).
func (v validators) unchanged(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if none := strings.Join(r.Header.Values("If-None-Match"), ","); none != "" {
		if v.etag == "" {
			return false
		}
		if strings.TrimSpace(none) == "*" {
			return true
		}
		for tag := range entityTags(none) {
			if strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(v.etag, "W/") {
				return true
			}
		}
		return false
	}
	since, err := http.ParseTime(r.Header.Get("If-Modified-Since"))
	return err == nil && !v.modified.IsZero() && !v.modified.Truncate(time.Second).After(since)
}

// tag is the revision of an answer by AutoETag.
func (res *response) tag(r *http.Request, body []byte) int {
	header := res.Header()
	if header.Get("ETag") != "" { // the response brought a better one, which was looked at
		return http.StatusOK
	}
	sum := sha256.Sum256(body)
	v := validators{etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
	header.Set("ETag", v.etag)
	if v.unchanged(r) {
		return http.StatusNotModified
	}
	return http.StatusOK
}

// entityTags yields the tags of a list, quotes included. What is no tag ends it.
func entityTags(list string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for {
			list = strings.TrimLeft(list, " \t,")
			weak := strings.HasPrefix(list, "W/")
			rest := strings.TrimPrefix(list, "W/")
			if !strings.HasPrefix(rest, `"`) {
				return
			}
			end := strings.IndexByte(rest[1:], '"')
			if end < 0 {
				return
			}
			tag := rest[:end+2]
			list = rest[end+2:]
			if weak {
				tag = "W/" + tag
			}
			if !yield(tag) {
				return
			}
		}
	}
}
