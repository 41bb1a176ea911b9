package infra

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/grpc"

	"github.com/armature-go/armature/examples/shop/money"
	"github.com/armature-go/armature/examples/shop/order/app"
	"github.com/armature-go/armature/examples/shop/order/domain"
	"github.com/armature-go/armature/examples/shop/platform"
	commonv1 "github.com/armature-go/armature/examples/shop/proto/common/v1"
	inventoryv1 "github.com/armature-go/armature/examples/shop/proto/inventory/v1"
	paymentv1 "github.com/armature-go/armature/examples/shop/proto/payment/v1"
	productv1 "github.com/armature-go/armature/examples/shop/proto/product/v1"
	shippingv1 "github.com/armature-go/armature/examples/shop/proto/shipping/v1"
	userv1 "github.com/armature-go/armature/examples/shop/proto/user/v1"
	"github.com/armature-go/armature/transport"
)

// Customers asks the user service.
type Customers struct{ client userv1.UserServiceClient }

// NewCustomers returns app.Customers over a connection to the user service.
func NewCustomers(conn grpc.ClientConnInterface) Customers {
	return Customers{userv1.NewUserServiceClient(conn)}
}

// Check is described by app.Customers.
func (c Customers) Check(ctx context.Context, id string) error {
	_, err := c.client.GetUser(ctx, &userv1.GetUserRequest{Id: id})
	if transport.CodeOf(err) == transport.NotFound {
		return &domain.RuleError{Pointer: "/customer_id", Rule: "must be a known customer", Reason: "CUSTOMER_NOT_FOUND"}
	}
	if err != nil {
		return fmt.Errorf("order: look up customer: %w", err)
	}
	return nil
}

// Catalog asks the product service.
type Catalog struct {
	client productv1.ProductServiceClient
}

// NewCatalog returns app.Catalog over a connection to the product service.
func NewCatalog(conn grpc.ClientConnInterface) Catalog {
	return Catalog{productv1.NewProductServiceClient(conn)}
}

// Prices is described by app.Catalog.
func (c Catalog) Prices(ctx context.Context, lines []domain.Line) ([]domain.Line, error) {
	ids := make([]string, len(lines))
	for i, line := range lines {
		ids[i] = line.ProductID
	}
	answer, err := c.client.GetProducts(ctx, &productv1.GetProductsRequest{Ids: ids})
	if transport.CodeOf(err) == transport.NotFound {
		return nil, unknownProduct(ids, transport.AsError(err))
	}
	if err != nil {
		return nil, fmt.Errorf("order: look up prices: %w", err)
	}
	if len(answer.GetProducts()) != len(lines) {
		return nil, fmt.Errorf("order: look up prices: %d products asked for, %d answered", len(lines), len(answer.GetProducts()))
	}
	priced := slices.Clone(lines)
	for i, p := range answer.GetProducts() {
		if p.GetId() != ids[i] {
			return nil, fmt.Errorf("order: look up prices: product %s asked for, %s answered", ids[i], p.GetId())
		}
		priced[i].Price = money.Amount{Minor: p.GetPrice().GetMinor(), Currency: p.GetPrice().GetCurrency()}
	}
	return priced, nil
}

// unknownProduct points at the line whose product the catalogue does not know, where it says which.
func unknownProduct(ids []string, e *transport.Error) error {
	pointer := "/items"
	if e.Details.Resource != nil {
		if i := slices.Index(ids, e.Details.Resource.Name); i >= 0 {
			pointer += "/" + strconv.Itoa(i) + "/product_id"
		}
	}
	return &domain.RuleError{Pointer: pointer, Rule: "must be a known product", Reason: "PRODUCT_NOT_FOUND"}
}

// Inventory asks the inventory service.
type Inventory struct {
	client inventoryv1.InventoryServiceClient
}

// NewInventory returns app.Inventory over a connection to the inventory service.
func NewInventory(conn grpc.ClientConnInterface) Inventory {
	return Inventory{inventoryv1.NewInventoryServiceClient(conn)}
}

// Reserve is described by app.Inventory.
func (c Inventory) Reserve(ctx context.Context, r app.Request) error {
	_, err := c.client.Reserve(ctx, &inventoryv1.ReserveRequest{OrderId: r.OrderID, Items: items(r.Lines)})
	return verdict(err)
}

// Release is described by app.Inventory.
func (c Inventory) Release(ctx context.Context, r app.Request) error {
	_, err := c.client.Release(ctx, &inventoryv1.ReleaseRequest{OrderId: r.OrderID})
	return verdict(err)
}

// Payments asks the payment service.
type Payments struct {
	client paymentv1.PaymentServiceClient
}

// NewPayments returns app.Payments over a connection to the payment service.
func NewPayments(conn grpc.ClientConnInterface) Payments {
	return Payments{paymentv1.NewPaymentServiceClient(conn)}
}

// Charge is described by app.Payments.
func (c Payments) Charge(ctx context.Context, r app.Request) error {
	_, err := c.client.Charge(ctx, &paymentv1.ChargeRequest{
		OrderId: r.OrderID, CustomerId: r.CustomerID, CardToken: r.Card,
		Amount: &commonv1.Money{Minor: r.Total.Minor, Currency: r.Total.Currency},
	})
	return verdict(err)
}

// Refund is described by app.Payments.
func (c Payments) Refund(ctx context.Context, r app.Request) error {
	_, err := c.client.Refund(ctx, &paymentv1.RefundRequest{OrderId: r.OrderID, Reason: "ORDER_TAKEN_BACK"})
	return verdict(err)
}

// Shipping asks the shipping service.
type Shipping struct {
	client shippingv1.ShippingServiceClient
}

// NewShipping returns app.Shipping over a connection to the shipping service.
func NewShipping(conn grpc.ClientConnInterface) Shipping {
	return Shipping{shippingv1.NewShippingServiceClient(conn)}
}

// Create is described by app.Shipping.
func (c Shipping) Create(ctx context.Context, r app.Request) error {
	_, err := c.client.CreateShipment(ctx, &shippingv1.CreateShipmentRequest{
		OrderId: r.OrderID, Items: items(r.Lines),
		Address: &commonv1.Address{
			Name: r.Address.Name, Line1: r.Address.Line1, City: r.Address.City,
			Postcode: r.Address.Postcode, Country: r.Address.Country,
		},
	})
	return verdict(err)
}

// Cancel is described by app.Shipping.
func (c Shipping) Cancel(ctx context.Context, r app.Request) error {
	_, err := c.client.CancelShipment(ctx, &shippingv1.CancelShipmentRequest{OrderId: r.OrderID})
	return verdict(err)
}

// verdict tells a participant's no from a failure that leaves its effect unknown.
func verdict(err error) error {
	var e *transport.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case transport.FailedPrecondition, transport.InvalidArgument, transport.AlreadyExists:
	case transport.Aborted:
		if e.Reason != platform.ReasonUndone {
			return err
		}
	default:
		return err
	}
	reason := e.Reason
	if reason == "" {
		reason = e.Code.String()
	}
	return &app.Refusal{Reason: reason, Err: err}
}

func items(lines []domain.Line) []*commonv1.Item {
	out := make([]*commonv1.Item, len(lines))
	for i, line := range lines {
		out[i] = &commonv1.Item{ProductId: line.ProductID, Quantity: line.Quantity}
	}
	return out
}
