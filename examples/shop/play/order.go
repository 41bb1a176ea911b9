package play

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Expectations of an order.
const (
	Confirmed = "confirmed"
	Cancelled = "cancelled"
	refunded  = "refunded"
)

// Order is one line of a file of orders: a body for POST /api/orders with what has to come of it.
type Order struct {
	CustomerID string  `json:"customer_id"`
	Items      []Item  `json:"items"`
	Card       string  `json:"card"`
	Address    Address `json:"address"`

	// Expect is Confirmed or Cancelled.
	Expect string `json:"expect"`
	// Reason is why it is cancelled: CARD_DECLINED, OUT_OF_STOCK or UNSHIPPABLE.
	Reason string `json:"reason,omitempty"`
	// Refund says that the order is refunded once it is confirmed.
	Refund bool `json:"refund,omitempty"`
}

// Item is a quantity of a product.
type Item struct {
	ProductID string `json:"product_id"`
	Quantity  int64  `json:"quantity"`
}

// Address is where the parcel goes.
type Address struct {
	Name     string `json:"name"`
	Line1    string `json:"line1"`
	City     string `json:"city"`
	Postcode string `json:"postcode"`
	Country  string `json:"country"`
}

// wants is the status the order ends in.
func (o Order) wants() string {
	if o.Refund {
		return refunded
	}
	return o.Expect
}

func (o Order) validate() error {
	switch {
	case o.CustomerID == "":
		return errors.New("customer_id is missing")
	case len(o.Items) == 0:
		return errors.New("items is empty")
	case o.Card == "":
		return errors.New("card is missing")
	case o.Address.Line1 == "" || o.Address.Country == "":
		return errors.New("address needs line1 and country")
	case o.Expect != Confirmed && o.Expect != Cancelled:
		return fmt.Errorf("expect is %q: want %q or %q", o.Expect, Confirmed, Cancelled)
	case o.Expect == Cancelled && o.Reason == "":
		return errors.New("reason is missing: say why the order is cancelled")
	case o.Expect == Confirmed && o.Reason != "":
		return errors.New("reason is only for an order that is cancelled")
	case o.Refund && o.Expect != Confirmed:
		return errors.New("refund is only for an order that is confirmed")
	}
	for i, item := range o.Items {
		if item.ProductID == "" || item.Quantity < 1 {
			return fmt.Errorf("items[%d] needs a product_id and a quantity of at least 1", i)
		}
	}
	return nil
}

// Parse reads orders, one JSON object a line. The first bad line is an error that names it; empty lines are skipped.
func Parse(r io.Reader) ([]Order, error) {
	var orders []Order
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	n := 0
	for lines.Scan() {
		n++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		o, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("play: line %d: %w", n, err)
		}
		orders = append(orders, o)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("play: line %d: %w", n+1, err)
	}
	if len(orders) == 0 {
		return nil, errors.New("play: the file holds no orders")
	}
	return orders, nil
}

func parseLine(line []byte) (Order, error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	var o Order
	if err := d.Decode(&o); err != nil {
		return Order{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Order{}, errors.New("more than one JSON value")
	}
	return o, o.validate()
}
