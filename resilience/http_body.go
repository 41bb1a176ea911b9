package resilience

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// requestBody gives every attempt a reader of its own. Where the request has no
// GetBody, the readers share what has been read from the source so far: nothing is
// read ahead, so a body that is being written while the response arrives works as
// without policies.
type requestBody struct {
	source io.ReadCloser // nil = no body
	get    func() (io.ReadCloser, error)
	taken  atomic.Bool // with get: the source went to an attempt

	limit int
	users atomic.Int32 // readers and the round trip itself; the last one closes source
	gone  atomic.Bool  // more was read than is kept

	mu   sync.Mutex // serialises reading
	kept []byte
	read int // bytes read from source
	err  error
}

func newRequestBody(req *http.Request, limit int) *requestBody {
	if req.Body == nil || req.Body == http.NoBody {
		return &requestBody{}
	}
	if req.ContentLength > int64(limit) {
		limit = 0
	}
	b := &requestBody{source: req.Body, get: req.GetBody, limit: limit}
	b.users.Store(1)
	return b
}

// open returns a reader from the beginning; nil without error is no body.
func (b *requestBody) open() (io.ReadCloser, error) {
	switch {
	case b.source == nil:
		return nil, nil
	case b.get != nil && b.taken.Swap(true):
		return b.get()
	case b.get != nil:
		return b.source, nil
	case b.gone.Load() || !b.use():
		return nil, errBodyGone
	default:
		return &replay{body: b}, nil
	}
}

// getBody is what a clone offers the transport for attempts of its own.
func (b *requestBody) getBody() func() (io.ReadCloser, error) {
	switch {
	case b.source == nil:
		return nil
	case b.get != nil:
		return b.get
	default:
		return b.open
	}
}

func (b *requestBody) replayable() bool { return b.source == nil || b.get != nil || !b.gone.Load() }

// use reports false once the source has been closed.
func (b *requestBody) use() bool {
	for {
		n := b.users.Load()
		if n == 0 {
			return false
		}
		if b.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (b *requestBody) unuse() error {
	if b.users.Add(-1) > 0 {
		return nil
	}
	return b.source.Close()
}

// done ends the round trip's own use.
func (b *requestBody) done() {
	switch {
	case b.source == nil:
	case b.get == nil:
		_ = b.unuse()
	case !b.taken.Swap(true):
		_ = b.source.Close()
	}
}

// replay reads a requestBody from the beginning.
type replay struct {
	body   *requestBody
	off    int
	closed atomic.Bool
}

func (r *replay) Read(p []byte) (int, error) {
	b := r.body
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case r.closed.Load():
		return 0, http.ErrBodyReadAfterClose
	case r.off < len(b.kept):
		n := copy(p, b.kept[r.off:])
		r.off += n
		return n, nil
	case r.off < b.read:
		return 0, errBodyGone
	case b.err != nil:
		return 0, b.err
	}
	n, err := b.source.Read(p)
	b.read, b.err = b.read+n, err
	r.off += n
	switch {
	case b.gone.Load():
	case b.read <= b.limit:
		b.kept = append(b.kept, p[:n]...)
	default:
		b.gone.Store(true)
		b.kept = nil
	}
	return n, err
}

// Close does not wait for a Read under way: transports close to end it.
func (r *replay) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	return r.body.unuse()
}

// responseBody ends what policies hold for a response together with its body.
type responseBody struct {
	io.ReadCloser

	mu       sync.Mutex
	releases []func()
	released bool
}

// keepAlive puts a responseBody into resp and returns it, nil when there is
// nothing to read and cancel was called.
func keepAlive(resp *http.Response, cancel func()) *responseBody {
	if resp.Body == nil {
		resp.Body = http.NoBody
	}
	if resp.Body == http.NoBody {
		cancel()
		return nil
	}
	b := &responseBody{ReadCloser: resp.Body, releases: []func(){cancel}}
	resp.Body = b
	if w, ok := b.ReadCloser.(io.Writer); ok {
		resp.Body = &upgraded{responseBody: b, Writer: w}
	}
	return b
}

// Read releases at the end of the body, or when it broke off.
func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.release()
	}
	return n, err
}

func (b *responseBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}

func (b *responseBody) hold(release func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.released {
		b.releases = append(b.releases, release)
	}
	return !b.released
}

func (b *responseBody) release() {
	b.mu.Lock()
	releases := b.releases
	b.releases, b.released = nil, true
	b.mu.Unlock()
	for _, release := range releases {
		release()
	}
}

// upgraded is the body of a 101 response: the connection.
type upgraded struct {
	*responseBody
	io.Writer
}
