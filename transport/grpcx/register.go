package grpcx

import (
	"context"
	"fmt"
	"io"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/armature-go/armature/transport"
)

// Method is one method of a service for [Register]: a [Unary] or a [ServerStream].
type Method struct {
	unary  *grpc.MethodDesc
	stream *grpc.StreamDesc
	file   string
}

// Register serves functions as the methods of a service, without a generated stub:
//
//	grpcx.Register(s, "shop.v1.Orders", grpcx.Unary("Place", svc.Place), grpcx.ServerStream("Watch", svc.Watch))
//
// service is the full name of the service in its .proto file. It panics, as
// grpc.Server does, when the service is registered already, and when a method is
// named twice: only a programmer can mend that.
func Register(s grpc.ServiceRegistrar, service string, methods ...Method) {
	desc := &grpc.ServiceDesc{ServiceName: service, HandlerType: (*any)(nil)}
	seen := map[string]bool{}
	for _, m := range methods {
		name := ""
		switch {
		case m.unary != nil:
			name = m.unary.MethodName
			desc.Methods = append(desc.Methods, *m.unary)
		case m.stream != nil:
			name = m.stream.StreamName
			desc.Streams = append(desc.Streams, *m.stream)
		}
		if name == "" || seen[name] {
			panic(fmt.Sprintf("grpcx: register %s: the method %q has no name, or one that is taken", service, name))
		}
		seen[name] = true
		desc.Metadata = m.file
	}
	s.RegisterService(desc, struct{}{})
}

// Unary makes f a method that answers once. Req and Resp are generated message
// pointers. It panics when f is nil.
func Unary[Req, Resp proto.Message](name string, f transport.Func[Req, Resp]) Method {
	if f == nil {
		panic("grpcx: method " + name + ": the function is nil")
	}
	var zero Req
	kind := zero.ProtoReflect().Type()
	handle := func(ctx context.Context, req any) (any, error) { return f(ctx, req.(Req)) }
	return Method{file: kind.Descriptor().ParentFile().Path(), unary: &grpc.MethodDesc{
		MethodName: name,
		Handler: func(_ any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			req := kind.New().Interface()
			if err := decode(req); err != nil {
				return nil, err
			}
			if intercept == nil {
				return handle(ctx, req)
			}
			// gRPC keeps the full name from us here; the stream in ctx knows it.
			full, _ := grpc.Method(ctx)
			return intercept(ctx, req, &grpc.UnaryServerInfo{FullMethod: full}, handle)
		},
	}}
}

// ServerStream makes f a method that answers with each value f yields, until f ends,
// yields an error, which becomes the status, or the caller leaves, which f sees as
// the end of its context and as a yield that returns false. A message is sent before
// yield returns and may be used again then. It panics when f is nil.
func ServerStream[Req, Resp proto.Message](name string, f func(context.Context, Req) iter.Seq2[Resp, error]) Method {
	if f == nil {
		panic("grpcx: method " + name + ": the function is nil")
	}
	var zero Req
	kind := zero.ProtoReflect().Type()
	return Method{file: kind.Descriptor().ParentFile().Path(), stream: &grpc.StreamDesc{
		StreamName: name, ServerStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			req := kind.New().Interface().(Req)
			if err := stream.RecvMsg(req); err != nil {
				return err
			}
			for resp, err := range f(stream.Context(), req) {
				if err != nil {
					return err
				}
				if err := stream.SendMsg(resp); err != nil {
					return err
				}
			}
			return stream.Context().Err()
		},
	}}
}

// NewStream makes one remote method that answers many times a function, without a
// generated stub. The call begins when the sequence is ranged over, and ends with
// it; ranging again calls again. The last pair holds the error, if there was one.
func NewStream[Req, Resp proto.Message](cc grpc.ClientConnInterface, method string, opts ...grpc.CallOption) func(context.Context, Req) iter.Seq2[Resp, error] {
	var zero Resp
	kind := zero.ProtoReflect().Type()
	desc := &grpc.StreamDesc{ServerStreams: true}
	return func(ctx context.Context, req Req) iter.Seq2[Resp, error] {
		return func(yield func(Resp, error) bool) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := cc.NewStream(ctx, desc, method, opts...)
			if err == nil {
				if err = stream.SendMsg(req); err == nil || err == io.EOF { // the status comes with RecvMsg
					err = stream.CloseSend()
				}
			}
			for err == nil {
				resp := kind.New().Interface().(Resp)
				if err = stream.RecvMsg(resp); err == nil && !yield(resp, nil) {
					return
				}
			}
			if err != io.EOF {
				yield(zero, err)
			}
		}
	}
}
