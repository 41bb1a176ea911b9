package grpcx

import (
	"context"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// healthService is the standard one, except that its watches end when the server
// does: each is a call in progress, and a graceful stop would wait for it for ever.
type healthService struct {
	*health.Server
	ctx context.Context // ends with the server
}

// Watch streams the state of a service until the caller or the server leaves.
func (h healthService) Watch(in *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	return h.Server.Watch(in, watch{stream, ctx})
}

type watch struct {
	healthpb.Health_WatchServer
	ctx context.Context
}

// Context returns the context that ends with the server.
func (w watch) Context() context.Context { return w.ctx }

func servingStatus(ok bool) healthpb.HealthCheckResponse_ServingStatus {
	if ok {
		return healthpb.HealthCheckResponse_SERVING
	}
	return healthpb.HealthCheckResponse_NOT_SERVING
}
