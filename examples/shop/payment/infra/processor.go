package infra

import (
	"context"
	"fmt"
	"net/http"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/outside"
	"github.com/armature-go/armature/examples/shop/payment/app"
	"github.com/armature-go/armature/examples/shop/payment/domain"
	"github.com/armature-go/armature/transport"
)

// Processor is an app.Processor over HTTP. It is safe for concurrent use.
type Processor struct {
	charge transport.Func[chargeRequest, effect]
	refund transport.Func[refundRequest, effect]
}

var _ app.Processor = (*Processor)(nil)

type chargeRequest struct {
	Ref      string `json:"ref"`
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
	Token    string `json:"token"`
}

type refundRequest struct {
	Ref      string `json:"ref"`
	Of       string `json:"of"`
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
}

type effect struct {
	ID string `json:"id"`
}

// NewProcessor returns the service's client of the card processor at url.
func NewProcessor(svc *armature.Service, url string) (*Processor, error) {
	client, err := outside.For(svc, "card processor", url)
	if err != nil {
		return nil, err
	}
	p := &Processor{}
	if p.charge, err = outside.Post[chargeRequest, effect](client, "/charges"); err != nil {
		return nil, err
	}
	if p.refund, err = outside.Post[refundRequest, effect](client, "/refunds"); err != nil {
		return nil, err
	}
	return p, nil
}

// Charge is described by app.Processor.
func (c *Processor) Charge(ctx context.Context, key string, p domain.Payment) (string, error) {
	got, err := c.charge(outside.WithKey(ctx, key), chargeRequest{
		Ref: p.OrderID, Amount: p.Amount.Minor, Currency: p.Amount.Currency, Token: p.Card,
	})
	if outside.Refused(err, http.StatusPaymentRequired) {
		return "", fmt.Errorf("%w: %w", app.ErrDeclined, err)
	}
	return got.ID, err
}

// Refund is described by app.Processor.
func (c *Processor) Refund(ctx context.Context, key string, p domain.Payment) (string, error) {
	got, err := c.refund(outside.WithKey(ctx, key), refundRequest{
		Ref: p.OrderID, Of: p.Key, Amount: p.Amount.Minor, Currency: p.Amount.Currency,
	})
	return got.ID, err
}
