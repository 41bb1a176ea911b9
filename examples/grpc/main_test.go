package main

import (
	"bytes"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRun(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"   hello Ada\n", "   it is errNobody: true\n", "   step 1\n   step 2\n   step 3\n", "   hello Grace\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Count(out.String(), "hello Grace") != 2 || !strings.Contains(out.String(), "asking again") {
		t.Errorf("the tired instance was not noticed:\n%s", out.String())
	}
}
