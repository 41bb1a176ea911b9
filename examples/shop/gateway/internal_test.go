package gateway

import (
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
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

func TestLimiterCountsEachClientAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1, 2)
		for i, step := range []struct {
			after time.Duration
			addr  string
			ok    bool
		}{
			{0, "192.0.2.1:1000", true},
			{0, "192.0.2.1:1001", true}, // another port is the same client
			{0, "192.0.2.1:1002", false},
			{0, "[::ffff:192.0.2.1]:1003", false}, // and so is the same address in IPv6
			{0, "192.0.2.2:1000", true},
			{0, "[2001:db8::1]:1", true},
			{0, "[2001:db8::2]:1", true}, // a neighbour in the /64 shares its allowance
			{0, "[2001:db8::3]:1", false},
			{0, "[2001:db8:0:1::1]:1", true},
			{time.Second, "192.0.2.1:1000", true},
			{0, "192.0.2.1:1000", false},
			{0, "nonsense", true}, // all of those share one allowance
			{0, "", true},
			{0, "?", false},
		} {
			time.Sleep(step.after)
			wait, ok := l.allow(step.addr)
			if ok != step.ok {
				t.Errorf("step %d: allow(%q) = %t, want %t", i, step.addr, ok, step.ok)
			}
			if !ok && (wait <= 0 || wait > time.Second) {
				t.Errorf("step %d: wait %s, want at most a second", i, wait)
			}
		}
	})
}

func TestLimiterForgetsSilentClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1, 2)
		for i := range 100 {
			l.allow("192.0.2." + strconv.Itoa(i) + ":1")
		}
		time.Sleep(forget + time.Second)
		l.allow("198.51.100.1:1")
		if n := len(l.clients); n != 1 {
			t.Errorf("%d clients are remembered, want 1", n)
		}
	})
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
