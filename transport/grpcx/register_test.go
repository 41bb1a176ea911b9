package grpcx_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/grpcx"
)

// typed serves methods made of functions, and returns their clients.
func typed(t *testing.T, methods ...grpcx.Method) (say transport.Func[*text, *text], count func(context.Context, *text) iter.Seq2[*text, error], stop func()) {
	t.Helper()
	var n network
	s, err := grpcx.NewServer(grpcx.Config{})
	if err != nil {
		t.Fatal(err)
	}
	grpcx.Register(s, "test.v1.Typed", methods...)
	l := n.listen("server")
	served := make(chan error, 1)
	go func() { served <- s.ServeListener(l) }()
	conn, closeConn := n.client(t, grpcx.ClientConfig{Target: "passthrough:///server"})
	return grpcx.NewFunc[*text, *text](conn, "/test.v1.Typed/Say"), grpcx.NewStream[*text, *text](conn, "/test.v1.Typed/Count"), func() {
		closeConn()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve = %v", err)
		}
	}
}

func TestTypedMethods(t *testing.T) {
	t.Parallel()
	refused := transport.Errorf(transport.InvalidArgument, "EMPTY", "say something")
	left := make(chan error, 1)
	say, count, stop := typed(t,
		grpcx.Unary("Say", func(_ context.Context, in *text) (*text, error) {
			if in.GetValue() == "" {
				return nil, refused
			}
			return wrapperspb.String("you said " + in.GetValue()), nil
		}),
		grpcx.ServerStream("Count", func(ctx context.Context, in *text) iter.Seq2[*text, error] {
			return func(yield func(*text, error) bool) {
				for n := 1; ; n++ {
					if in.GetValue() == "to two, then fail" && n == 3 {
						yield(nil, refused)
						return
					}
					if in.GetValue() == "to two" && n == 3 {
						return
					}
					if !yield(wrapperspb.String(fmt.Sprint(n)), nil) {
						left <- ctx.Err()
						return
					}
				}
			}
		}),
	)
	defer stop()

	if out, err := say(t.Context(), wrapperspb.String("hello")); err != nil || out.GetValue() != "you said hello" {
		t.Errorf("Say = %v, %v", out, err)
	}
	if _, err := say(t.Context(), wrapperspb.String("")); !errors.Is(err, refused) {
		t.Errorf("Say of nothing = %v", err)
	}

	for in, want := range map[string][]string{"to two": {"1", "2"}, "to two, then fail": {"1", "2", "failed"}, "on": {"1", "2", "3", "4", "5"}} {
		var got []string
		for out, err := range count(t.Context(), wrapperspb.String(in)) {
			switch {
			case errors.Is(err, refused):
				got = append(got, "failed")
			case err != nil:
				t.Errorf("Count %s: %v", in, err)
			default:
				got = append(got, out.GetValue())
			}
			if len(got) == 5 {
				break // leaving ends the call
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("Count %s = %v, want %v", in, got, want)
		}
	}
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the function saw %v when the caller left", err)
	}
}

func TestRegisterPanicsOnMistakes(t *testing.T) {
	t.Parallel()
	s, err := grpcx.NewServer(grpcx.Config{})
	if err != nil {
		t.Fatal(err)
	}
	f := func(_ context.Context, in *text) (*text, error) { return in, nil }
	for name, call := range map[string]func(){
		"twice":      func() { grpcx.Register(s, "a", grpcx.Unary("Say", f), grpcx.Unary("Say", f)) },
		"empty":      func() { grpcx.Register(s, "b", grpcx.Method{}) },
		"nil":        func() { grpcx.Unary[*text, *text]("Say", nil) },
		"nil stream": func() { grpcx.ServerStream[*text, *text]("Say", nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
}
