package resilience

import (
	"context"
	"errors"

	"github.com/go-kit/kit/endpoint"
)

// Middleware puts p around a go-kit endpoint. A response that implements
// [endpoint.Failer] and failed counts as a failure for p; if the policies give up
// on it the response is returned with a nil error, as go-kit's encoders expect.
func Middleware(p Policy) endpoint.Middleware {
	return func(next endpoint.Endpoint) endpoint.Endpoint {
		if p == nil {
			return next
		}
		return func(ctx context.Context, request any) (any, error) {
			c := &endpointCall{next: next, request: request}
			err := p.Run(ctx, Next{op: c})
			if err != nil && c.failed != nil && errors.Is(err, c.failed) {
				return c.response, nil
			}
			return c.response, err
		}
	}
}

type endpointCall struct {
	next     endpoint.Endpoint
	request  any
	response any
	failed   error
}

func (c *endpointCall) run(ctx context.Context) error {
	c.response, c.failed = nil, nil
	var err error
	c.response, err = c.next(ctx, c.request)
	if err != nil {
		return err
	}
	if f, ok := c.response.(endpoint.Failer); ok {
		c.failed = f.Failed()
	}
	return c.failed
}

func (c *endpointCall) fork() operation {
	return &endpointCall{next: c.next, request: c.request}
}

func (c *endpointCall) adopt(fork operation) {
	f := fork.(*endpointCall)
	c.response, c.failed = f.response, f.failed
}

func (c *endpointCall) discard() { c.response, c.failed = nil, nil }
