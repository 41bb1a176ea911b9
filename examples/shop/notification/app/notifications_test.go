package app_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/armature-go/armature/examples/shop/notification/app"
	"github.com/armature-go/armature/examples/shop/notification/domain"
)

// table is a Store in memory; ids are in the order of the rows.
type table struct {
	rows []domain.Notification
}

func (s *table) Note(context.Context, *sql.Tx, domain.Kind, string, string) error { return nil }

func (s *table) Pending(_ context.Context, after string, limit int) (due []domain.Notification, _ error) {
	for _, n := range s.rows {
		if n.State == domain.Pending && n.ID > after && len(due) < limit {
			due = append(due, n)
		}
	}
	return due, nil
}

func (s *table) MarkSent(_ context.Context, id string) error {
	for i := range s.rows {
		if s.rows[i].ID == id {
			s.rows[i].State = domain.Sent
		}
	}
	return nil
}

func (s *table) List(context.Context, string) ([]domain.Notification, error) { return s.rows, nil }

type directory struct{}

func (directory) Email(_ context.Context, customer string) (string, error) {
	return customer + "@example.com", nil
}

type originKey struct{}

func resume(ctx context.Context, origin domain.Origin) context.Context {
	return context.WithValue(ctx, originKey{}, origin)
}

// mailer has one effect per key and loses the answers it is told to.
type mailer struct {
	inbox map[string]string
	lose  int
	block string
}

func (m *mailer) Send(ctx context.Context, key, to string, n domain.Notification) error {
	if ctx.Value(originKey{}) != n.Origin {
		return errors.New("sent under another origin")
	}
	if m.block != "" && strings.Contains(key, m.block) {
		return errors.New("not now")
	}
	m.inbox[key] = to
	if m.lose > 0 {
		m.lose--
		return errors.New("connection reset")
	}
	return nil
}

func rows(n int) (rows []domain.Notification) {
	for i := range n {
		rows = append(rows, domain.Notification{
			ID: fmt.Sprintf("n-%04d", i), OrderID: fmt.Sprintf("o-%04d", i), CustomerID: "ada",
			Kind: domain.Confirmed, State: domain.Pending, Origin: domain.Origin{CorrelationID: fmt.Sprint(i)},
		})
	}
	return rows
}

func TestSendPendingSendsEachMailOnceAlthoughAnswersAreLost(t *testing.T) {
	t.Parallel()
	store, server := &table{rows: rows(200)}, &mailer{inbox: map[string]string{}, lose: 3}
	notifications := app.New(store, directory{}, server, resume)
	if sent, err := notifications.SendPending(t.Context()); err == nil || sent != 197 {
		t.Fatalf("SendPending = %d, %v, want 197 and the lost answers", sent, err)
	}
	if sent, err := notifications.SendPending(t.Context()); err != nil || sent != 3 {
		t.Fatalf("second SendPending = %d, %v, want 3", sent, err)
	}
	if len(server.inbox) != 200 || server.inbox["confirmed/o-0007"] != "ada@example.com" {
		t.Errorf("the server has %d mails, want 200, one per order", len(server.inbox))
	}
}

func TestSendPendingIsNotHeldUpByOneMail(t *testing.T) {
	t.Parallel()
	store, server := &table{rows: rows(100)}, &mailer{inbox: map[string]string{}, block: "o-0000"}
	if sent, err := app.New(store, directory{}, server, resume).SendPending(t.Context()); err == nil || sent != 99 {
		t.Errorf("SendPending = %d, %v, want 99 and the error of the one", sent, err)
	}
}
