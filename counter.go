package armature

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// Counter declares a number that only grows, of the business rather than of the
// machine, and puts it on /metrics, where it shows as 0 at once:
//
//	orders := svc.Counter("orders_created_total", "Orders accepted.")
//	orders.Inc()
//
// It panics, saying why, on a name that is taken or that promlint complains
// about, such as one that does not end in _total, and without help: these are
// mistakes in the program.
func (s *Service) Counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	s.declare(c, name, help)
	return c
}

// CounterVec is [Service.Counter] for a number that is counted apart by labels, of
// which there must be one at least. The values of a label should be few and known
// beforehand: never an id. A series shows once it was counted.
//
//	orders := svc.CounterVec("orders_created_total", "Orders accepted.", "channel")
//	orders.WithLabelValues("web").Inc()
func (s *Service) CounterVec(name, help string, labels ...string) *prometheus.CounterVec {
	if len(labels) == 0 {
		panic(fmt.Sprintf("armature: declare counter %s of %s: there are no labels; use Counter", name, s.cfg.Name))
	}
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	s.declare(c, name, help, labels...)
	return c
}

func (s *Service) declare(c prometheus.Collector, name, help string, labels ...string) {
	if problem := lint(name, help, labels); problem != "" {
		panic(fmt.Sprintf("armature: declare counter %s of %s: %s", name, s.cfg.Name, problem))
	}
	if err := s.Metrics.Register(c); err != nil {
		panic(fmt.Sprintf("armature: declare counter %s of %s: %v", name, s.cfg.Name, err))
	}
}

// lint asks promlint about the counter as a scrape would show it.
func lint(name, help string, labels []string) string {
	pairs := make([]string, len(labels))
	for i, label := range labels {
		pairs[i] = label + `="x"`
	}
	if len(pairs) > 0 {
		pairs = []string{"{" + strings.Join(pairs, ",") + "}"}
	}
	about := ""
	if help != "" {
		about = "# HELP " + name + " " + strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(help) + "\n"
	}
	problems, err := promlint.New(strings.NewReader(about + "# TYPE " + name + " counter\n" + name + strings.Join(pairs, "") + " 0\n")).Lint()
	if err != nil {
		return err.Error()
	}
	texts := make([]string, len(problems))
	for i, p := range problems {
		texts[i] = p.Text
	}
	return strings.Join(texts, "; ")
}
