package gateway

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/armature-go/armature/transport"
)

// Limits of a request; those of an order are the order service's own.
const (
	maxItems    = 50
	maxQuantity = 1000
	maxText     = 200
	maxWait     = 30 * time.Second
)

// placeRequest is the body of POST /api/orders.
type placeRequest struct {
	Key        string      `header:"Idempotency-Key"`
	Prefer     []string    `header:"Prefer"`
	CustomerID string      `json:"customer_id"`
	Items      []orderItem `json:"items"`
	// Card is a token of the card processor: a card number must never come in here.
	Card    string       `json:"card"`
	Address orderAddress `json:"address"`
}

type orderItem struct {
	ProductID string `json:"product_id"`
	Quantity  int64  `json:"quantity"`
}

type orderAddress struct {
	Name     string `json:"name"`
	Line1    string `json:"line1"`
	City     string `json:"city"`
	Postcode string `json:"postcode"`
	Country  string `json:"country"`
}

// Validate says everything that is wrong at once, each at its JSON pointer.
func (r placeRequest) Validate() error {
	var v violations
	v.key(r.Key)
	v.text("/customer_id", r.CustomerID)
	switch {
	case len(r.Items) == 0:
		v.add("/items", "must hold at least one item")
	case len(r.Items) > maxItems:
		v.add("/items", fmt.Sprintf("must hold at most %d items", maxItems))
	}
	seen := map[string]bool{}
	for i, item := range r.Items[:min(len(r.Items), maxItems)] {
		at := "/items/" + strconv.Itoa(i)
		v.text(at+"/product_id", item.ProductID)
		if item.Quantity < 1 || item.Quantity > maxQuantity {
			v.add(at+"/quantity", fmt.Sprintf("must be from 1 to %d", maxQuantity))
		}
		if item.ProductID != "" && seen[item.ProductID] {
			v.add(at+"/product_id", "must not repeat an earlier item")
		}
		seen[item.ProductID] = true
	}
	v.text("/card", r.Card)
	if digits(r.Card) {
		v.add("/card", "must be a token of the card processor, not a card number")
	}
	v.text("/address/name", r.Address.Name)
	v.text("/address/line1", r.Address.Line1)
	v.text("/address/city", r.Address.City)
	v.text("/address/postcode", r.Address.Postcode)
	if c := r.Address.Country; len(c) != 2 || strings.Trim(c, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		v.add("/address/country", "must be two capital letters, as in DE")
	}
	return v.err()
}

// digits reports whether text looks like the number of a card.
func digits(text string) bool {
	text = strings.NewReplacer(" ", "", "-", "").Replace(text)
	return len(text) >= 12 && strings.Trim(text, "0123456789") == ""
}

type orderRequest struct {
	ID string `path:"id"`
}

type refundRequest struct {
	ID     string   `path:"id"`
	Prefer []string `header:"Prefer"`
}

type customerRequest struct {
	ID string `path:"id"`
}

type productRequest struct {
	ID string `path:"id"`
}

type violations []transport.Violation

func (v *violations) add(pointer, detail string) {
	*v = append(*v, transport.Violation{Pointer: pointer, Detail: detail})
}

func (v *violations) text(pointer, value string) {
	switch {
	case strings.TrimSpace(value) == "":
		v.add(pointer, "must not be empty")
	case len(value) > maxText:
		v.add(pointer, fmt.Sprintf("must have at most %d bytes", maxText))
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }):
		v.add(pointer, "must not hold control characters")
	}
}

// key refuses what would not travel: a key that silently got lost would make a repeat a second order.
func (v *violations) key(key string) {
	if len(key) > maxText || strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
		v.add("/header/Idempotency-Key", fmt.Sprintf("must have at most %d printable ASCII characters", maxText))
	}
}

func (v violations) err() error {
	if len(v) == 0 {
		return nil
	}
	return transport.Invalid(v...)
}

// waitOf reads the preference wait=SECONDS of RFC 7240, at most longest. What cannot be read is no preference.
func waitOf(prefer []string, longest time.Duration) time.Duration {
	for _, preference := range strings.Split(strings.Join(prefer, ","), ",") {
		name, value, ok := strings.Cut(preference, "=")
		if !ok || !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		value, _, _ = strings.Cut(value, ";")
		seconds, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 31)
		if err != nil {
			return 0
		}
		return min(time.Duration(seconds)*time.Second, longest)
	}
	return 0
}
