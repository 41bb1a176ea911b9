package grpcx

import (
	"context"
	"errors"

	"google.golang.org/grpc/status"

	"github.com/armature-go/armature/resilience"
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
		switch missing := c.missing(); {
		case missing != nil && !sent:
			e = transport.Errorf(transport.Unavailable, "", "no instance of %s", c.follow.service).WithCause(missing)
		case e.Reason == "" && len(st.Details()) == 0:
			// gRPC's own words name addresses, which a server that passes the error on must not tell strangers.
			e = transport.Errorf(transport.Unavailable, "", "the service is unavailable").WithCause(err)
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

// verdict makes a *transport.Error of what the policies returned. What it says is
// about the whole call: a RetryError holds the errors of all attempts, and the last
// one may have reached nobody while the first did.
func verdict(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*transport.Error); ok {
		return e
	}
	last := err
	if r, ok := errors.AsType[*resilience.RetryError](err); ok && len(r.Errs) > 0 {
		last = r.Errs[len(r.Errs)-1]
	}
	e := transport.AsError(last).WithCause(err)
	var n interface{ NotExecuted() bool }
	if errors.As(err, &n) {
		e.Details.NotExecuted = n.NotExecuted()
	}
	return e
}
