package resilience_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/armature-go/armature/resilience"
)

var noon = time.Date(2026, time.November, 21, 12, 0, 0, 0, time.UTC)

func TestParseRetryAfter(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		value string
		want  time.Duration
		ok    bool
	}{
		{"0", 0, true},
		{"120", 2 * time.Minute, true},
		{" 7\t", 7 * time.Second, true},
		{"0007", 7 * time.Second, true},
		{"-5", 0, true},
		{"9223372036", 9223372036 * time.Second, true},
		{"9223372037", math.MaxInt64, true},
		{"99999999999999999999999", math.MaxInt64, true},
		{"-99999999999999999999999", 0, true},
		{"Sat, 21 Nov 2026 12:00:30 GMT", 30 * time.Second, true},
		{"Saturday, 21-Nov-26 12:00:30 GMT", 30 * time.Second, true},
		{"Sat Nov 21 12:00:30 2026", 30 * time.Second, true},
		{"Sat, 21 Nov 2026 11:59:30 GMT", 0, true},
		{"Fri, 31 Dec 9999 23:59:59 GMT", math.MaxInt64, true},
		{"", 0, false},
		{"-", 0, false},
		{"+5", 0, false},
		{"--5", 0, false},
		{"1.5", 0, false},
		{"1e3", 0, false},
		{"5 s", 0, false},
		{"soon", 0, false},
		{"Sat, 21 Nov 2026 12:00:30 +0100", 0, false},
		{"2026-11-21T12:00:30Z", 0, false},
	} {
		if got, ok := resilience.ParseRetryAfter(tt.value, noon); got != tt.want || ok != tt.ok {
			t.Errorf("%q: %v, %v; want %v, %v", tt.value, got, ok, tt.want, tt.ok)
		}
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	for _, seed := range []string{"", "0", "-1", "120", "99999999999999999999", "Sat, 21 Nov 2026 12:00:30 GMT", "Saturday, 21-Nov-26 12:00:30 GMT", "Sat Nov 21 12:00:30 2026", "soon"} {
		f.Add(seed, int64(0))
	}
	f.Fuzz(func(t *testing.T, value string, shift int64) {
		now := noon.Add(time.Duration(shift))
		d, ok := resilience.ParseRetryAfter(value, now)
		if d < 0 || !ok && d != 0 {
			t.Errorf("%q: %v, %v", value, d, ok)
		}
		if again, ok2 := resilience.ParseRetryAfter(" "+value+" ", now); again != d || ok2 != ok {
			t.Errorf("%q: %v, %v; with space around %v, %v", value, d, ok, again, ok2)
		}
		if later, _ := resilience.ParseRetryAfter(value, now.Add(time.Hour)); later > d {
			t.Errorf("%q: %v, an hour later %v", value, d, later)
		}
	})
}

func TestRetryAfterWrapsAnError(t *testing.T) {
	t.Parallel()
	if resilience.RetryAfter(nil, time.Second) != nil {
		t.Error("no error became one")
	}
	err := resilience.RetryAfter(errDown, time.Minute)
	var wish interface {
		RetryAfter() (time.Duration, bool)
	}
	if !errors.As(err, &wish) || !errors.Is(err, errDown) || err.Error() != errDown.Error() {
		t.Fatalf("error = %v", err)
	}
	if d, ok := wish.RetryAfter(); d != time.Minute || !ok {
		t.Errorf("wish = %v, %v", d, ok)
	}
	_ = errors.As(resilience.RetryAfter(errDown, -1), &wish)
	if d, ok := wish.RetryAfter(); d != 0 || !ok {
		t.Errorf("negative wish = %v, %v", d, ok)
	}
}
