package domain_test

import (
	"testing"

	"github.com/armature-go/armature/examples/shop/payment/domain"
)

func TestStateTransitions(t *testing.T) {
	t.Parallel()
	states := []domain.State{domain.Pending, domain.Charged, domain.Declined, domain.Refunding, domain.Refunded}
	allowed := map[[2]domain.State]bool{
		{domain.Pending, domain.Charged}:    true,
		{domain.Pending, domain.Declined}:   true,
		{domain.Pending, domain.Refunding}:  true,
		{domain.Charged, domain.Refunding}:  true,
		{domain.Refunding, domain.Declined}: true,
		{domain.Refunding, domain.Refunded}: true,
	}
	for _, from := range states {
		for _, to := range states {
			if got, want := from.CanBecome(to), allowed[[2]domain.State{from, to}]; got != want {
				t.Errorf("%s.CanBecome(%s) = %t, want %t", from, to, got, want)
			}
			if from.Final() && from.CanBecome(to) {
				t.Errorf("%s is final but can become %s", from, to)
			}
		}
	}
}

func TestRefundKeyHangsOnTheCharge(t *testing.T) {
	t.Parallel()
	p := domain.Payment{Key: "place-1/charge"}
	if got, want := p.RefundKey(), "place-1/charge/refund"; got != want {
		t.Errorf("RefundKey() = %q, want %q", got, want)
	}
}
