package sim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/armature-go/armature/examples/shop/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, cfg sim.Config) *sim.Sim {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := sim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *sim.Sim) {
	t.Helper()
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

// post answers the status and the interesting members of the body.
func post(t *testing.T, url, key, body string) (status int, got map[string]any) {
	t.Helper()
	status, got, err := try(url, key, body)
	if err != nil {
		t.Fatal(err)
	}
	return status, got
}

func try(url, key, body string) (int, map[string]any, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		return resp.StatusCode, nil, fmt.Errorf("answer %q: %w", data, err)
	}
	return resp.StatusCode, got, nil
}

func entries(t *testing.T, dir, name string) []sim.Entry {
	t.Helper()
	list, err := sim.ReadLedger(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func charge(ref, token string, amount int) string {
	return fmt.Sprintf(`{"ref":%q,"amount":%d,"currency":"EUR","token":%q}`, ref, amount, token)
}

func shipment(ref, line1, country string) string {
	return fmt.Sprintf(`{"ref":%q,"address":{"name":"A","line1":%q,"city":"B","postcode":"1","country":%q},"items":[]}`, ref, line1, country)
}

// Every behaviour: what the first requests of a key answer, and the one effect they leave.
func TestBehaviours(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	urls := start(t, sim.Config{Dir: dir}).URLs()
	for name, c := range map[string]struct {
		url, body, ledger string
		statuses          []int
		kind              sim.Kind
	}{
		"visa pays":           {urls.Card + "/charges", charge("visa", sim.TokenVisa, 5), sim.CardLedger, []int{201, 201}, sim.Charge},
		"mastercard pays":     {urls.Card + "/charges", charge("master", sim.TokenMastercard, 5), sim.CardLedger, []int{201, 201}, sim.Charge},
		"declined":            {urls.Card + "/charges", charge("declined", sim.TokenDeclined, 5), sim.CardLedger, []int{402, 402}, sim.Decline},
		"expired":             {urls.Card + "/charges", charge("expired", sim.TokenExpired, 5), sim.CardLedger, []int{402, 402}, sim.Decline},
		"a stranger declines": {urls.Card + "/charges", charge("stranger", "tok_x", 5), sim.CardLedger, []int{402, 402}, sim.Decline},
		"flaky acts first":    {urls.Card + "/charges", charge("flaky", sim.TokenFlaky, 5), sim.CardLedger, []int{500, 201, 201}, sim.Charge},
		"down comes back":     {urls.Card + "/charges", charge("down", sim.TokenDown, 5), sim.CardLedger, []int{503, 503, 201, 201}, sim.Charge},
		"slow pays":           {urls.Card + "/charges", charge("slow", sim.TokenSlow, 5), sim.CardLedger, []int{201}, sim.Charge},
		"ships":               {urls.Carrier + "/shipments", shipment("ships", "1 Road", "DE"), sim.CarrierLedger, []int{201, 201}, sim.Shipment},
		"nobody goes there":   {urls.Carrier + "/shipments", shipment("ice", "1 Ice", "AQ"), sim.CarrierLedger, []int{422, 422}, sim.Rejection},
		"flaky road":          {urls.Carrier + "/shipments", shipment("flakyroad", "1 Flaky Road", "DE"), sim.CarrierLedger, []int{500, 201}, sim.Shipment},
		"slow road":           {urls.Carrier + "/shipments", shipment("slowroad", "1 Slow Road", "DE"), sim.CarrierLedger, []int{201}, sim.Shipment},
		"mails":               {urls.Mail + "/mails", `{"ref":"mails","to":"a@example.org","template":"confirmed"}`, sim.MailLedger, []int{202, 202}, sim.Mail},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			var first map[string]any
			for i, want := range c.statuses {
				status, got := post(t, c.url, "key/"+name, c.body)
				if status != want {
					t.Fatalf("request %d: got %d %v, want %d", i+1, status, got, want)
				}
				if status/100 != 2 {
					continue
				}
				if first == nil {
					first = got
				}
				if diff := cmp.Diff(first, got); diff != "" {
					t.Errorf("a repeat answered otherwise:\n%s", diff)
				}
			}
			if strings.Contains(name, "slow") && time.Since(begin) < 300*time.Millisecond {
				t.Errorf("took only %s", time.Since(begin))
			}
			var kinds []sim.Kind
			for _, e := range entries(t, dir, c.ledger) {
				if e.Key == "key/"+name {
					kinds = append(kinds, e.Kind)
				}
			}
			if diff := cmp.Diff([]sim.Kind{c.kind}, kinds); diff != "" {
				t.Errorf("effects (-want +got)\n%s", diff)
			}
		})
	}
}

func TestRefusesBadRequests(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	urls := start(t, sim.Config{Dir: dir}).URLs()
	for name, c := range map[string]struct {
		url, key, body string
		status         int
	}{
		"no key":              {urls.Card + "/charges", "", charge("o", sim.TokenVisa, 5), 400},
		"no JSON":             {urls.Card + "/charges", "k", `{`, 400},
		"two values":          {urls.Card + "/charges", "k", charge("o", sim.TokenVisa, 5) + `{}`, 400},
		"no amount":           {urls.Card + "/charges", "k", charge("o", sim.TokenVisa, 0), 400},
		"negative amount":     {urls.Card + "/charges", "k", charge("o", sim.TokenVisa, -5), 400},
		"no order":            {urls.Card + "/charges", "k", charge("", sim.TokenVisa, 5), 400},
		"refund of nothing":   {urls.Card + "/refunds", "k", `{"ref":"o","of":"none","amount":5,"currency":"EUR"}`, 404},
		"refund of what":      {urls.Card + "/refunds", "k", `{"ref":"o","amount":5,"currency":"EUR"}`, 400},
		"cancel nothing":      {urls.Carrier + "/cancellations", "k", `{"ref":"o","of":"none"}`, 404},
		"no address":          {urls.Carrier + "/shipments", "k", `{"ref":"o"}`, 400},
		"mail to nobody":      {urls.Mail + "/mails", "k", `{"ref":"o","template":"confirmed"}`, 400},
		"a body far too long": {urls.Mail + "/mails", "k", `{"ref":"` + strings.Repeat("x", 70<<10) + `"}`, 400},
	} {
		t.Run(name, func(t *testing.T) {
			if status, got := post(t, c.url, c.key, c.body); status != c.status || got["status"] != float64(c.status) {
				t.Fatalf("got %d %v, want %d", status, got, c.status)
			}
		})
	}
	for _, name := range []string{sim.CardLedger, sim.CarrierLedger, sim.MailLedger} {
		if list := entries(t, dir, name); len(list) != 0 {
			t.Errorf("%s has effects: %v", name, list)
		}
	}
}

func TestUndo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	urls := start(t, sim.Config{Dir: dir}).URLs()
	refund := func(key, ref, of string, amount int) (int, map[string]any) {
		return post(t, urls.Card+"/refunds", key, fmt.Sprintf(`{"ref":%q,"of":%q,"amount":%d,"currency":"EUR"}`, ref, of, amount))
	}
	post(t, urls.Card+"/charges", "c1", charge("o1", sim.TokenVisa, 500))
	post(t, urls.Card+"/charges", "c2", charge("o2", sim.TokenDeclined, 500))
	post(t, urls.Carrier+"/shipments", "s1", shipment("o1", "1 Road", "DE"))
	for _, step := range []struct {
		name   string
		status int
		do     func() (int, map[string]any)
	}{
		{"more than was charged", 422, func() (int, map[string]any) { return refund("r1", "o1", "c1", 501) }},
		{"another order's charge", 404, func() (int, map[string]any) { return refund("r1", "o2", "c1", 500) }},
		{"a decline", 404, func() (int, map[string]any) { return refund("r1", "o2", "c2", 500) }},
		{"the charge", 201, func() (int, map[string]any) { return refund("r1", "o1", "c1", 500) }},
		{"the charge, repeated", 201, func() (int, map[string]any) { return refund("r1", "o1", "c1", 500) }},
		{"the charge under another key", 409, func() (int, map[string]any) { return refund("r2", "o1", "c1", 500) }},
		{"a charge under a refund's key", 409, func() (int, map[string]any) {
			return post(t, urls.Card+"/charges", "r1", charge("o1", sim.TokenVisa, 500))
		}},
		{"another amount under a charge's key", 409, func() (int, map[string]any) {
			return post(t, urls.Card+"/charges", "c1", charge("o1", sim.TokenVisa, 501))
		}},
		{"the shipment", 201, func() (int, map[string]any) {
			return post(t, urls.Carrier+"/cancellations", "x1", `{"ref":"o1","of":"s1"}`)
		}},
		{"the shipment under another key", 409, func() (int, map[string]any) {
			return post(t, urls.Carrier+"/cancellations", "x2", `{"ref":"o1","of":"s1"}`)
		}},
	} {
		if status, got := step.do(); status != step.status {
			t.Fatalf("%s: got %d %v, want %d", step.name, status, got, step.status)
		}
	}
	if n := len(entries(t, dir, sim.CardLedger)); n != 3 {
		t.Errorf("card ledger has %d effects, want charge, decline, refund", n)
	}
}

func TestKeysSurviveRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, sim.Config{Dir: dir})
	_, before := post(t, first.URLs().Card+"/charges", "c1", charge("o1", sim.TokenVisa, 500))
	if status, _ := post(t, first.URLs().Card+"/charges", "f1", charge("o2", sim.TokenFlaky, 500)); status != 500 {
		t.Fatalf("flaky answered %d", status)
	}
	if _, got := post(t, first.URLs().Card+"/refunds", "r1", `{"ref":"o1","of":"c1","amount":500,"currency":"EUR"}`); got["id"] == nil {
		t.Fatal(got)
	}
	stop(t, first)

	second := start(t, sim.Config{Dir: dir})
	status, after := post(t, second.URLs().Card+"/charges", "c1", charge("o1", sim.TokenVisa, 500))
	if status != 201 || !cmp.Equal(before, after) {
		t.Errorf("got %d %v, want %v", status, after, before)
	}
	if status, _ := post(t, second.URLs().Card+"/charges", "f1", charge("o2", sim.TokenFlaky, 500)); status != 201 {
		t.Errorf("flaky answered %d to a known key", status)
	}
	if status, _ := post(t, second.URLs().Card+"/refunds", "r2", `{"ref":"o1","of":"c1","amount":500,"currency":"EUR"}`); status != 409 {
		t.Errorf("a second refund answered %d", status)
	}
	if n := len(entries(t, dir, sim.CardLedger)); n != 3 {
		t.Errorf("%d effects, want 3", n)
	}
}

func TestOneEffectWhenManyAskAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	urls := start(t, sim.Config{Dir: dir, Faults: sim.Faults{FailBefore: 0.2, FailAfter: 0.2, Delay: time.Millisecond, Seed: 7}}).URLs()
	var group sync.WaitGroup
	for key := range 4 {
		for range 8 {
			group.Go(func() {
				for range 50 {
					status, _, err := try(urls.Card+"/charges", fmt.Sprint("k", key), charge(fmt.Sprint("o", key), sim.TokenVisa, 100))
					if err != nil {
						t.Error(err)
						return
					}
					if status == 201 {
						return
					}
				}
				t.Error("50 tries and no answer")
			})
		}
	}
	group.Wait()
	if n := len(entries(t, dir, sim.CardLedger)); n != 4 {
		t.Errorf("%d effects for 4 keys", n)
	}
}

func TestFaultsFollowTheirSeed(t *testing.T) {
	t.Parallel()
	run := func() (statuses []int) {
		urls := start(t, sim.Config{Faults: sim.Faults{FailBefore: 0.3, FailAfter: 0.3, Seed: 42}}).URLs()
		for i := range 40 {
			status, _ := post(t, urls.Mail+"/mails", fmt.Sprint(i), `{"ref":"o","to":"a","template":"t"}`)
			statuses = append(statuses, status)
		}
		return statuses
	}
	one := run()
	if diff := cmp.Diff(one, run()); diff != "" {
		t.Errorf("two runs differ:\n%s", diff)
	}
	count := map[int]int{}
	for _, s := range one {
		count[s]++
	}
	if count[202] == 0 || count[500] == 0 || count[503] == 0 {
		t.Errorf("one kind of outcome is missing: %v", count)
	}
}

func TestTornLastLineIsCutOff(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, sim.CardLedger)
	first := start(t, sim.Config{Dir: dir})
	post(t, first.URLs().Card+"/charges", "c1", charge("o1", sim.TokenVisa, 500))
	post(t, first.URLs().Card+"/charges", "c2", charge("o2", sim.TokenVisa, 500))
	stop(t, first)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lineEnd := bytes.IndexByte(data, '\n') + 1
	for cut := lineEnd; cut < len(data); cut++ {
		if err := os.WriteFile(path, data[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if n := len(entries(t, dir, sim.CardLedger)); n != 1 {
			t.Fatalf("cut at %d: a reader sees %d effects", cut, n)
		}
	}
	again := start(t, sim.Config{Dir: dir})
	if status, _ := post(t, again.URLs().Card+"/charges", "c2", charge("o2", sim.TokenVisa, 500)); status != 201 {
		t.Fatalf("got %d", status)
	}
	list := entries(t, dir, sim.CardLedger)
	if len(list) != 2 || list[1].Key != "c2" {
		t.Fatalf("got %v", list)
	}
}

func TestARottenLineStopsTheStart(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no JSON": "garbage\n",
		"no key":  `{"kind":"mail"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, sim.MailLedger), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if s, err := sim.New(sim.Config{Dir: dir}); err == nil {
				stop(t, s)
				t.Fatal("started on a ledger it cannot read")
			} else if !strings.Contains(err.Error(), "line 1") {
				t.Errorf("does not name the line: %v", err)
			}
		})
	}
}

func TestConfigErrorsNameTheField(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]sim.Config{
		"Dir":               {},
		"Addr":              {Dir: t.TempDir(), Addr: "nowhere"},
		"Faults.FailBefore": {Dir: t.TempDir(), Faults: sim.Faults{FailBefore: 1.5}},
		"Faults.FailAfter":  {Dir: t.TempDir(), Faults: sim.Faults{FailAfter: -1}},
		"Faults.Delay":      {Dir: t.TempDir(), Faults: sim.Faults{Delay: -1}},
	} {
		if _, err := sim.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

func ExampleNew() {
	dir, err := os.MkdirTemp("", "ledgers")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	world, err := sim.New(sim.Config{Dir: dir})
	if err != nil {
		panic(err)
	}
	for range 2 {
		status, answer, err := try(world.URLs().Card+"/charges", "order-1/charge", `{"ref":"order-1","amount":1999,"currency":"EUR","token":"tok_visa"}`)
		if err != nil {
			panic(err)
		}
		fmt.Println(status, answer["id"])
	}
	if err := world.Shutdown(context.Background()); err != nil {
		panic(err)
	}
	effects, _ := sim.ReadLedger(filepath.Join(dir, sim.CardLedger))
	fmt.Println(len(effects), "effect")
	// Output:
	// 201 ch_9b0733059d0d3f88
	// 201 ch_9b0733059d0d3f88
	// 1 effect
}

func FuzzReadLedger(f *testing.F) {
	f.Add([]byte(`{"kind":"charge","key":"k","ref":"o","amount":1,"currency":"EUR"}` + "\n" + `{"kind":"re`))
	f.Add([]byte("\n"))
	f.Add([]byte{0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "ledger.jsonl")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := sim.ReadLedger(path)
		if err != nil {
			return
		}
		if lines := bytes.Count(data, []byte{'\n'}); len(list) != lines {
			t.Fatalf("%d effects of %d finished lines", len(list), lines)
		}
		for _, e := range list {
			if e.Key == "" || e.Kind == "" {
				t.Fatalf("an effect without kind or key: %+v", e)
			}
		}
	})
}
