// Package resiliencetest helps to test code that is protected by policies: scripts
// play the callee, a recorder remembers what the policies did, and virtual time
// makes waits of hours exact and instant.
//
// "My client tries twice, then the breaker opens" is this test:
//
//	func TestClientGivesUp(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			script := resiliencetest.Script(resiliencetest.Fail(2))
//			events := new(resiliencetest.Recorder)
//			retry, breaker := newPolicies(events) // your code, with its Observer
//			policy := resilience.Chain(retry, breaker)
//
//			err := resilience.Do(t.Context(), policy, script.Call)
//
//			if err == nil {
//				t.Error("the outage went unnoticed")
//			}
//			script.WantDone(t) // two attempts, no more
//			resiliencetest.WantState(t, breaker, resilience.Open)
//			events.Want(t, resilience.EventRetry, resilience.EventStateChanged, resilience.EventRetriesEnded)
//		})
//	}
//
// # Virtual time
//
// Inside [testing/synctest] the clock moves when every goroutine waits, so a breaker
// that stays open for a minute is closed again after time.Sleep(time.Minute), at
// once. Make policies and scripts inside the bubble. Real connections do not belong
// there: net.Pipe, bufconn or a script do. Without a bubble everything works too,
// in real time.
package resiliencetest
