package transport_test

import (
	"errors"
	"testing"

	"github.com/armature-go/armature/transport"
)

func TestExecuted(t *testing.T) {
	t.Parallel()
	if transport.Executed(nil) != nil {
		t.Error("nil became an error")
	}
	plain := errors.New("plain")
	if err := transport.Executed(plain); !errors.Is(err, plain) {
		t.Errorf("%v lost its identity", err)
	}
	stock := transport.Errorf(transport.Unavailable, "NO_INSTANCE", "no instance of stock")
	stock.Details.NotExecuted = true
	err := transport.Executed(errors.Join(stock))
	var n interface{ NotExecuted() bool }
	if !errors.As(err, &n) || n.NotExecuted() {
		t.Errorf("%v still claims that nothing happened", err)
	}
	if !errors.Is(err, stock) || !stock.NotExecuted() {
		t.Error("the error lost its reason, or the original was changed")
	}
	if wire := transport.FromStatus(transport.AsError(err).GRPCStatus()); wire.NotExecuted() {
		t.Error("the claim crossed the wire")
	}
}
