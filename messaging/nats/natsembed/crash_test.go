package natsembed_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/armature-go/armature/messaging"
	"github.com/armature-go/armature/messaging/nats/natsembed"
)

const crashDir = "ARMATURE_TEST_CRASH_DIR"

// crashChild publishes 1, 2, 3, ... under one key, says what is stored, and holds every message in a handler until it is killed.
func crashChild(dir string) error {
	s, err := natsembed.Open(context.Background(), natsembed.Config{StoreDir: dir})
	if err != nil {
		return err
	}
	if _, err := s.Broker().Subscribe(context.Background(), "topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		if string(d.Message.Data) == "1" {
			return nil
		}
		fmt.Println("holding", string(d.Message.Data))
		select {}
	}); err != nil {
		return err
	}
	for i := 1; ; i++ {
		if err := s.Broker().Publish(context.Background(), "topic", &messaging.Message{ID: fmt.Sprint(i), Key: "k", Data: fmt.Append(nil, i)}); err != nil {
			return err
		}
		fmt.Println("stored", i)
	}
}

// A process is killed with messages stored, held and handled. The next one on the folder gets them at once and in order.
func TestKill(t *testing.T) {
	if dir := os.Getenv(crashDir); dir != "" {
		t.Fatal(crashChild(dir))
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stored, holding := 0, false
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		switch {
		case strings.HasPrefix(lines.Text(), "holding 2"):
			holding = true
		case strings.HasPrefix(lines.Text(), "stored "):
			stored++
		}
		if holding && stored == 50 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	for lines.Scan() { // what it said before it died counts
		if strings.HasPrefix(lines.Text(), "stored ") {
			stored++
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
	if stored < 50 {
		t.Fatalf("the child stored %d messages", stored)
	}

	s, err := natsembed.Open(t.Context(), natsembed.Config{StoreDir: dir, Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	got := make(chan string, 10_000)
	if _, err := s.Broker().Subscribe(t.Context(), "topic", "group", func(_ context.Context, d *messaging.Delivery) error {
		got <- string(d.Message.Data)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var all []string
	for next := ""; next != fmt.Sprint(stored); {
		select {
		case next = <-got:
			all = append(all, next)
		case <-time.After(time.Minute):
			t.Fatalf("waited in vain for message %d, got %v", stored, all)
		}
	}
	if all[0] == "1" { // handled, but the crash came before the acknowledgement was on disk
		all = all[1:]
	}
	var want []string
	for i := 2; i <= stored; i++ {
		want = append(want, fmt.Sprint(i))
	}
	if !slices.Equal(all, want) {
		t.Errorf("got %v, want %v", all, want)
	}
}

func TestFolderHasOneServer(t *testing.T) {
	dir := t.TempDir()
	s, err := natsembed.Open(t.Context(), natsembed.Config{StoreDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if second, err := natsembed.Open(t.Context(), natsembed.Config{StoreDir: dir}); err == nil {
		second.Close(context.Background())
		t.Error("a second server opened the folder")
	} else if !strings.Contains(err.Error(), "in use by another server") {
		t.Errorf("error is %v", err)
	}
	if s.URL() != "" {
		t.Errorf("URL is %q without Listen", s.URL())
	}
	for range 2 {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if err := s.Broker().Ping(t.Context()); !errors.Is(err, messaging.ErrClosed) {
		t.Errorf("ping after close: %v", err)
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		cfg  natsembed.Config
		want string
	}{
		{"no folder", natsembed.Config{}, "field StoreDir is empty"},
		{"negative sync", natsembed.Config{SyncInterval: -1}, "field SyncInterval is -1ns"},
		{"huge payload", natsembed.Config{MaxPayload: 1 << 30}, "field MaxPayload is 1073741824"},
		{"negative store", natsembed.Config{MaxStore: -1}, "field MaxStore is -1"},
		{"no port", natsembed.Config{Listen: "127.0.0.1"}, "must be host:port"},
		{"public address", natsembed.Config{Listen: "0.0.0.0:4222"}, "must be a loopback address"},
		{"short lease", natsembed.Config{Lease: 1}, "field Lease is 1ns"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.name != "no folder" {
				test.cfg.StoreDir = t.TempDir()
			}
			s, err := natsembed.Open(t.Context(), test.cfg)
			if err == nil {
				s.Close(context.Background())
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	if dir, err := natsembed.ParseURL("nats+embedded:data/events"); err != nil || dir != "data/events" {
		t.Errorf("got %q, %v", dir, err)
	}
	for _, url := range []string{"", "nats+embedded:", "nats://127.0.0.1"} {
		if dir, err := natsembed.ParseURL(url); err == nil {
			t.Errorf("%q gave %q", url, dir)
		}
	}
}

// Both synced and unsynced publishing, one message a call and a hundred.
func BenchmarkPublish(b *testing.B) {
	for _, sync := range []time.Duration{0, time.Minute} {
		for _, n := range []int{1, 100} {
			b.Run(fmt.Sprintf("sync=%s/batch=%d", sync, n), func(b *testing.B) {
				s, err := natsembed.Open(b.Context(), natsembed.Config{StoreDir: b.TempDir(), SyncInterval: sync})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close(context.Background())
				msgs := make([]*messaging.Message, n)
				for i := range msgs {
					msgs[i] = &messaging.Message{Data: make([]byte, 256)}
				}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if err := s.Broker().Publish(b.Context(), "topic", msgs...); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "msg/s")
			})
		}
	}
}
