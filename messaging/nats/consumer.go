package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/armature-go/armature/messaging"
)

// How often, and how far apart, a subscription that stops looks whether the server has forgotten its pull request.
const (
	requestLooks = 20
	requestLook  = 5 * time.Millisecond
)

// consumer pulls. It speaks the pull protocol itself because both ways of the client's jetstream package hold messages
// the caller does not know of, whose leases lapse while handlers are slow and which a drain could not give back.
type consumer struct {
	d       *driver
	topic   string
	group   string
	next    string // subject of pull requests
	lease   time.Duration
	inbox   string // replies to pull request n arrive on inbox.n
	acks    string // confirmations of settlement n arrive on acks.n
	sub     *natsgo.Subscription
	ackSub  *natsgo.Subscription
	subGone chan struct{} // sub is drained
	news    chan struct{} // wakes Receive

	mu          sync.Mutex
	buf         []*natsgo.Msg
	request     uint64 // number of the newest pull request
	outstanding int    // messages it may still bring
	lastSeen    time.Time
	reconnects  uint64
	failure     error
	settled     uint64
	unconfirmed map[uint64]settlement
	confirmed   chan struct{} // closed when unconfirmed is empty and somebody waits
}

type settlement struct {
	subject string
	body    []byte
	sent    time.Time
}

const (
	pullExpiry    = 30 * time.Second
	pullHeartbeat = 2 * time.Second
	resendAfter   = 5 * time.Second
)

func (d *driver) Consume(ctx context.Context, topic, group string) (messaging.Consumer, error) {
	cfg, err := d.ensureGroup(ctx, topic, group)
	if err != nil {
		return nil, err
	}
	c := &consumer{
		d: d, topic: topic, group: group, lease: cfg.AckWait,
		next:        "$JS.API.CONSUMER.MSG.NEXT." + assetName(topic) + "." + assetName(group),
		inbox:       d.nc.NewInbox(),
		acks:        d.nc.NewInbox(),
		subGone:     make(chan struct{}),
		news:        make(chan struct{}, 1),
		unconfirmed: map[uint64]settlement{},
	}
	if c.sub, err = d.nc.Subscribe(c.inbox+".*", c.arrived); err != nil {
		return nil, d.closedOr(err)
	}
	c.sub.SetClosedHandler(func(string) { close(c.subGone) })
	if c.ackSub, err = d.nc.Subscribe(c.acks+".*", c.confirm); err != nil {
		return nil, errors.Join(d.closedOr(err), c.sub.Unsubscribe())
	}
	// What arrives is bounded by what was asked for; a limit here could only drop messages.
	return c, errors.Join(c.sub.SetPendingLimits(-1, -1), c.ackSub.SetPendingLimits(-1, -1))
}

func (c *consumer) wake() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// arrived takes messages and status replies. Messages of a stream always have a reply subject, statuses never.
func (c *consumer) arrived(m *natsgo.Msg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.wake()
	c.lastSeen = time.Now()
	if m.Reply != "" {
		c.buf = append(c.buf, m)
		c.outstanding = max(c.outstanding-1, 0)
		return
	}
	status, description := m.Header.Get("Status"), m.Header.Get("Description")
	if status == "100" || !strings.HasSuffix(m.Subject, "."+strconv.FormatUint(c.request, 10)) {
		return // a heartbeat, or about an earlier request
	}
	c.outstanding = 0
	switch {
	case status == "404" || status == "408": // nothing there, expired
	case status == "409" && (strings.Contains(description, "Batch Completed") || strings.Contains(description, "Leadership Change")):
	default:
		c.failure = fmt.Errorf("nats: pull from %q as %q: status %s %s", c.topic, c.group, status, description)
	}
}

func (c *consumer) Receive(ctx context.Context, limit int) ([]*messaging.Received, error) {
	beat := time.NewTicker(pullHeartbeat)
	defer beat.Stop()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rs, err := c.poll(ctx, limit)
		if len(rs) > 0 || err != nil {
			return rs, err
		}
		select {
		case <-c.news:
		case <-beat.C:
		case <-ctx.Done():
		}
	}
}

// poll returns what has arrived and asks for more when nothing is on its way.
func (c *consumer) poll(ctx context.Context, limit int) ([]*messaging.Received, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := min(limit, len(c.buf)); n > 0 {
		rs := decodeAll(c.buf[:n])
		c.buf = append([]*natsgo.Msg(nil), c.buf[n:]...)
		return rs, nil
	}
	if c.d.nc.IsClosed() {
		return nil, messaging.ErrClosed
	}
	if err := c.failure; err != nil {
		c.failure = nil
		// The consumer may be gone, deleted by an operator or with a server's disk. Without it nothing would arrive again.
		c.mu.Unlock()
		c.d.forgetStream(c.topic)
		_, ensureErr := c.d.ensureGroup(ctx, c.topic, c.group)
		c.mu.Lock()
		return nil, errors.Join(err, ensureErr)
	}
	reconnects := c.d.nc.Stats().Reconnects
	silent := time.Since(c.lastSeen) > 2*pullHeartbeat+pullHeartbeat/2
	if c.outstanding > 0 && reconnects == c.reconnects && !silent || !c.d.nc.IsConnected() {
		return nil, nil
	}
	c.request++
	c.outstanding = limit
	c.reconnects = reconnects
	c.lastSeen = time.Now()
	body := fmt.Appendf(nil, `{"expires":%d,"batch":%d,"idle_heartbeat":%d}`, pullExpiry, limit, pullHeartbeat) // nanoseconds
	if err := c.d.nc.PublishRequest(c.next, c.inbox+"."+strconv.FormatUint(c.request, 10), body); err != nil {
		c.outstanding = 0
		return nil, c.d.closedOr(fmt.Errorf("nats: pull from %q as %q: %w", c.topic, c.group, err))
	}
	return nil, nil
}

func decodeAll(ms []*natsgo.Msg) []*messaging.Received {
	rs := make([]*messaging.Received, len(ms))
	for i, m := range ms {
		r := &messaging.Received{Delivered: 1, Token: m.Reply}
		if meta, err := m.Metadata(); err == nil {
			r.Delivered, r.Seq = int(meta.NumDelivered), meta.Sequence.Stream
		}
		r.Message, r.Err = decode(m.Header, m.Data)
		if r.Message.ID == "" {
			r.Message.ID = m.Subject + "-" + strconv.FormatUint(r.Seq, 10)
		}
		rs[i] = r
	}
	return rs
}

// Settle sends the verdict and returns; the server's confirmation is awaited by Close, and a settlement that got lost
// with a connection is sent again.
func (c *consumer) Settle(_ context.Context, r *messaging.Received, s messaging.Settlement) error {
	body := []byte("+ACK")
	switch s.Verdict {
	case messaging.Nack, messaging.Return:
		body = []byte("-NAK")
		if s.Delay > 0 {
			body = fmt.Appendf(body, ` {"delay": %d}`, s.Delay.Nanoseconds())
		}
	case messaging.GiveUp:
		body = []byte("+TERM")
	}
	subject, _ := r.Token.(string)
	c.mu.Lock()
	c.settled++
	n := c.settled
	c.unconfirmed[n] = settlement{subject, body, time.Now()}
	c.mu.Unlock()
	return c.tell(n, subject, body)
}

func (c *consumer) tell(n uint64, subject string, body []byte) error {
	if err := c.d.nc.PublishRequest(subject, c.acks+"."+strconv.FormatUint(n, 10), body); err != nil {
		return c.d.closedOr(fmt.Errorf("nats: settle: %w", err))
	}
	return nil
}

func (c *consumer) confirm(m *natsgo.Msg) {
	n, err := strconv.ParseUint(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 10, 64)
	if err != nil || m.Header.Get("Status") != "" { // no responders: sent again later
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.unconfirmed, n)
	if len(c.unconfirmed) == 0 && c.confirmed != nil {
		close(c.confirmed)
		c.confirmed = nil
	}
}

// resend repeats settlements that were not confirmed in time.
func (c *consumer) resend() error {
	c.mu.Lock()
	late := map[uint64]settlement{}
	for n, s := range c.unconfirmed {
		if time.Since(s.sent) >= resendAfter {
			s.sent = time.Now()
			c.unconfirmed[n] = s
			late[n] = s
		}
	}
	c.mu.Unlock()
	var errs []error
	for n, s := range late {
		errs = append(errs, c.tell(n, s.subject, s.body))
	}
	return errors.Join(errs...)
}

func (c *consumer) Extend(_ context.Context, rs []*messaging.Received) error {
	c.mu.Lock()
	subjects := make([]string, 0, len(rs)+len(c.buf))
	for _, m := range c.buf {
		subjects = append(subjects, m.Reply)
	}
	c.mu.Unlock()
	for _, r := range rs {
		subject, _ := r.Token.(string)
		subjects = append(subjects, subject)
	}
	for _, subject := range subjects {
		if err := c.d.nc.Publish(subject, []byte("+WPI")); err != nil {
			return c.d.closedOr(fmt.Errorf("nats: extend: %w", err))
		}
	}
	return c.resend()
}

func (c *consumer) Lease() time.Duration { return c.lease }

func (c *consumer) Stop(ctx context.Context) ([]*messaging.Received, error) {
	// Drain tells the server and then lets the callback take what is on its way.
	err := c.sub.Drain()
	if err == nil {
		select {
		case <-c.subGone:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err == nil {
		// The server still holds the pull request of the subscription that is gone. When it meets that request with a
		// message that was given back, it puts the message behind the others. Asking for the consumer's state makes it
		// look for such requests first.
		err = c.awaitNoRequest(ctx)
	}
	if c.d.nc.IsClosed() {
		err = nil // nothing can be on its way
	}
	if err != nil {
		err = fmt.Errorf("nats: stop pulling from %q: %w", c.topic, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	rs := decodeAll(c.buf)
	c.buf = nil
	return rs, err
}

// awaitNoRequest asks for the consumer's state until the server holds no pull request any more. Those of other
// subscriptions of the group count as well and stay, so it does not wait for long.
func (c *consumer) awaitNoRequest(ctx context.Context) error {
	for range requestLooks {
		state, err := c.d.js.Consumer(ctx, assetName(c.topic), assetName(c.group))
		if err != nil || state.CachedInfo().NumWaiting == 0 {
			return err
		}
		select {
		case <-time.After(requestLook):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Close waits until the server has confirmed the settlements. Those it has not confirmed when ctx ends may lead to
// another delivery.
func (c *consumer) Close(ctx context.Context) error {
	defer c.ackSub.Unsubscribe() //nolint:errcheck // fails only on a closed connection
	c.mu.Lock()
	wait := make(chan struct{})
	if len(c.unconfirmed) == 0 {
		close(wait)
	} else {
		c.confirmed = wait
	}
	c.mu.Unlock()
	again := time.NewTicker(resendAfter)
	defer again.Stop()
	for {
		select {
		case <-wait:
			return nil
		case <-again.C:
			if err := c.resend(); err != nil {
				return err
			}
		case <-ctx.Done():
			c.mu.Lock()
			defer c.mu.Unlock()
			return fmt.Errorf("nats: %d settlements for %q not confirmed: %w", len(c.unconfirmed), c.topic, ctx.Err())
		}
	}
}
