// Package app holds what the user service does.
//
//	users := app.New(store)
//	u, err := users.Get(ctx, "cust-01")
//	if errors.Is(err, app.ErrNotFound) { ... }
//
// Creating is idempotent by the customer's id: the same customer again is no error, another one under a taken id is
// ErrTaken.
package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/armature-go/armature/examples/shop/user/domain"
	"github.com/armature-go/armature/flow"
)

var (
	// ErrNotFound means that there is no such customer.
	ErrNotFound = errors.New("user: not found")
	// ErrTaken means that the id belongs to a customer with another name or address.
	ErrTaken = errors.New("user: id is taken")
)

const page = 100

// Store keeps the customers.
type Store interface {
	// Insert stores u unless its id is taken, and answers who has the id.
	Insert(ctx context.Context, u domain.User) (domain.User, error)
	// Get answers ErrNotFound for an unknown id.
	Get(ctx context.Context, id string) (domain.User, error)
	// After answers up to limit customers with an id above after, ascending.
	After(ctx context.Context, after string, limit int) ([]domain.User, error)
}

// Users is the use cases. It is safe for concurrent use.
type Users struct{ store Store }

// New returns the use cases over store.
func New(store Store) *Users { return &Users{store: store} }

// Create stores a customer; an empty id is made up.
func (s *Users) Create(ctx context.Context, id, name, email string) (domain.User, error) {
	if id == "" {
		id = "cust-" + flow.NewID()
	}
	u, err := domain.New(id, name, email, time.Now().UTC())
	if err != nil {
		return domain.User{}, err
	}
	owner, err := s.store.Insert(ctx, u)
	if err != nil {
		return domain.User{}, err
	}
	if owner.Name != u.Name || owner.Email != u.Email {
		return domain.User{}, fmt.Errorf("%w: %s", ErrTaken, id)
	}
	return owner, nil
}

// Get answers one customer.
func (s *Users) Get(ctx context.Context, id string) (domain.User, error) { return s.store.Get(ctx, id) }

// Each calls yield for every customer by ascending id until yield fails. It holds no connection while yield runs.
func (s *Users) Each(ctx context.Context, yield func(domain.User) error) error {
	for after := ""; ; {
		users, err := s.store.After(ctx, after, page)
		if err != nil {
			return err
		}
		for _, u := range users {
			if err := yield(u); err != nil {
				return err
			}
			after = u.ID
		}
		if len(users) < page {
			return nil
		}
	}
}
