// Package money is an amount of money in the minor unit of its currency, with arithmetic that refuses to overflow or to
// mix currencies.
//
//	price := money.Amount{Minor: 1999, Currency: "EUR"}
//	line, err := price.Times(3)      // 59.97 EUR
//	total, err := total.Plus(line)   // ErrCurrency when the currencies differ, ErrOverflow past int64
//	fmt.Println(total)               // "59.97 EUR"
//
// Amounts are values: every method leaves its receiver alone and is safe for concurrent use.
package money

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// Errors of the arithmetic, for errors.Is.
var (
	// ErrCurrency says that two amounts have different currencies, or that one is not an ISO 4217 code.
	ErrCurrency = errors.New("money: currencies do not fit")
	// ErrOverflow says that the result does not fit 64 bits.
	ErrOverflow = errors.New("money: amount overflows")
)

// Amount is money in minor units: {1999, "EUR"} is 19.99 euro. The zero value is no money of no currency; adding to it
// takes the other's currency.
type Amount struct {
	Minor    int64  `json:"minor"`
	Currency string `json:"currency"`
}

// EUR is an amount of euro cents.
func EUR(minor int64) Amount { return Amount{Minor: minor, Currency: "EUR"} }

// IsZero reports whether a is no money, whatever its currency.
func (a Amount) IsZero() bool { return a.Minor == 0 }

// Validate says whether a can be charged or refunded: three capital letters of currency and no negative amount.
func (a Amount) Validate() error {
	if len(a.Currency) != 3 {
		return fmt.Errorf("money: validate currency %q: want three capital letters: %w", a.Currency, ErrCurrency)
	}
	for _, c := range a.Currency {
		if c < 'A' || c > 'Z' {
			return fmt.Errorf("money: validate currency %q: want three capital letters: %w", a.Currency, ErrCurrency)
		}
	}
	if a.Minor < 0 {
		return fmt.Errorf("money: validate amount %d: must not be negative", a.Minor)
	}
	return nil
}

// Plus adds b, or fails with ErrCurrency or ErrOverflow.
func (a Amount) Plus(b Amount) (Amount, error) {
	switch {
	case a == (Amount{}):
		return b, nil
	case b == (Amount{}):
		return a, nil
	case a.Currency != b.Currency:
		return Amount{}, fmt.Errorf("money: add %s to %s: %w", b, a, ErrCurrency)
	}
	sum := a.Minor + b.Minor
	if (sum > a.Minor) != (b.Minor > 0) {
		return Amount{}, fmt.Errorf("money: add %s to %s: %w", b, a, ErrOverflow)
	}
	return Amount{Minor: sum, Currency: a.Currency}, nil
}

// Minus takes b away, or fails with ErrCurrency or ErrOverflow.
func (a Amount) Minus(b Amount) (Amount, error) {
	if b.Minor == math.MinInt64 {
		return Amount{}, fmt.Errorf("money: subtract %s from %s: %w", b, a, ErrOverflow)
	}
	return a.Plus(Amount{Minor: -b.Minor, Currency: b.Currency})
}

// Times multiplies by a quantity, or fails with ErrOverflow. A negative quantity is refused: nothing in a shop sells
// less than nothing.
func (a Amount) Times(quantity int64) (Amount, error) {
	if quantity < 0 {
		return Amount{}, fmt.Errorf("money: multiply %s by %d: quantity must not be negative", a, quantity)
	}
	hi, lo := bits.Mul64(magnitude(a.Minor), uint64(quantity))
	if hi != 0 || lo > math.MaxInt64 {
		return Amount{}, fmt.Errorf("money: multiply %s by %d: %w", a, quantity, ErrOverflow)
	}
	if a.Minor < 0 {
		return Amount{Minor: -int64(lo), Currency: a.Currency}, nil
	}
	return Amount{Minor: int64(lo), Currency: a.Currency}, nil
}

// String is the amount with two decimals and the currency: "-0.05 EUR".
func (a Amount) String() string {
	sign, m := "", magnitude(a.Minor)
	if a.Minor < 0 {
		sign = "-"
	}
	if a.Currency == "" {
		return fmt.Sprintf("%s%d.%02d", sign, m/100, m%100)
	}
	return fmt.Sprintf("%s%d.%02d %s", sign, m/100, m%100, a.Currency)
}

// magnitude is the absolute value, also of the smallest int64.
func magnitude(n int64) uint64 {
	if n < 0 {
		return uint64(-(n + 1)) + 1
	}
	return uint64(n)
}
