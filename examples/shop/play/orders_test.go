package play_test

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/armature-go/armature/examples/shop/play"
)

var update = flag.Bool("update", false, "write the orders anew")

const ordersFile = "../orders.jsonl"

func TestTheOrdersAreFresh(t *testing.T) {
	t.Parallel()
	var want bytes.Buffer
	if err := play.Write(&want, play.Generate()); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(ordersFile, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(ordersFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want.Bytes(), got) {
		t.Fatalf("%s is not what Generate makes: run go generate ./examples/shop/play", ordersFile)
	}
}

func TestTheOrdersAreVaried(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(ordersFile)
	if err != nil {
		t.Fatal(err)
	}
	orders, err := play.Parse(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if len(orders) < 300 {
		t.Errorf("%d orders", len(orders))
	}
	has := map[string]int{}
	for _, o := range orders {
		has["customer "+o.CustomerID]++
		has["card "+o.Card]++
		has["expect "+o.Expect+" "+o.Reason]++
		if o.Refund {
			has["refund"]++
		}
		if o.Card == "tok_flaky" && o.Reason == "UNSHIPPABLE" {
			has["a refund of a charge whose answer was lost"]++
		}
		if strings.Contains(o.Address.Line1, "Flaky") {
			has["a parcel whose answer was lost"]++
		}
	}
	for _, want := range []string{
		"customer cust-01", "customer cust-12",
		"card tok_visa", "card tok_mastercard", "card tok_declined", "card tok_expired", "card tok_slow", "card tok_flaky", "card tok_down",
		"expect confirmed ", "expect cancelled CARD_DECLINED", "expect cancelled OUT_OF_STOCK", "expect cancelled UNSHIPPABLE",
		"refund", "a refund of a charge whose answer was lost", "a parcel whose answer was lost",
	} {
		if has[want] == 0 {
			t.Errorf("nothing with %s", want)
		}
	}
}
