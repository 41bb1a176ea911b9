package idempotency

import "github.com/armature-go/armature/transport"

// FingerprintOf is the default fingerprint.
func FingerprintOf(request any) (Fingerprint, error) { return fingerprint("operation", request) }

// DecodeRecord reads a record and, if it is an error, writes it again.
func DecodeRecord(record []byte) (again []byte, e *transport.Error, err error) {
	o, err := decodeRecord(record)
	if err != nil || o.err == nil {
		return nil, nil, err
	}
	again, err = encodeError(o.err)
	return again, o.err, err
}

// EncodeError writes the record of an error.
func EncodeError(e *transport.Error) ([]byte, error) { return encodeError(e) }
