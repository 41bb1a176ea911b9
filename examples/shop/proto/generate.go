// Package proto holds the contracts of the shop's services, one folder per service and version. The generated Go
// code is committed, so that building the shop needs no protobuf compiler; `go generate` here needs protoc,
// protoc-gen-go and protoc-gen-go-grpc on PATH.
//
//	stub := orderv1.NewOrderServiceClient(conn)
//	answer, err := stub.GetOrder(ctx, &orderv1.GetOrderRequest{Id: id})
//	if err != nil {
//		return err // a *transport.Error with Reason ORDER_NOT_FOUND, when the connection is grpcx's
//	}
//
// Fields are never renumbered or reused: a change that old readers cannot take is a new version's folder.
package proto

//go:generate sh -c "cd ../../.. && protoc -I . --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative examples/shop/proto/*/v1/*.proto"
