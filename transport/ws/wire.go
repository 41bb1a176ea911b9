package ws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/armature-go/armature/resilience"
)

// wire is a connection without the types of its messages. Whatever happens to it
// ends in one call of end; the first one wins, and terminate does the rest.
type wire struct {
	cfg     *Config
	ws      *websocket.Conn
	line    *line
	limiter *resilience.RateLimiter // nil is no limit
	key     string                  // of the limiter

	ctx context.Context // of the connection: its end is the end of it
	end context.CancelCauseFunc

	queue   chan []byte // to be written
	inbox   chan []byte // read, and not yet received
	handing atomic.Bool // the reader waits for room in inbox, and so hears no pong

	stop    chan struct{} // closed for the writer to leave
	flush   bool          // it writes first what is queued; set before stop is closed
	written chan struct{} // closed when the writer has left
	read    chan struct{} // closed when the reader has left
	closed  chan struct{} // closed when all have left

	pinging sync.Mutex // held while a ping is under way
	timer   *time.Timer
}

// open starts the goroutines of w, whose ws, line, limiter and key are set.
func (w *wire) open(ctx context.Context) {
	w.ctx, w.end = context.WithCancelCause(ctx)
	w.queue = make(chan []byte, w.cfg.SendQueue)
	w.inbox = make(chan []byte, w.cfg.ReceiveQueue)
	w.stop, w.written = make(chan struct{}), make(chan struct{})
	w.read, w.closed = make(chan struct{}), make(chan struct{})
	w.ws.SetReadLimit(-1) // readAll counts itself, to say why in our words
	w.pinging.Lock()
	w.timer = time.AfterFunc(w.cfg.PingInterval, w.ping)
	w.pinging.Unlock()
	context.AfterFunc(w.ctx, w.terminate)
	go w.readAll()
	go w.writeAll()
}

// terminate says goodbye where that makes sense, and waits for everybody.
func (w *wire) terminate() {
	defer close(w.closed)
	code, reason, flush := verdict(context.Cause(w.ctx))
	cut := time.AfterFunc(w.cfg.CloseTimeout, func() { w.line.Close() })
	defer cut.Stop()
	if code == 0 {
		w.line.Close()
	}
	w.flush = flush
	close(w.stop)
	<-w.written
	if code != 0 {
		_ = w.ws.Close(websocket.StatusCode(code), clip(reason)) // who does not answer is cut off all the same
	}
	w.line.Close()
	_ = w.ws.CloseNow()
	<-w.read
	w.pinging.Lock()
	defer w.pinging.Unlock()
	w.timer.Stop()
}

// readAll hands messages to Receive, a few ahead of it. Reads have no context: its end
// would break the connection before the goodbye.
func (w *wire) readAll() {
	defer close(w.read)
	for {
		kind, r, err := w.ws.Reader(context.Background())
		if err != nil {
			w.lost(err)
			return
		}
		if kind != websocket.MessageText {
			w.end(&CloseError{Code: codeUnsupported, Reason: "messages are text"})
			return
		}
		data, err := io.ReadAll(io.LimitReader(r, w.cfg.MaxMessage+1))
		switch {
		case err != nil:
			w.lost(err)
			return
		case int64(len(data)) > w.cfg.MaxMessage:
			w.end(&CloseError{Code: codeTooBig, Reason: fmt.Sprintf("a message may have %d bytes", w.cfg.MaxMessage)})
			return
		case !w.allow():
			return
		}
		select {
		case w.inbox <- data:
			continue
		default:
		}
		w.handing.Store(true)
		select {
		case w.inbox <- data:
		case <-w.ctx.Done():
			return
		}
		w.line.heard.Add(1) // for a ping that was sent meanwhile
		w.handing.Store(false)
	}
}

// allow takes a permit for one message or ping, or ends the connection.
func (w *wire) allow() bool {
	if w.limiter == nil {
		return true
	}
	if d, err := w.limiter.Take(context.Background(), w.key, 1); err == nil && d.Allowed {
		return true
	}
	w.end(&CloseError{Code: codePolicy, Reason: "too many messages"})
	return false
}

// lost ends a connection that cannot be read any more.
func (w *wire) lost(err error) {
	switch c, ok := errors.AsType[websocket.CloseError](err); {
	case ok:
		w.end(&CloseError{Code: int(c.Code), Reason: c.Reason, remote: true})
	case w.line.broken.Load():
		w.end(fmt.Errorf("%w: %w", ErrGone, err))
	case errors.Is(err, context.DeadlineExceeded): // the library's, for writing a pong
		w.end(fmt.Errorf("%w: %w", ErrSlow, err))
	default:
		w.end(&CloseError{Code: codeProtocol, Reason: "the protocol was broken", cause: err})
	}
}

// writeAll writes what is queued until stop.
func (w *wire) writeAll() {
	defer close(w.written)
	late := time.AfterFunc(w.cfg.WriteTimeout, func() {
		// Nothing can be said to a peer that does not read.
		w.end(fmt.Errorf("%w: a message took longer than %v", ErrSlow, w.cfg.WriteTimeout))
		w.line.Close()
	})
	late.Stop()
	for {
		select {
		case <-w.stop: // before the queue, which may never be empty
			w.writeRest()
			return
		default:
		}
		select {
		case <-w.stop:
		case data := <-w.queue:
			late.Reset(w.cfg.WriteTimeout)
			err := w.ws.Write(context.Background(), websocket.MessageText, data)
			late.Stop()
			if err != nil {
				w.end(fmt.Errorf("%w: %w", ErrGone, err))
				return
			}
		}
	}
}

// writeRest is bounded by CloseTimeout.
func (w *wire) writeRest() {
	for w.flush {
		select {
		case data := <-w.queue:
			if w.ws.Write(context.Background(), websocket.MessageText, data) != nil {
				return
			}
		default:
			return
		}
	}
}

// ping runs on a timer of its own rather than on a goroutine that sleeps most of its
// life. A peer is alive when anything comes from it; while nobody receives, nothing is
// read, so nothing is concluded.
func (w *wire) ping() {
	w.pinging.Lock()
	defer w.pinging.Unlock()
	if w.ctx.Err() != nil {
		return
	}
	if !w.handing.Load() {
		heard := w.line.heard.Load()
		ctx, giveUp := context.WithCancel(context.Background())
		late := time.AfterFunc(w.cfg.PongTimeout, func() {
			if w.line.heard.Load() == heard && !w.handing.Load() {
				w.end(fmt.Errorf("%w: no pong within %v", ErrGone, w.cfg.PongTimeout))
			}
			giveUp()
		})
		_ = w.ws.Ping(ctx) // what breaks is noticed by the reader
		late.Stop()
		giveUp()
	}
	w.timer.Reset(w.cfg.PingInterval)
}

// send queues data, and waits for room until patience or ctx ends. The peer of a
// queue that stays full is disconnected.
func (w *wire) send(ctx context.Context, data []byte, patience time.Duration) error {
	if w.ctx.Err() != nil {
		return ended(w.ctx)
	}
	select {
	case w.queue <- data:
		return nil
	default:
	}
	if patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case w.queue <- data:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("ws: send: %w", context.Cause(ctx))
		case <-w.ctx.Done():
			return ended(w.ctx)
		case <-timer.C:
		}
	}
	w.end(&CloseError{Code: codeTryAgain, Reason: "you read too slowly", cause: ErrSlow})
	return ended(w.ctx)
}

// receive returns the next message. One that has come already is returned although
// ctx or the connection has ended.
func (w *wire) receive(ctx context.Context) (data []byte, err error) {
	select {
	case data = <-w.inbox:
		return data, nil
	default:
	}
	select {
	case data = <-w.inbox:
		return data, nil
	case <-w.ctx.Done():
	case <-ctx.Done():
		err = fmt.Errorf("ws: receive: %w", context.Cause(ctx))
	}
	if w.ctx.Err() != nil { // it may have ended ctx, which is the function's
		err = ended(w.ctx)
	}
	select {
	case data = <-w.inbox: // and a message may have come just before
		return data, nil
	default:
		return nil, err
	}
}
