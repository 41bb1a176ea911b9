package groupcommit_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/armature-go/armature/internal/groupcommit"
)

func TestLoneWriterCommitsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := groupcommit.New(10, func(context.Context, []int) []error { return nil })
		start := time.Now()
		if err := c.Do(t.Context(), 1); err != nil || time.Since(start) != 0 {
			t.Errorf("err = %v after %v", err, time.Since(start))
		}
	})
}

func TestWritersShareACommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var batches [][]int
		c := groupcommit.New(3, func(_ context.Context, batch []int) []error {
			batches = append(batches, batch)
			time.Sleep(time.Second) // the fsync, in virtual time
			return nil
		})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if err := c.Do(t.Context(), i); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		total := 0
		for _, b := range batches {
			total += len(b)
		}
		if len(batches) != 4 || total != 8 {
			t.Errorf("batches = %v, want the first alone and the rest in threes", batches)
		}
	})
}

func TestErrorsReachTheirItem(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad")
	tests := []struct {
		name  string
		flush func(context.Context, []int) []error
		want  error
	}{
		{"per item", func(context.Context, []int) []error { return []error{bad} }, bad},
		{"none", func(context.Context, []int) []error { return []error{nil} }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := groupcommit.New(1, tt.flush).Do(t.Context(), 1); !errors.Is(err, tt.want) {
				t.Errorf("err = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestPanicInFlushFailsTheBatchAndFreesTheLead(t *testing.T) {
	t.Parallel()
	first := true
	c := groupcommit.New(1, func(context.Context, []int) []error {
		if first {
			first = false
			panic("disk gone")
		}
		return nil
	})
	if err := c.Do(t.Context(), 1); err == nil {
		t.Error("a panic was reported as written")
	}
	if err := c.Do(t.Context(), 2); err != nil {
		t.Errorf("the committer stayed stuck: %v", err)
	}
}

func TestCancelledWriterLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var written []int
		c := groupcommit.New(10, func(_ context.Context, batch []int) []error {
			time.Sleep(time.Second)
			written = append(written, batch...)
			return nil
		})
		var wg sync.WaitGroup
		do := func(ctx context.Context, i int, want error) {
			wg.Go(func() {
				if err := c.Do(ctx, i); !errors.Is(err, want) {
					t.Errorf("item %d: err = %v, want %v", i, err, want)
				}
			})
			synctest.Wait()
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		do(t.Context(), 1, nil)
		do(short, 2, context.DeadlineExceeded)
		do(t.Context(), 3, nil)
		wg.Wait()
		if len(written) != 2 || written[0] != 1 || written[1] != 3 {
			t.Errorf("written = %v, want 1 and 3", written)
		}
		dead, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Do(dead, 4); !errors.Is(err, context.Canceled) {
			t.Errorf("a dead context wrote: %v", err)
		}
	})
}
