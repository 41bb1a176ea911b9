package idempotency

import (
	"encoding/json"

	"google.golang.org/protobuf/proto"
)

// Codec turns responses into bytes and back. A replayed response is what Decode
// makes of what Encode has kept, so both must know all that a caller gets to see.
type Codec interface {
	Encode(response any) ([]byte, error)
	// Decode fills the value that into points to.
	Decode(data []byte, into any) error
}

// standard writes protobuf messages in their binary form, which encoding/json does
// not know how to read back, and all else as JSON.
type standard struct{}

func (standard) Encode(response any) ([]byte, error) {
	if m, ok := response.(proto.Message); ok {
		return proto.MarshalOptions{Deterministic: true}.Marshal(m)
	}
	return json.Marshal(response)
}

func (standard) Decode(data []byte, into any) error {
	if m, ok := into.(proto.Message); ok {
		return proto.Unmarshal(data, m)
	}
	return json.Unmarshal(data, into)
}
