package domain_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/armature-go/armature/examples/shop/inventory/domain"
	products "github.com/armature-go/armature/examples/shop/product/domain"
)

func TestLines(t *testing.T) {
	t.Parallel()
	many := make([]domain.Item, domain.MaxItems+1)
	for i := range many {
		many[i] = domain.Item{ProductID: "sku-tea", Quantity: 1}
	}
	for name, c := range map[string]struct {
		items, want []domain.Item
		bad         bool
	}{
		"sorted and summed": {
			items: []domain.Item{{ProductID: "b", Quantity: 2}, {ProductID: "a", Quantity: 1}, {ProductID: "b", Quantity: 3}},
			want:  []domain.Item{{ProductID: "a", Quantity: 1}, {ProductID: "b", Quantity: 5}},
		},
		"as many as may be": {items: many[1:], want: []domain.Item{{ProductID: "sku-tea", Quantity: domain.MaxItems}}},
		"one too many":      {items: many, bad: true},
		"none":              {bad: true},
		"no product":        {items: []domain.Item{{Quantity: 1}}, bad: true},
		"nothing of it":     {items: []domain.Item{{ProductID: "a"}}, bad: true},
		"less than nothing": {items: []domain.Item{{ProductID: "a", Quantity: -1}}, bad: true},
		"too much":          {items: []domain.Item{{ProductID: "a", Quantity: domain.MaxQuantity + 1}}, bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := domain.Lines(c.items)
			if errors.Is(err, domain.ErrInvalid) != c.bad {
				t.Fatalf("got %v", err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// The services share no code, so a product without a stock record could go unseen.
func TestSeedCoversTheCatalogue(t *testing.T) {
	t.Parallel()
	var sold, stocked []string
	for _, p := range products.Seed() {
		sold = append(sold, p.ID)
	}
	empty := 0
	for _, s := range domain.Seed() {
		stocked = append(stocked, s.ProductID)
		if s.OnHand == 0 {
			empty++
		}
	}
	if diff := cmp.Diff(sold, stocked); diff != "" {
		t.Errorf("(-catalogue +stock)\n%s", diff)
	}
	if empty == 0 || empty == len(stocked) {
		t.Errorf("%d of %d products are out of stock", empty, len(stocked))
	}
}
