package memory_test

import (
	"testing"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/memory"
	"github.com/armature-go/armature/messaging/messagingtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	messagingtest.Run(t, messagingtest.Config{
		Virtual:  true,
		Features: messagingtest.Features{UncountedRelease: true, OrderAcrossSubscriptions: true},
		Open: func(t *testing.T, tp trace.TracerProvider) *messaging.Broker {
			b, err := memory.New(memory.Config{TracerProvider: tp})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
	})
}

func TestConformanceInRealTime(t *testing.T) {
	messagingtest.Run(t, messagingtest.Config{
		Features: messagingtest.Features{UncountedRelease: true, OrderAcrossSubscriptions: true},
		Open: func(t *testing.T, tp trace.TracerProvider) *messaging.Broker {
			b, err := memory.New(memory.Config{TracerProvider: tp})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
	})
}
