package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	kratoslog "github.com/go-kratos/kratos/v2/log"
	kratoslogging "github.com/go-kratos/kratos/v2/middleware/logging"
	kratosmetrics "github.com/go-kratos/kratos/v2/middleware/metrics"
	"github.com/go-kratos/kratos/v2/middleware/recovery"
	"github.com/go-kratos/kratos/v2/middleware/tracing"
	kratoshttp "github.com/go-kratos/kratos/v2/transport/http"
	"github.com/zeromicro/go-zero/core/logx"
	zeroprometheus "github.com/zeromicro/go-zero/core/prometheus"
	"github.com/zeromicro/go-zero/rest"
	zerohttpx "github.com/zeromicro/go-zero/rest/httpx"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	metricsdk "go.opentelemetry.io/otel/sdk/metric"
)

// hush keeps go-zero from writing its own state to standard output once a minute,
// which it does in every process that it is linked into.
func hush() { logx.DisableStat() }

// kratosLogger makes a line of JSON of what Kratos logs.
type kratosLogger struct{ *slog.Logger }

func (l kratosLogger) Log(level kratoslog.Level, keyvals ...any) error {
	l.Logger.Log(context.Background(), slog.Level(4*level), "", keyvals...)
	return nil
}

// kratosHTTP is a Kratos server with the middleware of its documentation, and a
// handler as its generator writes it.
func kratosHTTP() (string, error) {
	meter := metricsdk.NewMeterProvider(metricsdk.WithReader(metricsdk.NewManualReader()),
		metricsdk.WithView(kratosmetrics.DefaultSecondsHistogramView(kratosmetrics.DefaultServerSecondsHistogramName))).Meter("bench")
	requests, err := kratosmetrics.DefaultRequestsCounter(meter, kratosmetrics.DefaultServerRequestsCounterName)
	if err != nil {
		return "", err
	}
	seconds, err := kratosmetrics.DefaultSecondsHistogram(meter, kratosmetrics.DefaultServerSecondsHistogramName)
	if err != nil {
		return "", err
	}
	l, err := listen()
	if err != nil {
		return "", err
	}
	kratoslog.SetLogger(kratosLogger{logger()}) // it would say on standard error that it listens
	s := kratoshttp.NewServer(kratoshttp.Listener(l), kratoshttp.Middleware(
		recovery.Recovery(),
		tracing.Server(tracing.WithTracerProvider(tracer()), tracing.WithPropagator(propagation.TraceContext{})),
		kratosmetrics.Server(kratosmetrics.WithRequests(requests), kratosmetrics.WithSeconds(seconds)),
		kratoslogging.Server(kratosLogger{logger()}),
	))
	s.Route("/").POST("/orders", func(ctx kratoshttp.Context) error {
		var in Order
		if err := ctx.Bind(&in); err != nil {
			return err
		}
		kratoshttp.SetOperation(ctx, "/bench.v1.Orders/Place")
		out, err := ctx.Middleware(func(ctx context.Context, req any) (any, error) { return echo(ctx, req.(*Order)) })(ctx, &in)
		if err != nil {
			return err
		}
		return ctx.Result(http.StatusOK, out)
	})
	go s.Start(context.Background())
	return l.Addr().String(), nil
}

// zeroHTTP is a go-zero server with those of its middlewares that ours does the work
// of: it could shed load and break circuits as well, and would cost more.
func zeroHTTP() (string, error) {
	l, err := listen() // go-zero listens itself and does not say where
	if err != nil {
		return "", err
	}
	addr := l.Addr().(*net.TCPAddr)
	l.Close()
	otel.SetTracerProvider(tracer())
	otel.SetTextMapPropagator(propagation.TraceContext{})
	zeroprometheus.Enable()
	s, err := rest.NewServer(rest.RestConf{
		Host: addr.IP.String(), Port: addr.Port, MaxBytes: 1 << 20, Timeout: 30_000,
		Middlewares: rest.MiddlewaresConf{Trace: true, Log: true, Prometheus: true, Timeout: true, Recover: true, MaxBytes: true},
	})
	if err != nil {
		return "", err
	}
	logx.SetWriter(logx.NewWriter(io.Discard))
	s.AddRoute(rest.Route{Method: http.MethodPost, Path: "/orders", Handler: func(w http.ResponseWriter, r *http.Request) {
		var in Order
		if err := zerohttpx.ParseJsonBody(r, &in); err != nil {
			zerohttpx.ErrorCtx(r.Context(), w, err)
			return
		}
		out, err := echo(r.Context(), &in)
		if err != nil {
			zerohttpx.ErrorCtx(r.Context(), w, err)
			return
		}
		zerohttpx.OkJsonCtx(r.Context(), w, out)
	}})
	go s.Start()
	return addr.String(), answering(addr.String())
}

// answering waits until something listens at addr.
func answering(addr string) error {
	for range 100 {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return conn.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("nothing listens on %s", addr)
}
