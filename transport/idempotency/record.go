package idempotency

import (
	"encoding/binary"
	"errors"
	"fmt"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/armature-go/armature/transport"
)

// A record is one byte that names its kind and what belongs to it. The numbers are
// stored, so they never change.
const (
	kindResponse byte = 1 // what the codec made of the response
	kindNil      byte = 2 // a nil response
	kindError    byte = 3 // the HTTP status, two bytes big-endian, and a google.rpc.Status
	kindLost     byte = 4 // it is known that the operation ran, and nothing else
)

// outcome is a record that was read.
type outcome struct {
	kind     byte
	response []byte
	err      *transport.Error
}

func encodeError(e *transport.Error) ([]byte, error) {
	b := binary.BigEndian.AppendUint16([]byte{kindError}, uint16(e.StatusCode()))
	return proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, e.GRPCStatus().Proto())
}

func decodeRecord(record []byte) (outcome, error) {
	if len(record) == 0 {
		return outcome{}, errors.New("the record is empty")
	}
	o, body := outcome{kind: record[0]}, record[1:]
	switch o.kind {
	case kindResponse:
		o.response = body
		return o, nil
	case kindNil, kindLost:
		if len(body) > 0 {
			return outcome{}, fmt.Errorf("a record of kind %d has %d bytes too many", o.kind, len(body))
		}
		return o, nil
	case kindError:
		return decodeError(body)
	default:
		return outcome{}, fmt.Errorf("kind %d of the record is not known", o.kind)
	}
}

func decodeError(body []byte) (outcome, error) {
	if len(body) < 2 {
		return outcome{}, errors.New("the recorded error is cut short")
	}
	code, wire := int(binary.BigEndian.Uint16(body)), new(spb.Status)
	if err := proto.Unmarshal(body[2:], wire); err != nil {
		return outcome{}, errors.New("the recorded error cannot be read")
	}
	e := transport.FromStatus(status.FromProto(wire))
	if e == nil || code < 400 || code > 599 {
		return outcome{}, errors.New("the recorded error is none")
	}
	if e.StatusCode() != code {
		e = e.WithStatus(code)
	}
	return outcome{kind: kindError, err: e}, nil
}
