package auth

import (
	"encoding/base64"
	"strings"
)

// VerifyCompact checks nothing but the signature of a compact JWS, for vectors whose
// payload is no set of claims.
func VerifyCompact(k Key, token string) error {
	signed, last := token[:strings.LastIndexByte(token, '.')], token[strings.LastIndexByte(token, '.')+1:]
	signature, err := base64.RawURLEncoding.Strict().DecodeString(last)
	if err != nil {
		return err
	}
	m := k.material()
	return m.method.Verify(signed, signature, m.verify)
}
