// Package api is the user service on gRPC.
//
//	userv1.RegisterUserServiceServer(svc.GRPC, api.New(users, svc.Logger))
//
// Errors are *transport.Error: NOT_FOUND with CUSTOMER_NOT_FOUND, ALREADY_EXISTS with CUSTOMER_ID_TAKEN,
// INVALID_ARGUMENT with CUSTOMER_INVALID; anything else is INTERNAL and says nothing.
package api

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/armature-go/armature/examples/shop/proto/user/v1"
	"github.com/armature-go/armature/examples/shop/user/app"
	"github.com/armature-go/armature/examples/shop/user/domain"
	"github.com/armature-go/armature/transport"
)

// Server implements userv1.UserServiceServer.
type Server struct {
	userv1.UnimplementedUserServiceServer
	users *app.Users
	log   *slog.Logger
}

// New returns the gRPC side of users.
func New(users *app.Users, log *slog.Logger) *Server { return &Server{users: users, log: log} }

// CreateUser stores a customer.
func (s *Server) CreateUser(ctx context.Context, req *userv1.CreateUserRequest) (*userv1.CreateUserResponse, error) {
	u, err := s.users.Create(ctx, req.GetId(), req.GetName(), req.GetEmail())
	if err != nil {
		return nil, explain(err)
	}
	s.log.InfoContext(ctx, "customer stored", "customer_id", u.ID)
	return &userv1.CreateUserResponse{User: encode(u)}, nil
}

// GetUser answers one customer.
func (s *Server) GetUser(ctx context.Context, req *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
	u, err := s.users.Get(ctx, req.GetId())
	if err != nil {
		return nil, explain(err)
	}
	s.log.InfoContext(ctx, "customer read", "customer_id", u.ID)
	return &userv1.GetUserResponse{User: encode(u)}, nil
}

// ListUsers streams every customer.
func (s *Server) ListUsers(_ *userv1.ListUsersRequest, stream grpc.ServerStreamingServer[userv1.ListUsersResponse]) error {
	return explain(s.users.Each(stream.Context(), func(u domain.User) error {
		return stream.Send(&userv1.ListUsersResponse{User: encode(u)})
	}))
}

func encode(u domain.User) *userv1.User {
	return &userv1.User{Id: u.ID, Name: u.Name, Email: u.Email, CreatedAt: timestamppb.New(u.CreatedAt)}
}

func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, app.ErrNotFound):
		return transport.Errorf(transport.NotFound, "CUSTOMER_NOT_FOUND", "there is no such customer").WithCause(err)
	case errors.Is(err, app.ErrTaken):
		return transport.Errorf(transport.AlreadyExists, "CUSTOMER_ID_TAKEN", "the id belongs to another customer").WithCause(err)
	case errors.Is(err, domain.ErrInvalid):
		return transport.Errorf(transport.InvalidArgument, "CUSTOMER_INVALID", "%s", err.Error()).WithCause(err)
	}
	return err
}
