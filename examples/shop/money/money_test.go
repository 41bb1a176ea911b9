package money_test

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"github.com/armature-go/armature/examples/shop/money"
)

func Example() {
	line, _ := money.EUR(1999).Times(3)
	total, _ := line.Plus(money.EUR(495))
	fmt.Println(total)
	// Output: 64.92 EUR
}

func TestArithmeticRefuses(t *testing.T) {
	t.Parallel()
	usd := money.Amount{Minor: 1, Currency: "USD"}
	for name, c := range map[string]struct {
		do   func() (money.Amount, error)
		want error
	}{
		"plus another currency":  {func() (money.Amount, error) { return money.EUR(1).Plus(usd) }, money.ErrCurrency},
		"minus another currency": {func() (money.Amount, error) { return money.EUR(1).Minus(usd) }, money.ErrCurrency},
		"plus past the top":      {func() (money.Amount, error) { return money.EUR(math.MaxInt64).Plus(money.EUR(1)) }, money.ErrOverflow},
		"minus past the bottom":  {func() (money.Amount, error) { return money.EUR(math.MinInt64).Minus(money.EUR(1)) }, money.ErrOverflow},
		"minus the smallest":     {func() (money.Amount, error) { return money.EUR(0).Minus(money.EUR(math.MinInt64)) }, money.ErrOverflow},
		"times past the top":     {func() (money.Amount, error) { return money.EUR(math.MaxInt64/2 + 1).Times(2) }, money.ErrOverflow},
		"times the smallest":     {func() (money.Amount, error) { return money.EUR(math.MinInt64).Times(2) }, money.ErrOverflow},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := c.do(); !errors.Is(err, c.want) {
				t.Fatalf("got %v, %v; want %v", got, err, c.want)
			}
		})
	}
	if _, err := money.EUR(1).Times(-1); err == nil {
		t.Fatal("a negative quantity was accepted")
	}
}

// Against big integers: the result is exact or refused, never wrapped.
func TestArithmeticIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Int64().Draw(t, "a"), rapid.Int64().Draw(t, "b")
		n := rapid.Int64Min(0).Draw(t, "n")
		check := func(op string, got money.Amount, err error, want *big.Int) {
			if err == nil && want.Cmp(big.NewInt(got.Minor)) != 0 {
				t.Fatalf("%s: got %d, want %s", op, got.Minor, want)
			}
			if err != nil && want.IsInt64() && want.Int64() != math.MinInt64 && b != math.MinInt64 {
				t.Fatalf("%s: refused %s: %v", op, want, err)
			}
		}
		A, B, N := big.NewInt(a), big.NewInt(b), big.NewInt(n)
		sum, err := money.EUR(a).Plus(money.EUR(b))
		check("plus", sum, err, new(big.Int).Add(A, B))
		diff, err := money.EUR(a).Minus(money.EUR(b))
		check("minus", diff, err, new(big.Int).Sub(A, B))
		product, err := money.EUR(a).Times(n)
		check("times", product, err, new(big.Int).Mul(A, N))
	})
}

func TestZeroTakesTheOthersCurrency(t *testing.T) {
	t.Parallel()
	if got, err := (money.Amount{}).Plus(money.EUR(5)); err != nil || got != money.EUR(5) {
		t.Fatalf("got %v, %v", got, err)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		amount money.Amount
		ok     bool
	}{
		"good":       {money.EUR(1), true},
		"nothing":    {money.EUR(0), true},
		"negative":   {money.EUR(-1), false},
		"no code":    {money.Amount{Minor: 1}, false},
		"lower case": {money.Amount{Minor: 1, Currency: "eur"}, false},
		"too long":   {money.Amount{Minor: 1, Currency: "EURO"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := c.amount.Validate(); (err == nil) != c.ok {
				t.Fatalf("Validate(%v) = %v", c.amount, err)
			}
		})
	}
}

func TestString(t *testing.T) {
	t.Parallel()
	for want, amount := range map[string]money.Amount{
		"0.05 EUR":                  money.EUR(5),
		"-0.05 EUR":                 money.EUR(-5),
		"-92233720368547758.08 EUR": money.EUR(math.MinInt64),
		"12.00":                     {Minor: 1200},
	} {
		if got := amount.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
