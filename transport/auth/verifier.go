package auth

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// VerifierConfig describes a [Verifier].
type VerifierConfig struct {
	// Keys finds the keys of the issuer. Required.
	Keys KeySet

	// Issuer is what "iss" must be, compared byte by byte. Required. For several
	// issuers make several verifiers and join them with [AnyOf].
	Issuer string

	// Audiences are the names of this service: "aud" must hold one of them. Required
	// unless AnyAudience is set, which accepts what was made for others too and is
	// for issuers that write no audience.
	Audiences   []string
	AnyAudience bool

	// Algorithms narrows what is accepted. Empty means whatever the keys are pinned
	// to, which is safe.
	Algorithms []Algorithm

	// Types are the accepted values of the header "typ", without "application/" and
	// in any case (RFC 8725, section 3.11). Empty means "JWT", "at+jwt" or none.
	Types []string

	// Leeway is how far the clocks may differ when exp, nbf and iat are judged. 0 means
	// 30 s, negative none; at most 10 minutes.
	Leeway time.Duration

	// AllowNoExpiry accepts tokens without "exp". They never end; have Revoked.
	AllowNoExpiry bool

	// RolesClaim is where the roles are: a claim, or the way to one through objects,
	// as in "realm_access.roles". Default "roles".
	RolesClaim string

	// MaxSize bounds a token, in bytes. 0 means 8 KiB.
	MaxSize int

	// CacheSize is how many verified tokens are remembered, 0 means 4096, negative
	// none. A remembered token costs its length and its claims.
	CacheSize int

	// CacheTTL is how long a token is remembered, never beyond its "exp". It is also
	// how long a key that its issuer has withdrawn goes on working for tokens seen
	// before. 0 means a minute.
	CacheTTL time.Duration

	// CacheDigests remembers SHA-256 digests in place of tokens, so that a memory dump
	// holds none. It costs about half a microsecond per request.
	CacheDigests bool

	// Revoked is asked for every token that is otherwise good, remembered or not. An
	// error means that nobody knows, and the request is answered UNAVAILABLE. It runs
	// on the request's goroutine, so it must be fast. Optional.
	Revoked func(ctx context.Context, c *Claims) (bool, error)
}

// VerifierStats counts since the verifier was made.
type VerifierStats struct {
	Accepted  uint64 // tokens found good, those from the cache included
	Hits      uint64 // tokens found in the cache
	Refused   uint64 // tokens found bad
	Undecided uint64 // tokens that could not be judged
	Cached    int    // tokens remembered now
}

// Verifier checks signed tokens (JWT, RFC 7519 and 8725). A token from the cache costs
// tens of nanoseconds and no allocation; any other costs what its signature does.
type Verifier struct {
	cfg    VerifierConfig
	parser *jwt.Parser
	cache  tokenCache

	accepted, hits, refused, undecided atomic.Uint64
}

const (
	defaultLeeway   = 30 * time.Second
	maxLeeway       = 10 * time.Minute
	defaultMaxToken = 8 << 10
	defaultCache    = 4096
	defaultCacheTTL = time.Minute

	// maxTries bounds the work for a token that names no key.
	maxTries = 8
)

// NewVerifier returns a verifier. It starts no goroutine.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	const kind = "verifier"
	switch {
	case cfg.Keys == nil:
		return nil, configError(kind, "Keys", "nil", "is required", "use NewStaticKeys or NewRemoteKeys")
	case cfg.Issuer == "":
		return nil, configError(kind, "Issuer", `""`, "is required", "set what the issuer writes into \"iss\"")
	case len(cfg.Audiences) == 0 && !cfg.AnyAudience:
		return nil, configError(kind, "Audiences", "[]", "is required", "name this service, or set AnyAudience if the issuer names none")
	case slices.Contains(cfg.Audiences, ""):
		return nil, configError(kind, "Audiences", cfg.Audiences, "holds an empty name", "leave it out")
	case cfg.Leeway > maxLeeway:
		return nil, configError(kind, "Leeway", cfg.Leeway, "must not exceed 10m", "set the clocks right")
	case cfg.MaxSize < 0:
		return nil, configError(kind, "MaxSize", cfg.MaxSize, "must not be negative", "leave it 0 for 8 KiB")
	case cfg.CacheTTL < 0:
		return nil, configError(kind, "CacheTTL", cfg.CacheTTL, "must not be negative", "set CacheSize to -1 for no cache")
	}
	for _, alg := range cfg.Algorithms {
		if methods[alg] == nil {
			return nil, configError(kind, "Algorithms", fmt.Sprintf("%q", cfg.Algorithms), "holds what is no algorithm here", "use constants such as auth.ES256")
		}
	}
	cfg.Audiences = slices.Clone(cfg.Audiences)
	cfg.Algorithms = slices.Clone(cfg.Algorithms)
	cfg.Types = slices.Clone(cfg.Types)
	if len(cfg.Types) == 0 {
		cfg.Types = []string{"", "JWT", "at+jwt"}
	}
	if cfg.Leeway == 0 {
		cfg.Leeway = defaultLeeway
	}
	cfg.Leeway = max(cfg.Leeway, 0)
	if cfg.RolesClaim == "" {
		cfg.RolesClaim = "roles"
	}
	if cfg.MaxSize == 0 {
		cfg.MaxSize = defaultMaxToken
	}
	if cfg.CacheSize == 0 {
		cfg.CacheSize = defaultCache
	}
	if cfg.CacheTTL == 0 {
		cfg.CacheTTL = defaultCacheTTL
	}
	v := &Verifier{cfg: cfg, parser: jwt.NewParser(jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())}
	switch {
	case cfg.CacheSize < 0:
		v.cache = noTokens()
	case cfg.CacheDigests:
		v.cache = digestsOfTokens(cfg.CacheSize)
	default:
		v.cache = wholeTokens(cfg.CacheSize)
	}
	return v, nil
}

// Verify returns what a token says, or an [*Error] that matches ErrInvalid, or an
// UNAVAILABLE *transport.Error when Keys or Revoked failed.
func (v *Verifier) Verify(ctx context.Context, token string) (*Claims, error) {
	c, err := v.verify(ctx, token)
	switch err.(type) {
	case nil:
		v.accepted.Add(1)
	case *Error:
		v.refused.Add(1)
	default:
		v.undecided.Add(1)
	}
	return c, err
}

func (v *Verifier) verify(ctx context.Context, token string) (*Claims, error) {
	switch {
	case len(token) > v.cfg.MaxSize:
		return nil, fail(FaultOversized, "token")
	case len(token) <= spreadAt:
		return nil, fail(FaultMalformed, "token")
	}
	now := time.Now()
	c := v.cache.get(token, now)
	if c != nil {
		v.hits.Add(1)
	} else {
		var err error
		if c, err = v.examine(ctx, token, now); err != nil {
			return nil, err
		}
		until := now.Add(v.cfg.CacheTTL)
		if !c.ExpiresAt.IsZero() && c.ExpiresAt.Before(until) {
			until = c.ExpiresAt
		}
		if now.Before(until) {
			v.cache.put(token, cached{c, until})
		}
	}
	if v.cfg.Revoked != nil {
		revoked, err := v.cfg.Revoked(ctx, c)
		if err != nil {
			return nil, undecided(ctx, fmt.Errorf("auth: check revocation: %w", err))
		}
		if revoked {
			return nil, fail(FaultRevoked, "token")
		}
	}
	return c, nil
}

// examine judges what costs little first, so that a token that cannot be good neither
// makes anybody fetch keys nor pays for a signature.
func (v *Verifier) examine(ctx context.Context, token string, now time.Time) (*Claims, error) {
	// The decoder of base64 skips line breaks, which would give one token many forms.
	if !compact(token) {
		return nil, fail(FaultMalformed, "not three parts of base64url")
	}
	var p payload
	t, parts, err := v.parser.ParseUnverified(token, &p)
	if t == nil || parts == nil {
		return nil, fail(FaultMalformed, "not three parts")
	}
	alg, kid, bad := v.header(t.Header)
	if bad != nil {
		return nil, bad
	}
	if err != nil || p.raw == nil { // its text may quote the token
		return nil, fail(FaultMalformed, "cannot be decoded")
	}
	c := &Claims{raw: p.raw}
	if broken := c.read(v.cfg.RolesClaim); broken != "" {
		return nil, fail(FaultClaim, broken)
	}
	if bad := v.judge(c, now); bad != nil {
		return nil, bad
	}
	keys, err := v.cfg.Keys.Find(ctx, kid)
	if err != nil {
		return nil, undecided(ctx, fmt.Errorf("auth: find key: %w", err))
	}
	if bad := verifySignature(keys, alg, token[:len(parts[0])+1+len(parts[1])], t.Signature); bad != nil {
		return nil, bad
	}
	return c, nil
}

func verifySignature(keys []Key, alg Algorithm, signed string, signature []byte) *Error {
	tries := 0
	for _, key := range keys {
		k := key.material()
		if k.alg != alg {
			continue
		}
		if tries++; tries > maxTries {
			break
		}
		if k.method.Verify(signed, signature, k.verify) == nil {
			return nil
		}
	}
	switch {
	case tries > 0:
		return fail(FaultSignature, "")
	case len(keys) > 0:
		return fail(FaultAlgorithm, "the key is for another one")
	default:
		return fail(FaultUnknownKey, "")
	}
}

// header reads what counts and passes over what must not: keys in or named by the
// token itself.
func (v *Verifier) header(h map[string]any) (alg Algorithm, kid string, bad *Error) {
	if h == nil {
		return "", "", fail(FaultMalformed, "header")
	}
	if _, ok := h["crit"]; ok {
		return "", "", fail(FaultCritical, "")
	}
	typ, ok := h["typ"].(string)
	if _, there := h["typ"]; there && !ok {
		return "", "", fail(FaultMalformed, "header typ")
	}
	if len(typ) > len("application/") && strings.EqualFold(typ[:len("application/")], "application/") {
		typ = typ[len("application/"):]
	}
	if !slices.ContainsFunc(v.cfg.Types, func(t string) bool { return strings.EqualFold(t, typ) }) {
		return "", "", fail(FaultType, "")
	}
	name, ok := h["alg"].(string)
	if !ok {
		return "", "", fail(FaultMalformed, "header alg")
	}
	alg = Algorithm(name)
	if methods[alg] == nil || len(v.cfg.Algorithms) > 0 && !slices.Contains(v.cfg.Algorithms, alg) {
		return "", "", fail(FaultAlgorithm, "not an accepted one")
	}
	kid, ok = h["kid"].(string)
	if _, there := h["kid"]; there && (!ok || kid == "") {
		return "", "", fail(FaultMalformed, "header kid")
	}
	return alg, kid, nil
}

// judge checks the claims against the configuration and the clock.
func (v *Verifier) judge(c *Claims, now time.Time) *Error {
	switch {
	case c.Issuer != v.cfg.Issuer:
		return fail(FaultIssuer, "")
	case !v.cfg.AnyAudience && !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(v.cfg.Audiences, a) }):
		return fail(FaultAudience, "")
	case c.ExpiresAt.IsZero() && !v.cfg.AllowNoExpiry:
		return fail(FaultClaim, "exp is missing")
	case !c.ExpiresAt.IsZero() && !now.Before(c.ExpiresAt.Add(v.cfg.Leeway)):
		return fail(FaultExpired, "")
	case now.Add(v.cfg.Leeway).Before(c.NotBefore):
		return fail(FaultNotYet, "nbf")
	case now.Add(v.cfg.Leeway).Before(c.IssuedAt):
		return fail(FaultNotYet, "iat")
	case !word(c.Subject):
		return fail(FaultClaim, "sub is missing, too long or not printable ASCII")
	}
	return nil
}

// compact reports whether token is three parts of base64url characters. The last
// may be empty here: that is for the signature to find out.
func compact(token string) bool {
	dots := 0
	for i := range len(token) {
		switch c := token[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		case c == '.':
			dots++
		default:
			return false
		}
	}
	return dots == 2
}

// Authenticate implements [Authenticator] for "Authorization: Bearer <token>" (RFC
// 6750, section 2.1). Tokens in bodies and query strings are not looked for.
func (v *Verifier) Authenticate(ctx context.Context, r Request) (Identity, error) {
	token, bad := bearer(r)
	if bad != nil {
		return Identity{}, bad
	}
	c, err := v.Verify(ctx, token)
	if err != nil {
		return Identity{}, err
	}
	return Identity{Principal: c.Principal, Claims: c}, nil
}

func bearer(r Request) (string, *Error) {
	values := r.Values(authorizationHeader)
	switch {
	case len(values) == 0:
		return "", fail(FaultMissing, "")
	case len(values) > 1:
		return "", fail(FaultMalformed, "more than one Authorization")
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", fail(FaultMissing, "another scheme")
	}
	if token = strings.TrimLeft(token, " "); !ok || token == "" {
		return "", fail(FaultMalformed, "no token after the scheme")
	}
	return token, nil
}

// Stats returns the counts so far.
func (v *Verifier) Stats() VerifierStats {
	return VerifierStats{
		Accepted:  v.accepted.Load(),
		Hits:      v.hits.Load(),
		Refused:   v.refused.Load(),
		Undecided: v.undecided.Load(),
		Cached:    v.cache.len(),
	}
}

var _ Authenticator = (*Verifier)(nil)
