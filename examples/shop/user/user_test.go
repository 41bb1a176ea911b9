package user_test

import (
	"context"
	"errors"
	"io"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/armature-go/armature/examples/shop/platform"
	userv1 "github.com/armature-go/armature/examples/shop/proto/user/v1"
	"github.com/armature-go/armature/examples/shop/user"
	"github.com/armature-go/armature/internal/testsvc"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/grpcx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs the service on a database and stops it when the test ends, or when stop is called.
func serve(t *testing.T, url string) (_ userv1.UserServiceClient, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	svc, err := user.New(ctx, platform.Config{Addr: "127.0.0.1:0", DB: url})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- svc.Run(ctx) }()
	select {
	case <-svc.Ready():
	case err := <-ran:
		cancel()
		t.Fatal(err)
	}
	conn, err := grpcx.NewClient(grpcx.ClientConfig{Target: svc.GRPCAddr()})
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = conn.Close()
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return userv1.NewUserServiceClient(conn), stop
}

func list(t *testing.T, client userv1.UserServiceClient) (ids []string) {
	t.Helper()
	stream, err := client.ListUsers(t.Context(), &userv1.ListUsersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		got, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return ids
		}
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, got.GetUser().GetId())
	}
}

func TestService(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func(testing.TB) string{"sqlite": testsvc.SQLite, "postgres": testsvc.Postgres} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := url(t)
			client, stop := serve(t, url)
			ctx := t.Context()
			if ids := list(t, client); len(ids) != 12 || ids[0] != "cust-01" || ids[11] != "cust-12" {
				t.Fatalf("seeded %v", ids)
			}
			got, err := client.GetUser(ctx, &userv1.GetUserRequest{Id: "cust-01"})
			if err != nil || got.GetUser().GetEmail() != "ada@example.org" || got.GetUser().GetCreatedAt().AsTime().IsZero() {
				t.Errorf("got %v, %v", got, err)
			}
			mia := &userv1.CreateUserRequest{Id: "mia", Name: "Mia Holm", Email: "mia@example.org"}
			for range 2 {
				if _, err := client.CreateUser(ctx, mia); err != nil {
					t.Fatal(err)
				}
			}
			made, err := client.CreateUser(ctx, &userv1.CreateUserRequest{Name: "Noor", Email: "noor@example.org"})
			if err != nil || made.GetUser().GetId() == "" {
				t.Errorf("got %v, %v", made, err)
			}
			for name, c := range map[string]struct {
				code   transport.Code
				reason string
				call   func() error
			}{
				"unknown": {transport.NotFound, "CUSTOMER_NOT_FOUND", func() error {
					_, err := client.GetUser(ctx, &userv1.GetUserRequest{Id: "nobody"})
					return err
				}},
				"taken": {transport.AlreadyExists, "CUSTOMER_ID_TAKEN", func() error {
					_, err := client.CreateUser(ctx, &userv1.CreateUserRequest{Id: "mia", Name: "Another", Email: "mia@example.org"})
					return err
				}},
				"bad": {transport.InvalidArgument, "CUSTOMER_INVALID", func() error {
					_, err := client.CreateUser(ctx, &userv1.CreateUserRequest{Name: "X", Email: "x"})
					return err
				}},
			} {
				err := transport.AsError(c.call())
				if err == nil || err.Code != c.code || err.Reason != c.reason {
					t.Errorf("%s: got %v", name, err)
				}
			}

			stop()
			client, _ = serve(t, url)
			if ids := list(t, client); len(ids) != 14 {
				t.Errorf("%d customers after a restart, want 14", len(ids))
			}
		})
	}
}

func TestNewNamesWhatItCannotOpen(t *testing.T) {
	t.Parallel()
	if _, err := user.New(t.Context(), platform.Config{Addr: "127.0.0.1:0", DB: "sqlite:/nowhere/at/all.db"}); err == nil {
		t.Fatal("opened a database in a folder that does not exist")
	}
}
