package gateway

import (
	"strings"
	"testing"
	"time"
)

func TestWaitOf(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{
		"":                       0,
		"wait=10":                10 * time.Second,
		"Wait = 10":              10 * time.Second,
		"respond-async, wait=10": 10 * time.Second,
		`wait="3"; x=y`:          3 * time.Second,
		"wait=86400":             maxWait,
		"wait=99999999999999":    0,
		"wait=-1":                0,
		"wait=soon":              0,
		"waiting=10":             0,
	} {
		if got := waitOf([]string{header}, maxWait); got != want {
			t.Errorf("waitOf(%q) = %s, want %s", header, got, want)
		}
	}
	if got := waitOf([]string{"respond-async", "wait=2"}, maxWait); got != 2*time.Second {
		t.Errorf("of two headers waitOf = %s, want 2s", got)
	}
}

func TestLongestWaitFitsTheShutdown(t *testing.T) {
	t.Parallel()
	for shutdown, want := range map[time.Duration]time.Duration{
		0: 9 * time.Second, 500 * time.Millisecond: 0, 15 * time.Second: 14 * time.Second, time.Minute: maxWait,
	} {
		if got := longestWait(shutdown); got != want {
			t.Errorf("longestWait(%s) = %s, want %s", shutdown, got, want)
		}
	}
}

func TestDigits(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"4111111111111111": true, "4111 1111 1111 1111": true, "4111-1111-1111-1111": true,
		"tok_visa": false, "12345": false, "": false,
	} {
		if got := digits(text); got != want {
			t.Errorf("digits(%q) = %t, want %t", text, got, want)
		}
	}
}

func FuzzValidate(f *testing.F) {
	f.Add("", "", int64(0), "", "")
	f.Add("cust-01", "sku-tea", int64(3), "tok_visa", "DE")
	f.Add("cust-01\x00", strings.Repeat("x", 300), int64(-1), "4111111111111111", "de")
	f.Fuzz(func(t *testing.T, customer, product string, quantity int64, card, country string) {
		r := placeRequest{
			CustomerID: customer, Card: card, Items: []orderItem{{product, quantity}},
			Address: orderAddress{Name: "a", Line1: "b", City: "c", Postcode: "d", Country: country},
		}
		if r.Validate() == nil && (customer == "" || product == "" || quantity < 1 || quantity > maxQuantity || digits(card) || len(country) != 2) {
			t.Errorf("%+v is valid", r)
		}
	})
}
