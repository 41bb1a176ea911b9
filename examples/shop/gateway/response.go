package gateway

import (
	"fmt"
	"net/http"
	"time"

	commonv1 "github.com/armature-go/armature/examples/shop/proto/common/v1"
	inventoryv1 "github.com/armature-go/armature/examples/shop/proto/inventory/v1"
	orderv1 "github.com/armature-go/armature/examples/shop/proto/order/v1"
	productv1 "github.com/armature-go/armature/examples/shop/proto/product/v1"
)

type amount struct {
	Minor    int64  `json:"minor"`
	Currency string `json:"currency"`
}

type orderLine struct {
	ProductID string `json:"product_id"`
	Quantity  int64  `json:"quantity"`
	Price     amount `json:"price"`
}

// orderResponse is an order as the edge shows it.
type orderResponse struct {
	ID         string       `json:"id"`
	CustomerID string       `json:"customer_id"`
	Status     string       `json:"status"`
	Reason     string       `json:"reason,omitempty"`
	Items      []orderLine  `json:"items"`
	Total      amount       `json:"total"`
	Address    orderAddress `json:"address"`
	CreatedAt  time.Time    `json:"created_at"`
	UpdatedAt  time.Time    `json:"updated_at"`
}

// changeResponse answers a request that set an order in motion.
type changeResponse struct {
	orderResponse

	rested int // the status for an order that rests
	waited time.Duration
}

// StatusCode is 202 while the order is in motion.
func (r changeResponse) StatusCode() int {
	if r.Status == "pending" || r.Status == "refunding" {
		return http.StatusAccepted
	}
	return r.rested
}

// Headers says where the order is and whether it was waited for.
func (r changeResponse) Headers() http.Header {
	h := http.Header{"Location": {"/api/orders/" + r.ID}}
	if r.waited > 0 {
		h.Set("Preference-Applied", fmt.Sprintf("wait=%d", int(r.waited.Seconds())))
	}
	return h
}

type ordersResponse struct {
	Orders []orderResponse `json:"orders"`
}

type product struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Price amount `json:"price"`
}

type productsResponse struct {
	Products []product `json:"products"`
}

type stockResponse struct {
	ProductID string `json:"product_id"`
	OnHand    int64  `json:"on_hand"`
}

func amountOf(m *commonv1.Money) amount {
	return amount{Minor: m.GetMinor(), Currency: m.GetCurrency()}
}

func orderOf(o *orderv1.Order) orderResponse {
	to := o.GetAddress()
	out := orderResponse{
		ID: o.GetId(), CustomerID: o.GetCustomerId(), Status: statusOf(o.GetStatus()), Reason: o.GetReason(),
		Items: make([]orderLine, 0, len(o.GetLines())), Total: amountOf(o.GetTotal()),
		Address: orderAddress{
			Name: to.GetName(), Line1: to.GetLine1(), City: to.GetCity(), Postcode: to.GetPostcode(), Country: to.GetCountry(),
		},
		CreatedAt: o.GetCreatedAt().AsTime(), UpdatedAt: o.GetUpdatedAt().AsTime(),
	}
	for _, line := range o.GetLines() {
		out.Items = append(out.Items, orderLine{
			ProductID: line.GetProductId(), Quantity: line.GetQuantity(), Price: amountOf(line.GetPrice()),
		})
	}
	return out
}

func statusOf(s orderv1.OrderStatus) string {
	switch s {
	case orderv1.OrderStatus_ORDER_STATUS_PENDING:
		return "pending"
	case orderv1.OrderStatus_ORDER_STATUS_CONFIRMED:
		return "confirmed"
	case orderv1.OrderStatus_ORDER_STATUS_CANCELLED:
		return "cancelled"
	case orderv1.OrderStatus_ORDER_STATUS_REFUNDING:
		return "refunding"
	case orderv1.OrderStatus_ORDER_STATUS_REFUNDED:
		return "refunded"
	default:
		return "unknown"
	}
}

func productsOf(list []*productv1.Product) productsResponse {
	out := productsResponse{Products: make([]product, 0, len(list))}
	for _, p := range list {
		out.Products = append(out.Products, product{ID: p.GetId(), Name: p.GetName(), Price: amountOf(p.GetPrice())})
	}
	return out
}

func stockOf(s *inventoryv1.Stock) stockResponse {
	return stockResponse{ProductID: s.GetProductId(), OnHand: s.GetOnHand()}
}
