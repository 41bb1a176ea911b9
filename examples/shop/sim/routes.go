package sim

import (
	"errors"
	"net/http"
	"strings"
)

// Tokens of cards with a behaviour of their own.
const (
	TokenVisa       = "tok_visa"
	TokenMastercard = "tok_mastercard"
	TokenDeclined   = "tok_declined"
	TokenExpired    = "tok_expired"
	TokenSlow       = "tok_slow"
	TokenFlaky      = "tok_flaky"
	TokenDown       = "tok_down"
)

type chargeBody struct {
	Ref      string `json:"ref"`
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
	Token    string `json:"token"`
}

type undoBody struct {
	Ref      string `json:"ref"`
	Of       string `json:"of"`
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
}

func cardRoutes(b *books) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/charges": post(b, http.StatusCreated, func(body chargeBody) (effect, error) {
			if body.Ref == "" || body.Amount <= 0 || len(body.Currency) != 3 || body.Token == "" {
				return effect{}, errors.New("want ref, amount above 0, currency and token")
			}
			e := effect{entry: Entry{Kind: Charge, Ref: body.Ref, Amount: body.Amount, Currency: body.Currency}}
			switch body.Token {
			case TokenVisa, TokenMastercard:
			case TokenSlow:
				e.delay = slow
			case TokenFlaky:
				e.loseAnswer = true
			case TokenDown:
				e.downFor = 2
			default:
				e.entry.Kind = Decline
			}
			return e, nil
		}),
		"/refunds": post(b, http.StatusCreated, func(body undoBody) (effect, error) {
			if body.Ref == "" || body.Of == "" || body.Amount <= 0 || len(body.Currency) != 3 {
				return effect{}, errors.New("want ref, of (the key of the charge), amount above 0 and currency")
			}
			return effect{undoes: Charge, entry: Entry{Kind: Refund, Ref: body.Ref, Of: body.Of, Amount: body.Amount, Currency: body.Currency}}, nil
		}),
	}
}

type shipmentBody struct {
	Ref     string `json:"ref"`
	Address struct {
		Name     string `json:"name"`
		Line1    string `json:"line1"`
		City     string `json:"city"`
		Postcode string `json:"postcode"`
		Country  string `json:"country"`
	} `json:"address"`
}

func carrierRoutes(b *books) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/shipments": post(b, http.StatusCreated, func(body shipmentBody) (effect, error) {
			if body.Ref == "" || body.Address.Line1 == "" || body.Address.Country == "" {
				return effect{}, errors.New("want ref, address.line1 and address.country")
			}
			e := effect{entry: Entry{Kind: Shipment, Ref: body.Ref}}
			if body.Address.Country == "AQ" {
				e.entry.Kind = Rejection
			}
			if strings.Contains(body.Address.Line1, "Slow") {
				e.delay = slow
			}
			e.loseAnswer = strings.Contains(body.Address.Line1, "Flaky")
			return e, nil
		}),
		"/cancellations": post(b, http.StatusCreated, func(body undoBody) (effect, error) {
			if body.Ref == "" || body.Of == "" {
				return effect{}, errors.New("want ref and of (the key of the shipment)")
			}
			return effect{undoes: Shipment, entry: Entry{Kind: Cancellation, Ref: body.Ref, Of: body.Of}}, nil
		}),
	}
}

type mailBody struct {
	Ref      string `json:"ref"`
	To       string `json:"to"`
	Template string `json:"template"`
}

func mailRoutes(b *books) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/mails": post(b, http.StatusAccepted, func(body mailBody) (effect, error) {
			if body.Ref == "" || body.To == "" || body.Template == "" {
				return effect{}, errors.New("want ref, to and template")
			}
			return effect{entry: Entry{Kind: Mail, Ref: body.Ref, To: body.To, Template: body.Template}}, nil
		}),
	}
}
