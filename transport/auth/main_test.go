package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"github.com/armature-go/armature/transport/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	issuer   = "https://id.example.com"
	audience = "orders"
	secret   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// material has one private key or secret per algorithm; making RSA keys takes long.
var material = sync.OnceValue(func() map[auth.Algorithm]any {
	weak := must(rsa.GenerateKey(rand.Reader, 2048))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	return map[auth.Algorithm]any{
		auth.HS256: []byte(secret), auth.HS384: []byte(secret), auth.HS512: []byte(secret),
		auth.RS256: weak, auth.RS384: weak, auth.RS512: weak,
		auth.PS256: weak, auth.PS384: weak, auth.PS512: weak,
		auth.ES256: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)),
		auth.ES384: must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		auth.ES512: must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)),
		auth.EdDSA: must(ed, err),
	}
})

func public(alg auth.Algorithm) any {
	if s, ok := material()[alg].(crypto.Signer); ok {
		return s.Public()
	}
	return material()[alg]
}

// verifying has every algorithm under a key id that is its name.
var verifying = sync.OnceValue(func() []auth.Key {
	var keys []auth.Key
	for alg := range material() {
		keys = append(keys, must(auth.NewKey(string(alg), alg, public(alg))))
	}
	return keys
})

func newVerifier(t testing.TB, change func(*auth.VerifierConfig)) *auth.Verifier {
	t.Helper()
	cfg := auth.VerifierConfig{Keys: must(auth.NewStaticKeys(verifying()...)), Issuer: issuer, Audiences: []string{audience}}
	if change != nil {
		change(&cfg)
	}
	v, err := auth.NewVerifier(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

type object map[string]any

// claims are good ones with changes; a nil change removes.
func claims(changes object) object {
	c := object{"iss": issuer, "aud": audience, "sub": "ann", "exp": time.Now().Add(time.Hour).Unix(), "scope": "orders:read orders:write", "roles": []string{"clerk"}}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func header(alg auth.Algorithm, changes object) object {
	h := object{"alg": alg, "typ": "JWT", "kid": alg}
	maps.Copy(h, changes)
	maps.DeleteFunc(h, func(_ string, v any) bool { return v == nil })
	return h
}

func encode(v any) string {
	if s, ok := v.(string); ok {
		return base64.RawURLEncoding.EncodeToString([]byte(s))
	}
	return base64.RawURLEncoding.EncodeToString(must(json.Marshal(v)))
}

// sign signs whatever header and payload with the method of alg: a string is taken as
// it is, all else becomes JSON.
func sign(alg auth.Algorithm, header, payload any) string {
	return signWith(alg, material()[alg], header, payload)
}

func signWith(alg auth.Algorithm, key, header, payload any) string {
	input := encode(header) + "." + encode(payload)
	return input + "." + base64.RawURLEncoding.EncodeToString(must(jwt.GetSigningMethod(string(alg)).Sign(input, key)))
}

func good(alg auth.Algorithm) string { return sign(alg, header(alg, nil), claims(nil)) }

func faultOf(err error) auth.Fault {
	if e, ok := errors.AsType[*auth.Error](err); ok {
		return e.Fault
	}
	return 0
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// asn1 signs like ES256 and writes the signature as other protocols do.
func asn1(payload any) string {
	input := encode(header(auth.ES256, nil)) + "." + encode(payload)
	sum := sha256.Sum256([]byte(input))
	return input + "." + base64.RawURLEncoding.EncodeToString(must(ecdsa.SignASN1(rand.Reader, material()[auth.ES256].(*ecdsa.PrivateKey), sum[:])))
}
