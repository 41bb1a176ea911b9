// Package logging sets up log/slog for a service: JSON lines that carry the
// service, the correlation id and the trace id, and no secrets.
//
//	logger, err := logging.New(logging.Config{Service: "order", Environment: "prod"})
//	if err != nil {
//		return err
//	}
//	logger.InfoContext(ctx, "order placed", "order_id", id)
//
// The ids come from the context, so only the *Context methods of [slog.Logger]
// add them. They stay at the top level of the line, also below WithGroup.
//
// Attributes whose key contains a word such as password, token or card are
// replaced by [Redacted], in groups, behind [slog.LogValuer] and inside structs
// and maps. The message is not looked at: never build it from user data.
//
// Logging never fails a caller: errors of the writer are dropped, as slog does.
//
// [ToKit] and [FromKit] bridge to go-kit/log in both directions.
package logging
