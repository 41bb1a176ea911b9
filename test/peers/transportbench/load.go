package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	httpConns   = 16
	grpcConns   = 2
	grpcCallers = 16 // on each connection

	trace     = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
	sampled   = trace + "01"
	unsampled = trace + "00"
)

// Order is what the HTTP servers take and give back.
type Order struct {
	ID       string  `json:"id"`
	Customer string  `json:"customer"`
	Note     string  `json:"note"`
	Total    float64 `json:"total"`
	Lines    []Line  `json:"lines"`
}

// Line is a part of an Order.
type Line struct {
	SKU      string `json:"sku"`
	Quantity int    `json:"quantity"`
}

var order = Order{
	ID: "0f8b6a3e-54d1-7c22", Customer: "c-10293847", Note: "leave it with the neighbour", Total: 129.95,
	Lines: []Line{{"sku-00017", 2}, {"sku-00391", 1}},
}

// overHTTP writes one prepared request again and again on each connection. The
// callers must be cheap: they share the processors with the server.
func overHTTP(traceparent string) caller {
	return func(addr string) (func(time.Duration) (int, error), error) {
		body, err := json.Marshal(order)
		if err != nil {
			return nil, err
		}
		r, err := http.NewRequest(http.MethodPost, "http://"+addr+"/orders", bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Traceparent", traceparent)
		if err := greet(r); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		var wire bytes.Buffer
		if err := r.Write(&wire); err != nil {
			return nil, err
		}
		calls := make([]func() error, httpConns)
		for i := range calls {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				return nil, err
			}
			in := bufio.NewReader(conn)
			calls[i] = func() error {
				if _, err := conn.Write(wire.Bytes()); err != nil {
					return err
				}
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					return err
				}
				if resp.StatusCode != http.StatusOK || resp.Close {
					return fmt.Errorf("answered %s, closing %v", resp.Status, resp.Close)
				}
				_, err = io.Copy(io.Discard, resp.Body)
				return err
			}
		}
		return busy(calls), nil
	}
}

// greet makes sure that the server does what the others do.
func greet(r *http.Request) error {
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var got Order
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || !reflect.DeepEqual(got, order) {
		return fmt.Errorf("answered %s, %+v, %v; want the order back", resp.Status, got, err)
	}
	return nil
}

// overGRPC calls over few connections, as gRPC clients do.
func overGRPC(traceparent string) caller {
	return func(addr string) (func(time.Duration) (int, error), error) {
		ctx := metadata.AppendToOutgoingContext(context.Background(), "traceparent", traceparent)
		in := wrapperspb.Bytes(bytes.Repeat([]byte("order "), 30))
		var calls []func() error
		for range grpcConns {
			cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return nil, err
			}
			for range grpcCallers {
				calls = append(calls, func() error {
					out := new(wrapperspb.BytesValue)
					if err := cc.Invoke(ctx, echoMethod, in, out); err != nil {
						return err
					}
					if !bytes.Equal(out.Value, in.Value) {
						return fmt.Errorf("answered %q, want the message back", out.Value)
					}
					return nil
				})
			}
		}
		return busy(calls), nil
	}
}

// busy runs every call over and over, each on a goroutine of its own.
func busy(calls []func() error) func(time.Duration) (int, error) {
	return func(d time.Duration) (int, error) {
		var answered atomic.Int64
		errs := make(chan error, len(calls))
		end := time.Now().Add(d)
		var wg sync.WaitGroup
		for _, call := range calls {
			wg.Go(func() {
				n := 0
				for n == 0 || time.Now().Before(end) {
					if err := call(); err != nil {
						errs <- err
						return
					}
					n++
				}
				answered.Add(int64(n))
			})
		}
		wg.Wait()
		select {
		case err := <-errs:
			return 0, err
		default:
			return int(answered.Load()), nil
		}
	}
}
