package audit

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/armature-go/armature/examples/shop/money"
	"github.com/armature-go/armature/examples/shop/sim"
)

// Statuses of an order.
const (
	confirmed = "confirmed"
	cancelled = "cancelled"
	refunded  = "refunded"
)

// checks are in the order of the report.
var checks = []struct {
	name string
	run  func(*books) (figures string, wrong []string)
}{
	{"orders are at rest", (*books).checkOrders},
	{"money taken = orders confirmed", (*books).checkMoney},
	{"payments agree with the processor", (*books).checkPayments},
	{"stock = received - confirmed", (*books).checkStock},
	{"sagas are finished", (*books).checkSagas},
	{"outboxes are empty", (*books).checkOutboxes},
	{"one parcel per confirmed order", (*books).checkParcels},
	{"shipments agree with the carrier", (*books).checkShipments},
	{"each mail once", (*books).checkMails},
	{"notifications agree with the mails", (*books).checkNotifications},
	{"one effect per key", (*books).checkKeys},
}

func (b *books) check() *Report {
	r := new(Report)
	for _, c := range checks {
		figures, wrong := c.run(b)
		slices.Sort(wrong)
		r.Lines = append(r.Lines, Line{Name: c.name, Figures: figures, Wrong: wrong})
	}
	return r
}

func (b *books) checkOrders() (string, []string) {
	var wrong []string
	count := map[string]int{}
	for id, o := range b.orders {
		count[o.status]++
		switch o.status {
		case confirmed, cancelled, refunded:
		default:
			wrong = append(wrong, fmt.Sprintf("order %s is still %s", id, o.status))
		}
		if o.itemsSum != o.total {
			wrong = append(wrong, fmt.Sprintf("order %s is %s, its items are %s", id, o.total, o.itemsSum))
		}
	}
	return fmt.Sprintf("%d orders: %s", len(b.orders), counts(count)), wrong
}

// account is what the card processor did for one order.
type account struct {
	charges            int
	charged, given     int64
	currency           string
	currencies, excess bool
}

func (a account) net() int64 { return a.charged - a.given }

func (b *books) accounts() map[string]account {
	all := map[string]account{}
	for _, e := range b.card {
		a := all[e.Ref]
		switch e.Kind {
		case sim.Charge:
			a.charges++
			a.charged += e.Amount
		case sim.Refund:
			a.given += e.Amount
			a.excess = a.excess || a.given > a.charged
		default:
			continue
		}
		a.currencies = a.currencies || (a.currency != "" && a.currency != e.Currency)
		a.currency = e.Currency
		all[e.Ref] = a
	}
	return all
}

func (b *books) checkMoney() (string, []string) {
	var wrong []string
	var charged, given, owed int64
	accounts := b.accounts()
	for id, a := range accounts {
		charged += a.charged
		given += a.given
		o, known := b.orders[id]
		switch {
		case !known:
			wrong = append(wrong, fmt.Sprintf("the processor charged %d for order %s, which does not exist", a.charged, id))
		case a.currencies || a.currency != o.total.Currency:
			wrong = append(wrong, fmt.Sprintf("order %s is in %s, its card was moved in %s", id, o.total.Currency, a.currency))
		case a.excess:
			wrong = append(wrong, fmt.Sprintf("order %s got back more than it paid", id))
		}
	}
	for id, o := range b.orders {
		want := int64(0)
		if o.status == confirmed {
			want = o.total.Minor
		}
		owed += want
		if got := accounts[id].net(); got != want {
			wrong = append(wrong, fmt.Sprintf("order %s is %s at %s, its card holds %s", id, o.status, o.total, money.Amount{Minor: got, Currency: o.total.Currency}))
		}
	}
	if charged-given != owed {
		wrong = append(wrong, fmt.Sprintf("in all: %d charged - %d refunded is not %d confirmed", charged, given, owed))
	}
	return fmt.Sprintf("%d charged - %d refunded = %d, %d confirmed", charged, given, charged-given, owed), wrong
}

func (b *books) checkPayments() (string, []string) {
	var wrong []string
	count := map[string]int{}
	accounts := b.accounts()
	for id := range accounts {
		if _, ok := b.payments[id]; !ok {
			wrong = append(wrong, fmt.Sprintf("order %s has a charge and no payment", id))
		}
	}
	for id, p := range b.payments {
		count[p.state]++
		a := accounts[id]
		ok := false
		switch p.state {
		case "charged":
			ok = a.charges > 0 && a.given == 0 && a.charged == p.amount.Minor && a.currency == p.amount.Currency
		case "declined":
			ok = a.charges == 0
		case "refunded":
			ok = a.net() == 0 && (a.charges == 0 || a.charged == p.amount.Minor)
		}
		if !ok {
			wrong = append(wrong, fmt.Sprintf("payment of order %s is %s at %s, the processor charged %d and refunded %d", id, p.state, p.amount, a.charged, a.given))
		}
	}
	return fmt.Sprintf("%d payments: %s", len(b.payments), counts(count)), wrong
}

func (b *books) checkStock() (string, []string) {
	var wrong []string
	sold := map[string]int64{}
	for _, o := range b.orders {
		if o.status == confirmed {
			for product, n := range o.items {
				sold[product] += n
			}
		}
	}
	var received, gone, there int64
	for product, n := range b.onHand {
		m := b.moves[product]
		received += m.received
		gone += sold[product]
		there += n
		if m.received-sold[product] != n {
			wrong = append(wrong, fmt.Sprintf("%s: %d received - %d confirmed is not the %d there", product, m.received, sold[product], n))
		}
		if m.received-m.reserved+m.released != n {
			wrong = append(wrong, fmt.Sprintf("%s: %d received - %d reserved + %d released is not the %d there", product, m.received, m.reserved, m.released, n))
		}
	}
	for product, n := range sold {
		if _, ok := b.onHand[product]; !ok {
			wrong = append(wrong, fmt.Sprintf("%s: %d confirmed of a product without stock", product, n))
		}
	}
	return fmt.Sprintf("%d received - %d confirmed = %d, %d there, %d products", received, gone, received-gone, there, len(b.onHand)), wrong
}

// checkSagas also holds the journal against the orders: each has the saga its status tells of.
func (b *books) checkSagas() (string, []string) {
	var wrong []string
	count, all := map[string]int{}, 0
	for s, n := range b.sagas {
		count[s.status] += n
		all += n
		switch s.status {
		case "completed", "compensated":
		default:
			wrong = append(wrong, fmt.Sprintf("%d of %s are %s", n, s.name, s.status))
		}
	}
	status := map[string]int{}
	for _, o := range b.orders {
		status[o.status]++
	}
	for _, c := range []struct {
		saga saga
		want int
		what string
	}{
		{saga{"place-order", "completed"}, status[confirmed] + status["refunding"] + status[refunded], "were confirmed"},
		{saga{"place-order", "compensated"}, status[cancelled], "were cancelled"},
		{saga{"refund-order", "completed"}, status[refunded], "were refunded"},
		{saga{"refund-order", "compensated"}, 0, "had their refund taken back"},
	} {
		if got := b.sagas[c.saga]; got != c.want {
			wrong = append(wrong, fmt.Sprintf("%d of %s are %s, %d orders %s", got, c.saga.name, c.saga.status, c.want, c.what))
		}
	}
	return fmt.Sprintf("%d sagas: %s", all, counts(count)), wrong
}

func (b *books) checkOutboxes() (string, []string) {
	var wrong []string
	var all outbox
	for service, o := range b.outboxes {
		all.pending += o.pending
		all.dead += o.dead
		if o.pending > 0 {
			wrong = append(wrong, fmt.Sprintf("%s has %d events that did not leave", service, o.pending))
		}
		if o.dead > 0 {
			wrong = append(wrong, fmt.Sprintf("%s has %d dead events", service, o.dead))
		}
	}
	return fmt.Sprintf("%d outboxes: %d waiting, %d dead", len(b.outboxes), all.pending, all.dead), wrong
}

// parcels is how many parcels stand at the carrier, and how many were ever booked, by order.
func (b *books) parcels() (standing, booked map[string]int) {
	standing, booked = map[string]int{}, map[string]int{}
	for _, e := range b.carrier {
		switch e.Kind { // of a parcel only these two change anything
		case sim.Shipment:
			standing[e.Ref]++
			booked[e.Ref]++
		case sim.Cancellation:
			standing[e.Ref]--
		}
	}
	return standing, booked
}

func (b *books) checkParcels() (string, []string) {
	var wrong []string
	standing, _ := b.parcels()
	orders, parcels := 0, 0
	for id, n := range standing {
		parcels += n
		if _, ok := b.orders[id]; !ok && n != 0 {
			wrong = append(wrong, fmt.Sprintf("%d parcels of order %s, which does not exist", n, id))
		}
	}
	for id, o := range b.orders {
		want := 0
		if o.status == confirmed {
			want = 1
		}
		orders += want
		if standing[id] != want {
			wrong = append(wrong, fmt.Sprintf("order %s is %s and has %d parcels", id, o.status, standing[id]))
		}
	}
	return fmt.Sprintf("%d parcels at the carrier, %d orders confirmed", parcels, orders), wrong
}

func (b *books) checkShipments() (string, []string) {
	var wrong []string
	count := map[string]int{}
	standing, booked := b.parcels()
	for id := range booked {
		if _, ok := b.shipments[id]; !ok {
			wrong = append(wrong, fmt.Sprintf("order %s has a parcel and no shipment", id))
		}
	}
	for id, s := range b.shipments {
		count[s.state]++
		ok := false
		switch s.state {
		case "created":
			ok = standing[id] == 1 && s.tracking != ""
		case "rejected":
			ok = booked[id] == 0
		case "cancelled":
			ok = standing[id] == 0
		}
		if !ok {
			wrong = append(wrong, fmt.Sprintf("shipment of order %s is %s, the carrier booked %d and holds %d", id, s.state, booked[id], standing[id]))
		}
	}
	return fmt.Sprintf("%d shipments: %s", len(b.shipments), counts(count)), wrong
}

type letter struct{ order, template string }

func (b *books) letters() map[letter]int {
	sent := map[letter]int{}
	for _, e := range b.mail {
		if e.Kind == sim.Mail {
			sent[letter{e.Ref, e.Template}]++
		}
	}
	return sent
}

func (b *books) checkMails() (string, []string) {
	var wrong []string
	sent := b.letters()
	_, booked := b.parcels()
	expected := 0
	rest := maps.Clone(sent)
	want := func(id, template string, may bool) {
		l := letter{id, template}
		if sent[l] == 0 && may {
			return
		}
		expected++
		delete(rest, l)
		if sent[l] != 1 {
			wrong = append(wrong, fmt.Sprintf("order %s got %d mails %q", id, sent[l], template))
		}
	}
	for id, o := range b.orders {
		switch o.status {
		case confirmed, refunded:
			want(id, "confirmed", false)
			want(id, "shipped", false)
		case cancelled:
			want(id, "cancelled", false)
			// A parcel that was booked and taken back was announced, unless nobody learned of it in between.
			if booked[id] > 0 {
				want(id, "shipped", true)
			}
		}
		if o.status == refunded {
			want(id, "refunded", false)
		}
	}
	for l, n := range rest {
		wrong = append(wrong, fmt.Sprintf("order %s got %d mails %q that nothing asks for", l.order, n, l.template))
	}
	return fmt.Sprintf("%d mails sent, %d expected", len(b.mail), expected), wrong
}

func (b *books) checkNotifications() (string, []string) {
	var wrong []string
	count := map[string]int{}
	noted := map[letter]int{}
	for _, n := range b.notifications {
		count[n.state]++
		noted[letter{n.order, n.kind}]++
		if n.state != "sent" {
			wrong = append(wrong, fmt.Sprintf("notification %s (%s of order %s) is %s", n.id, n.kind, n.order, n.state))
		}
	}
	sent := b.letters()
	for l, n := range noted {
		if n != sent[l] {
			wrong = append(wrong, fmt.Sprintf("order %s has %d notifications %q and %d mails", l.order, n, l.template, sent[l]))
		}
	}
	for l, n := range sent {
		if noted[l] == 0 {
			wrong = append(wrong, fmt.Sprintf("order %s has no notification %q and %d mails", l.order, l.template, n))
		}
	}
	return fmt.Sprintf("%d notifications: %s", len(b.notifications), counts(count)), wrong
}

func (b *books) checkKeys() (string, []string) {
	var wrong []string
	effects := 0
	for _, l := range []struct {
		name    string
		entries []sim.Entry
	}{{sim.CardLedger, b.card}, {sim.CarrierLedger, b.carrier}, {sim.MailLedger, b.mail}} {
		effects += len(l.entries)
		keys, undone, charges := map[string]int{}, map[string]int{}, map[string]int{}
		for _, e := range l.entries {
			keys[e.Key]++
			if e.Of != "" {
				undone[e.Of]++
			}
			if e.Kind == sim.Charge {
				charges[e.Ref]++
			}
		}
		for key, n := range keys {
			if n > 1 {
				wrong = append(wrong, fmt.Sprintf("%s: key %s has %d effects", l.name, key, n))
			}
		}
		for key, n := range undone {
			if n > 1 {
				wrong = append(wrong, fmt.Sprintf("%s: the effect of key %s was undone %d times", l.name, key, n))
			}
		}
		for id, n := range charges {
			if n > 1 {
				wrong = append(wrong, fmt.Sprintf("%s: order %s was charged %d times", l.name, id, n))
			}
		}
	}
	return fmt.Sprintf("%d effects: %d card, %d carrier, %d mail", effects, len(b.card), len(b.carrier), len(b.mail)), wrong
}

// moving reports whether the shop still has something to do that it knows of.
func (b *books) moving() bool {
	for s := range b.sagas {
		if s.status == "running" || s.status == "compensating" {
			return true
		}
	}
	for _, o := range b.outboxes {
		if o.pending > 0 {
			return true
		}
	}
	return slices.ContainsFunc(b.notifications, func(n notification) bool { return n.state != "sent" })
}

func counts(count map[string]int) string {
	if len(count) == 0 {
		return "none"
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%d %s", count[name], name))
	}
	return strings.Join(parts, ", ")
}
