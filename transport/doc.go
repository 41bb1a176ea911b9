// Package transport holds what every transport of a service shares: the typed
// business function and the one error type.
//
//	place := transport.Func[PlaceOrder, Order](svc.Place).With(resilience.Middleware(policy))
//	order, err := place(ctx, PlaceOrder{SKU: "blue"})
//	if errors.Is(err, ErrOutOfStock) { // also when svc is another process
//		return offerAlternative(ctx, order)
//	}
//
// A [Func] is a plain Go function; [Func.Endpoint] and [From] convert it to and
// from a go-kit endpoint.Endpoint, so every go-kit middleware fits.
//
// # Failure semantics
//
// An [Error] has a [Code], an optional Domain and Reason that identify it on
// both sides of the wire, a Message that is safe to show to strangers, and
// Details. Its cause stays in the process: it is part of Error() for logs and of
// errors.Is, never of a status, a problem document or a header.
//
// [AsError] turns any error into an Error, and never lets the text of an
// unknown one through: that becomes INTERNAL with a generic message.
// [Error.GRPCStatus] and [FromStatus], and [Error.MarshalJSON] and
// [FromProblem], are inverse pairs, so errors.Is holds after the round trip.
package transport
