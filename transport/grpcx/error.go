package grpcx

import (
	"context"
	"errors"

	"google.golang.org/grpc/status"

	"github.com/armature-go/armature/transport"
)

// translate makes a *transport.Error of what gRPC returned. sent says whether the
// call got as far as a connection: one that did not cannot have been served.
func (c *client) translate(ctx context.Context, err error, sent bool) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*transport.Error](err); ok {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		return transport.AsError(err)
	}
	e := transport.FromStatus(st)
	switch e.Code {
	case transport.Canceled, transport.DeadlineExceeded:
		if ctx.Err() != nil {
			e = e.WithCause(ctx.Err())
		}
	case transport.Unavailable:
		if missing := c.missing(); missing != nil && !sent {
			e = transport.Errorf(transport.Unavailable, "", "no instance of %s", c.follow.service).WithCause(missing)
		}
	default:
		return e
	}
	e.Details.NotExecuted = e.Details.NotExecuted || !sent
	return e
}

// missing returns why there is no instance, nil when there is one or when gRPC
// itself resolves the target.
func (c *client) missing() error {
	if c.follow == nil {
		return nil
	}
	if missing := c.follow.missing.Load(); missing != nil {
		return missing
	}
	return nil
}

// typed keeps what holds a *transport.Error, such as a RetryError, and wraps what
// does not, such as the rejection of a breaker.
func typed(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*transport.Error](err); ok {
		return err
	}
	return transport.AsError(err)
}
