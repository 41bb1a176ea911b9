package messaging

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// Stats are the counters of a subscription since it started, and what it holds now.
type Stats struct {
	Acked        uint64 // handled
	Retried      uint64 // failed attempts that were tried again or will be
	DeadLettered uint64
	Dropped      uint64
	Released     uint64 // given back, by the handler or by a drain

	InFlight int // messages held: running, waiting for their turn or for a retry
	Running  int // handlers running
	Parked   int // keys that wait for a retry
}

// Subscription delivers one topic to one handler. Its methods are safe for concurrent use.
type Subscription struct {
	b       *Broker
	c       Consumer
	topic   string
	group   string
	handler Handler
	o       subscribeOptions
	log     *slog.Logger

	handlerCtx    context.Context // ends at a drain's deadline
	cancelHandler context.CancelFunc
	receiveCtx    context.Context // ends when a drain starts
	stopReceiving context.CancelFunc
	received      chan struct{} // the receiving goroutine ended
	done          chan struct{}

	mu       sync.Mutex
	lanes    map[string]*lane // keyed messages; a lane exists while it holds any
	ready    []*lane          // lanes whose first message may start
	held     map[*item]struct{}
	bySeq    map[uint64]*item
	order    uint64
	active   int           // workers
	room     chan struct{} // wakes the receiver: a slot is free, or Resume
	idle     chan struct{} // closed when draining and the last worker ended
	paused   bool
	draining bool
	stopped  bool       // draining, and nothing can be delivered to us any more
	waiting  []returned // to be given back when stopped
	stats    Stats
	err      error
}

// lane is the queue of one key. Keyless messages get a lane each.
type lane struct {
	key     string
	items   []*item // the first is running, parked or next
	current *item   // set before a worker gets the lane
	running bool
	timer   *time.Timer // set while parked
}

type item struct {
	r        *Received
	newest   *Received // r, unless the message was delivered again while it was held
	lane     *lane
	order    uint64
	base     int // attempts before this process, as a lower bound
	failures int // counted failures here
	tries    int // all failures here, for the backoff
	log      []Failure
	stack    string
	called   bool // the handler was called and did not return
	dead     bool // the handler is through with it, only the dead letter is still to be written
}

func (it *item) attempt() int { return it.base + it.failures + 1 }

// A message whose deliveries all ended without a result probably kills the process. Deliveries also count messages that
// were given back, so the bound is a generous multiple of MaxAttempts.
const crashFactor = 3

// afterDeadline is what handlers get to return after their context was cancelled, and settlements to reach the broker.
const afterDeadline = time.Second

func newSubscription(b *Broker, c Consumer, topic, group string, h Handler, o subscribeOptions) *Subscription {
	s := &Subscription{
		b: b, c: c, topic: topic, group: group, handler: h, o: o,
		log:      b.cfg.Logger.With("topic", topic, "group", group),
		received: make(chan struct{}),
		done:     make(chan struct{}),
		lanes:    map[string]*lane{},
		held:     map[*item]struct{}{},
		bySeq:    map[uint64]*item{},
		room:     make(chan struct{}, 1),
		idle:     make(chan struct{}),
	}
	s.handlerCtx, s.cancelHandler = context.WithCancel(context.Background())
	s.receiveCtx, s.stopReceiving = context.WithCancel(context.Background())
	return s
}

func (s *Subscription) start() {
	go s.receive()
	if lease := s.c.Lease(); lease > 0 {
		go s.extend(lease)
	}
}

// receive fills the lanes until a drain starts or the driver is closed.
func (s *Subscription) receive() {
	defer close(s.received)
	failures := 0
	for {
		free := s.waitForRoom()
		if free == 0 {
			return
		}
		rs, err := s.c.Receive(s.receiveCtx, free)
		s.admit(rs)
		switch {
		case s.receiveCtx.Err() != nil:
			return
		case errors.Is(err, ErrClosed):
			s.log.Error("subscription ended", "error", err)
			s.mu.Lock()
			s.err = fmt.Errorf("messaging: receive from %q as %q: %w", s.topic, s.group, err)
			s.mu.Unlock()
			go s.Drain(context.Background()) //nolint:errcheck // Err and Done tell
			return
		case err != nil:
			failures++
			s.log.Warn("receive failed, will try again", "error", err, "failures", failures)
			if !sleep(s.receiveCtx, backoff(100*time.Millisecond, 10*time.Second, failures)) {
				return
			}
		default:
			failures = 0
		}
	}
}

// waitForRoom returns how many messages may be received, 0 when a drain started.
func (s *Subscription) waitForRoom() int {
	for {
		s.mu.Lock()
		free := s.o.inFlight - len(s.held)
		if s.paused {
			free = 0
		}
		s.mu.Unlock()
		if s.receiveCtx.Err() != nil {
			return 0
		}
		if free > 0 {
			return free
		}
		select {
		case <-s.room:
		case <-s.receiveCtx.Done():
			return 0
		}
	}
}

func (s *Subscription) wakeReceiver() {
	select {
	case s.room <- struct{}{}:
	default:
	}
}

// admit puts received messages into their lanes.
func (s *Subscription) admit(rs []*Received) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rs {
		if it := s.bySeq[r.Seq]; r.Seq != 0 && it != nil {
			it.newest = r // the lease lapsed while we held the message: the broker listens to the newer delivery only
			continue
		}
		s.order++
		it := &item{r: r, newest: r, order: s.order, base: max(r.Delivered-1, 0)}
		s.held[it] = struct{}{}
		if r.Seq != 0 {
			s.bySeq[r.Seq] = it
		}
		key := r.Message.Key
		l := s.lanes[key]
		if l == nil || key == "" {
			l = &lane{key: key}
			if key != "" {
				s.lanes[key] = l
			}
			s.ready = append(s.ready, l)
		}
		it.lane = l
		l.items = append(l.items, it)
	}
	s.dispatchLocked()
}

// dispatchLocked starts workers for ready lanes.
func (s *Subscription) dispatchLocked() {
	for s.active < s.o.concurrency {
		l := s.nextLocked()
		if l == nil {
			return
		}
		s.active++
		go s.work(l)
	}
}

func (s *Subscription) nextLocked() *lane {
	if s.paused || s.draining || len(s.ready) == 0 {
		return nil
	}
	l := s.ready[0]
	s.ready[0] = nil
	s.ready = s.ready[1:]
	l.running, l.current = true, l.items[0]
	return l
}

// work handles the first message of a lane, then that of the next ready lane, until there is none.
func (s *Subscription) work(l *lane) {
	defer func() {
		if l != nil { // the handler called runtime.Goexit: this goroutine is lost, the lane is not
			go s.work(l)
		}
	}()
	for l != nil {
		it := l.current
		back := s.finish(l, it, s.attempt(it))
		s.giveBack(back)
		s.mu.Lock()
		if l = s.nextLocked(); l == nil {
			s.active--
			if s.draining && s.active == 0 {
				close(s.idle)
			}
		}
		s.mu.Unlock()
	}
}

var errGoexit = errors.New("messaging: handler ended its goroutine")

// outcome is what becomes of an item after an attempt.
type outcome struct {
	gone    bool          // settled
	release bool          // give the item and those behind it back
	delay   time.Duration // before the next attempt, or of the release
}

// attempt runs the handler once and settles the message, unless it is to be tried again.
func (s *Subscription) attempt(it *item) outcome {
	if it.dead {
		return s.bury(it)
	}
	if g := it.r.Message.Header[HeaderRedriveGroup]; g != "" && g != s.group {
		s.settle(it, Settlement{Verdict: Ack})
		return outcome{gone: true}
	}
	if it.r.Err != nil {
		it.fail(it.r.Err, 0)
		it.dead = true
		return s.bury(it)
	}
	if limit := s.o.attempts * crashFactor; limit > 0 && it.r.Delivered > limit {
		it.fail(fmt.Errorf("messaging: delivered %d times without a result", it.r.Delivered), it.r.Delivered)
		it.dead = true
		return s.bury(it)
	}
	d := &Delivery{Message: it.r.Message, Topic: s.topic, Group: s.group, Attempt: it.attempt()}
	d.Redelivered = d.Attempt > 1 || it.tries > 0
	err := errGoexit
	if !it.called {
		it.called = true
		err = s.call(d)
	}
	it.called = false
	act, after, exact, uncounted := classify(err)
	if act == actRetry && s.handlerCtx.Err() != nil {
		act = actRelease // cut short by a drain's deadline: nobody's fault
	}
	switch act {
	case actAck:
		s.settle(it, Settlement{Verdict: Ack})
		s.count(func(st *Stats) { st.Acked++ })
		return outcome{gone: true}
	case actDrop:
		s.log.Info("message dropped", "id", d.Message.ID, "type", d.Message.Type, "reason", err)
		s.settle(it, Settlement{Verdict: Ack})
		s.count(func(st *Stats) { st.Dropped++ })
		return outcome{gone: true}
	case actRelease:
		return outcome{release: true, delay: s.o.initial}
	}
	it.fail(err, d.Attempt)
	var p *PanicError
	if errors.As(err, &p) {
		it.stack = p.Stack
	}
	if !uncounted || act == actDead {
		it.failures++
	}
	if act == actDead || s.o.attempts > 0 && it.base+it.failures >= s.o.attempts {
		it.dead = true
		return s.bury(it)
	}
	s.count(func(st *Stats) { st.Retried++ })
	delay := after
	if !exact {
		delay = max(after, backoff(s.o.initial, s.o.maxDelay, it.tries))
	}
	s.log.Warn("message failed, will try again", "id", d.Message.ID, "type", d.Message.Type, "attempt", d.Attempt, "delay", delay, "error", err)
	return outcome{delay: delay}
}

func (it *item) fail(err error, attempt int) {
	it.tries++
	if len(it.log) >= keptFailures { // keep the first and the last
		it.log = slices.Delete(it.log, 1, 2)
	}
	it.log = append(it.log, Failure{Attempt: attempt, Time: time.Now().UTC(), Error: cut(err.Error(), keptError)})
}

// call runs the handler in its own frame, so that a panic and runtime.Goexit end in an error.
func (s *Subscription) call(d *Delivery) (err error) {
	ctx := s.handlerCtx
	if s.o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.o.timeout)
		defer cancel()
	}
	ctx, ended := s.b.tel.process(ctx, d)
	err = errGoexit // until the handler returns or panics
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: string(debug.Stack())}
			s.log.ErrorContext(ctx, "handler panicked", "id", d.Message.ID, "panic", v)
		}
		ended(err)
	}()
	return s.handler(ctx, d)
}

// bury writes the dead letter and then ends the lease. A crash between the two makes a second dead letter, never none.
func (s *Subscription) bury(it *item) outcome {
	m := deadLetter(it.r.Message, s.topic, s.group, it.base+it.failures, it.log, it.stack)
	to := DeadLetterTopic(s.topic, s.group)
	m = s.b.complete(to, m)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.handlerCtx), 30*time.Second)
	defer cancel()
	msgs := []*Message{m}
	ended := s.b.tel.send(ctx, to, msgs)
	errs := s.b.driver.Send(ctx, to, msgs)
	ended(errs)
	if len(errs) > 0 && errs[0] != nil {
		it.tries++
		delay := backoff(s.o.initial, s.o.maxDelay, it.tries)
		s.log.Error("dead letter not stored, will try again", "id", m.ID, "to", to, "delay", delay, "error", errs[0])
		return outcome{delay: delay}
	}
	s.log.Error("message dead-lettered", "id", m.ID, "type", m.Type, "to", to, "attempts", it.base+it.failures, "error", it.log[len(it.log)-1].Error)
	s.settle(it, Settlement{Verdict: GiveUp})
	s.count(func(st *Stats) { st.DeadLettered++ })
	return outcome{gone: true}
}

// settle tells the driver. A settlement that is lost means a redelivery, which handlers must bear anyway.
func (s *Subscription) settle(it *item, st Settlement) {
	s.mu.Lock()
	r := it.newest
	s.mu.Unlock()
	if err := s.c.Settle(context.WithoutCancel(s.handlerCtx), r, st); err != nil {
		s.log.Warn("settlement lost, the message will be delivered again", "id", r.Message.ID, "error", err)
	}
}

func (s *Subscription) count(f func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}

// returned is an item to give back.
type returned struct {
	it *item
	st Settlement
}

// finish applies an outcome to the lane and returns what is to be given back, in order.
func (s *Subscription) finish(l *lane, it *item, out outcome) []returned {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.running = false
	if out.gone {
		l.items[0] = nil
		l.items = l.items[1:]
		s.dropLocked(it)
	}
	switch {
	case s.draining:
		return s.emptyLocked(l, 0)
	case out.release:
		return s.emptyLocked(l, out.delay)
	case len(l.items) == 0:
		s.removeLocked(l)
	case out.gone:
		s.ready = append(s.ready, l)
	default:
		s.stats.Parked++
		l.timer = time.AfterFunc(out.delay, func() { s.unpark(l) })
	}
	return nil
}

func (s *Subscription) unpark(l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.timer == nil { // a drain was faster
		return
	}
	l.timer = nil
	s.stats.Parked--
	s.ready = append(s.ready, l)
	s.dispatchLocked()
}

// emptyLocked takes all items out of a lane that is not running. An item that failed here before counts as delivered, the
// others as never seen.
func (s *Subscription) emptyLocked(l *lane, delay time.Duration) []returned {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
		s.stats.Parked--
	}
	back := make([]returned, 0, len(l.items))
	for _, it := range l.items {
		st := Settlement{Verdict: Return, Delay: delay}
		if it.tries > 0 {
			st.Verdict = Nack
		}
		back = append(back, returned{it, st})
	}
	s.stats.Released += uint64(len(back))
	l.items = nil
	s.removeLocked(l)
	return back
}

func (s *Subscription) removeLocked(l *lane) {
	if l.key != "" && s.lanes[l.key] == l {
		delete(s.lanes, l.key)
	}
}

// dropLocked forgets a settled item, which frees its slot.
func (s *Subscription) dropLocked(it *item) {
	delete(s.held, it)
	if it.r.Seq != 0 {
		delete(s.bySeq, it.r.Seq)
	}
	s.wakeReceiver()
}

// giveBack settles items in the order they were received. While a drain has not yet stopped the consumer they have to wait:
// the broker would deliver them to us again, behind those that are still to be given back.
func (s *Subscription) giveBack(back []returned) {
	s.mu.Lock()
	if s.draining && !s.stopped {
		s.waiting = append(s.waiting, back...)
		back = nil
	}
	s.mu.Unlock()
	slices.SortFunc(back, func(a, b returned) int {
		if a.it.order < b.it.order {
			return -1
		}
		return 1
	})
	for _, r := range back {
		s.settle(r.it, r.st)
		s.mu.Lock()
		s.dropLocked(r.it)
		s.mu.Unlock()
	}
}

// extend renews the leases of all held messages, and of those the driver holds back, three times per lease.
func (s *Subscription) extend(lease time.Duration) {
	tick := time.NewTicker(lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		rs := make([]*Received, 0, len(s.held))
		for it := range s.held {
			rs = append(rs, it.newest)
		}
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.handlerCtx), lease/3)
		if err := s.c.Extend(ctx, rs); err != nil {
			s.log.Warn("leases not extended", "messages", len(rs), "error", err)
		}
		cancel()
	}
}

// Pause stops taking new messages and starting handlers; those running go on. What is held stays held.
func (s *Subscription) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = true
}

// Resume ends a Pause.
func (s *Subscription) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = false
	s.wakeReceiver()
	s.dispatchLocked()
}

// Stats returns a snapshot.
func (s *Subscription) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.InFlight, st.Running = len(s.held), s.active
	return st
}

// Done is closed when the subscription has ended.
func (s *Subscription) Done() <-chan struct{} { return s.done }

// Err returns why the subscription ended by itself, or what its drain could not finish; nil while it runs.
func (s *Subscription) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Drain ends the subscription in two steps. First it stops receiving and gives back, in order, what no handler has
// started. Then it lets the running handlers finish, with a live context, and sees their settlements to the broker.
// Only when ctx ends first are the handlers' contexts cancelled; they then have one second, and what they were handling
// is delivered again later. The error says what could not be finished. Drain is idempotent: every call waits for the
// end, and the earliest ctx decides.
func (s *Subscription) Drain(ctx context.Context) error {
	s.mu.Lock()
	first := !s.draining
	s.draining = true
	if first && s.active == 0 {
		close(s.idle)
	}
	s.mu.Unlock()
	if first {
		go s.drain()
	}
	select {
	case <-s.done:
	case <-ctx.Done():
		s.cancelHandler()
		<-s.done
	}
	return s.Err()
}

func (s *Subscription) drain() {
	s.stopReceiving()
	<-s.received
	// Settlements and the rest of the drain are bounded by the handlers' deadline plus a moment.
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.handlerCtx))
	defer cancel()
	defer context.AfterFunc(s.handlerCtx, func() { time.AfterFunc(afterDeadline, cancel) })()

	rest, stopErr := s.c.Stop(ctx)
	s.admit(rest) // starts nothing, but keeps the order of each key
	s.mu.Lock()
	s.stopped = true
	back := s.waiting
	lanes := map[*lane]struct{}{}
	for it := range s.held {
		lanes[it.lane] = struct{}{}
	}
	for l := range lanes {
		if !l.running {
			back = append(back, s.emptyLocked(l, 0)...)
		}
	}
	s.mu.Unlock()
	s.giveBack(back)

	var waitErr error
	select {
	case <-s.idle:
	case <-ctx.Done():
		waitErr = fmt.Errorf("messaging: drain %q of %q: %d handlers still run after the deadline", s.group, s.topic, s.Stats().Running)
	}
	closeErr := s.c.Close(ctx)
	s.cancelHandler()
	s.mu.Lock()
	s.err = errors.Join(s.err, stopErr, waitErr, closeErr)
	s.mu.Unlock()
	s.b.forget(s)
	close(s.done)
}

// backoff doubles from initial up to longest and jitters the upper half; n counts from 1.
func backoff(initial, longest time.Duration, n int) time.Duration {
	d := initial
	for ; n > 1 && d < longest; n-- {
		d *= 2
	}
	d = min(d, longest)
	return d/2 + rand.N(d/2+1)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
