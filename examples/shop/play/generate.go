package play

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
)

//go:generate go test -run ^TestTheOrdersAreFresh$ . -update

// Generate makes the orders of examples/shop/orders.jsonl, always the same: every way an order can go, in a mix.
func Generate() []Order {
	g := generator{rand.New(rand.NewPCG(2026, 1))}
	var orders []Order
	for _, way := range []struct {
		times int
		make  func() Order
	}{
		{120, g.good},
		{20, func() Order { return g.with(g.good(), card("tok_flaky")) }},
		{16, func() Order { return g.with(g.good(), card("tok_down")) }},
		{12, func() Order { return g.with(g.good(), card("tok_slow")) }},
		{12, func() Order { return g.with(g.good(), road("Flaky Road")) }},
		{8, func() Order { return g.with(g.good(), road("Slow Lane")) }},
		{4, func() Order { return g.with(g.good(), card("tok_flaky"), road("Flaky Road")) }},
		{28, func() Order { return g.with(g.good(), refund) }},
		{8, func() Order { return g.with(g.good(), card("tok_flaky"), road("Flaky Road"), refund) }},

		{16, func() Order { return g.with(g.good(), card("tok_declined"), cancelled("CARD_DECLINED")) }},
		{12, func() Order { return g.with(g.good(), card("tok_expired"), cancelled("CARD_DECLINED")) }},
		{24, func() Order { return g.with(g.good(), g.soldOut, cancelled("OUT_OF_STOCK")) }},
		{16, func() Order { return g.with(g.good(), nowhere, cancelled("UNSHIPPABLE")) }},
		{8, func() Order { return g.with(g.good(), card("tok_flaky"), nowhere, cancelled("UNSHIPPABLE")) }},
		{6, func() Order { return g.with(g.good(), card("tok_down"), nowhere, cancelled("UNSHIPPABLE")) }},
		// Two things wrong at once: stock is asked for first, then the card, then the carrier.
		{5, func() Order { return g.with(g.good(), g.soldOut, card("tok_declined"), cancelled("OUT_OF_STOCK")) }},
		{5, func() Order { return g.with(g.good(), card("tok_declined"), nowhere, cancelled("CARD_DECLINED")) }},
	} {
		for range way.times {
			orders = append(orders, way.make())
		}
	}
	g.Shuffle(len(orders), func(i, j int) { orders[i], orders[j] = orders[j], orders[i] })
	return orders
}

// Write writes orders for Parse.
func Write(w io.Writer, orders []Order) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, o := range orders {
		if err := e.Encode(o); err != nil {
			return fmt.Errorf("play: write orders: %w", err)
		}
	}
	return nil
}

type generator struct{ *rand.Rand }

var (
	inStock = []string{
		"sku-bell", "sku-blanket", "sku-bottle", "sku-candle", "sku-chair", "sku-clock", "sku-compass", "sku-globe", "sku-kettle",
		"sku-lamp", "sku-map", "sku-notebook", "sku-pen", "sku-rope", "sku-sticker", "sku-tea", "sku-tent",
	}
	outOfStock = []string{"sku-meteorite", "sku-orchid", "sku-sextant"}
	roads      = []string{"Mill Street", "Harbour Walk", "Ångström Allé", "Rue des Érables", "Kirchgasse", "Via Verde"}
	places     = []Address{
		{City: "Berlin", Postcode: "10115", Country: "DE"}, {City: "Lyon", Postcode: "69002", Country: "FR"},
		{City: "Porto", Postcode: "4000-322", Country: "PT"}, {City: "Malmö", Postcode: "211 20", Country: "SE"},
		{City: "Torino", Postcode: "10121", Country: "IT"}, {City: "Gdańsk", Postcode: "80-831", Country: "PL"},
	}
	names = []string{"A. Brandt", "B. Costa", "C. Dubois", "D. Esposito", "E. Forsberg", "Front desk", "J. Łuczak"}
)

// good is an order that nothing stands in the way of.
func (g generator) good() Order {
	o := Order{
		CustomerID: fmt.Sprintf("cust-%02d", 1+g.IntN(12)),
		Card:       []string{"tok_visa", "tok_mastercard"}[g.IntN(2)],
		Address:    places[g.IntN(len(places))],
		Expect:     Confirmed,
	}
	o.Address.Name = names[g.IntN(len(names))]
	o.Address.Line1 = fmt.Sprintf("%d %s", 1+g.IntN(180), roads[g.IntN(len(roads))])
	for _, at := range g.Perm(len(inStock))[:1+g.IntN(4)] {
		o.Items = append(o.Items, Item{ProductID: inStock[at], Quantity: int64(1 + g.IntN(5))})
	}
	if g.IntN(20) == 0 {
		o.Items[0].Quantity = 100
	}
	return o
}

func (g generator) with(o Order, changes ...func(*Order)) Order {
	for _, change := range changes {
		change(&o)
	}
	return o
}

// soldOut adds a product that is not there, anywhere in the list: what comes before it has to be put back.
func (g generator) soldOut(o *Order) {
	o.Items = append(o.Items, Item{ProductID: outOfStock[g.IntN(len(outOfStock))], Quantity: int64(1 + g.IntN(3))})
	g.Shuffle(len(o.Items), func(i, j int) { o.Items[i], o.Items[j] = o.Items[j], o.Items[i] })
}

func card(token string) func(*Order) { return func(o *Order) { o.Card = token } }

func road(name string) func(*Order) { return func(o *Order) { o.Address.Line1 = "7 " + name } }

func cancelled(reason string) func(*Order) {
	return func(o *Order) { o.Expect, o.Reason = Cancelled, reason }
}

func refund(o *Order) { o.Refund = true }

func nowhere(o *Order) {
	o.Address.City, o.Address.Postcode, o.Address.Country = "Halley Station", "BIQQ 1ZZ", "AQ"
}
