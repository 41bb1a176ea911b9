package resilience_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/armature-go/armature/resilience"
)

// TestBreakerAgreesWithItsModel plays random lives, several calls under way at once,
// in a breaker and in a model that keeps lists where the breaker keeps counters and
// knows neither locks nor gobreaker. All times are whole seconds.
func TestBreakerAgreesWithItsModel(t *testing.T) {
	t.Parallel()
	check := func(rt *rapid.T) {
		settings := []modelSettings{drawSettings(rt, "first"), drawSettings(rt, "second")}
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 20, 120).Draw(rt, "steps")
		var problem string
		synctest.Test(t, func(*testing.T) { problem = compareWithModel(settings, steps) })
		if problem != "" {
			rt.Fatal(problem)
		}
	}
	for range 5 { // one round seldom finds what takes three coincidences
		rapid.Check(t, check)
	}
}

type modelSettings struct {
	window            string
	size              int
	minCalls          int
	failures          int
	rate, share       float64
	slow, open, probe int // seconds
	probes            int
}

func drawSettings(rt *rapid.T, name string) modelSettings {
	return rapid.Custom(func(rt *rapid.T) modelSettings {
		s := modelSettings{
			window: rapid.SampledFrom([]string{"consecutive", "count", "time"}).Draw(rt, "window"),
			size:   rapid.IntRange(1, 6).Draw(rt, "size"),
			slow:   rapid.IntRange(0, 2).Draw(rt, "slow"),
			open:   rapid.IntRange(1, 4).Draw(rt, "open"),
			probe:  rapid.IntRange(1, 5).Draw(rt, "probe"),
			probes: rapid.IntRange(1, 4).Draw(rt, "probes"),
			share:  rapid.SampledFrom([]float64{0, 0.25, 0.5, 0.6, 1}).Draw(rt, "share"),
		}
		s.failures = rapid.IntRange(1, s.size).Draw(rt, "failures")
		if s.window != "consecutive" {
			s.minCalls = rapid.IntRange(1, s.size).Draw(rt, "min calls")
			s.rate = rapid.SampledFrom([]float64{0.3, 0.5, 1}).Draw(rt, "rate")
		}
		return s
	}).Draw(rt, name)
}

func (s modelSettings) config() resilience.BreakerConfig {
	seconds := func(n int) time.Duration { return time.Duration(n) * time.Second }
	windows := map[string]resilience.Window{
		"consecutive": resilience.Consecutive(), "count": resilience.Count(s.size), "time": resilience.Time(seconds(s.size), s.size)}
	c := resilience.BreakerConfig{
		Window: windows[s.window], MinCalls: s.minCalls, Failures: s.failures, FailureRate: s.rate,
		SlowCall: seconds(s.slow), Probes: s.probes, ProbeSuccess: s.share, ProbeTimeout: seconds(s.probe),
		OpenFor: func(episode int, _ error) time.Duration { return seconds(s.open * episode) },
	}
	if s.slow > 0 && s.window != "consecutive" {
		c.SlowRate = s.rate
	}
	return c
}

type modelStep struct {
	op  string
	arg int
}

func drawStep(rt *rapid.T) modelStep {
	return modelStep{
		op: rapid.SampledFrom([]string{"begin", "begin", "begin", "good", "good", "bad", "bad", "bad", "neutral",
			"sleep", "sleep", "sleep", "trip", "reset", "mode", "update"}).Draw(rt, "op"),
		arg: rapid.SampledFrom([]int{0, 1, 2, 3, 4, 5}).Draw(rt, "arg"),
	}
}

func compareWithModel(settings []modelSettings, steps []modelStep) string {
	b := must(resilience.NewBreaker(settings[0].config()))
	m := &model{modelSettings: settings[0]}
	var dones []func(error)
	for i, s := range steps {
		problem := ""
		switch s.op {
		case "begin":
			done, err := b.Allow(context.Background())
			if m.begin() != (err == nil) {
				problem = fmt.Sprintf("Allow says %v", err)
			} else if err == nil {
				dones = append(dones, done)
			}
		case "good", "bad", "neutral":
			if len(dones) > 0 {
				n := s.arg % len(dones)
				dones[n](map[string]error{"bad": errDown, "neutral": resilience.ErrFull}[s.op])
				dones = slices.Delete(dones, n, n+1)
				m.end(n, s.op)
			}
		case "sleep":
			for range s.arg {
				time.Sleep(time.Second)
				synctest.Wait()
				m.second()
			}
		case "trip":
			b.Trip(time.Duration(s.arg) * time.Second)
			m.trip(s.arg)
		case "reset":
			b.Reset()
			m.close()
		case "mode":
			m.mode = resilience.Mode(s.arg % 4)
			b.SetMode(m.mode)
		case "update":
			next := settings[s.arg%2]
			if err := b.Update(next.config()); err != nil {
				problem = err.Error()
			}
			m.update(next)
		}
		if got, want := b.Stats(), m.stats(); problem != "" || got != want || b.State() != want.State {
			return fmt.Sprintf("after step %d, %v: %s\n breaker %+v, %v\n model   %+v", i, s, problem, got, b.State(), want)
		}
	}
	for _, done := range dones {
		done(nil)
	}
	return ""
}

type modelCall struct {
	kind     string // "measured", "probe" or "" for one that only counts in the totals
	life     int
	start    int
	watch    bool // slow calls were looked for at the start
	giveUp   int
	settled  bool
	at       int
	bad, lag bool
}

type model struct {
	modelSettings
	probing modelSettings // those of the episode

	mode               resilience.Mode
	now, life, episode int
	until, free        int
	goods, bads        int
	results            []modelCall
	failRow, slowRow   int
	under              []*modelCall
	totals             resilience.BreakerStats
}

func (m *model) forced() bool {
	return m.mode == resilience.ForcedOpen || m.mode == resilience.ForcedClosed
}

func (m *model) begin() bool {
	c := &modelCall{life: m.life, start: m.now, watch: m.slow > 0, giveUp: m.now + m.probing.probe}
	switch {
	case m.mode == resilience.ForcedOpen:
		m.totals.Rejected++
		return false
	case m.mode == resilience.ForcedClosed:
	case m.episode == 0:
		c.kind = "measured"
	case m.now >= m.until && m.free > 0:
		c.kind = "probe"
		m.free--
	case m.mode == resilience.MetricsOnly:
		m.totals.ShadowRejected++
	default:
		m.totals.Rejected++
		return false
	}
	m.under = append(m.under, c)
	return true
}

func (m *model) end(n int, how string) {
	c := m.under[n]
	m.under = slices.Delete(m.under, n, n+1)
	if how == "neutral" {
		m.totals.Neutral++
		m.judge(c, how)
		return
	}
	c.at, c.bad, c.lag = m.now, how == "bad", m.slow > 0 && c.watch && m.now-c.start >= m.slow
	if c.bad {
		m.totals.Failed++
	} else {
		m.totals.Succeeded++
	}
	if c.lag {
		m.totals.SlowTotal++
	}
	if c.kind == "measured" && c.life == m.life && !m.forced() {
		m.record(*c)
	}
	if c.bad || c.lag {
		how = "bad"
	}
	m.judge(c, how)
}

func (m *model) record(c modelCall) {
	m.results = append(m.results, c)
	m.failRow, m.slowRow = m.failRow+1, m.slowRow+1
	if !c.bad {
		m.failRow = 0
	}
	if !c.lag {
		m.slowRow = 0
	}
	held := m.held()
	trips := held.Failures >= m.failures
	if m.window == "consecutive" {
		trips = trips || held.Slow >= m.failures
	} else if held.Calls >= m.minCalls {
		trips = trips || float64(held.Failures)/float64(held.Calls) >= m.rate ||
			m.slow > 0 && float64(held.Slow)/float64(held.Calls) >= m.rate
	}
	if trips {
		m.open(m.modelSettings.open)
	}
}

func (m *model) held() (s resilience.BreakerStats) {
	if m.episode > 0 {
		return s
	}
	if m.window == "consecutive" {
		return resilience.BreakerStats{Calls: max(m.failRow, m.slowRow), Failures: m.failRow, Slow: m.slowRow}
	}
	for i, c := range m.results {
		if m.window == "count" && i < len(m.results)-m.size || m.window == "time" && c.at <= m.now-m.size {
			continue
		}
		s.Calls++
		if c.bad {
			s.Failures++
		}
		if c.lag {
			s.Slow++
		}
	}
	return s
}

func (m *model) judge(c *modelCall, how string) {
	if c.kind != "probe" || c.settled || c.life != m.life {
		return
	}
	c.settled = true
	switch how {
	case "neutral":
		m.free++
	case "good":
		m.goods++
	default:
		m.bads++
	}
	need := m.probing.probes
	if m.probing.share > 0 {
		for need > 1 && float64(need-1)/float64(m.probing.probes) >= m.probing.share {
			need--
		}
	}
	switch {
	case m.goods >= need:
		m.close()
	case m.probing.probes-m.bads < need:
		m.open(m.modelSettings.open * (m.episode + 1))
	}
}

func (m *model) second() {
	m.now++
	for _, c := range slices.Clone(m.under) {
		if c.giveUp <= m.now {
			m.judge(c, "bad")
		}
	}
}

func (m *model) trip(d int) {
	if d == 0 {
		d = m.modelSettings.open * (m.episode + 1)
	}
	m.open(d)
}

func (m *model) open(d int) {
	m.life++
	m.episode++
	m.totals.Opened++
	m.probing = m.modelSettings
	m.until, m.free, m.goods, m.bads = m.now+d, m.probes, 0, 0
}

func (m *model) close() {
	m.life++
	m.episode = 0
	m.forget()
}

func (m *model) forget() { m.results, m.failRow, m.slowRow = nil, 0, 0 }

func (m *model) update(s modelSettings) {
	if s.config().Window != m.config().Window {
		m.forget()
	}
	m.modelSettings = s
}

func (m *model) stats() resilience.BreakerStats {
	s, held := m.totals, m.held()
	s.Calls, s.Failures, s.Slow = held.Calls, held.Failures, held.Slow
	s.Mode, s.Episode = m.mode, m.episode
	switch {
	case m.mode == resilience.ForcedOpen:
		s.State = resilience.Open
	case m.mode == resilience.ForcedClosed || m.episode == 0:
	case m.now < m.until:
		s.State, s.OpenFor = resilience.Open, time.Duration(m.until-m.now)*time.Second
	default:
		s.State = resilience.HalfOpen
	}
	return s
}

// FuzzBreakerConfig takes any settings: they are refused with an error that names
// the breaker, or the breaker survives a life.
func FuzzBreakerConfig(f *testing.F) {
	f.Add(uint8(0), 0, int64(0), 0, 0.0, 0, int64(0), 0.0, 0, 0.0, int64(0), uint8(0), int64(0))
	f.Add(uint8(1), 0, int64(0), 0, 0.0, 3, int64(1), 0.0, 1, 0.5, int64(1), uint8(3), int64(1))
	f.Add(uint8(2), 1<<40, int64(0), 1, 1.0, 1, int64(1), 1.0, 1<<40, 1.0, int64(1<<62), uint8(9), int64(-1))
	f.Add(uint8(3), 10, int64(1e9), 1<<62, 0.1, 1<<62, int64(1<<62), 1e-300, 3, 1e-300, int64(1<<62), uint8(1), int64(1<<62))
	f.Fuzz(func(t *testing.T, window uint8, size int, covered int64, minCalls int, rate float64, failures int,
		slow int64, slowRate float64, probes int, share float64, patience int64, mode uint8, open int64,
	) {
		windows := []resilience.Window{{}, resilience.Consecutive(), resilience.Count(size), resilience.Time(time.Duration(covered), size)}
		cfg := resilience.BreakerConfig{
			Name: "fuzzed", Window: windows[window%4], MinCalls: minCalls, FailureRate: rate, Failures: failures,
			SlowCall: time.Duration(slow), SlowRate: slowRate, Probes: probes, ProbeSuccess: share,
			ProbeTimeout: time.Duration(patience), Mode: resilience.Mode(mode), OpenFor: resilience.OpenBackoff(time.Duration(open), 1<<62),
		}
		synctest.Test(t, func(t *testing.T) {
			b, err := resilience.NewBreaker(cfg)
			if err != nil {
				if b != nil || !hasPrefix(err, `resilience: configure breaker "fuzzed": `) {
					t.Fatalf("breaker %v, error %v", b, err)
				}
				return
			}
			play(b, "sfn.Lffffff..s")
			b.Trip(0)
			if s := b.Stats(); s.Opened == 0 || cfg.Mode == resilience.Auto && (s.State != resilience.Open || s.OpenFor <= 0) {
				t.Fatalf("after Trip: %+v", s)
			}
			b.Trip(time.Second)
			for range 20_000 { // enough for any number of probes
				if b.State() == resilience.Closed {
					break
				}
				play(b, ".s")
				b.SetMode(resilience.Auto)
			}
			if err := b.Update(cfg); err != nil {
				t.Fatalf("Update with the same settings: %v", err)
			}
			wantState(t, b, resilience.Closed)
			if s := b.Stats(); s.Succeeded == 0 {
				t.Errorf("stats = %+v", s)
			}
		})
	})
}

func hasPrefix(err error, prefix string) bool {
	return len(err.Error()) > len(prefix) && err.Error()[:len(prefix)] == prefix
}
