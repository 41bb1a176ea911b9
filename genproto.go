//go:build armature_pins

package armature

// go-kit v0.13.0 requires google.golang.org/genproto from before that module
// was split, and a module that sees both halves cannot be tidied. Naming the
// monolith here, behind a tag nobody sets, keeps a version from after the split
// in go.mod; every module that requires this one then selects it. See
// docs/adr/0003-genproto-pin.md and test/consumer.
import _ "google.golang.org/genproto/protobuf/api"
