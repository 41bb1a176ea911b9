// Package sim is the world outside the shop: a card processor, a carrier and a mail server, each an HTTP server with an
// append-only ledger of what it really did. They are what the audit believes.
//
//	world, err := sim.New(sim.Config{Dir: "data/ledgers"})
//	if err != nil {
//		return err
//	}
//	defer world.Shutdown(ctx)
//	cfg.CardURL, cfg.CarrierURL, cfg.MailURL = world.URLs().Card, world.URLs().Carrier, world.URLs().Mail
//
// The API, JSON in and out, every POST with an Idempotency-Key header:
//
//	card     POST /charges        {"ref": order, "amount": 1999, "currency": "EUR", "token": "tok_visa"}  -> 201 {"id": "ch_…"}
//	                              a card that declines -> 402 problem, reason CARD_DECLINED
//	         POST /refunds        {"ref": order, "of": key of the charge, "amount": 1999, "currency": "EUR"} -> 201 {"id": "re_…"}
//	carrier  POST /shipments      {"ref": order, "address": {"name","line1","city","postcode","country"},
//	                               "items": [{"product_id","quantity"}]}                                   -> 201 {"id","tracking": "TRK…"}
//	                              an address nobody goes to -> 422 problem, reason UNSHIPPABLE
//	         POST /cancellations  {"ref": order, "of": key of the shipment}                               -> 201 {"id": "ca_…"}
//	mail     POST /mails          {"ref": order, "to": address, "template": "confirmed"}                  -> 202 {"id": "ma_…"}
//
// A repeated key answers as the first time and has no new effect, also after a restart and when the two arrive at once;
// a key used for something else is 409 with reason IDEMPOTENCY_KEY_REUSED. Undoing what was never done is 404 with
// reason NOT_FOUND; undoing it a second time under another key is 409 with reason ALREADY_UNDONE.
//
// Behaviour by token: tok_visa and tok_mastercard pay; tok_declined, tok_expired and any unknown token decline; tok_slow
// takes 300 ms; tok_flaky pays and answers 500 to the request that did it; tok_down answers 503 twice for a key before it
// pays. By address: country AQ is rejected; a first line with "Slow" takes 300 ms, one with "Flaky" books and answers 500
// to the request that did it. Config.Faults adds random faults to every server.
//
// What survives: an effect is in the ledger, fsynced, before anybody hears of it, so it survives a crash of the process
// and of the machine. A last line torn by a crash was never answered and is cut off at the next start.
package sim
