package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each dependency of a service has a breaker and a bulkhead of its own, and /metrics shows them.
func TestMetricsShowEveryDependency(t *testing.T) {
	t.Parallel()
	s := openShop(t, options{})
	if placed, a := s.place(t, wish("tok_visa", "sku-tea", "DE")); placed.Status != "confirmed" {
		t.Fatalf("placed = %d %+v", a.status, placed)
	}
	s.audit(t, true) // waits for the mails, too
	for service, dependencies := range map[string][]string{
		"gateway":      {"order", "user", "product", "inventory"},
		"order":        {"user", "product", "inventory", "payment", "shipping"},
		"payment":      {"card processor"},
		"shipping":     {"carrier"},
		"notification": {"user", "mail server"},
	} {
		page := s.metrics(t, service)
		for _, name := range dependencies {
			for _, line := range []string{
				`armature_resilience_breaker_state{name=%q,state="closed"} 1`,
				`armature_resilience_breaker_state{name=%q,state="open"} 0`,
				`armature_resilience_bulkhead_running_calls{name=%q} 0`,
			} {
				if line = fmt.Sprintf(line, name); !strings.Contains(page, line) {
					t.Errorf("%s: no %s", service, line)
				}
			}
			called := regexp.MustCompile(fmt.Sprintf(`(?m)^armature_resilience_breaker_calls_total\{name=%q,outcome="success"\} [1-9]`, name))
			if idle := service == "gateway" && name != "order"; called.MatchString(page) == idle {
				t.Errorf("%s: calls of %s are counted: %t", service, name, !idle)
			}
		}
	}
	if page := s.metrics(t, "gateway"); !strings.Contains(page, `armature_resilience_rate_limiter_allowed_total{name="gateway"} `) {
		t.Error("gateway: the rate limit is not shown")
	}
}

func (s *opened) metrics(t *testing.T, service string) string {
	t.Helper()
	at := slices.Index(s.names, service)
	if at < 0 {
		t.Fatalf("no service %s among %v", service, s.names)
	}
	resp, err := http.Get("http://" + s.services[at].AdminAddr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
