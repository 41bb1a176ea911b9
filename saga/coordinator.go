package saga

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/armature-go/armature/flow"
)

// Config configures a [Coordinator].
type Config struct {
	// Store keeps the sagas. Required.
	Store Store
	// Node names this coordinator among those that share the store. With a name
	// that is the same after a restart, the restarted process takes its own
	// sagas up at once; with the default, a random name, others or it wait until
	// the lease has run out. Two living processes must not use the same name.
	Node string
	// Logger is silent when nil.
	Logger *slog.Logger
	// TracerProvider makes a span per saga and per step; nil makes none.
	TracerProvider trace.TracerProvider
	// Concurrency is how many steps run at the same time. Default 64.
	Concurrency int
	// MaxOpen is how many sagas are held in memory at the same time; the rest
	// waits in the store. Default 4096.
	MaxOpen int
	// Poll is how often the store is asked for work that nobody announced.
	// Default 1 s.
	Poll time.Duration
	// LeaseTTL is how long a silent node is believed to live. Default 10 s.
	LeaseTTL time.Duration
	// StopTimeout is how long Run lets steps finish that are under way when its
	// context ends. Default 5 s.
	StopTimeout time.Duration
}

// Coordinator runs sagas. All methods are safe for concurrent use.
type Coordinator struct {
	cfg    Config
	tracer trace.Tracer
	slots  chan struct{}
	wake   chan struct{}

	mu       sync.Mutex
	programs map[definitionID]program
	epoch    int64               // of the node; 0 while Run is not running
	open     map[string]struct{} // sagas that a goroutine runs
	dirty    map[string]struct{} // own sagas that must be taken over before they go on
	waiters  map[string][]chan struct{}
	unknown  map[definitionID]bool // reported once
	running  bool
}

// NewCoordinator returns a coordinator. It does nothing until [Coordinator.Run].
func NewCoordinator(cfg Config) (*Coordinator, error) {
	if cfg.Store == nil {
		return nil, errors.New("saga: new coordinator: Config.Store is nil: give it a store, such as sqlstore.New returns")
	}
	if cfg.Node == "" {
		cfg.Node = "node-" + flow.NewID()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = noop.NewTracerProvider()
	}
	for _, knob := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{{"Poll", &cfg.Poll, time.Second}, {"LeaseTTL", &cfg.LeaseTTL, 10 * time.Second}, {"StopTimeout", &cfg.StopTimeout, 5 * time.Second}} {
		if *knob.value < 0 {
			return nil, fmt.Errorf("saga: new coordinator: Config.%s = %v is negative: leave it zero for %v", knob.name, *knob.value, knob.def)
		}
		if *knob.value == 0 {
			*knob.value = knob.def
		}
	}
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = 64
	}
	if cfg.MaxOpen <= 0 {
		cfg.MaxOpen = 4096
	}
	return &Coordinator{
		cfg:      cfg,
		tracer:   cfg.TracerProvider.Tracer("github.com/armature-go/armature/saga"),
		slots:    make(chan struct{}, cfg.Concurrency),
		wake:     make(chan struct{}, 1),
		programs: map[definitionID]program{},
		open:     map[string]struct{}{},
		dirty:    map[string]struct{}{},
		waiters:  map[string][]chan struct{}{},
		unknown:  map[definitionID]bool{},
	}, nil
}

// Register makes the coordinator run sagas of d. Register every version that
// may still be open in the store; sagas of a version that is missing wait.
func Register[T any](c *Coordinator, d *Definition[T]) error {
	if d == nil {
		return errors.New("saga: register: the definition is nil: check the error of Define")
	}
	p := typed[T]{d}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.programs[p.id()]; ok && old.fingerprint() != p.fingerprint() {
		return fmt.Errorf("saga: register %v: another definition has this name and version: raise the version", p.id())
	}
	c.programs[p.id()] = p
	return nil
}

// Start writes the saga down durably and returns; a coordinator runs it soon.
// The id is unique in the store: a second Start answers [ErrExists], which
// makes starting idempotent. The saga keeps the trace and the correlation id
// of ctx.
func Start[T any](ctx context.Context, c *Coordinator, d *Definition[T], id string, data *T) error {
	if err := StartTx(ctx, nil, c, d, id, data); err != nil {
		return err
	}
	c.Wake()
	return nil
}

// StartTx is [Start] within the caller's transaction in the database of the
// store: the saga exists if and only if the transaction commits. Call
// [Coordinator.Wake] after the commit, or the saga waits for the next poll.
func StartTx[T any](ctx context.Context, tx *sql.Tx, c *Coordinator, d *Definition[T], id string, data *T) error {
	p := typed[T]{d}
	c.mu.Lock()
	_, registered := c.programs[p.id()]
	node, epoch := c.cfg.Node, c.epoch
	c.mu.Unlock()
	switch {
	case !registered:
		return fmt.Errorf("saga: start %v: it is not registered with this coordinator: call saga.Register", p.id())
	case !validID(id):
		return fmt.Errorf("saga: start %v: id %q: use 1 to 128 printable ASCII characters without spaces", p.id(), id)
	case data == nil:
		return fmt.Errorf("saga: start %v: the data is nil", p.id())
	}
	body, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("saga: start %v: write the data: %w", p.id(), err)
	}
	header := map[string]string{}
	propagation.TraceContext{}.Inject(ctx, propagation.MapCarrier(header))
	flow.Inject(flow.WithOutgoingIdempotencyKey(ctx, ""), flow.EventHeader(header))
	if epoch == 0 {
		node = ""
	}
	now := time.Now()
	err = c.cfg.Store.Create(ctx, tx, Record{
		ID: id, Name: d.name, Version: d.version, Hash: d.hash, Status: Running,
		Node: node, NodeEpoch: epoch, Epoch: 1, Seq: 1, Header: header, Created: now, Updated: now,
	}, body)
	if err != nil {
		return fmt.Errorf("saga: start %v %s: %w", p.id(), id, err)
	}
	return nil
}

func validID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

// Wake makes the coordinator look for work now. It never blocks.
func (c *Coordinator) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run coordinates until ctx ends. Then it starts no further step, lets those
// under way finish for at most Config.StopTimeout, and gives its lease back, so
// that another coordinator, or the next Run, goes on at once. It returns nil
// after an orderly stop. Only one Run may be active.
func (c *Coordinator) Run(ctx context.Context) error {
	c.mu.Lock()
	if c.running {
		c.mu.Unlock()
		return errors.New("saga: run: this coordinator is already running")
	}
	c.running = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.running = false
		c.mu.Unlock()
	}()

	for ctx.Err() == nil {
		epoch, err := c.cfg.Store.Join(ctx, c.cfg.Node, c.cfg.LeaseTTL)
		if err != nil {
			c.cfg.Logger.WarnContext(ctx, "saga: cannot join, trying again", "node", c.cfg.Node, "error", err)
			pause(ctx, jitter(c.cfg.Poll))
			continue
		}
		if err := c.term(ctx, epoch); err != nil {
			c.cfg.Logger.WarnContext(ctx, "saga: lost the lease, joining again", "node", c.cfg.Node, "error", err)
			pause(ctx, jitter(c.cfg.Poll))
		}
	}
	return nil
}

// term runs sagas for as long as one lease holds. It returns an error when the
// lease was lost, and always waits for its goroutines.
func (c *Coordinator) term(ctx context.Context, epoch int64) error {
	c.mu.Lock()
	c.epoch = epoch
	clear(c.dirty)
	c.mu.Unlock()

	// Steps do not stop with ctx: they get StopTimeout to finish.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	t := &term{c: c, epoch: epoch, ctx: work, stop: make(chan struct{})}

	err := t.loop(ctx)

	c.mu.Lock()
	c.epoch = 0
	c.mu.Unlock()
	close(t.stop)
	if err != nil {
		cancel()
	}
	timer := time.AfterFunc(c.cfg.StopTimeout, cancel)
	t.wg.Wait()
	timer.Stop()
	if err == nil {
		leave, stop := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.StopTimeout)
		defer stop()
		if lerr := c.cfg.Store.Leave(leave, c.cfg.Node, epoch); lerr != nil {
			c.cfg.Logger.WarnContext(ctx, "saga: cannot give the lease back, it will run out", "node", c.cfg.Node, "error", lerr)
		}
	}
	return err
}

// term is one lease of the node.
type term struct {
	c     *Coordinator
	epoch int64
	ctx   context.Context // ends when steps under way must end
	stop  chan struct{}   // closed when no further step may start
	wg    sync.WaitGroup
}

func (t *term) loop(ctx context.Context) error {
	ttl := t.c.cfg.LeaseTTL
	renewed := time.Now()
	heartbeat := time.NewTicker(ttl / 3)
	defer heartbeat.Stop()
	poll := time.NewTimer(0)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-heartbeat.C:
			if time.Since(renewed) >= ttl {
				return errors.New("the heartbeat came too late")
			}
			at := time.Now()
			limit, cancel := context.WithTimeout(ctx, ttl-time.Since(renewed))
			err := t.c.cfg.Store.Renew(limit, t.c.cfg.Node, t.epoch, ttl)
			cancel()
			switch {
			case err == nil:
				renewed = at
			case errors.Is(err, ErrFenced):
				return err
			case ctx.Err() == nil:
				t.c.cfg.Logger.WarnContext(ctx, "saga: heartbeat failed", "node", t.c.cfg.Node, "error", err)
			}
		case <-t.c.wake:
			t.look(ctx, false)
		case <-poll.C:
			t.look(ctx, true)
			poll.Reset(jitter(t.c.cfg.Poll))
		}
	}
}

// look starts what is waiting in the store: own sagas and, on a poll, those of
// nodes that are gone.
func (t *term) look(ctx context.Context, orphans bool) {
	c := t.c
	c.mu.Lock()
	room := c.cfg.MaxOpen - len(c.open)
	held := len(c.open)
	c.mu.Unlock()
	if room <= 0 {
		return
	}
	ids, err := c.cfg.Store.Owned(ctx, c.cfg.Node, t.epoch, held+room)
	if err == nil && orphans {
		var more []string
		more, err = c.cfg.Store.Orphans(ctx, room)
		ids = append(ids, more...)
	}
	if err != nil && ctx.Err() == nil {
		c.cfg.Logger.WarnContext(ctx, "saga: cannot look for work, trying again", "node", c.cfg.Node, "error", err)
	}
	for _, id := range ids {
		c.mu.Lock()
		_, busy := c.open[id]
		if !busy && len(c.open) < c.cfg.MaxOpen {
			c.open[id] = struct{}{}
		} else {
			busy = true
		}
		c.mu.Unlock()
		if !busy {
			t.wg.Go(func() { t.drive(id) })
		}
	}
}

// Info is a saga as a caller sees it.
type Info struct {
	Record
	// Data is the saga's data after the newest step that is done, as JSON.
	Data json.RawMessage
	// OpenUndos names the steps whose effects are still to be taken back.
	OpenUndos []string
	// Journal is every entry, oldest first.
	Journal []Entry
}

// Get returns a saga with its journal, or [ErrNotFound].
func (c *Coordinator) Get(ctx context.Context, id string) (Info, error) {
	r, entries, err := c.cfg.Store.Load(ctx, id)
	if err != nil {
		return Info{}, fmt.Errorf("saga: get %s: %w", id, err)
	}
	info := Info{Record: r, Journal: entries}
	for _, e := range entries {
		if e.Body != nil {
			info.Data = e.Body
		}
	}
	if p, ok := c.program(r); ok {
		if s, err := replay(p, entries); err == nil {
			info.OpenUndos = s.openUndos()
		}
	}
	return info, nil
}

// Wait returns the saga once it is completed, compensated or parked, or the
// error of ctx. It hears at once of sagas that this coordinator runs, and asks
// the store at the poll interval for those of others.
func (c *Coordinator) Wait(ctx context.Context, id string) (Info, error) {
	done := make(chan struct{}, 1)
	c.mu.Lock()
	c.waiters[id] = append(c.waiters[id], done)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		list := c.waiters[id]
		for i, w := range list {
			if w == done {
				list = append(list[:i:i], list[i+1:]...)
				break
			}
		}
		if len(list) == 0 {
			delete(c.waiters, id)
		} else {
			c.waiters[id] = list
		}
	}()
	for {
		info, err := c.Get(ctx, id)
		if err != nil || info.Status.Finished() {
			return info, err
		}
		timer := time.NewTimer(c.cfg.Poll)
		select {
		case <-ctx.Done():
			timer.Stop()
			return info, fmt.Errorf("saga: wait for %s: %w", id, ctx.Err())
		case <-done:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// Resume puts a parked saga back to work, in the direction it was going. why
// is kept in the journal: say who decided and what was repaired.
func (c *Coordinator) Resume(ctx context.Context, id, why string) error {
	r, entries, err := c.cfg.Store.Load(ctx, id)
	if err != nil {
		return fmt.Errorf("saga: resume %s: %w", id, err)
	}
	if r.Status != Parked {
		return fmt.Errorf("saga: resume %s: it is %s, not parked", id, r.Status)
	}
	p, ok := c.program(r)
	if !ok {
		return fmt.Errorf("saga: resume %s: definition %s/%d is not registered", id, r.Name, r.Version)
	}
	s, err := replay(p, entries)
	if err != nil {
		return fmt.Errorf("saga: resume %s: %w", id, err)
	}
	e := Entry{SagaID: id, Seq: s.seq + 1, Epoch: r.Epoch, Kind: EntryResumed, Step: -1, Error: why, Time: time.Now()}
	status, err := s.after(e)
	if err != nil {
		return fmt.Errorf("saga: resume %s: %w", id, err)
	}
	if err := c.cfg.Store.Append(ctx, e, status); err != nil {
		return fmt.Errorf("saga: resume %s: %w", id, err)
	}
	c.Wake()
	return nil
}

// Count returns how many sagas of the store stand at each status.
func (c *Coordinator) Count(ctx context.Context) (map[Status]int, error) {
	return c.cfg.Store.Count(ctx)
}

func (c *Coordinator) program(r Record) (program, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.programs[definitionID{r.Name, r.Version}]
	return p, ok
}

func (c *Coordinator) finished(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.waiters[id] {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

func replay(p program, entries []Entry) (*state, error) {
	s := newState(p.steps())
	for _, e := range entries {
		if err := s.apply(e); err != nil {
			return nil, fmt.Errorf("read the journal under %v: %w", p.id(), err)
		}
	}
	return s, nil
}

// jitter spreads d over its upper half.
func jitter(d time.Duration) time.Duration {
	if d <= 1 {
		return d
	}
	return d/2 + rand.N(d/2)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
