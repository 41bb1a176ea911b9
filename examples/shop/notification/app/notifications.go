// Package app holds what the notification service does: note which mails the shop's events ask for, and send each once.
//
//	notifications := app.New(store, users, mailer, resume)
//	sent, err := notifications.SendPending(ctx) // repeats what was not acknowledged, with the same key
//
// Noting happens in the transaction that also marks the event as handled; sending happens outside of any, under a key
// that the mail server knows the mail by.
package app

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/armature-go/armature/examples/shop/events"
	"github.com/armature-go/armature/examples/shop/notification/domain"
)

// batch bounds how many mails one round looks at.
const batch = 64

// Store keeps notifications.
type Store interface {
	// Note writes with tx whose order it is, where customerID is known, and that a mail is due, unless kind is None. It
	// keeps the origin it finds in ctx and changes nothing that is known already.
	Note(ctx context.Context, tx *sql.Tx, kind domain.Kind, orderID, customerID string) error
	// Pending answers the oldest unsent mails whose customer is known, at most limit, those after the one named first.
	Pending(ctx context.Context, after string, limit int) ([]domain.Notification, error)
	// MarkSent commits that the mail server took the mail.
	MarkSent(ctx context.Context, id string) error
	// List answers the notifications of an order, oldest first.
	List(ctx context.Context, orderID string) ([]domain.Notification, error)
}

// Directory knows customers' mail addresses.
type Directory interface {
	Email(ctx context.Context, customerID string) (string, error)
}

// Resume returns a context under which work counts as part of the request that a mail goes back to.
type Resume func(ctx context.Context, origin domain.Origin) context.Context

// Mailer is the mail server outside the shop, with one effect per key.
type Mailer interface {
	Send(ctx context.Context, key, to string, n domain.Notification) error
}

// Notifications is the use cases. It is safe for concurrent use.
type Notifications struct {
	store     Store
	directory Directory
	mailer    Mailer
	resume    Resume
}

// New returns the use cases over their neighbours.
func New(store Store, directory Directory, mailer Mailer, resume Resume) *Notifications {
	return &Notifications{store: store, directory: directory, mailer: mailer, resume: resume}
}

// Note writes down, with tx, what an event asks for.
func (s *Notifications) Note(ctx context.Context, tx *sql.Tx, e events.Event) error {
	kind, orderID, customerID := domain.For(e)
	if kind == domain.None && customerID == "" {
		return nil
	}
	return s.store.Note(ctx, tx, kind, orderID, customerID)
}

// SendPending sends every mail that is due and reports how many were taken. A mail that fails keeps no other from being
// sent; the errors of all are joined, and the next call tries those mails again.
func (s *Notifications) SendPending(ctx context.Context) (sent int, err error) {
	var (
		errs  []error
		after string
	)
	for {
		due, err := s.store.Pending(ctx, after, batch)
		if err != nil {
			return sent, errors.Join(append(errs, err)...)
		}
		for _, n := range due {
			if ctx.Err() != nil {
				return sent, errors.Join(append(errs, ctx.Err())...)
			}
			if err := s.send(ctx, n); err != nil {
				errs = append(errs, fmt.Errorf("notification: send %s: %w", n.Key(), err))
				continue
			}
			sent++
		}
		if len(due) < batch {
			return sent, errors.Join(errs...)
		}
		after = due[len(due)-1].ID
	}
}

func (s *Notifications) send(ctx context.Context, n domain.Notification) error {
	ctx = s.resume(ctx, n.Origin)
	to, err := s.directory.Email(ctx, n.CustomerID)
	if err != nil {
		return err
	}
	if err := s.mailer.Send(ctx, n.Key(), to, n); err != nil {
		return err
	}
	return s.store.MarkSent(ctx, n.ID)
}

// List answers the notifications of an order, oldest first.
func (s *Notifications) List(ctx context.Context, orderID string) ([]domain.Notification, error) {
	return s.store.List(ctx, orderID)
}
