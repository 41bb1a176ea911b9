package resilience

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// RetryAfter returns err with the wish that nobody asks again before d has passed,
// for policies and transports that read RetryAfter() from errors. The error reads
// and matches as err does. A nil err stays nil; a negative d means at once.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{err: err, after: max(0, d)}
}

type retryAfterError struct {
	err   error
	after time.Duration
}

func (e *retryAfterError) Error() string                     { return e.err.Error() }
func (e *retryAfterError) Unwrap() error                     { return e.err }
func (e *retryAfterError) RetryAfter() (time.Duration, bool) { return e.after, true }

// ParseRetryAfter reads the value of a Retry-After header, whole seconds or a date
// in one of the three formats of HTTP (RFC 9110, sections 10.2.3 and 5.6.7), as the
// time to wait from now on. A date that has passed and a negative number mean 0, a
// time too long for a time.Duration the longest one. The second result is false
// for anything else.
func ParseRetryAfter(value string, now time.Time) (time.Duration, bool) {
	value = strings.Trim(value, " \t")
	digits := strings.TrimPrefix(value, "-")
	if digits == "" {
		return 0, false
	}
	if strings.Trim(digits, "0123456789") == "" {
		const most = int64(math.MaxInt64 / time.Second)
		seconds, err := strconv.ParseInt(digits, 10, 64)
		switch {
		case digits != value:
			return 0, true
		case err != nil || seconds > most: // the only error left is overflow
			return math.MaxInt64, true
		}
		return time.Duration(seconds) * time.Second, true
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return max(0, date.Sub(now)), true
}
