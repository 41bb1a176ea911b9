package infra_test

import (
	"context"
	"database/sql"
	"testing"

	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/notification/domain"
	"github.com/armature-go/armature/examples/shop/notification/infra"
	"github.com/armature-go/armature/examples/shop/platform"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/messaging/memory"
	"github.com/armature-go/armature/messaging/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNotifications(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func(testing.TB) string{"SQLite": testsvc.SQLite, "PostgreSQL": testsvc.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			origin := domain.Origin{TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", CorrelationID: "c-1"}
			asked := infra.Resume(ctx, origin)
			db, dialect, err := armature.OpenDB(ctx, url(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			broker, err := memory.New(memory.Config{})
			if err != nil {
				t.Fatal(err)
			}
			shared, err := platform.NewStore(ctx, db, dialect, "notification", infra.Schema(), outbox.Config{Publisher: broker})
			if err != nil {
				t.Fatal(err)
			}
			store := infra.NewStore(shared)
			note := func(kind domain.Kind, order, customer string) {
				t.Helper()
				err := shared.InTx(asked, func(ctx context.Context, tx *sql.Tx) error {
					return store.Note(ctx, tx, kind, order, customer)
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			pending := func(after string) []domain.Notification {
				t.Helper()
				list, err := store.Pending(ctx, after, 10)
				if err != nil {
					t.Fatal(err)
				}
				return list
			}

			note(domain.Shipped, "1", "")
			if due := pending(""); len(due) != 0 {
				t.Fatalf("a mail to nobody known is due: %+v", due)
			}
			note(domain.None, "1", "cust-01")
			note(domain.Shipped, "1", "")          // delivered again
			note(domain.Confirmed, "1", "cust-02") // whose the order is does not change
			due := pending("")
			if len(due) != 2 || due[0].Kind != domain.Shipped || due[0].CustomerID != "cust-01" || due[1].Kind != domain.Confirmed {
				t.Fatalf("Pending = %+v, want shipped and confirmed to cust-01", due)
			}
			if due[0].Origin != origin || due[1].Origin != origin {
				t.Errorf("the mails go back to %+v and %+v, want %+v", due[0].Origin, due[1].Origin, origin)
			}
			if rest := pending(due[0].ID); len(rest) != 1 || rest[0].ID != due[1].ID {
				t.Errorf("Pending after the first = %+v", rest)
			}
			for range 2 {
				if err := store.MarkSent(ctx, due[0].ID); err != nil {
					t.Fatal(err)
				}
			}
			if rest := pending(""); len(rest) != 1 || rest[0].ID != due[1].ID {
				t.Errorf("Pending after one is sent = %+v", rest)
			}
			list, err := store.List(ctx, "1")
			if err != nil || len(list) != 2 || list[0].State != domain.Sent || list[1].State != domain.Pending {
				t.Errorf("List = %+v, %v", list, err)
			}
		})
	}
}
