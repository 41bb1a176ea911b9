// Package gateway is the shop's edge: JSON over HTTP for the world, gRPC towards the services.
//
//	svc, err := gateway.New(ctx, gateway.Config{
//		Config: platform.Config{Addr: "127.0.0.1:8080", Registry: registry},
//	})
//	if err != nil {
//		return err
//	}
//	return svc.Run(ctx)
//
// It holds no data and no rules of its own beyond the shape of a request. Every error is a problem document; a service
// that is away is 503, one that does not answer in time 504. A client that asks too often is 429 with Retry-After.
package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"google.golang.org/grpc"

	"github.com/armature-go/armature"
	"github.com/armature-go/armature/examples/shop/platform"
	commonv1 "github.com/armature-go/armature/examples/shop/proto/common/v1"
	inventoryv1 "github.com/armature-go/armature/examples/shop/proto/inventory/v1"
	orderv1 "github.com/armature-go/armature/examples/shop/proto/order/v1"
	productv1 "github.com/armature-go/armature/examples/shop/proto/product/v1"
	userv1 "github.com/armature-go/armature/examples/shop/proto/user/v1"
	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/resilience"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/httpx"
)

// Defaults of Config.
const (
	DefaultRate  = 1000
	DefaultBurst = 2000
)

const (
	maxBody = 64 << 10
	// readTimeout bounds a request that only reads, changeTimeout one that may wait for an order.
	readTimeout   = 5 * time.Second
	changeTimeout = maxWait + 5*time.Second
)

// Config is what the gateway is given.
type Config struct {
	// Config is used for Addr, Registry, Intercept and what is common to all services.
	platform.Config
	// Data is the folder of the shop, told to programs on this machine; empty tells nobody.
	Data string
	// Rate is how many requests one client may make in the long run within Per, which is a second unless it says
	// otherwise, and Burst how many at once. The defaults are DefaultRate and DefaultBurst.
	Rate  int
	Per   time.Duration
	Burst int
	// Proxies are the reverse proxies in front of the gateway, whose word for who the client is counts.
	Proxies []netip.Prefix
}

// New returns the service, ready to Run.
func New(ctx context.Context, cfg Config) (_ *armature.Service, err error) {
	limiter, err := resilience.NewRateLimiter(resilience.RateConfig{
		Name: "gateway", Rate: cmp.Or(cfg.Rate, DefaultRate), Per: cfg.Per, Burst: cmp.Or(cfg.Burst, DefaultBurst),
	})
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	svc, err := platform.NewEdge("gateway", cfg.Config)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = platform.Abandon(ctx, svc, err)
		}
	}()
	g := &gateway{svc: svc, longest: longestWait(cfg.ShutdownTimeout)}
	for _, neighbour := range []struct {
		name string
		use  func(grpc.ClientConnInterface)
	}{
		{"order", func(c grpc.ClientConnInterface) { g.orders = orderv1.NewOrderServiceClient(c) }},
		{"user", func(c grpc.ClientConnInterface) { g.users = userv1.NewUserServiceClient(c) }},
		{"product", func(c grpc.ClientConnInterface) { g.products = productv1.NewProductServiceClient(c) }},
		{"inventory", func(c grpc.ClientConnInterface) { g.stock = inventoryv1.NewInventoryServiceClient(c) }},
	} {
		// Everything the gateway calls may be called twice: reads, a keyed placement, a refund that knows its order.
		conn, err := svc.Dial(neighbour.name, armature.WithIntercept(cfg.Intercept...), armature.WithStandard(
			armature.StandardConfig{Timeout: changeTimeout, Attempt: changeTimeout, Repeatable: true}))
		if err != nil {
			return nil, err
		}
		neighbour.use(conn)
	}
	routes, err := g.routes()
	if err != nil {
		return nil, err
	}
	if err := svc.ShowPolicies(limiter); err != nil {
		return nil, err
	}
	limited := resilience.LimitHandler(limiter, resilience.LimitOptions{
		Key: resilience.ByIP(cfg.Proxies...), Reject: refuse,
	})(inside(routes))
	for _, pattern := range patterns() {
		svc.HTTP.Mount(pattern, limited)
	}
	if cfg.Data != "" {
		svc.HTTP.Mount("GET /-/shop", whereabouts(cfg.Data))
	}
	return svc, nil
}

// longestWait leaves a request that waits the time to be answered when the gateway stops.
func longestWait(shutdown time.Duration) time.Duration {
	if shutdown == 0 {
		shutdown = armature.DefaultShutdownTimeout
	}
	return max(min(maxWait, shutdown-time.Second), 0)
}

type gateway struct {
	svc      *armature.Service
	longest  time.Duration // that a request may wait for an order
	orders   orderv1.OrderServiceClient
	users    userv1.UserServiceClient
	products productv1.ProductServiceClient
	stock    inventoryv1.InventoryServiceClient
}

const (
	placePattern     = "POST /api/orders"
	orderPattern     = "GET /api/orders/{id}"
	refundPattern    = "POST /api/orders/{id}/refund"
	customersPattern = "GET /api/customers/{id}/orders"
	productsPattern  = "GET /api/products"
	stockPattern     = "GET /api/products/{id}/stock"
)

func patterns() []string {
	return []string{placePattern, orderPattern, refundPattern, customersPattern, productsPattern, stockPattern}
}

// routes binds and answers requests. It is not observed itself: the service's server around it is.
func (g *gateway) routes() (http.Handler, error) {
	s, err := httpx.NewServer(httpx.Config{MaxBody: maxBody, Timeout: readTimeout})
	if err != nil {
		return nil, err
	}
	httpx.Handle(s, placePattern, g.place, httpx.Timeout(changeTimeout))
	httpx.Handle(s, orderPattern, g.order)
	httpx.Handle(s, refundPattern, g.refund, httpx.Timeout(changeTimeout))
	httpx.Handle(s, customersPattern, g.ordersOf)
	httpx.Handle(s, productsPattern, g.listProducts)
	httpx.Handle(s, stockPattern, g.stockOf)
	return s, nil
}

// refuse answers a client that asks too often.
func refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := transport.Errorf(transport.ResourceExhausted, "RATE_LIMITED", "too many requests").WithCause(err)
	if limited, ok := errors.AsType[*resilience.RateLimitedError](err); ok {
		e = e.WithRetryAfter(limited.After)
	}
	transport.EncodeError(r.Context(), e, w)
}

// inside passes on what the service's server around next has decided.
func inside(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// It is in the context; next must not read the trace from the wire again.
		r = r.Clone(r.Context())
		r.Header.Del("Traceparent")
		r.Header.Set(flow.Correlation.HTTP(), flow.CorrelationID(r.Context()))
		next.ServeHTTP(w, r)
	})
}

func (g *gateway) place(ctx context.Context, req placeRequest) (changeResponse, error) {
	key := flow.IdempotencyKey(ctx)
	if key == "" {
		key = flow.NewID()
	}
	call := &orderv1.PlaceOrderRequest{
		CustomerId: req.CustomerID, CardToken: req.Card,
		Address: &commonv1.Address{
			Name: req.Address.Name, Line1: req.Address.Line1, City: req.Address.City,
			Postcode: req.Address.Postcode, Country: req.Address.Country,
		},
	}
	for _, item := range req.Items {
		call.Items = append(call.Items, &commonv1.Item{ProductId: item.ProductID, Quantity: item.Quantity})
	}
	placed, err := g.orders.PlaceOrder(flow.WithOutgoingIdempotencyKey(ctx, key), call)
	if err != nil {
		return changeResponse{}, unprocessable(err)
	}
	return g.settle(ctx, placed.GetOrder(), http.StatusCreated, waitOf(req.Prefer, g.longest)), nil
}

// unprocessable makes the order service's refusal of a well-formed body a 422.
func unprocessable(err error) error {
	if e := transport.AsError(err); e.Code == transport.InvalidArgument {
		return e.WithStatus(http.StatusUnprocessableEntity)
	}
	return err
}

// settle answers the order as it stands after at most wait. The change is made already: a wait that fails is a short
// wait, not a failure of the request.
func (g *gateway) settle(ctx context.Context, o *orderv1.Order, rested int, wait time.Duration) changeResponse {
	if wait > 0 {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		waited, err := g.orders.WaitOrder(ctx, &orderv1.WaitOrderRequest{Id: o.GetId()})
		if err != nil {
			g.svc.Logger.WarnContext(ctx, "wait cut short", "order_id", o.GetId(), "error", err.Error())
		} else {
			o = waited.GetOrder()
		}
	}
	return changeResponse{orderResponse: orderOf(o), rested: rested, waited: wait}
}

func (g *gateway) order(ctx context.Context, req orderRequest) (orderResponse, error) {
	got, err := g.orders.GetOrder(ctx, &orderv1.GetOrderRequest{Id: req.ID})
	if err != nil {
		return orderResponse{}, err
	}
	return orderOf(got.GetOrder()), nil
}

func (g *gateway) refund(ctx context.Context, req refundRequest) (changeResponse, error) {
	got, err := g.orders.RefundOrder(ctx, &orderv1.RefundOrderRequest{Id: req.ID})
	if err != nil {
		return changeResponse{}, err
	}
	return g.settle(ctx, got.GetOrder(), http.StatusOK, waitOf(req.Prefer, g.longest)), nil
}

func (g *gateway) ordersOf(ctx context.Context, req customerRequest) (ordersResponse, error) {
	if _, err := g.users.GetUser(ctx, &userv1.GetUserRequest{Id: req.ID}); err != nil {
		return ordersResponse{}, err
	}
	got, err := g.orders.ListOrders(ctx, &orderv1.ListOrdersRequest{CustomerId: req.ID})
	if err != nil {
		return ordersResponse{}, err
	}
	out := ordersResponse{Orders: make([]orderResponse, 0, len(got.GetOrders()))}
	for _, o := range got.GetOrders() {
		out.Orders = append(out.Orders, orderOf(o))
	}
	return out, nil
}

func (g *gateway) listProducts(ctx context.Context, _ struct{}) (productsResponse, error) {
	got, err := g.products.ListProducts(ctx, &productv1.ListProductsRequest{})
	if err != nil {
		return productsResponse{}, err
	}
	return productsOf(got.GetProducts()), nil
}

func (g *gateway) stockOf(ctx context.Context, req productRequest) (stockResponse, error) {
	got, err := g.stock.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: req.ID})
	if err != nil {
		return stockResponse{}, err
	}
	return stockOf(got.GetStock()), nil
}

// whereabouts tells programs on this machine, and nobody behind a proxy on it, where the shop keeps its data.
func whereabouts(data string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		forwarded := r.Header.Get("Forwarded") != "" || r.Header.Get("X-Forwarded-For") != ""
		if err != nil || !from.Addr().Unmap().IsLoopback() || forwarded {
			transport.EncodeError(r.Context(), transport.Errorf(transport.NotFound, "ROUTE_NOT_FOUND", "there is nothing at this path"), w)
			return
		}
		body, err := json.Marshal(map[string]string{"data": data})
		if err != nil {
			transport.EncodeError(r.Context(), err, w)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body) // a client that left is not our failure
	})
}
