package resilience_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/go-kit/kit/endpoint"

	"github.com/armature-go/armature/resilience"
)

type reply struct {
	n   int
	err error
}

func (r reply) Failed() error { return r.err }

var _ endpoint.Failer = reply{}

func TestMiddlewareCountsFailedResponses(t *testing.T) {
	t.Parallel()
	b := must(resilience.NewBreaker(resilience.BreakerConfig{Window: resilience.Consecutive(), Failures: 2}))
	ep := resilience.Middleware(b)(func(_ context.Context, request any) (any, error) {
		return reply{request.(int), errDown}, nil
	})
	for i := range 2 {
		response, err := ep(t.Context(), i)
		if err != nil || response != any(reply{i, errDown}) {
			t.Fatalf("call %d: %v, %v; want the failed response and no error", i, response, err)
		}
	}
	if response, err := ep(t.Context(), 3); !errors.Is(err, resilience.ErrOpen) || response != nil {
		t.Errorf("after two failed responses: %v, %v; want ErrOpen", response, err)
	}
}

func TestMiddlewareRetries(t *testing.T) {
	t.Parallel()
	retry := must(resilience.NewRetry(resilience.RetryConfig{Backoff: resilience.Exponential(0, 0, resilience.NoJitter)}))
	for _, tt := range []struct {
		name    string
		replies []any // reply or error, by attempt
		want    any
		wantErr error
	}{
		{"failed response, then a good one", []any{reply{1, errDown}, reply{2, nil}}, reply{2, nil}, nil},
		{"only failed responses", []any{reply{1, errDown}, reply{2, errDown}, reply{3, errDown}}, reply{3, errDown}, nil},
		{"only errors", []any{errDown, errDown, errDown}, nil, errDown},
		{"error, then a good response", []any{errDown, reply{2, nil}}, reply{2, nil}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := 0
			ep := resilience.Middleware(retry)(func(context.Context, any) (any, error) {
				r := tt.replies[n]
				n++
				if err, ok := r.(error); ok {
					return nil, err
				}
				return r, nil
			})
			got, err := ep(t.Context(), nil)
			if got != tt.want || !errors.Is(err, tt.wantErr) {
				t.Errorf("got %v, %v; want %v, %v", got, err, tt.want, tt.wantErr)
			}
		})
	}
}

func TestMiddlewareWithoutPolicy(t *testing.T) {
	t.Parallel()
	got, err := resilience.Middleware(nil)(endpoint.Nop)(t.Context(), nil)
	if err != nil || got == nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestMiddlewareKeepsResponsesOfParallelAttemptsApart(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	ep := resilience.Middleware(sideBySide(3))(func(context.Context, any) (any, error) {
		i := int(n.Add(1))
		if i == 2 {
			return reply{i, nil}, nil
		}
		return reply{i, errDown}, nil
	})
	if got, err := ep(t.Context(), nil); got != any(reply{2, nil}) || err != nil {
		t.Errorf("got %v, %v; want the response that did not fail", got, err)
	}
}
