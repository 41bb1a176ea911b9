package logging

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
)

// Redacted stands in the place of a secret.
const Redacted = "[REDACTED]"

// DefaultRedact returns the words that make a key secret. Keys are compared word
// by word and without regard to case: "card" covers card, card_number, cardNumber
// and Card-Number, but not discard. A word of several parts covers both spellings:
// "api_key" matches apiKey, API-Key and apikey.
func DefaultRedact() []string {
	return []string{
		"password", "passwd", "pwd", "passphrase", "secret", "token", "jwt",
		"authorization", "cookie", "credential", "credentials", "api_key",
		"private_key", "card", "pan", "cvv", "cvc", "iban", "ssn", "email", "phone",
	}
}

// redactor holds each word as its parts, in lower case, by its first byte: most
// keys are cleared without comparing anything.
type redactor map[byte][][]string

func newRedactor(more []string) redactor {
	r := redactor{}
	for _, word := range append(DefaultRedact(), more...) {
		parts := strings.FieldsFunc(strings.ToLower(word), isSeparator)
		if len(parts) == 0 {
			continue
		}
		first := parts[0][0]
		r[first] = append(r[first], parts)
		if len(parts) > 1 {
			r[first] = append(r[first], []string{strings.Join(parts, "")})
		}
	}
	return r
}

// attr returns a with its secrets replaced.
func (r redactor) attr(a slog.Attr) slog.Attr {
	if r.secret(a.Key) {
		return slog.String(a.Key, Redacted)
	}
	a.Value = r.value(a.Value)
	return a
}

func (r redactor) value(v slog.Value) slog.Value {
	v = v.Resolve()
	switch v.Kind() {
	case slog.KindGroup:
		attrs := v.Group()
		redacted := make([]slog.Attr, len(attrs))
		for i, a := range attrs {
			redacted[i] = r.attr(a)
		}
		return slog.GroupValue(redacted...)
	case slog.KindAny:
		return r.any(v)
	default:
		return v
	}
}

// any looks into structs, maps and slices as JSON would show them. What holds no
// secret is passed on untouched; what cannot be looked into is not shown.
func (r redactor) any(v slog.Value) slog.Value {
	x := v.Any()
	if err, ok := x.(error); ok {
		// An error that is also a json.Marshaler shows strangers less than the log should hold: its cause is missing.
		return slog.StringValue(errorText(err))
	}
	if !composite(reflect.TypeOf(x)) {
		return v
	}
	text, err := json.Marshal(x)
	if err != nil {
		return slog.StringValue(fmt.Sprintf("%s: %T cannot be inspected", Redacted, x))
	}
	var tree any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if dec.Decode(&tree) != nil || !r.tree(tree) {
		return v
	}
	return slog.AnyValue(tree)
}

// errorText is err.Error(), also for an error whose method cannot bear its receiver.
func errorText(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = fmt.Sprintf("%T without a text", err)
		}
	}()
	return err.Error()
}

// tree replaces secrets in decoded JSON and reports whether there were any.
func (r redactor) tree(node any) bool {
	found := false
	switch node := node.(type) {
	case map[string]any:
		for key, child := range node {
			if r.secret(key) {
				node[key], found = Redacted, true
			} else {
				found = r.tree(child) || found
			}
		}
	case []any:
		for _, child := range node {
			found = r.tree(child) || found
		}
	}
	return found
}

// composite reports whether values of type t can hold named parts.
func composite(t reflect.Type) bool {
	for t != nil {
		switch t.Kind() {
		case reflect.Struct, reflect.Map, reflect.Interface:
			return true
		case reflect.Pointer, reflect.Slice, reflect.Array:
			t = t.Elem()
		default:
			return false
		}
	}
	return false
}

// secret reports whether key contains one of the words.
func (r redactor) secret(key string) bool {
	for rest := nextWord(key); rest != ""; rest = afterWord(rest) {
		for _, word := range r[lower(rest[0])] {
			if startsWith(rest, word) {
				return true
			}
		}
	}
	return false
}

// startsWith reports whether the words of key begin with parts.
func startsWith(key string, parts []string) bool {
	for _, part := range parts {
		n := wordLen(key)
		word := key[:n]
		if n == len(part)+1 && lower(word[n-1]) == 's' {
			word = word[:n-1] // "tokens" is "token" as well
		}
		if !strings.EqualFold(word, part) {
			return false
		}
		key = nextWord(key[n:])
	}
	return true
}

func afterWord(key string) string { return nextWord(key[wordLen(key):]) }

// nextWord skips separators.
func nextWord(key string) string {
	for key != "" && isSeparator(rune(key[0])) {
		key = key[1:]
	}
	return key
}

// wordLen returns the length of the word key starts with: up to a separator or to
// a capital that begins a new word (cardNumber, APIKey).
func wordLen(key string) int {
	for i := 1; i < len(key); i++ {
		switch {
		case isSeparator(rune(key[i])):
			return i
		case isUpper(key[i]) && !isUpper(key[i-1]):
			return i
		case isUpper(key[i]) && i+1 < len(key) && isLower(key[i+1]):
			return i
		}
	}
	return len(key)
}

func lower(c byte) byte {
	if isUpper(c) {
		c += 'a' - 'A'
	}
	return c
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isLower(c byte) bool { return 'a' <= c && c <= 'z' }

// isSeparator: everything in ASCII that is neither letter nor digit.
func isSeparator(c rune) bool {
	return c < 0x80 && !isUpper(byte(c)) && !isLower(byte(c)) && (c < '0' || c > '9')
}
