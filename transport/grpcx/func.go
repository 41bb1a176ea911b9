package grpcx

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/armature-go/armature/transport"
)

// NewFunc makes one remote method a function, without a generated stub. method is
// the full name, "/shop.v1.Orders/Place"; Req and Resp are generated message
// pointers.
func NewFunc[Req, Resp proto.Message](cc grpc.ClientConnInterface, method string, opts ...grpc.CallOption) transport.Func[Req, Resp] {
	var zero Resp
	kind := zero.ProtoReflect().Type()
	return func(ctx context.Context, req Req) (Resp, error) {
		resp := kind.New().Interface().(Resp)
		if err := cc.Invoke(ctx, method, req, resp, opts...); err != nil {
			return zero, err
		}
		return resp, nil
	}
}
