// Package domain holds what an order is, what a valid one looks like and how it may change, free of databases and
// networks.
//
//	o, err := domain.New(id, "cust-01", lines, address, time.Now())
//	if err != nil {
//		return err // a *domain.RuleError names the field and the rule
//	}
//	fmt.Println(o.Status, o.Total) // pending 59.97 EUR
//
// Totals are sums of integer minor units in one currency; an order never leaves cancelled or refunded.
package domain

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/armature-go/armature/examples/shop/money"
)

// Limits of one order.
const (
	MaxLines    = 50
	MaxQuantity = 1000
)

// Status is where an order stands.
type Status string

const (
	// Pending means the order is stored and its saga runs.
	Pending Status = "pending"
	// Confirmed means stock, money and parcel are settled.
	Confirmed Status = "confirmed"
	// Cancelled means the order failed and everything done for it was undone.
	Cancelled Status = "cancelled"
	// Refunding means a confirmed order is being taken back.
	Refunding Status = "refunding"
	// Refunded means parcel, money and stock of a confirmed order are back.
	Refunded Status = "refunded"
)

// Before lists the statuses from which s can be reached; the guard of every conditional UPDATE.
func (s Status) Before() []Status {
	switch s {
	case Confirmed, Cancelled:
		return []Status{Pending}
	case Refunding:
		return []Status{Confirmed}
	case Refunded:
		return []Status{Refunding}
	default:
		return nil
	}
}

// CanBecome reports whether an order in s may move to next.
func (s Status) CanBecome(next Status) bool { return slices.Contains(next.Before(), s) }

// Resting reports whether no saga is working on an order in s: it stays as it is until somebody asks for a change.
func (s Status) Resting() bool { return s == Confirmed || s == Cancelled || s == Refunded }

// Line is one product of an order at the price it was sold for.
type Line struct {
	ProductID string
	Quantity  int64
	Price     money.Amount
}

// Address is where the order goes.
type Address struct {
	Name, Line1, City, Postcode, Country string
}

// Order is what a customer bought.
type Order struct {
	ID         string
	CustomerID string
	Status     Status
	// Reason says why the order was cancelled: OUT_OF_STOCK, CARD_DECLINED, UNSHIPPABLE, UNAVAILABLE.
	Reason    string
	Lines     []Line
	Total     money.Amount
	Address   Address
	CreatedAt time.Time
	UpdatedAt time.Time
}

// RuleError says which field of an order breaks which rule.
type RuleError struct {
	// Pointer is the JSON pointer of the field in a request that carries items and an address.
	Pointer string
	// Rule is a sentence a caller can be shown.
	Rule string
	// Reason is a word for programs where the rule has one: CUSTOMER_NOT_FOUND, PRODUCT_NOT_FOUND.
	Reason string
}

func (e *RuleError) Error() string { return "order: " + e.Pointer + ": " + e.Rule }

// New returns a pending order with its total. It fails with a *RuleError for lines that are missing, too many, out of
// range, repeated or not in one currency, and for a total that does not fit.
func New(id, customerID string, lines []Line, to Address, now time.Time) (Order, error) {
	if err := CheckLines(lines); err != nil {
		return Order{}, err
	}
	var total money.Amount
	for i, line := range lines {
		subtotal, err := line.Price.Times(line.Quantity)
		if err == nil {
			total, err = total.Plus(subtotal)
		}
		if err != nil {
			return Order{}, fmt.Errorf("order: total of line %d: %w", i, err)
		}
	}
	return Order{
		ID: id, CustomerID: customerID, Status: Pending,
		Lines: slices.Clone(lines), Total: total, Address: to,
		CreatedAt: now, UpdatedAt: now,
	}, nil
}

// CheckLines applies the rules that need no prices.
func CheckLines(lines []Line) error {
	switch {
	case len(lines) == 0:
		return &RuleError{Pointer: "/items", Rule: "must hold at least one item"}
	case len(lines) > MaxLines:
		return &RuleError{Pointer: "/items", Rule: fmt.Sprintf("must hold at most %d items", MaxLines)}
	}
	seen := make(map[string]bool, len(lines))
	for i, line := range lines {
		at := "/items/" + strconv.Itoa(i)
		switch {
		case line.ProductID == "":
			return &RuleError{Pointer: at + "/product_id", Rule: "must not be empty"}
		case seen[line.ProductID]:
			return &RuleError{Pointer: at + "/product_id", Rule: "must not repeat an earlier item"}
		case line.Quantity < 1 || line.Quantity > MaxQuantity:
			return &RuleError{Pointer: at + "/quantity", Rule: fmt.Sprintf("must be from 1 to %d", MaxQuantity)}
		}
		seen[line.ProductID] = true
	}
	return nil
}
