//go:build armature_never

package transport

// go-kit v0.13.0 requires the monolithic google.golang.org/genproto of 2021,
// which still contains the packages that have since moved to the modules
// genproto/googleapis/rpc and genproto/googleapis/api. A consumer that adds an
// OTLP exporter would then find them twice, and its `go mod tidy` would fail
// with "ambiguous import". Requiring a genproto from after the split cures that,
// yet a requirement that no package needs is removed by tidy. This import, in a
// file that is never built, is the need.
import _ "google.golang.org/genproto/protobuf/api"
