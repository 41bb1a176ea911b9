package domain_test

import (
	"strings"
	"testing"

	"github.com/armature-go/armature/examples/shop/product/domain"
)

func TestSeed(t *testing.T) {
	t.Parallel()
	list := domain.Seed()
	if len(list) != 20 {
		t.Fatalf("%d products", len(list))
	}
	last := ""
	for _, p := range list {
		if p.ID <= last || !strings.HasPrefix(p.ID, "sku-") || p.Name == "" {
			t.Errorf("%+v after %q", p, last)
		}
		if err := p.Price.Validate(); err != nil || p.Price.IsZero() || p.Price.Currency != "EUR" {
			t.Errorf("%s costs %v: %v", p.ID, p.Price, err)
		}
		last = p.ID
	}
}
