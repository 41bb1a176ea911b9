package messaging

import (
	"context"
	"encoding/json"
	"fmt"
)

// JSON returns a message with v encoded as its data. typ names the event, for example "order.placed"; key asks for order
// among the messages of that key and may be empty.
func JSON(typ, key string, v any) (*Message, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("messaging: encode %q: %w", typ, err)
	}
	return &Message{Type: typ, Key: key, ContentType: "application/json", Data: data}, nil
}

// Publish publishes one event as JSON. See [JSON] for the parameters.
func Publish[T any](ctx context.Context, p Publisher, topic, typ, key string, event T) error {
	m, err := JSON(typ, key, event)
	if err != nil {
		return err
	}
	return p.Publish(ctx, topic, m)
}

// On returns a handler that decodes the JSON data of each message. Data that is not a T goes to the dead letters at once:
// decoding it again would not help. Unknown fields are ignored, so that events can grow.
func On[T any](h func(ctx context.Context, event T, d *Delivery) error) Handler {
	return func(ctx context.Context, d *Delivery) error {
		var event T
		if err := json.Unmarshal(d.Message.Data, &event); err != nil {
			return Permanent(fmt.Errorf("messaging: decode %s %q: %w", d.Message.Type, d.Message.ID, err))
		}
		return h(ctx, event, d)
	}
}
