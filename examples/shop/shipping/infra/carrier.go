package infra

import (
	"context"
	"fmt"
	"net/http"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/outside"
	"github.com/armature-go/armature/examples/shop/shipping/app"
	"github.com/armature-go/armature/examples/shop/shipping/domain"
	"github.com/armature-go/armature/transport"
)

// Carrier is an app.Carrier over HTTP. It is safe for concurrent use.
type Carrier struct {
	book   transport.Func[bookRequest, booking]
	cancel transport.Func[cancelRequest, booking]
}

var _ app.Carrier = (*Carrier)(nil)

type bookRequest struct {
	Ref     string  `json:"ref"`
	Address address `json:"address"`
}

type address struct {
	Name     string `json:"name"`
	Line1    string `json:"line1"`
	City     string `json:"city"`
	Postcode string `json:"postcode"`
	Country  string `json:"country"`
}

type cancelRequest struct {
	Ref string `json:"ref"`
	Of  string `json:"of"`
}

type booking struct {
	ID       string `json:"id"`
	Tracking string `json:"tracking,omitempty"`
}

// NewCarrier returns the service's client of the carrier at url.
func NewCarrier(svc *armature.Service, url string) (*Carrier, error) {
	client, err := outside.For(svc, "carrier", url)
	if err != nil {
		return nil, err
	}
	c := &Carrier{}
	if c.book, err = outside.Post[bookRequest, booking](client, "/shipments"); err != nil {
		return nil, err
	}
	if c.cancel, err = outside.Post[cancelRequest, booking](client, "/cancellations"); err != nil {
		return nil, err
	}
	return c, nil
}

// Book is described by app.Carrier.
func (c *Carrier) Book(ctx context.Context, key string, s domain.Shipment) (string, error) {
	got, err := c.book(outside.WithKey(ctx, key), bookRequest{Ref: s.OrderID, Address: address(s.Address)})
	if outside.Refused(err, http.StatusUnprocessableEntity) {
		return "", fmt.Errorf("%w: %w", app.ErrUnshippable, err)
	}
	return got.Tracking, err
}

// Cancel is described by app.Carrier.
func (c *Carrier) Cancel(ctx context.Context, key string, s domain.Shipment) error {
	_, err := c.cancel(outside.WithKey(ctx, key), cancelRequest{Ref: s.OrderID, Of: s.Key})
	return err
}
