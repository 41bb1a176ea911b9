package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/armature-go/armature/examples/shop/play"
)

func TestPlayEndsGreenAlsoOnAReusedFolder(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	lines := slices.Collect(bytes.Lines(orders))
	every := 1
	if raceDetector {
		every = 8
	}
	for life := range 2 {
		var some []byte
		for i := life; i < len(lines); i += every {
			some = append(some, lines[i]...)
		}
		s := openShop(t, options{data: data})
		var out, errs bytes.Buffer
		code := play.Main(t.Context(), []string{"-addr", s.url}, some, &out, &errs)
		if code != 0 || !strings.HasSuffix(out.String(), "audit: green\n") {
			t.Errorf("life %d: play = %d\n%s%s", life, code, out.String(), errs.String())
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}
}
