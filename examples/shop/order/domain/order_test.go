package domain_test

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/armature-go/armature/examples/shop/money"
	"github.com/armature-go/armature/examples/shop/order/domain"
)

func ExampleNew() {
	o, err := domain.New("o-1", "cust-01", []domain.Line{
		{ProductID: "sku-mug", Quantity: 3, Price: money.EUR(1999)},
		{ProductID: "sku-pen", Quantity: 1, Price: money.EUR(250)},
	}, domain.Address{City: "Berlin", Country: "DE"}, time.Now())
	fmt.Println(o.Status, o.Total, err)
	// Output: pending 62.47 EUR <nil>
}

func TestStatusTransitions(t *testing.T) {
	t.Parallel()
	statuses := []domain.Status{domain.Pending, domain.Confirmed, domain.Cancelled, domain.Refunding, domain.Refunded}
	allowed := map[[2]domain.Status]bool{
		{domain.Pending, domain.Confirmed}:   true,
		{domain.Pending, domain.Cancelled}:   true,
		{domain.Confirmed, domain.Refunding}: true,
		{domain.Refunding, domain.Refunded}:  true,
	}
	for _, from := range statuses {
		for _, to := range statuses {
			if got, want := from.CanBecome(to), allowed[[2]domain.Status{from, to}]; got != want {
				t.Errorf("%s.CanBecome(%s) = %t, want %t", from, to, got, want)
			}
		}
	}
	for _, s := range []domain.Status{domain.Pending, domain.Refunding} {
		if s.Resting() {
			t.Errorf("%s rests although a saga works on it", s)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	line := func(id string, quantity int64) domain.Line {
		return domain.Line{ProductID: id, Quantity: quantity, Price: money.EUR(100)}
	}
	many := make([]domain.Line, domain.MaxLines+1)
	for i := range many {
		many[i] = line(fmt.Sprintf("sku-%d", i), 1)
	}
	tests := map[string]struct {
		lines   []domain.Line
		pointer string
	}{
		"no lines":          {nil, "/items"},
		"too many lines":    {many, "/items"},
		"no product":        {[]domain.Line{line("", 1)}, "/items/0/product_id"},
		"a product twice":   {[]domain.Line{line("a", 1), line("a", 1)}, "/items/1/product_id"},
		"nothing of it":     {[]domain.Line{line("a", 0)}, "/items/0/quantity"},
		"less than nothing": {[]domain.Line{line("a", 1), line("b", -1)}, "/items/1/quantity"},
		"too much of it":    {[]domain.Line{line("a", domain.MaxQuantity+1)}, "/items/0/quantity"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := domain.New("o-1", "cust-01", test.lines, domain.Address{}, time.Now())
			var rule *domain.RuleError
			if !errors.As(err, &rule) || rule.Pointer != test.pointer {
				t.Errorf("New = %v, want a rule at %s", err, test.pointer)
			}
		})
	}
}

func TestNewRefusesMoneyThatDoesNotAddUp(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		lines []domain.Line
		want  error
	}{
		"two currencies": {[]domain.Line{
			{ProductID: "a", Quantity: 1, Price: money.EUR(1)},
			{ProductID: "b", Quantity: 1, Price: money.Amount{Minor: 1, Currency: "USD"}},
		}, money.ErrCurrency},
		"too much for one line": {[]domain.Line{{ProductID: "a", Quantity: 2, Price: money.EUR(math.MaxInt64)}}, money.ErrOverflow},
		"too much in total": {[]domain.Line{
			{ProductID: "a", Quantity: 1, Price: money.EUR(math.MaxInt64)},
			{ProductID: "b", Quantity: 1, Price: money.EUR(1)},
		}, money.ErrOverflow},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := domain.New("o-1", "c", test.lines, domain.Address{}, time.Now()); !errors.Is(err, test.want) {
				t.Errorf("New = %v, want %v", err, test.want)
			}
		})
	}
}
