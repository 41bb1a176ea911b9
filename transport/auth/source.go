package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
)

// TokenSource has a token for a service's own calls. [Signer] and
// [ClientCredentials] are sources.
type TokenSource interface {
	// Token returns a token that is good for some time yet.
	Token(ctx context.Context) (string, error)
}

// Secret is a string that does not show when it is printed, logged or encoded. fmt
// cannot be kept from printing it out of an unexported field of somebody else's struct.
type Secret string

// redacted stands for a secret.
const redacted = "[REDACTED]"

// Format prints a placeholder whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText returns a placeholder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// fetched is a token and its life, which counts from now.
type fetched struct {
	token string
	life  time.Duration // 0 or less: use once
}

// tokens keeps one token until shortly before its end. One caller at a time gets a
// new one, on its own goroutine; the others wait, or go on with the old one.
type tokens struct {
	get  func(ctx context.Context) (fetched, error)
	base time.Time

	mu      sync.Mutex
	token   string
	renewAt time.Duration // after base
	endsAt  time.Duration
	pending chan struct{} // closed when the caller that renews is done; nil without one
}

const (
	// spareLife is left of a token that is handed out, so that it is still good when
	// it arrives: a tenth of its life, at most half a minute.
	spareLife = 30 * time.Second
	// renewPause keeps a source that fails from being asked for each call while the
	// old token is still good.
	renewPause = time.Second
	// maxLife keeps sums of times from overflowing.
	maxLife = 365 * 24 * time.Hour
)

// holder is made of functions, because what is in a function cannot be printed.
type holder struct {
	token  func(ctx context.Context) (string, error)
	forget func(token string)
}

func hold(get func(ctx context.Context) (fetched, error)) holder {
	t := &tokens{get: get, base: time.Now()}
	return holder{token: t.current, forget: t.forget}
}

func (t *tokens) now() time.Duration { return max(0, time.Since(t.base)) }

func (t *tokens) current(ctx context.Context) (string, error) {
	for {
		t.mu.Lock()
		now := t.now()
		good := t.token != "" && now < t.endsAt
		if good && (now < t.renewAt || t.pending != nil) {
			token := t.token
			t.mu.Unlock()
			return token, nil
		}
		if t.pending == nil {
			t.pending = make(chan struct{})
			t.mu.Unlock()
			return t.renew(ctx, good)
		}
		pending := t.pending
		t.mu.Unlock()
		select {
		case <-pending: // if that caller failed, it is this one's turn
		case <-ctx.Done():
			return "", fmt.Errorf("auth: get token: %w", context.Cause(ctx))
		}
	}
}

// renew runs in one caller at a time. Whatever happens in get, the next caller may
// try.
func (t *tokens) renew(ctx context.Context, good bool) (token string, err error) {
	var f fetched
	got := false
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		now := t.now()
		switch {
		case got:
			life := min(f.life, maxLife)
			spare := min(life/10, spareLife)
			t.token, t.endsAt, t.renewAt = f.token, now+life, now+life-2*spare
			t.endsAt -= spare
		case good && t.token != "":
			t.renewAt = now + renewPause
			if now < t.endsAt && err != nil {
				token, err = t.token, nil
			}
		}
		close(t.pending)
		t.pending = nil
	}()
	if f, err = t.get(ctx); err != nil {
		return "", err
	}
	got = true
	return f.token, nil
}

// forget drops token, if it is still the current one, because a callee refused it.
func (t *tokens) forget(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token == token {
		t.token = ""
	}
}

// SignerConfig describes a [Signer].
type SignerConfig struct {
	// Key signs. Required. Its id goes into the token, so that the verifier finds it.
	Key Key

	// Issuer, Subject and Audience are who signs, who calls and who is called.
	// Required; Subject defaults to Issuer.
	Issuer   string
	Subject  string
	Audience []string

	// Scopes go into "scope", Claims into the token as they are. Claims must not name
	// what the other fields stand for.
	Scopes []string
	Claims map[string]any

	// Life is how long a token is good. 0 means 5 minutes; at least 10 s.
	Life time.Duration
}

// Signer is a [TokenSource] that signs tokens itself. Each is used until shortly
// before its end, so signing costs nothing per call.
type Signer struct{ holder holder }

const (
	defaultLife = 5 * time.Minute
	minLife     = 10 * time.Second
)

// NewSigner returns a source. It signs once, to find out that Key can.
func NewSigner(cfg SignerConfig) (*Signer, error) {
	const kind = "signer"
	if cfg.Subject == "" {
		cfg.Subject = cfg.Issuer
	}
	if cfg.Life == 0 {
		cfg.Life = defaultLife
	}
	switch {
	case !cfg.Key.CanSign():
		return nil, configError(kind, "Key", cfg.Key, "has no private part", "use the private key")
	case cfg.Issuer == "":
		return nil, configError(kind, "Issuer", `""`, "is required", "name the service that signs")
	case !word(cfg.Subject):
		return nil, configError(kind, "Subject", fmt.Sprintf("%q", cfg.Subject), "must be 1 to 256 characters of printable ASCII", "shorten it")
	case len(cfg.Audience) == 0 || slices.Contains(cfg.Audience, ""):
		return nil, configError(kind, "Audience", cfg.Audience, "is required", "name the service that is called")
	case cfg.Life < minLife || cfg.Life > maxLife:
		return nil, configError(kind, "Life", cfg.Life, "must be between 10s and a year", "leave it 0 for 5m")
	}
	for _, name := range []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "scope"} {
		if _, taken := cfg.Claims[name]; taken {
			return nil, configError(kind, "Claims", name, "is set by another field or by the signer", "leave it out")
		}
	}
	cfg.Audience, cfg.Scopes, cfg.Claims = slices.Clone(cfg.Audience), slices.Clone(cfg.Scopes), maps.Clone(cfg.Claims)
	if _, err := cfg.sign(); err != nil {
		return nil, fmt.Errorf("auth: configure signer: Key cannot sign Claims: %w; use claims that encoding/json can encode", err)
	}
	return &Signer{hold(func(context.Context) (fetched, error) {
		token, err := cfg.sign()
		return fetched{token, cfg.Life}, err
	})}, nil
}

func (cfg *SignerConfig) sign() (string, error) {
	now := time.Now()
	claims := make(jwt.MapClaims, len(cfg.Claims)+7)
	maps.Copy(claims, cfg.Claims)
	claims["iss"], claims["sub"], claims["aud"] = cfg.Issuer, cfg.Subject, cfg.Audience
	claims["iat"], claims["exp"] = now.Unix(), now.Add(cfg.Life).Unix()
	claims["jti"] = flow.NewID()
	if len(cfg.Scopes) > 0 {
		claims["scope"] = strings.Join(cfg.Scopes, " ")
	}
	k := cfg.Key.material()
	t := jwt.NewWithClaims(k.method, claims)
	if k.id != "" {
		t.Header["kid"] = k.id
	}
	return t.SignedString(k.private)
}

// Token returns the current token, or signs the next one.
func (s *Signer) Token(ctx context.Context) (string, error) { return s.holder.token(ctx) }

// Forget drops a token that a callee has refused.
func (s *Signer) Forget(token string) { s.holder.forget(token) }

// ClientCredentialsConfig describes [ClientCredentials].
type ClientCredentialsConfig struct {
	// TokenURL is the token endpoint. Required, https.
	TokenURL string

	// ClientID and ClientSecret identify this service, by HTTP Basic authentication
	// (RFC 6749, section 2.3.1). Required.
	ClientID     string
	ClientSecret Secret

	// Scopes and Audience are what to ask for. Optional.
	Scopes   []string
	Audience string

	// Client posts. nil makes one that follows no redirects.
	Client *http.Client

	// AllowHTTP accepts http, which shows the secret to whoever is on the way.
	AllowHTTP bool

	// Timeout bounds a fetch. 0 means 10 s.
	Timeout time.Duration
}

// ClientCredentials is a [TokenSource] that gets tokens by the client credentials
// grant of OAuth 2.0 (RFC 6749, section 4.4) and uses each until shortly before its
// end. While the endpoint is out of reach, the old token is used as long as it is
// good. It starts no goroutine.
type ClientCredentials struct{ holder holder }

// maxTokenAnswer bounds the answer of a token endpoint, in bytes.
const maxTokenAnswer = 64 << 10

// NewClientCredentials returns a source. Nothing is fetched before the first use.
func NewClientCredentials(cfg ClientCredentialsConfig) (*ClientCredentials, error) {
	const kind = "client credentials"
	if err := checkURL(cfg.TokenURL, cfg.AllowHTTP); err != nil {
		return nil, fmt.Errorf("auth: configure %s: TokenURL: %w", kind, err)
	}
	switch {
	case cfg.ClientID == "":
		return nil, configError(kind, "ClientID", `""`, "is required", "set the id that the issuer gave out")
	case cfg.ClientSecret == "":
		return nil, configError(kind, "ClientSecret", `""`, "is required", "set the secret that the issuer gave out")
	case cfg.Timeout < 0:
		return nil, configError(kind, "Timeout", cfg.Timeout, "must not be negative", "leave it 0 for 10s")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Client == nil {
		cfg.Client = newClient()
	}
	cfg.Scopes = slices.Clone(cfg.Scopes)
	return &ClientCredentials{hold(cfg.fetch)}, nil
}

// Token returns the current token, or fetches the next one. Its errors are
// *transport.Error: UNAVAILABLE when the endpoint cannot be reached or has failed,
// INTERNAL when it refused this service, which is not the fault of whoever called it.
func (c *ClientCredentials) Token(ctx context.Context) (string, error) { return c.holder.token(ctx) }

// Forget drops a token that a callee has refused.
func (c *ClientCredentials) Forget(token string) { c.holder.forget(token) }

func (cfg *ClientCredentialsConfig) fetch(ctx context.Context) (fetched, error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	f, err := cfg.post(ctx)
	if err == nil {
		return f, nil
	}
	if outer.Err() != nil {
		return fetched{}, fmt.Errorf("auth: get token: %w", context.Cause(outer))
	}
	code, message := transport.Unavailable, "the service cannot identify itself now"
	if _, refused := errors.AsType[refusedError](err); refused {
		code, message = transport.Internal, "internal error"
	}
	e := transport.Errorf(code, "", "%s", message).WithCause(fmt.Errorf("auth: get token: %w", err))
	e.Details.NotExecuted = true
	return fetched{}, e
}

// refusedError is an answer that will be the same next time.
type refusedError struct{ text string }

// Error says what was wrong.
func (e refusedError) Error() string { return e.text }

func (cfg *ClientCredentialsConfig) post(ctx context.Context) (fetched, error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	if len(cfg.Scopes) > 0 {
		form.Set("scope", strings.Join(cfg.Scopes, " "))
	}
	if cfg.Audience != "" {
		form.Set("audience", cfg.Audience)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cfg.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return fetched{}, err
	}
	req.SetBasicAuth(url.QueryEscape(cfg.ClientID), url.QueryEscape(string(cfg.ClientSecret)))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	res, err := cfg.Client.Do(req)
	if err != nil {
		return fetched{}, err
	}
	body, err := readAnswer(res, maxTokenAnswer)
	if err != nil {
		return fetched{}, err
	}
	// What the endpoint says in words is left out: it may repeat what it was sent.
	switch {
	case res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= 500:
		return fetched{}, fmt.Errorf("the answer has status %d", res.StatusCode)
	case res.StatusCode != http.StatusOK:
		return fetched{}, refusedError{fmt.Sprintf("refused with status %d", res.StatusCode)}
	}
	var answer struct {
		Token   string  `json:"access_token"`
		Type    string  `json:"token_type"`
		Seconds float64 `json:"expires_in"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return fetched{}, errors.New("the answer cannot be decoded")
	}
	if !sendable(answer.Token) || !strings.EqualFold(answer.Type, "Bearer") {
		return fetched{}, refusedError{"the answer has no bearer token"}
	}
	life := defaultLife // RFC 6749, section 5.1, leaves it to us when there is none
	if answer.Seconds > 0 {
		life = time.Duration(math.Min(answer.Seconds, maxLife.Seconds()) * float64(time.Second))
	}
	return fetched{answer.Token, life}, nil
}

// sendable tells the characters of RFC 6750, section 2.1, from all others.
func sendable(token string) bool {
	if token == "" {
		return false
	}
	for i := range len(token) {
		if token[i] <= 0x20 || token[i] > 0x7e {
			return false
		}
	}
	return true
}

var (
	_ TokenSource = (*Signer)(nil)
	_ TokenSource = (*ClientCredentials)(nil)
)
