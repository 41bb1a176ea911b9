// Package domain holds what a product is, free of databases and networks.
//
//	for _, p := range domain.Seed() {
//		fmt.Println(p.ID, p.Price)
//	}
package domain

import "github.com/armature-go/armature/examples/shop/money"

// Product is a thing for sale. Its price is what a new order pays; an order keeps the price it was placed at.
type Product struct {
	ID, Name string
	Price    money.Amount
}

// Seed is the catalogue of a new shop.
func Seed() []Product {
	return []Product{
		{"sku-bell", "Brass desk bell", money.EUR(1450)},
		{"sku-blanket", "Wool blanket", money.EUR(8900)},
		{"sku-bottle", "Steel bottle 0.7 l", money.EUR(2495)},
		{"sku-candle", "Beeswax candle", money.EUR(990)},
		{"sku-chair", "Folding chair", money.EUR(12900)},
		{"sku-clock", "Kitchen clock", money.EUR(3999)},
		{"sku-compass", "Pocket compass", money.EUR(2750)},
		{"sku-globe", "Relief globe", money.EUR(15900)},
		{"sku-kettle", "Enamel kettle", money.EUR(4490)},
		{"sku-lamp", "Reading lamp", money.EUR(5990)},
		{"sku-map", "Wall map", money.EUR(1995)},
		{"sku-meteorite", "Meteorite, 20 g", money.EUR(24900)},
		{"sku-notebook", "Dotted notebook", money.EUR(1290)},
		{"sku-orchid", "Night orchid", money.EUR(3490)},
		{"sku-pen", "Fountain pen", money.EUR(6900)},
		{"sku-rope", "Climbing rope 40 m", money.EUR(11495)},
		{"sku-sextant", "Antique sextant", money.EUR(89900)},
		{"sku-sticker", "Sticker", money.EUR(1)},
		{"sku-tea", "Smoked tea 100 g", money.EUR(875)},
		{"sku-tent", "Two-person tent", money.EUR(27900)},
	}
}
