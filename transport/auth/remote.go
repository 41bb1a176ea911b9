package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// RemoteKeysConfig describes [RemoteKeys].
type RemoteKeysConfig struct {
	// URL is where the JSON Web Key Set is, Issuer is whose OpenID Connect Discovery
	// document names that place. One of the two is required. Both must be https.
	URL    string
	Issuer string

	// Client fetches. nil makes one that follows no redirects. Redirects that another
	// client follows must end at https as well.
	Client *http.Client

	// AllowHTTP accepts http, where whoever is on the way can choose the keys: for
	// tests, and for a sidecar on the same machine.
	AllowHTTP bool

	// Timeout bounds a fetch, discovery included. 0 means 5 s.
	Timeout time.Duration

	// MinRefresh and MaxRefresh bound how long keys count as fresh, which is for the
	// max-age of Cache-Control to say and 15 minutes without one. 0 means a minute
	// and an hour.
	MinRefresh time.Duration
	MaxRefresh time.Duration

	// MissInterval is how often at most an unknown key id may cause a fetch. 0 means
	// 10 s. A stranger can make us ask the issuer that often, not more.
	MissInterval time.Duration

	// MaxStale is how long keys are used beyond their time while the issuer is out of
	// reach. 0 means 24 hours, negative not at all.
	MaxStale time.Duration

	// MaxBytes bounds each answer. 0 means 1 MiB.
	MaxBytes int64

	// RSAAlgorithm pins RSA keys that name no algorithm. Default RS256.
	RSAAlgorithm Algorithm

	// Logger is told of fetches that failed. nil is silent.
	Logger *slog.Logger

	// Rand spreads retries; it returns a number in [0, 1). nil means math/rand/v2.
	Rand func() float64
}

// RemoteKeysStats is a moment's view of [RemoteKeys].
type RemoteKeysStats struct {
	Keys     int           // keys held
	Age      time.Duration // since they were fetched, 0 without any
	Fetches  uint64        // fetches that succeeded
	Failures uint64        // fetches that failed
}

// KeysError reports that the keys of an issuer cannot be had now.
type KeysError struct {
	Err   error         // of the last fetch
	After time.Duration // until the next one
}

// Error names what went wrong.
func (e *KeysError) Error() string { return "auth: fetch keys: " + e.Err.Error() }

// Unwrap returns the error of the last fetch.
func (e *KeysError) Unwrap() error { return e.Err }

// Retryable reports true.
func (e *KeysError) Retryable() bool { return true }

// RetryAfter returns when the keys are fetched again at the earliest.
func (e *KeysError) RetryAfter() (time.Duration, bool) { return e.After, e.After > 0 }

var errKeysClosed = errors.New("auth: fetch keys: the key set is closed")

// RemoteKeys is a [KeySet] that an issuer publishes. Nothing is fetched before the
// first use; from then on keys that are no longer fresh are renewed in the
// background when they are used, one fetch at a time, so that only the first
// callers and those with an unknown key ever wait. When a fetch fails the old keys
// stay in use, and the next attempt waits between one second and one minute.
type RemoteKeys struct {
	cfg    RemoteKeysConfig
	base   time.Time
	client *http.Client
	ctx    context.Context
	cancel context.CancelFunc
	own    bool // client is ours to close

	state             atomic.Pointer[keyState]
	fetches, failures atomic.Uint64

	mu      sync.Mutex
	flight  *flight
	failed  int           // in a row
	last    error         // of the last fetch
	nextTry time.Duration // after base
	closed  bool
	running sync.WaitGroup
}

// keyState is immutable; times count from base.
type keyState struct {
	index   keyIndex
	fetched time.Duration
	freshTo time.Duration
	validTo time.Duration
}

// flight is a fetch in progress.
type flight struct {
	done chan struct{}
	err  error // read after done
}

const (
	defaultRefresh = 15 * time.Minute
	firstRetry     = time.Second
	lastRetry      = time.Minute
	discoveryPath  = "/.well-known/openid-configuration"
)

// NewRemoteKeys returns a key set. Close it when it is no longer needed.
func NewRemoteKeys(cfg RemoteKeysConfig) (*RemoteKeys, error) {
	const kind = "remote keys"
	if (cfg.URL == "") == (cfg.Issuer == "") {
		return nil, configError(kind, "URL, Issuer", fmt.Sprintf("%q, %q", cfg.URL, cfg.Issuer), "exactly one is required", "set Issuer where there is discovery, else URL")
	}
	if err := checkURL(cfg.URL+cfg.Issuer, cfg.AllowHTTP); err != nil {
		return nil, fmt.Errorf("auth: configure %s: %w", kind, err)
	}
	for _, d := range []struct {
		field    string
		value    *time.Duration
		fallback time.Duration
	}{
		{"Timeout", &cfg.Timeout, 5 * time.Second},
		{"MinRefresh", &cfg.MinRefresh, time.Minute},
		{"MaxRefresh", &cfg.MaxRefresh, max(time.Hour, cfg.MinRefresh)},
		{"MissInterval", &cfg.MissInterval, 10 * time.Second},
	} {
		if *d.value < 0 {
			return nil, configError(kind, d.field, *d.value, "must not be negative", fmt.Sprintf("leave it 0 for %v", d.fallback))
		}
		if *d.value == 0 {
			*d.value = d.fallback
		}
	}
	switch {
	case cfg.MaxRefresh < cfg.MinRefresh:
		return nil, configError(kind, "MaxRefresh", cfg.MaxRefresh, "must not be below MinRefresh", "raise it")
	case cfg.MaxBytes < 0:
		return nil, configError(kind, "MaxBytes", cfg.MaxBytes, "must not be negative", "leave it 0 for 1 MiB")
	}
	switch cfg.RSAAlgorithm {
	case "":
		cfg.RSAAlgorithm = RS256
	case RS256, RS384, RS512, PS256, PS384, PS512:
	default:
		return nil, configError(kind, "RSAAlgorithm", cfg.RSAAlgorithm, "is not for RSA keys", "use RS256 or PS256, or one of their kind")
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 1 << 20
	}
	if cfg.MaxStale == 0 {
		cfg.MaxStale = 24 * time.Hour
	}
	cfg.MaxStale = max(cfg.MaxStale, 0)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	k := &RemoteKeys{cfg: cfg, base: time.Now(), client: cfg.Client}
	if k.client == nil {
		k.client, k.own = newClient(), true
	}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k, nil
}

// newClient returns a client with connections of its own that follows no redirects.
func newClient() *http.Client {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConns: 2, IdleConnTimeout: 30 * time.Second}
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// checkURL does not repeat the URL: a password may be in it.
func checkURL(raw string, allowHTTP bool) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Fragment != "":
		return errors.New("the URL is not an absolute one; write \"https://host/path\"")
	case u.User != nil:
		return errors.New("the URL holds a user; leave it out")
	case u.Scheme == "https" || u.Scheme == "http" && allowHTTP:
		return nil
	}
	return errors.New("the URL must be https; set AllowHTTP if whoever is on the way may choose the answer")
}

func (k *RemoteKeys) now() time.Duration { return max(0, time.Since(k.base)) }

// Find implements [KeySet]. It waits for a fetch when there are no keys yet, or when
// kid is unknown and the last fetch is longer ago than MissInterval. Its errors are
// the context's and [*KeysError]. With fresh keys it costs two atomic reads.
func (k *RemoteKeys) Find(ctx context.Context, kid string) ([]Key, error) {
	if s := k.state.Load(); s != nil {
		now := k.now()
		if now < s.validTo {
			if keys := s.index.find(kid); len(keys) > 0 {
				if now >= s.freshTo {
					_, _ = k.start() // in the background; what fails is logged
				}
				return keys, nil
			}
		}
	}
	f, err := k.start()
	if f == nil {
		return nil, err
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if f.err != nil {
		return nil, &KeysError{Err: f.err}
	}
	return k.state.Load().index.find(kid), nil
}

// start returns the fetch in progress, a new one, or nil when it is too early for
// one. Then the error is that of the last, and nil if the last succeeded.
func (k *RemoteKeys) start() (*flight, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	switch {
	case k.closed:
		return nil, errKeysClosed
	case k.flight != nil:
		return k.flight, nil
	case now < k.nextTry && k.last != nil:
		return nil, &KeysError{Err: k.last, After: k.nextTry - now}
	case now < k.nextTry:
		return nil, nil
	}
	f := &flight{done: make(chan struct{})}
	k.flight = f
	k.running.Go(func() { k.run(f) })
	return f, nil
}

func (k *RemoteKeys) run(f *flight) {
	ctx, cancel := context.WithTimeout(k.ctx, k.cfg.Timeout)
	defer cancel()
	keys, fresh, err := k.fetch(ctx)
	if err != nil {
		k.failures.Add(1)
		if k.ctx.Err() == nil {
			k.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "keys cannot be fetched; those at hand stay in use", slog.Any("error", err))
		}
	} else {
		k.fetches.Add(1)
	}

	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if err != nil {
		k.failed++
		wait := min(firstRetry<<min(k.failed-1, 10), lastRetry)
		k.nextTry = now + wait/2 + time.Duration(k.cfg.Rand()*float64(wait/2))
	} else {
		k.failed = 0
		k.nextTry = now + k.cfg.MissInterval
		k.state.Store(&keyState{
			index: newKeyIndex(keys), fetched: now,
			freshTo: now + fresh, validTo: now + fresh + k.cfg.MaxStale,
		})
	}
	k.last, f.err = err, err
	k.flight = nil
	close(f.done)
}

// fetch also returns how long the keys are fresh.
func (k *RemoteKeys) fetch(ctx context.Context) ([]Key, time.Duration, error) {
	place := k.cfg.URL
	if place == "" {
		var err error
		if place, err = k.discover(ctx); err != nil {
			return nil, 0, err
		}
	}
	body, header, err := k.get(ctx, place)
	if err != nil {
		return nil, 0, err
	}
	keys, err := parseJWKS(body, k.cfg.RSAAlgorithm, false)
	if err != nil {
		return nil, 0, err
	}
	return keys, min(max(freshness(header), k.cfg.MinRefresh), k.cfg.MaxRefresh), nil
}

// discover returns the jwks_uri of the issuer (OpenID Connect Discovery 1.0, section
// 4). The document must be about that very issuer.
func (k *RemoteKeys) discover(ctx context.Context) (string, error) {
	body, _, err := k.get(ctx, strings.TrimSuffix(k.cfg.Issuer, "/")+discoveryPath)
	if err != nil {
		return "", err
	}
	var doc struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if json.Unmarshal(body, &doc) != nil {
		return "", errors.New("the discovery document cannot be decoded")
	}
	if doc.Issuer != k.cfg.Issuer {
		return "", fmt.Errorf("the discovery document is about another issuer than %q", k.cfg.Issuer)
	}
	if err := checkURL(doc.Keys, k.cfg.AllowHTTP); err != nil {
		return "", fmt.Errorf("jwks_uri of the discovery document: %w", err)
	}
	return doc.Keys, nil
}

func (k *RemoteKeys) get(ctx context.Context, place string) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil) //nolint:gosec // the operator names the place, or the issuer whose keys count anyway
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	res, err := k.client.Do(req) //nolint:gosec // as above
	if err != nil {
		return nil, nil, err
	}
	body, err := readAnswer(res, k.cfg.MaxBytes)
	if err != nil {
		return nil, nil, err
	}
	if err := checkURL(res.Request.URL.String(), k.cfg.AllowHTTP); err != nil {
		return nil, nil, fmt.Errorf("after a redirect: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("the answer has status %d", res.StatusCode)
	}
	return body, res.Header, nil
}

// readAnswer closes the body.
func readAnswer(res *http.Response, limit int64) ([]byte, error) {
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("the answer is longer than %d bytes", limit)
	}
	return body, nil
}

// freshness follows RFC 9111, sections 4.2 and 5.2.2, as far as it matters here.
func freshness(h http.Header) time.Duration {
	age := defaultRefresh
	for _, directive := range strings.Split(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			return 0
		case "max-age":
			seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
			if err != nil {
				return 0 // what cannot be read counts as stale
			}
			age = time.Duration(seconds) * time.Second
		}
	}
	if spent, err := strconv.ParseUint(h.Get("Age"), 10, 31); err == nil {
		age -= time.Duration(spent) * time.Second
	}
	return age
}

// Stats returns the counts so far.
func (k *RemoteKeys) Stats() RemoteKeysStats {
	st := RemoteKeysStats{Fetches: k.fetches.Load(), Failures: k.failures.Load()}
	if s := k.state.Load(); s != nil {
		st.Keys, st.Age = len(s.index.all), max(0, k.now()-s.fetched)
	}
	return st
}

// Close cancels a fetch in progress and waits for its end. Keys at hand can still be
// found; nothing is fetched any more. It always returns nil.
func (k *RemoteKeys) Close() error {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.cancel()
	k.running.Wait()
	if k.own {
		k.client.CloseIdleConnections()
	}
	return nil
}
