package domain_test

import (
	"testing"

	"github.com/armature-go/armature/examples/shop/shipping/domain"
)

func TestStateTransitions(t *testing.T) {
	t.Parallel()
	states := []domain.State{domain.Pending, domain.Created, domain.Rejected, domain.Cancelling, domain.Cancelled}
	allowed := map[[2]domain.State]bool{
		{domain.Pending, domain.Created}:      true,
		{domain.Pending, domain.Rejected}:     true,
		{domain.Pending, domain.Cancelling}:   true,
		{domain.Created, domain.Cancelling}:   true,
		{domain.Cancelling, domain.Rejected}:  true,
		{domain.Cancelling, domain.Cancelled}: true,
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

func TestCancelKeyHangsOnTheBooking(t *testing.T) {
	t.Parallel()
	s := domain.Shipment{Key: "place-1/ship"}
	if got, want := s.CancelKey(), "place-1/ship/cancel"; got != want {
		t.Errorf("CancelKey() = %q, want %q", got, want)
	}
}
