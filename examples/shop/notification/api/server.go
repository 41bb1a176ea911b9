// Package api serves the notification service: over gRPC, and as a consumer of the shop's events.
//
//	notificationv1.RegisterNotificationServiceServer(svc.GRPC, api.New(notifications))
//	handler := inbox.Handle("notification", api.Consume(notifications, svc.Logger))
//
// An event that cannot be read is a permanent failure: it goes to the dead letters at once, where somebody can look.
package api

import (
	"context"
	"database/sql"
	"log/slog"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/armature-go/armature/examples/shop/events"
	"github.com/armature-go/armature/examples/shop/notification/app"
	"github.com/armature-go/armature/examples/shop/notification/domain"
	notificationv1 "github.com/armature-go/armature/examples/shop/proto/notification/v1"
	"github.com/armature-go/armature/messaging"
)

// Consume notes what an event asks for, in the transaction that marks the event as handled.
func Consume(notifications *app.Notifications, log *slog.Logger) func(context.Context, *sql.Tx, *messaging.Delivery) error {
	return func(ctx context.Context, tx *sql.Tx, d *messaging.Delivery) error {
		e, err := events.Decode(d.Message.Type, d.Message.Data)
		if err != nil {
			return messaging.Permanent(err)
		}
		if err := notifications.Note(ctx, tx, e); err != nil {
			return err
		}
		log.InfoContext(ctx, "event noted", "event", e.Type(), "order_id", e.Order())
		return nil
	}
}

// Server is the gRPC face of app.Notifications. It is safe for concurrent use.
type Server struct {
	notificationv1.UnimplementedNotificationServiceServer
	notifications *app.Notifications
}

// New returns a server over notifications.
func New(notifications *app.Notifications) *Server {
	return &Server{notifications: notifications}
}

// ListNotifications implements notificationv1.NotificationServiceServer.
func (s *Server) ListNotifications(ctx context.Context, req *notificationv1.ListNotificationsRequest) (*notificationv1.ListNotificationsResponse, error) {
	list, err := s.notifications.List(ctx, req.GetOrderId())
	if err != nil {
		return nil, err
	}
	answer := &notificationv1.ListNotificationsResponse{}
	for _, n := range list {
		answer.Notifications = append(answer.Notifications, &notificationv1.Notification{
			Id: n.ID, OrderId: n.OrderID, Kind: wireKind(n.Kind), State: wireState(n.State),
			CreatedAt: timestamppb.New(n.CreatedAt),
		})
	}
	return answer, nil
}

func wireKind(k domain.Kind) notificationv1.NotificationKind {
	switch k {
	case domain.Confirmed:
		return notificationv1.NotificationKind_NOTIFICATION_KIND_CONFIRMED
	case domain.Cancelled:
		return notificationv1.NotificationKind_NOTIFICATION_KIND_CANCELLED
	case domain.Refunded:
		return notificationv1.NotificationKind_NOTIFICATION_KIND_REFUNDED
	case domain.Shipped:
		return notificationv1.NotificationKind_NOTIFICATION_KIND_SHIPPED
	default:
		return notificationv1.NotificationKind_NOTIFICATION_KIND_UNSPECIFIED
	}
}

func wireState(s domain.State) notificationv1.NotificationState {
	switch s {
	case domain.Pending:
		return notificationv1.NotificationState_NOTIFICATION_STATE_PENDING
	case domain.Sent:
		return notificationv1.NotificationState_NOTIFICATION_STATE_SENT
	default:
		return notificationv1.NotificationState_NOTIFICATION_STATE_UNSPECIFIED
	}
}
