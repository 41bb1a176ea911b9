package resilience

// ErrRejected matches, with [errors.Is], every error by which a policy turned a
// call away before it ran: an open breaker, a full bulkhead, a rate limit, a
// throttle. Such errors also answer NotExecuted() true.
var ErrRejected error = staticError("resilience: call rejected")

// Why a policy rejected a call; each is also [ErrRejected].
var (
	// ErrOpen matches every [OpenError].
	ErrOpen error = rejection("resilience: breaker open")
	// ErrFull matches every [FullError].
	ErrFull error = rejection("resilience: bulkhead full")
	// ErrRateLimited matches every [RateLimitedError].
	ErrRateLimited error = rejection("resilience: rate limited")
	// ErrThrottled matches every [ThrottledError].
	ErrThrottled error = rejection("resilience: throttled")
)

type rejection string

func (e rejection) Error() string        { return string(e) }
func (e rejection) Is(target error) bool { return target == ErrRejected }

type staticError string

func (e staticError) Error() string { return string(e) }
