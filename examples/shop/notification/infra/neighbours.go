package infra

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"google.golang.org/grpc"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/notification/app"
	"github.com/armature-go/armature/examples/shop/notification/domain"
	"github.com/armature-go/armature/examples/shop/outside"
	userv1 "github.com/armature-go/armature/examples/shop/proto/user/v1"
	"github.com/armature-go/armature/transport"
)

// Directory asks the user service, and remembers: an address that was asked for once is not asked for again for the life
// of the process. It is safe for concurrent use.
type Directory struct {
	client userv1.UserServiceClient
	known  sync.Map
}

var _ app.Directory = (*Directory)(nil)

// NewDirectory returns a Directory over a connection to the user service.
func NewDirectory(conn grpc.ClientConnInterface) *Directory {
	return &Directory{client: userv1.NewUserServiceClient(conn)}
}

// Email is described by app.Directory.
func (d *Directory) Email(ctx context.Context, customerID string) (string, error) {
	if email, ok := d.known.Load(customerID); ok {
		return email.(string), nil
	}
	answer, err := d.client.GetUser(ctx, &userv1.GetUserRequest{Id: customerID})
	if err != nil {
		return "", fmt.Errorf("notification: look up customer %s: %w", customerID, err)
	}
	d.known.Store(customerID, answer.GetUser().GetEmail())
	return answer.GetUser().GetEmail(), nil
}

// Mailer is an app.Mailer over HTTP. It is safe for concurrent use.
type Mailer struct {
	log  *slog.Logger
	send transport.Func[mailRequest, receipt]
}

var _ app.Mailer = (*Mailer)(nil)

type mailRequest struct {
	Ref      string `json:"ref"`
	To       string `json:"to"`
	Template string `json:"template"`
}

type receipt struct {
	ID string `json:"id"`
}

// NewMailer returns the service's client of the mail server at url.
func NewMailer(svc *armature.Service, url string) (*Mailer, error) {
	client, err := outside.For(svc, "mail server", url)
	if err != nil {
		return nil, err
	}
	send, err := outside.Post[mailRequest, receipt](client, "/mails")
	if err != nil {
		return nil, err
	}
	return &Mailer{log: svc.Logger, send: send}, nil
}

// Send is described by app.Mailer.
func (m *Mailer) Send(ctx context.Context, key, to string, n domain.Notification) error {
	_, err := m.send(outside.WithKey(ctx, key), mailRequest{Ref: n.OrderID, To: to, Template: string(n.Kind)})
	if err == nil {
		m.log.InfoContext(ctx, "mail sent", "kind", string(n.Kind), "order_id", n.OrderID)
	}
	return err
}
