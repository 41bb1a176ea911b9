package archtest

import "slices"

// Groups of third parties that several rows share.
var (
	otelAPI = []string{
		"go.opentelemetry.io/otel",
		"go.opentelemetry.io/otel/attribute/...",
		"go.opentelemetry.io/otel/baggage/...",
		"go.opentelemetry.io/otel/codes/...",
		"go.opentelemetry.io/otel/metric/...",
		"go.opentelemetry.io/otel/propagation/...",
		"go.opentelemetry.io/otel/semconv/...",
		"go.opentelemetry.io/otel/trace/...",
	}
	otelSDK       = []string{"go.opentelemetry.io/otel/sdk/..."}
	otelExporters = []string{"go.opentelemetry.io/otel/exporters/...", "go.opentelemetry.io/proto/otlp/..."}
	prometheus    = []string{"github.com/prometheus/client_golang/prometheus/..."}
	kitEndpoint   = []string{"github.com/go-kit/kit/endpoint"}
	grpcWords     = []string{ // status, codes and details; not the server
		"google.golang.org/grpc/codes",
		"google.golang.org/grpc/status",
		"google.golang.org/genproto/googleapis/rpc/...",
		"google.golang.org/protobuf/...",
	}
	natsClient  = []string{"github.com/nats-io/nats.go/..."}
	natsServer  = []string{"github.com/nats-io/nats-server/v2/..."}
	redisClient = []string{"github.com/redis/go-redis/v9/..."}

	grpcServer = []string{"google.golang.org/grpc"}
	brokers    = slices.Concat(natsClient, natsServer)
	sqlDrivers = []string{
		"github.com/go-sql-driver/mysql/...",
		"github.com/jackc/pgx/v5/...",
		"github.com/lib/pq/...",
		"github.com/mattn/go-sqlite3/...",
		"modernc.org/sqlite/...",
	}

	// Boundaries between durable writes may carry a failpoint, which is empty
	// without its build tag.
	internalSQL = []string{"internal/sqldb", "internal/lease", "internal/groupcommit", "internal/failpoint"}
	// heavy is what a leaf package must never make its user compile.
	heavy = slices.Concat(grpcServer, otelAPI, otelSDK, otelExporters, prometheus, redisClient, brokers, sqlDrivers)
)

// Table returns the import table of the project.
func Table() []Rule {
	library := func(pkg string, ours, third []string, notCompiled ...[]string) Rule {
		return Rule{
			Package: pkg, Ours: ours, Third: third,
			NotCompiled: slices.Concat(append(notCompiled, sqlDrivers)...),
			Why:         "library code stays importable alone and imports no SQL driver",
		}
	}
	anything := func(pkg string) Rule { return Rule{Package: pkg, Any: true} }

	return []Rule{
		library("flow", nil, nil, heavy),

		library("resilience", []string{"flow"}, slices.Concat(kitEndpoint, []string{"github.com/sony/gobreaker", "github.com/cenkalti/backoff/v4"}), heavy),
		library("resilience/resiliencetest", []string{"flow", "resilience"}, nil, heavy),
		library("resilience/promresilience", []string{"flow", "resilience"}, prometheus, grpcServer, otelAPI, otelSDK, brokers),
		library("resilience/otelresilience", []string{"flow", "resilience"}, otelAPI, otelSDK, otelExporters, grpcServer, prometheus, brokers),
		library("resilience/redisrate", []string{"flow", "resilience"}, redisClient, grpcServer, otelAPI, otelSDK, prometheus, brokers),

		library("discovery", []string{"flow"}, nil, heavy),
		library("discovery/static", []string{"flow", "discovery"}, nil, heavy),

		library("messaging", []string{"flow"}, otelAPI, otelSDK, grpcServer, prometheus, brokers),
		library("messaging/memory", []string{"flow", "messaging"}, otelAPI, otelSDK, grpcServer, prometheus, brokers),
		library("messaging/messagingtest", []string{"flow", "messaging"}, slices.Concat(otelAPI, otelSDK, []string{"github.com/google/go-cmp/..."}), grpcServer, brokers),
		library("messaging/nats", []string{"flow", "messaging"}, slices.Concat(otelAPI, natsClient), otelSDK, grpcServer, prometheus, natsServer),
		library("messaging/nats/natsembed", []string{"flow", "messaging", "messaging/nats"}, slices.Concat(otelAPI, natsClient, natsServer), otelSDK, grpcServer, prometheus),
		library("messaging/outbox", slices.Concat([]string{"flow", "messaging"}, internalSQL), otelAPI, otelSDK, grpcServer, prometheus, brokers),
		library("messaging/inbox", slices.Concat([]string{"flow", "messaging"}, internalSQL), otelAPI, otelSDK, grpcServer, prometheus, brokers),

		library("saga", slices.Concat([]string{"flow"}, internalSQL), otelAPI, otelSDK, grpcServer, prometheus, brokers),
		library("saga/memory", slices.Concat([]string{"flow", "saga"}, internalSQL), nil, otelSDK, grpcServer, prometheus, brokers),
		library("saga/sqlstore", slices.Concat([]string{"flow", "saga"}, internalSQL), otelAPI, otelSDK, grpcServer, prometheus, brokers),

		library("tracing", []string{"flow"}, slices.Concat(kitEndpoint, otelAPI, otelSDK), otelExporters, grpcServer, prometheus, brokers),
		library("tracing/otlpgrpc", []string{"flow", "tracing"}, slices.Concat(otelAPI, otelSDK, otelExporters), prometheus, brokers),
		library("tracing/otlphttp", []string{"flow", "tracing"}, slices.Concat(otelAPI, otelSDK, otelExporters), prometheus, brokers),
		library("logging", []string{"flow"}, slices.Concat(otelAPI, []string{"github.com/go-kit/log/..."}), otelSDK, otelExporters, grpcServer, prometheus, brokers),

		library("transport", []string{"flow", "resilience", "discovery"}, slices.Concat([]string{"github.com/go-kit/kit/..."}, grpcWords), grpcServer, otelAPI, prometheus, brokers),
		library("transport/httpx", []string{"flow", "transport", "resilience", "discovery", "tracing", "logging", "internal/deadline"}, slices.Concat(kitEndpoint, otelAPI, prometheus), grpcServer, otelExporters, brokers),
		library("transport/grpcx", []string{"flow", "transport", "resilience", "discovery", "tracing", "logging", "internal/deadline"}, slices.Concat(kitEndpoint, otelAPI, prometheus, grpcWords, []string{"google.golang.org/grpc/..."}), otelExporters, brokers),
		library("transport/auth", []string{"flow", "transport"}, slices.Concat(kitEndpoint, []string{
			"github.com/golang-jwt/jwt/v5",
			"google.golang.org/grpc",
			"google.golang.org/grpc/credentials",
			"google.golang.org/grpc/metadata",
			"google.golang.org/grpc/peer",
			"google.golang.org/grpc/status",
		}), otelSDK, otelExporters, prometheus, brokers),
		library("transport/idempotency", []string{"flow", "transport"}, slices.Concat(kitEndpoint, grpcWords), grpcServer, otelAPI, prometheus, redisClient, brokers),
		library("transport/idempotency/idempotencytest", []string{"flow", "transport", "transport/idempotency"}, nil, grpcServer, otelAPI, prometheus, redisClient, brokers),
		library("transport/idempotency/sqlstore", slices.Concat([]string{"transport/idempotency"}, internalSQL), nil, grpcServer, otelAPI, prometheus, redisClient, brokers),
		library("transport/idempotency/redisstore", []string{"transport/idempotency"}, redisClient, grpcServer, otelSDK, prometheus, brokers),

		library("transport/ws", []string{"flow", "transport", "resilience"}, slices.Concat(otelAPI, []string{"github.com/coder/websocket"}), otelSDK, otelExporters, grpcServer, prometheus, brokers),

		library("internal/sqldb", []string{"flow", "internal/failpoint"}, nil, heavy),
		library("internal/lease", []string{"flow", "internal/sqldb", "internal/failpoint"}, nil, heavy),
		library("internal/groupcommit", []string{"flow", "internal/sqldb", "internal/failpoint"}, nil, heavy),

		library("internal/failpoint", nil, nil, heavy),
		library("internal/deadline", nil, nil, heavy),

		// The assembled service. It may name anything of ours that is not a
		// program, but importing it must not drag in a broker or a database.
		{
			Package: ".",
			Ours:    []string{"flow", "transport", "transport/httpx", "transport/grpcx", "resilience", "resilience/promresilience", "resilience/otelresilience", "discovery", "discovery/static", "tracing", "tracing/otlpgrpc", "tracing/otlphttp", "logging", "internal/sqldb"},
			Third: slices.Concat(kitEndpoint, otelAPI, otelSDK, prometheus, grpcWords,
				[]string{"google.golang.org/grpc/...", "github.com/oklog/run", "golang.org/x/sync/..."}),
			NotCompiled: slices.Concat(sqlDrivers, brokers),
			Why:         "the program chooses its database driver and its broker",
		},

		// Programs and what only tests use.
		anything("cmd/..."),
		anything("examples/..."),
		anything("internal/testsvc/..."),
		{Package: "internal/archtest"},
		{Package: "test/consumer"},
	}
}

// Required lists the packages that the project promises to have: renaming or
// losing one is a break for its users, and must not pass as "nothing to check".
func Required() []string {
	return []string{
		".",
		"cmd/armature",
		"discovery",
		"discovery/static",
		"examples/quickstart",
		"examples/resilience",
		"examples/shop",
		"flow",
		"internal/deadline",
		"internal/failpoint",
		"internal/groupcommit",
		"internal/lease",
		"internal/sqldb",
		"internal/testsvc",
		"logging",
		"messaging",
		"messaging/inbox",
		"messaging/memory",
		"messaging/messagingtest",
		"messaging/nats",
		"messaging/nats/natsembed",
		"messaging/outbox",
		"resilience",
		"resilience/otelresilience",
		"resilience/promresilience",
		"resilience/redisrate",
		"resilience/resiliencetest",
		"saga",
		"saga/sqlstore",
		"test/consumer",
		"tracing",
		"tracing/otlpgrpc",
		"tracing/otlphttp",
		"transport",
		"transport/auth",
		"transport/grpcx",
		"transport/httpx",
		"transport/idempotency",
		"transport/idempotency/idempotencytest",
		"transport/idempotency/redisstore",
		"transport/idempotency/sqlstore",
		"transport/ws",
	}
}
