package ws_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"

	"github.com/armature-go/armature/transport/httpx"
	"github.com/armature-go/armature/transport/ws"
)

type command struct {
	Watch string `json:"watch"`
}

type event struct {
	Order, Status string
}

func ExampleNew() {
	live, err := ws.New(func(ctx context.Context, c *ws.Conn[command, event]) error {
		for {
			cmd, err := c.Receive(ctx)
			if err != nil {
				return err
			}
			if err := c.Send(ctx, event{Order: c.Request().PathValue("id"), Status: cmd.Watch + " is paid"}); err != nil {
				return err
			}
		}
	}, ws.Config{Origins: []string{"https://shop.example.com"}})
	if err != nil {
		panic(err)
	}
	s, err := httpx.NewServer(httpx.Config{})
	if err != nil {
		panic(err)
	}
	s.Mount("GET /orders/{id}/live", live)
	srv := httptest.NewServer(s)
	defer srv.Close()

	ctx := context.Background()
	c, err := ws.Dial[event, command](ctx, srv.URL+"/orders/7/live", ws.Config{})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	if err := c.Send(ctx, command{Watch: "payment"}); err != nil {
		panic(err)
	}
	fmt.Println(c.Receive(ctx))

	if err := live.Shutdown(ctx); err != nil {
		panic(err)
	}
	_, err = c.Receive(ctx)
	fmt.Println(err)
	// Output:
	// {7 payment is paid} <nil>
	// ws: closed by the peer: 1001 "the server is going away"
}

func ExampleDial() {
	tick, err := ws.New(func(ctx context.Context, c *ws.Conn[struct{}, int]) error {
		for n := range 3 {
			if err := c.Send(ctx, n); err != nil {
				return err
			}
		}
		return nil
	}, ws.Config{})
	if err != nil {
		panic(err)
	}
	srv := httptest.NewServer(tick)
	defer srv.Close()

	ctx := context.Background()
	c, err := ws.Dial[int, struct{}](ctx, srv.URL, ws.Config{})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	for {
		n, err := c.Receive(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			panic(err)
		}
		fmt.Println(n)
	}
	// Output:
	// 0
	// 1
	// 2
}
