package idempotency

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"
)

// ownForm stands where a kind does, for a value that has written itself.
const ownForm = math.MaxUint64

// maxDepth ends the walk through a request that refers to itself.
const maxDepth = 64

// identify makes one id of the three names. Each is preceded by its length, so that
// no two triples look alike.
func identify(scope, operation, key string) string {
	h := sha256.New()
	for _, part := range []string{scope, operation, key} {
		writeBytes(h, []byte(part))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// fingerprint covers what the exported fields of a request hold, however they are
// tagged for JSON: a path parameter is often hidden from it and still tells two
// requests apart.
func fingerprint(operation string, request any) (Fingerprint, error) {
	h := sha256.New()
	writeBytes(h, []byte(operation))
	if err := writeValue(h, reflect.ValueOf(request), 0); err != nil {
		return Fingerprint{}, err
	}
	return Fingerprint(h.Sum(nil)), nil
}

func writeUint(h hash.Hash, n uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	h.Write(b[:])
}

func writeBytes(h hash.Hash, b []byte) {
	writeUint(h, uint64(len(b)))
	h.Write(b)
}

func writeValue(h hash.Hash, v reflect.Value, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("it is more than %d levels deep", maxDepth)
	}
	if !v.IsValid() {
		writeUint(h, uint64(reflect.Invalid))
		return nil
	}
	if !v.CanAddr() { // for methods of its pointer
		copied := reflect.New(v.Type()).Elem()
		copied.Set(v)
		v = copied
	}
	if text, ok, err := marshal(v); ok {
		writeUint(h, ownForm)
		writeBytes(h, text)
		return err
	}
	writeUint(h, uint64(v.Kind()))
	switch v.Kind() {
	case reflect.Bool, reflect.String,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr,
		reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128:
		writeScalar(h, v)
		return nil
	case reflect.Pointer, reflect.Interface:
		return writeValue(h, v.Elem(), depth+1)
	case reflect.Slice, reflect.Array:
		return writeList(h, v, depth)
	case reflect.Map:
		return writeMap(h, v, depth)
	case reflect.Struct:
		return writeStruct(h, v, depth)
	default:
		return fmt.Errorf("a %s has no content to compare", v.Type())
	}
}

func writeScalar(h hash.Hash, v reflect.Value) {
	switch {
	case v.Kind() == reflect.String:
		writeBytes(h, []byte(v.String()))
	case v.CanInt():
		writeUint(h, uint64(v.Int()))
	case v.CanUint():
		writeUint(h, v.Uint())
	case v.CanFloat():
		writeUint(h, math.Float64bits(v.Float()))
	case v.CanComplex():
		writeUint(h, math.Float64bits(real(v.Complex())))
		writeUint(h, math.Float64bits(imag(v.Complex())))
	case v.Bool():
		writeUint(h, 1)
	default:
		writeUint(h, 0)
	}
}

// marshal asks those that know their own form: times, addresses, decimal numbers,
// protobuf messages.
func marshal(v reflect.Value) (text []byte, ok bool, err error) {
	if !v.Addr().CanInterface() {
		return nil, false, nil
	}
	switch m := v.Addr().Interface().(type) {
	case proto.Message:
		text, err = proto.MarshalOptions{Deterministic: true}.Marshal(m)
	case encoding.TextMarshaler:
		text, err = m.MarshalText()
	case encoding.BinaryMarshaler:
		text, err = m.MarshalBinary()
	default:
		return nil, false, nil
	}
	return text, true, err
}

func writeList(h hash.Hash, v reflect.Value, depth int) error {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		writeBytes(h, v.Bytes())
		return nil
	}
	writeUint(h, uint64(v.Len()))
	for i := range v.Len() {
		if err := writeValue(h, v.Index(i), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// writeMap sorts by the sums of the entries, since keys may be of any type.
func writeMap(h hash.Hash, v reflect.Value, depth int) error {
	sums := make([][]byte, 0, v.Len())
	for key, value := range v.Seq2() {
		entry := sha256.New()
		if err := writeValue(entry, key, depth+1); err != nil {
			return err
		}
		if err := writeValue(entry, value, depth+1); err != nil {
			return err
		}
		sums = append(sums, entry.Sum(nil))
	}
	slices.SortFunc(sums, bytes.Compare)
	writeUint(h, uint64(len(sums)))
	for _, sum := range sums {
		h.Write(sum)
	}
	return nil
}

// writeStruct refuses what hides all it has, rather than call all of its kind equal.
func writeStruct(h hash.Hash, v reflect.Value, depth int) error {
	seen := v.NumField() == 0
	for field, value := range v.Fields() {
		if !field.IsExported() && !promotes(field) {
			continue
		}
		seen = true
		if field.Tag.Get("idempotency") == "-" {
			continue
		}
		writeBytes(h, []byte(field.Name))
		if err := writeValue(h, value, depth+1); err != nil {
			return fmt.Errorf("%s: %w", field.Name, err)
		}
	}
	if !seen {
		return fmt.Errorf("a %s has no exported field to compare", v.Type())
	}
	return nil
}

// promotes reports whether field is embedded and so lends its exported fields.
func promotes(field reflect.StructField) bool {
	t := field.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return field.Anonymous && t.Kind() == reflect.Struct
}
