// Package notification is the service that turns the shop's events into mails, each sent once.
//
//	svc, err := notification.New(ctx, platform.Config{Addr: "127.0.0.1:0", DB: url, Broker: broker, Registry: registry, MailURL: mail})
//	if err != nil {
//		return err
//	}
//	return svc.Run(ctx)
//
// Nobody calls it to send: it listens to orders and shipments. While the mail server is away, mails wait in the database.
package notification

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/events"
	"github.com/armature-go/armature/examples/shop/notification/api"
	"github.com/armature-go/armature/examples/shop/notification/app"
	"github.com/armature-go/armature/examples/shop/notification/infra"
	"github.com/armature-go/armature/examples/shop/platform"
	notificationv1 "github.com/armature-go/armature/examples/shop/proto/notification/v1"
	"github.com/armature-go/armature/messaging"
)

const (
	// group is the name under which the service's instances share the events out.
	group = "notification"
	// retry is the wait after a round in which a mail failed, and how often the table is looked at without a reason.
	retry = time.Second
	// farewell bounds how long handlers that run may take when the service stops.
	farewell = 5 * time.Second
)

// New opens the service's database and returns the service, ready to Run. It uses Addr, DB, Broker, Registry, MailURL
// and Intercept of cfg.
func New(ctx context.Context, cfg platform.Config) (_ *armature.Service, err error) {
	svc, err := platform.NewService("notification", cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = platform.Abandon(ctx, svc, err)
		}
	}()
	users, err := svc.Dial("user", armature.WithIntercept(cfg.Intercept...))
	if err != nil {
		return nil, err
	}
	mailer, err := infra.NewMailer(svc, cfg.MailURL)
	if err != nil {
		return nil, err
	}
	db, err := platform.OpenStore(ctx, svc, cfg, "notification", infra.Schema())
	if err != nil {
		return nil, err
	}
	in, err := db.NewInbox(ctx)
	if err != nil {
		return nil, err
	}
	svc.Check("broker", cfg.Broker.Ping)

	notifications := app.New(infra.NewStore(db), infra.NewDirectory(users), mailer, infra.Resume)
	noted := make(chan struct{}, 1)
	handle := in.Handle(group, api.Consume(notifications, svc.Logger))
	consume := func(ctx context.Context, d *messaging.Delivery) error {
		err := handle(ctx, d)
		select {
		case noted <- struct{}{}:
		default:
		}
		return err
	}
	svc.Worker("sender", func(ctx context.Context) error { return send(ctx, notifications, noted, svc.Logger) })
	for _, topic := range []string{events.TopicOrders, events.TopicShipments} {
		if err := cfg.Broker.Ensure(ctx, topic, group); err != nil {
			return nil, fmt.Errorf("notification: prepare topic %s: %w", topic, err)
		}
		svc.Worker(topic, func(ctx context.Context) error { return subscribe(ctx, cfg.Broker, topic, consume) })
	}
	notificationv1.RegisterNotificationServiceServer(svc.GRPC, api.New(notifications))
	return svc, nil
}

// subscribe handles the events of topic until ctx ends, and then lets the handlers that run finish.
func subscribe(ctx context.Context, broker *messaging.Broker, topic string, handle messaging.Handler) error {
	sub, err := broker.Subscribe(ctx, topic, group, handle)
	if err != nil {
		return err
	}
	select {
	case <-sub.Done():
		return sub.Err()
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	return sub.Drain(drain)
}

// send sends what is due whenever an event was noted, and once in a while what an earlier round or life left behind.
func send(ctx context.Context, notifications *app.Notifications, noted <-chan struct{}, log *slog.Logger) error {
	for ctx.Err() == nil {
		sent, err := notifications.SendPending(ctx)
		if err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "mails wait", "sent", sent, "error", err.Error())
		}
		timer := time.NewTimer(retry)
		if err != nil {
			// An event must not make a mail server that is down be asked all the time.
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		} else {
			select {
			case <-noted:
			case <-timer.C:
			case <-ctx.Done():
			}
		}
		timer.Stop()
	}
	return nil
}
