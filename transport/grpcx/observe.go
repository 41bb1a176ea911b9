package grpcx

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/armature-go/armature/internal/deadline"
	"github.com/armature-go/armature/transport"
)

// call is one call being served.
type call struct {
	server *Server
	method *method
	span   trace.Span
	start  time.Time
}

// begin returns the context the handler works with.
func (s *Server) begin(ctx context.Context, fullMethod string) (context.Context, *call) {
	c := &call{server: s, method: s.method(fullMethod), start: time.Now()}
	ctx, c.span = s.tracer.Start(extract(ctx, s.cfg.Edge), c.method.span, c.method.serving...)
	return ctx, c
}

// end is deferred around every handler, outermost: it sees every way out, panics
// included, and leaves in *err what goes over the wire.
func (c *call) end(ctx context.Context, err *error) {
	var stack []byte
	if v := recover(); v != nil {
		stack = debug.Stack()
		*err = transport.Errorf(transport.Internal, "", "internal error").WithCause(fmt.Errorf("grpcx: handle %s: panic: %v", c.method.full, v))
	}
	cause := *err
	code, reason := transport.OK, ""
	if e := transport.AsError(cause); e != nil {
		st := e.GRPCStatus()
		code, reason, *err = transport.Code(st.Code()), e.Reason, st.Err()
	}
	elapsed := time.Since(c.start)
	finish(c.span, code, reason, serverFault(code))
	c.method.observe(code, elapsed.Seconds())
	c.log(ctx, code, reason, elapsed, cause, stack)
}

func (c *call) log(ctx context.Context, code transport.Code, reason string, elapsed time.Duration, cause error, stack []byte) {
	level := slog.LevelInfo
	switch {
	case serverFault(code):
		level = slog.LevelError
	case c.method.quiet:
		level = slog.LevelDebug
	}
	log := c.server.log
	if !log.Enabled(ctx, level) {
		return
	}
	// A record of one's own comes without the line of code it is made in, which says
	// nothing here and costs a walk over the stack.
	line := slog.NewRecord(c.start.Add(elapsed), level, "grpc call", 0)
	line.AddAttrs(slog.String("method", c.method.full), slog.String("code", code.String()), slog.Duration("duration", elapsed))
	if reason != "" {
		line.AddAttrs(slog.String("reason", reason))
	}
	if cause != nil {
		line.AddAttrs(slog.String("error", cause.Error()))
	}
	if stack != nil {
		line.AddAttrs(slog.String("stack", string(stack)))
	}
	_ = log.Handler().Handle(ctx, line) // slog.Logger ignores it too
}

func statusCode(code transport.Code) attribute.KeyValue {
	return attribute.Int64("rpc.grpc.status_code", int64(code))
}

// statusCodes are the attributes of the known codes, made once.
var statusCodes = func() (all [codes.Unauthenticated + 1][]attribute.KeyValue) {
	for code := range all {
		all[code] = []attribute.KeyValue{statusCode(transport.Code(code))}
	}
	return all
}()

// finish closes a span. It says what class of error there was and not in which
// words: messages may hold what does not belong into a trace.
func finish(span trace.Span, code transport.Code, reason string, failed bool) {
	if span.IsRecording() {
		if int(code) < len(statusCodes) {
			span.SetAttributes(statusCodes[code]...)
		} else {
			span.SetAttributes(statusCode(code))
		}
		if reason != "" {
			span.SetAttributes(attribute.String("error.reason", reason))
		}
		if failed {
			span.SetStatus(otelcodes.Error, code.String())
		}
	}
	span.End()
}

// serverFault tells the codes that are the server's own failure from those that
// answer the caller.
func serverFault(code transport.Code) bool {
	switch code {
	case transport.Unknown, transport.DeadlineExceeded, transport.Unimplemented, transport.Internal, transport.Unavailable, transport.DataLoss:
		return true
	}
	return false
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	ctx, c := s.begin(ctx, info.FullMethod)
	defer c.end(ctx, &err)
	if _, ok := ctx.Deadline(); !ok && s.cfg.Timeout > 0 {
		limited := deadline.At(ctx, c.start.Add(s.cfg.Timeout))
		defer limited.End()
		return handler(limited, req)
	}
	return handler(ctx, req)
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	ctx, c := s.begin(ss.Context(), info.FullMethod)
	defer c.end(ctx, &err)
	return handler(srv, serverStream{ss, ctx})
}

// executed stands around the handler, within all middleware.
func executed(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	return resp, transport.Executed(err)
}

func executedStream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return transport.Executed(handler(srv, ss))
}

// serverStream gives a handler the context of begin.
type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the context with span, flow and trace.
func (s serverStream) Context() context.Context { return s.ctx }
