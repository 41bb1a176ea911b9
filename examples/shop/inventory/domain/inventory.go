// Package domain holds what stock is and what an order may take of it, free of databases and networks.
//
//	lines, err := domain.Lines([]domain.Item{{"sku-tea", 2}, {"sku-pen", 1}, {"sku-tea", 1}})
//	// sku-pen 1, sku-tea 3: by ascending product, so that two orders never lock each other out
package domain

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

var (
	// ErrInvalid says that a request breaks a rule.
	ErrInvalid = errors.New("inventory: invalid")
	// ErrOutOfStock says that there is less than asked for.
	ErrOutOfStock = errors.New("inventory: out of stock")
	// ErrNoProduct says that the product has no stock record.
	ErrNoProduct = errors.New("inventory: no such product")
	// ErrHeld says that the order holds stock already, under another key.
	ErrHeld = errors.New("inventory: order holds stock already")
)

// Limits of one order.
const (
	MaxItems    = 50
	MaxQuantity = 1_000_000
)

// Item is a quantity of a product.
type Item struct {
	ProductID string `json:"product_id"`
	Quantity  int64  `json:"quantity"`
}

// Stock is what lies in the warehouse.
type Stock struct {
	ProductID string
	OnHand    int64
}

// MoveKind says why stock changed.
type MoveKind string

// Kinds of moves. A receipt and a release add, a reserve takes.
const (
	Receipt MoveKind = "receipt"
	Reserve MoveKind = "reserve"
	Release MoveKind = "release"
)

// Move is one line of the stock's own ledger.
type Move struct {
	ID, ProductID, OrderID string
	Kind                   MoveKind
	Quantity               int64
	At                     time.Time
}

// Lines checks what an order asks for and sums it up by product, ascending.
func Lines(items []Item) ([]Item, error) {
	if len(items) == 0 || len(items) > MaxItems {
		return nil, fmt.Errorf("%w: %d items: want 1 to %d", ErrInvalid, len(items), MaxItems)
	}
	sum := map[string]int64{}
	for i, item := range items {
		if item.ProductID == "" {
			return nil, fmt.Errorf("%w: item %d: product is empty", ErrInvalid, i+1)
		}
		if item.Quantity < 1 || item.Quantity > MaxQuantity {
			return nil, fmt.Errorf("%w: item %d: quantity %d: want 1 to %d", ErrInvalid, i+1, item.Quantity, MaxQuantity)
		}
		sum[item.ProductID] += item.Quantity
	}
	lines := make([]Item, 0, len(sum))
	for id, n := range sum {
		lines = append(lines, Item{ProductID: id, Quantity: n})
	}
	Sort(lines)
	return lines, nil
}

// Sort puts items into the order in which everybody touches the stock.
func Sort(items []Item) {
	slices.SortFunc(items, func(a, b Item) int { return strings.Compare(a.ProductID, b.ProductID) })
}

// Seed is the first stock: plenty of everything, and none of three products.
func Seed() []Stock {
	ids := []string{
		"sku-bell", "sku-blanket", "sku-bottle", "sku-candle", "sku-chair", "sku-clock", "sku-compass", "sku-globe",
		"sku-kettle", "sku-lamp", "sku-map", "sku-meteorite", "sku-notebook", "sku-orchid", "sku-pen", "sku-rope",
		"sku-sextant", "sku-sticker", "sku-tea", "sku-tent",
	}
	none := map[string]bool{"sku-meteorite": true, "sku-orchid": true, "sku-sextant": true}
	stock := make([]Stock, len(ids))
	for i, id := range ids {
		stock[i] = Stock{ProductID: id, OnHand: 1_000_000}
		if none[id] {
			stock[i].OnHand = 0
		}
	}
	return stock
}
