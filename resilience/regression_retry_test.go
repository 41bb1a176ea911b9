package resilience_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/resilience"
)

func TestRegressionPanicInAHedgeReachesTheCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hedge := must(resilience.NewHedge(resilience.HedgeConfig{After: time.Second}))
		boom := errors.New("boom")
		var n atomic.Int64
		var other context.Context
		var caught any
		func() {
			defer func() { caught = recover() }()
			_ = do(t, hedge, func(ctx context.Context) error {
				if n.Add(1) == 1 {
					other = ctx
					<-ctx.Done()
					return ctx.Err()
				}
				panic(boom)
			})
		}()
		carried, ok := caught.(*resilience.PanicError)
		if !ok || carried.Value != boom || !errors.Is(carried, boom) {
			t.Fatalf("recovered %v", caught)
		}
		if !strings.Contains(string(carried.Stack), "TestRegressionPanicInAHedge") {
			t.Errorf("stack of another goroutine: %s", carried.Stack)
		}
		if other.Err() == nil {
			t.Error("the other attempt goes on")
		}
	})
}

// Nobody is there to be told when a loser panics, and the process must live on.
func TestRegressionPanicInALosingHedgeIsCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hedge := must(resilience.NewHedge(resilience.HedgeConfig{After: time.Second}))
		var n atomic.Int64
		err := do(t, hedge, func(ctx context.Context) error {
			if n.Add(1) == 1 {
				<-ctx.Done()
				panic("too late")
			}
			return nil
		})
		synctest.Wait()
		if s := hedge.Stats(); err != nil || s.Panics != 1 {
			t.Errorf("error = %v, stats = %+v", err, s)
		}
	})
}
