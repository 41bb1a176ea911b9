package idempotency

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	randv2 "math/rand/v2"
	"sync"
	"time"

	"github.com/go-kit/kit/endpoint"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
)

// Config describes [Keys]. Only Store is required.
type Config struct {
	Store Store

	// TTL is how long a result is replayed. Afterwards the key is new again. 0 means a
	// day; at least Lease.
	TTL time.Duration

	// Lease is how long a claim outlives a process that died. While the process lives
	// it prolongs the lease three times in that time, however long the call takes. 0
	// means 30 s; at least a second.
	Lease time.Duration

	// Wait is how long a duplicate waits for the first call, if its context lets it. 0
	// means 10 s; less than 0 is not at all. A duplicate in the same process is woken
	// when the call ends; elsewhere it asks the store, at first after 10 ms and later
	// twice to four times a second.
	Wait time.Duration

	// Timeout bounds how long a claim may take, and how long an attempt to store a
	// result is repeated while its caller waits. 0 means 5 s.
	Timeout time.Duration

	// MaxBytes is how large a stored result may be. Duplicates of a call with a larger
	// one get [ErrUnreplayable]. 0 means 1 MiB.
	MaxBytes int

	// Required refuses calls without a key with [ErrMissing]. Otherwise they run each
	// time they come.
	Required bool

	// Scope says to whom a key belongs: keys of two scopes never meet. nil means the
	// subject of [flow.PrincipalFrom]; all anonymous callers are one scope then, in
	// which one who guesses a key and a request sees the result.
	Scope func(context.Context) string

	// Fingerprint returns what of a request must be the same when it comes again. nil
	// means all that its exported fields hold, whatever their JSON tags, but not the
	// fields tagged `idempotency:"-"`: give that to what differs between two tries.
	Fingerprint func(ctx context.Context, request any) ([]byte, error)

	// Codec writes and reads responses. nil means binary for protobuf messages and
	// JSON for all else.
	Codec Codec

	// OnReplay is called before a stored result is returned; response is nil when that
	// is an error. A response that is a pointer may be changed, and a header be set
	// that says Idempotency-Replayed. It must not block.
	OnReplay func(ctx context.Context, response any)

	// Logger hears of results that could not be stored and of records that cannot be
	// read. nil is silent.
	Logger *slog.Logger
}

// Keys runs each call that has an idempotency key once. Safe for concurrent use. A
// call without a key costs a lookup; one with a key costs two steps of the store, some
// microseconds for its fingerprint and codec, and a goroutine that watches the lease; a
// replay costs one step.
type Keys struct {
	cfg Config

	mu      sync.Mutex
	running map[string]chan struct{} // by id, in this process; closed when it is over
}

// New returns Keys.
func New(cfg Config) (*Keys, error) {
	bad := func(field string, value any, rule, fix string) error {
		return badConfig("keys", field, value, rule, fix)
	}
	if cfg.TTL == 0 {
		cfg.TTL = 24 * time.Hour
	}
	if cfg.Lease == 0 {
		cfg.Lease = 30 * time.Second
	}
	if cfg.Wait == 0 {
		cfg.Wait = 10 * time.Second
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 1 << 20
	}
	switch {
	case cfg.Store == nil:
		return nil, bad("Store", nil, "must be set", "use NewMemory, sqlstore.New or redisstore.New")
	case cfg.Lease < time.Second:
		return nil, bad("Lease", cfg.Lease, "must be at least a second", "use 0 for 30s")
	case cfg.TTL < cfg.Lease:
		return nil, bad("TTL", cfg.TTL, fmt.Sprintf("must be at least Lease = %v", cfg.Lease), "use 0 for a day")
	case cfg.Timeout < 0:
		return nil, bad("Timeout", cfg.Timeout, "must not be negative", "use 0 for 5s")
	case cfg.MaxBytes < 0:
		return nil, bad("MaxBytes", cfg.MaxBytes, "must not be negative", "use 0 for 1 MiB")
	}
	if cfg.Scope == nil {
		cfg.Scope = func(ctx context.Context) string {
			p, _ := flow.PrincipalFrom(ctx)
			return p.Subject
		}
	}
	if cfg.Codec == nil {
		cfg.Codec = standard{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Lease, cfg.TTL = cfg.Lease.Truncate(time.Millisecond), cfg.TTL.Truncate(time.Millisecond)
	return &Keys{cfg: cfg, running: make(map[string]chan struct{})}, nil
}

// call is one request that came with a key.
type call struct {
	*Keys

	operation string
	id, owner string
	print     Fingerprint
	request   any
	next      endpoint.Endpoint
	decode    func([]byte) (any, error) // nil for a nil response
}

// do answers a request: with the result of next or with that of an earlier call.
func (k *Keys) do(ctx context.Context, operation string, request any, next endpoint.Endpoint, decode func([]byte) (any, error)) (any, error) {
	key := flow.IdempotencyKey(ctx)
	switch {
	case key == "" && k.cfg.Required:
		return nil, ErrMissing
	case key == "":
		return next(ctx, request)
	}
	print, err := k.fingerprint(ctx, operation, request)
	if err != nil {
		e := transport.Errorf(transport.Internal, "", "internal error")
		return nil, notExecuted(e.WithCause(fmt.Errorf("idempotency: fingerprint %T: %w: set Config.Fingerprint", request, err)))
	}
	c := &call{Keys: k, operation: operation, print: print, request: request, next: next, decode: decode,
		id: identify(k.cfg.Scope(ctx), operation, key), owner: rand.Text()}
	return c.do(ctx)
}

func (k *Keys) fingerprint(ctx context.Context, operation string, request any) (Fingerprint, error) {
	if k.cfg.Fingerprint == nil {
		return fingerprint(operation, request)
	}
	b, err := k.cfg.Fingerprint(ctx, request)
	return sha256.Sum256(b), err
}

// The first look after a claim of another process comes soon, later ones less often.
const (
	firstLook = 10 * time.Millisecond
	lastLook  = 500 * time.Millisecond
)

func (c *call) do(ctx context.Context) (any, error) {
	var patience <-chan time.Time
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		over := c.over() // before the claim, lest its end be missed
		claimed := time.Now()
		entry, err := c.claim(ctx)
		switch {
		case err != nil:
			return nil, c.unclaimed(ctx, err)
		case entry.Claimed:
			return c.run(ctx, claimed)
		case entry.Fingerprint != c.print:
			return nil, ErrReused
		case entry.Record != nil:
			return c.replay(ctx, entry.Record)
		case c.cfg.Wait < 0:
			return nil, ErrInProgress
		case patience == nil:
			timer := time.NewTimer(c.cfg.Wait)
			defer timer.Stop()
			patience = timer.C
		}
		look := time.NewTimer(pause/2 + randv2.N(pause/2))
		select {
		case <-over:
		case <-look.C:
		case <-patience:
			look.Stop()
			return nil, ErrInProgress
		case <-ctx.Done():
			look.Stop()
			return nil, fmt.Errorf("idempotency: wait for the first call of %s: %w", c.operation, ctx.Err())
		}
		look.Stop()
	}
}

func (c *call) claim(ctx context.Context) (Entry, error) {
	limited, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	return c.cfg.Store.Claim(limited, c.id, Claim{Owner: c.owner, Fingerprint: c.print, Lease: c.cfg.Lease})
}

// over is closed when the call with the same id ends that runs in this process; it
// is nil when none does.
func (c *call) over() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running[c.id]
}

// begin tells this process's duplicates about the call, until end is called.
func (c *call) begin() (end func()) {
	over := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[c.id] = over
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.running[c.id] == over {
			delete(c.running, c.id)
		}
		close(over)
	}
}

// unclaimed is the error for a call that did not get to run. A claim that was made
// all the same would hold up its repetition.
func (c *call) unclaimed(ctx context.Context, cause error) error {
	c.release(ctx)
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("idempotency: claim key of %s: %w", c.operation, err)
	}
	return ErrUnavailable.WithCause(cause)
}

// run calls next as the owner of the claim, and stores what is definitive.
func (c *call) run(ctx context.Context, claimed time.Time) (response any, err error) {
	defer c.begin()()
	watched, lost := context.WithCancelCause(ctx)
	stop := c.watch(ctx, lost, claimed)
	settled := false
	defer func() { // also when next panics
		stop()
		lost(nil)
		if !settled {
			c.release(ctx)
		}
	}()
	response, err = c.next(watched, c.request)
	if record := c.record(ctx, response, err); record != nil {
		c.keep(ctx, record)
		settled = true
	}
	if err != nil && errors.Is(context.Cause(watched), ErrLost) && ctx.Err() == nil && !definitive(err) {
		err = ErrInterrupted.WithCause(err)
	}
	return response, err
}

// watch prolongs the lease until stop is called, also when the caller is gone and next
// has not noticed. When that cannot be done in time it cancels the call, because
// another one may begin.
func (c *call) watch(ctx context.Context, lost context.CancelCauseFunc, claimed time.Time) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		every := time.NewTicker(c.cfg.Lease / 3)
		defer every.Stop()
		for until := claimed.Add(c.cfg.Lease); ; {
			select {
			case <-ctx.Done():
				return
			case <-every.C:
			}
			asked := time.Now()
			limited, cancel := context.WithDeadline(ctx, until)
			err := c.cfg.Store.Keep(limited, c.id, c.owner, nil, c.cfg.Lease)
			cancel()
			switch {
			case ctx.Err() != nil:
				return
			case err == nil:
				until = asked.Add(c.cfg.Lease)
			case errors.Is(err, ErrLost), !time.Now().Before(until):
				lost(fmt.Errorf("idempotency: prolong lease of %s: %w: %w", c.operation, ErrLost, err))
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// record returns what is to be stored of a result, or nil when a repetition shall run.
func (c *call) record(ctx context.Context, response any, err error) []byte {
	if f, ok := response.(endpoint.Failer); ok && err == nil {
		err = f.Failed()
	}
	var record []byte
	var encoding error
	switch {
	case err != nil && !definitive(err):
		return nil
	case err != nil:
		record, encoding = encodeError(transport.AsError(err))
	case isNil(response):
		record = []byte{kindNil}
	default:
		record, encoding = c.cfg.Codec.Encode(response)
		record = append([]byte{kindResponse}, record...)
	}
	if encoding == nil && len(record) > c.cfg.MaxBytes {
		encoding = fmt.Errorf("%d bytes are more than MaxBytes = %d", len(record), c.cfg.MaxBytes)
	}
	if encoding != nil {
		c.cfg.Logger.WarnContext(ctx, "idempotency: the result is not kept, duplicates will be refused",
			"operation", c.operation, "error", encoding)
		return []byte{kindLost}
	}
	return record
}

// keep stores a record, and tries again for a while: a result that is not stored may
// come about twice.
func (c *call) keep(ctx context.Context, record []byte) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Timeout)
	defer cancel()
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		err := c.cfg.Store.Keep(limited, c.id, c.owner, record, c.cfg.TTL)
		if err == nil {
			return
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-limited.Done():
		}
		again.Stop()
		if errors.Is(err, ErrLost) || limited.Err() != nil {
			c.cfg.Logger.ErrorContext(ctx, "idempotency: the result is not stored, a repetition may run again",
				"operation", c.operation, "error", err)
			return
		}
	}
}

// release gives the key free, even if the caller is gone. It does not insist: the
// lease ends by itself.
func (c *call) release(ctx context.Context) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(c.cfg.Timeout, time.Second))
	defer cancel()
	if err := c.cfg.Store.Release(limited, c.id, c.owner); err != nil {
		c.cfg.Logger.WarnContext(ctx, "idempotency: the key stays claimed until its lease ends",
			"operation", c.operation, "error", err)
	}
}

func (c *call) replay(ctx context.Context, record []byte) (any, error) {
	o, err := decodeRecord(record)
	var response any
	if err == nil && (o.kind == kindResponse || o.kind == kindNil) {
		response, err = c.decode(o.response)
	}
	switch {
	case err != nil:
		c.cfg.Logger.ErrorContext(ctx, "idempotency: the stored result cannot be read, its duplicate is refused",
			"operation", c.operation, "error", err)
		return nil, ErrUnreplayable.WithCause(err)
	case o.kind == kindLost:
		return nil, ErrUnreplayable
	}
	if c.cfg.OnReplay != nil {
		c.cfg.OnReplay(ctx, response)
	}
	if o.kind == kindError {
		return nil, o.err
	}
	return response, nil
}
