package grpcx

import (
	"context"
	"io"
	"sync"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/armature-go/armature/transport"
)

// methods keeps what was made per method. Callers name methods by constants, so
// there are few.
type methods struct{ m sync.Map }

func (m *methods) get(full string) *method {
	if v, ok := m.m.Load(full); ok {
		return v.(*method)
	}
	v, _ := m.m.LoadOrStore(full, newMethod(full, nil))
	return v.(*method)
}

// finishClient closes a client's span: for a caller every error is one.
func finishClient(span trace.Span, err error) {
	e := transport.AsError(err)
	if e == nil {
		finish(span, transport.OK, "", false)
		return
	}
	finish(span, transport.CodeOf(e), e.Reason, true)
}

// stream opens a stream with span, flow and trace. Policies do not apply: what
// was sent cannot be sent again.
func (c *client) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, name string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	m := c.methods.get(name)
	ctx, span := c.tracer.Start(ctx, m.span, trace.WithSpanKind(trace.SpanKindClient), m.attrs)
	opts = append(opts[:len(opts):len(opts)], grpc.OnFinish(func(err error) {
		if err == io.EOF {
			err = nil
		}
		finishClient(span, err)
	}))
	s, err := open(inject(ctx), desc, cc, name, opts...)
	if err != nil {
		err = c.translate(ctx, err, false)
		finishClient(span, err) // a second End does nothing
		return nil, err
	}
	return &clientStream{ClientStream: s, translate: func(err error) error {
		if err == io.EOF {
			return err
		}
		return c.translate(ctx, err, true)
	}}, nil
}

// clientStream hands out *transport.Error.
type clientStream struct {
	grpc.ClientStream
	translate func(error) error
}

// Header waits for the header of the answer.
func (s *clientStream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	return md, s.translate(err)
}

// CloseSend ends the sending side.
func (s *clientStream) CloseSend() error { return s.translate(s.ClientStream.CloseSend()) }

// SendMsg sends a message; io.EOF means that RecvMsg has the error.
func (s *clientStream) SendMsg(m any) error { return s.translate(s.ClientStream.SendMsg(m)) }

// RecvMsg receives a message; io.EOF is the good end.
func (s *clientStream) RecvMsg(m any) error { return s.translate(s.ClientStream.RecvMsg(m)) }
