// Package messagingtest checks that a messaging driver does what package messaging promises, whatever the broker.
//
//	func TestConformance(t *testing.T) {
//		messagingtest.Run(t, messagingtest.Config{Virtual: true, Open: func(t *testing.T, tp trace.TracerProvider) *messaging.Broker {
//			return must(memory.New(memory.Config{TracerProvider: tp}))
//		}})
//	}
//
// Each test gets a broker of its own. A failed test says what the broker did and what it should have done; a test that
// waits in vain for a message fails after a minute.
package messagingtest
