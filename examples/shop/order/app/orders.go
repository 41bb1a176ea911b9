// Package app holds what the order service does: place an order once per key, drive the sagas that settle it or take
// it back, and tell a caller when it rests.
//
//	orders := app.New(app.Config{Store: store, Customers: users, Catalog: products, Changes: changes})
//	o, err := orders.Place(ctx, app.Placement{Key: key, CustomerID: "cust-01", Lines: lines, Card: "tok_visa", Address: to})
//	if err == nil {
//		o, err = orders.Wait(ctx, o.ID) // confirmed or cancelled, or pending when ctx is about to end
//	}
//
// Customers and prices are asked for before anything is stored. Storing the order, its event and the start of its saga
// is one transaction: either all of it happened or nothing did.
package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/armature-go/armature/examples/shop/money"
	"github.com/armature-go/armature/examples/shop/order/domain"
)

var (
	// ErrNotFound means there is no such order.
	ErrNotFound = errors.New("order: not found")
	// ErrKeyReused means the idempotency key belongs to another request of the same customer.
	ErrKeyReused = errors.New("order: idempotency key belongs to another request")
	// ErrNotRefundable means the order is neither confirmed nor already being taken back.
	ErrNotRefundable = errors.New("order: not refundable")
)

// Placement is a customer's wish, before prices.
type Placement struct {
	// Key makes repeats of one wish the same order.
	Key        string
	CustomerID string
	// Lines carry no prices yet.
	Lines []domain.Line
	// Card is a token of the card processor, never a card number.
	Card    string
	Address domain.Address
}

// Fingerprint is equal for equal wishes, whatever their key.
func (p Placement) Fingerprint() string {
	p.Key = ""
	data, _ := json.Marshal(p) //nolint:errchkjson,musttag // strings and integers cannot fail; hashed and never decoded
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Store keeps orders. Changes are committed when a method returns.
type Store interface {
	// Place stores the order, its event and the start of its saga in one transaction. When the customer's key is taken
	// it answers the order that has it, or ErrKeyReused when that one came from another wish.
	Place(ctx context.Context, o domain.Order, p Placement) (domain.Order, error)
	// ByKey answers the order that a wish's key belongs to: ErrNotFound when there is none, ErrKeyReused when the order
	// came from another wish.
	ByKey(ctx context.Context, p Placement) (domain.Order, error)
	Get(ctx context.Context, id string) (domain.Order, error)
	// List answers a customer's newest orders, at most limit.
	List(ctx context.Context, customerID string, limit int) ([]domain.Order, error)
	// BeginRefund moves a confirmed order to refunding and starts its saga in one transaction. It answers an order that
	// is already refunding or refunded as it is, and ErrNotRefundable for any other.
	BeginRefund(ctx context.Context, id string) (domain.Order, error)
}

// Customers knows who may buy.
type Customers interface {
	// Check fails with a *domain.RuleError for an unknown customer.
	Check(ctx context.Context, id string) error
}

// Catalog knows what things cost.
type Catalog interface {
	// Prices answers the lines with their prices, and fails with a *domain.RuleError for an unknown product.
	Prices(ctx context.Context, lines []domain.Line) ([]domain.Line, error)
}

// Config is what New needs; every field is required.
type Config struct {
	Store     Store
	Customers Customers
	Catalog   Catalog
	Changes   *Changes
	// NewID makes the ids of orders.
	NewID func() string
}

// Orders is the use cases. It is safe for concurrent use.
type Orders struct{ cfg Config }

// New returns the use cases over cfg.
func New(cfg Config) *Orders { return &Orders{cfg: cfg} }

// Place stores a pending order and starts its saga, once per key of a customer. It fails with a *domain.RuleError for
// a wish that cannot be an order and with ErrKeyReused for a key that belongs to another wish.
func (s *Orders) Place(ctx context.Context, p Placement) (domain.Order, error) {
	if err := domain.CheckLines(p.Lines); err != nil {
		return domain.Order{}, err
	}
	if o, err := s.cfg.Store.ByKey(ctx, p); !errors.Is(err, ErrNotFound) {
		return o, err
	}
	if err := s.cfg.Customers.Check(ctx, p.CustomerID); err != nil {
		return domain.Order{}, err
	}
	lines, err := s.cfg.Catalog.Prices(ctx, p.Lines)
	if err != nil {
		return domain.Order{}, err
	}
	o, err := domain.New(s.cfg.NewID(), p.CustomerID, lines, p.Address, time.Now())
	if err != nil {
		return domain.Order{}, err
	}
	return s.cfg.Store.Place(ctx, o, p)
}

// Get answers ErrNotFound for an unknown id.
func (s *Orders) Get(ctx context.Context, id string) (domain.Order, error) {
	return s.cfg.Store.Get(ctx, id)
}

// List answers a customer's newest orders, at most limit; none for a customer nobody knows.
func (s *Orders) List(ctx context.Context, customerID string, limit int) ([]domain.Order, error) {
	return s.cfg.Store.List(ctx, customerID, limit)
}

// Refund starts taking a confirmed order back. Asking again changes nothing. It fails with ErrNotFound and
// ErrNotRefundable.
func (s *Orders) Refund(ctx context.Context, id string) (domain.Order, error) {
	return s.cfg.Store.BeginRefund(ctx, id)
}

const (
	firstPoll   = 2 * time.Millisecond
	slowestPoll = 250 * time.Millisecond
)

// Wait answers the order once it rests, or as it stands shortly before ctx ends, so that the answer still gets to the
// caller. Changes of this process wake it at once; polling finds those of other processes.
func (s *Orders) Wait(ctx context.Context, id string) (domain.Order, error) {
	end, cancel := beforeEnd(ctx)
	defer cancel()
	changed, stop := s.cfg.Changes.Watch(id)
	defer stop()
	for poll := firstPoll; ; poll = min(2*poll, slowestPoll) {
		o, err := s.cfg.Store.Get(ctx, id)
		if err != nil || o.Status.Resting() || end.Err() != nil {
			return o, err
		}
		timer := time.NewTimer(poll)
		select {
		case <-changed:
			// The change is announced from inside its transaction: it is about to be visible.
			poll = firstPoll / 2
		case <-timer.C:
		case <-end.Done():
		}
		timer.Stop()
	}
}

// beforeEnd ends a tenth of the remaining time before ctx does, and at least 20 and at most 250 milliseconds.
func beforeEnd(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	margin := min(max(time.Until(deadline)/10, 20*time.Millisecond), 250*time.Millisecond)
	return context.WithDeadline(ctx, deadline.Add(-margin))
}

// Request is what the steps of a saga need to know of an order. It is kept in the saga's journal.
type Request struct {
	OrderID    string         `json:"order_id"`
	CustomerID string         `json:"customer_id"`
	Lines      []domain.Line  `json:"lines,omitempty"`
	Total      money.Amount   `json:"total,omitzero"`
	Card       string         `json:"card,omitempty"`
	Address    domain.Address `json:"address,omitzero"`
}

// RequestOf returns what the sagas of o need, with the card it is paid by.
func RequestOf(o domain.Order, card string) Request {
	return Request{OrderID: o.ID, CustomerID: o.CustomerID, Lines: o.Lines, Total: o.Total, Card: card, Address: o.Address}
}

// Refusal is a participant's definitive no: it did nothing, and asking again cannot help.
type Refusal struct {
	// Reason is the participant's word for it: OUT_OF_STOCK, CARD_DECLINED, UNSHIPPABLE.
	Reason string
	Err    error
}

func (e *Refusal) Error() string {
	return fmt.Sprintf("order: refused with %s: %v", e.Reason, e.Err)
}

func (e *Refusal) Unwrap() error { return e.Err }
