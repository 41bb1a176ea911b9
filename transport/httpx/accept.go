package httpx

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/armature-go/armature/transport"
)

// acceptable returns an error when the Accept header rules out media, "type/subtype".
// A header that is missing or not understood rules out nothing: refusing to answer
// would help nobody.
func acceptable(h http.Header, media string) error {
	values := h["Accept"]
	if len(values) == 0 {
		return nil
	}
	kind, _, _ := strings.Cut(media, "/")
	best, quality, understood := -1, 0.0, false // the most specific range decides
	for _, value := range values {
		for item := range strings.SplitSeq(value, ",") {
			name, params, _ := strings.Cut(item, ";")
			name = strings.ToLower(strings.TrimSpace(name))
			if !strings.Contains(name, "/") {
				continue
			}
			understood = true
			specific := -1
			switch {
			case name == media, name == "application/problem+json" && media == "application/json":
				specific = 2
			case name == kind+"/*":
				specific = 1
			case name == "*/*":
				specific = 0
			}
			if specific > best {
				best, quality = specific, qualityOf(params)
			}
		}
	}
	if !understood || best >= 0 && quality > 0 {
		return nil
	}
	return transport.Errorf(transport.InvalidArgument, "NOT_ACCEPTABLE", "the answer can be had as %s only", media).
		WithDomain(domain).WithStatus(http.StatusNotAcceptable)
}

// qualityOf reads the weight of a media range; anything malformed is 1.
func qualityOf(params string) float64 {
	for p := range strings.SplitSeq(params, ";") {
		if name, value, ok := strings.Cut(p, "="); ok && strings.EqualFold(strings.TrimSpace(name), "q") {
			if q, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil && q >= 0 && q <= 1 {
				return q
			}
		}
	}
	return 1
}
