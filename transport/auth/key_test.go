package auth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"

	"github.com/armature-go/armature/transport/auth"
)

func TestKeysThatDoNotFitAreRefused(t *testing.T) {
	t.Parallel()
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	rsaKey := public(auth.RS256).(*rsa.PublicKey)
	for _, tt := range []struct {
		name     string
		alg      auth.Algorithm
		material any
	}{
		{"none", "none", []byte(secret)},
		{"no algorithm", "", []byte(secret)},
		{"nil", auth.HS256, nil},
		{"string", auth.HS256, secret},
		{"short secret", auth.HS256, []byte(secret)[:31]},
		{"short secret for more", auth.HS512, []byte(secret)[:63]},
		{"secret for RSA", auth.RS256, []byte(secret)},
		{"RSA key for HMAC", auth.HS256, rsaKey},
		{"RSA key for ECDSA", auth.ES256, rsaKey},
		{"RSA key for EdDSA", auth.EdDSA, rsaKey},
		{"small RSA key", auth.RS256, &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}},
		{"giant RSA key", auth.RS256, &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 9000, 1), E: 65537}},
		{"even modulus", auth.RS256, &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2047), E: 65537}},
		{"exponent of one", auth.RS256, &rsa.PublicKey{N: rsaKey.N, E: 1}},
		{"even exponent", auth.RS256, &rsa.PublicKey{N: rsaKey.N, E: 4}},
		{"no modulus", auth.RS256, &rsa.PublicKey{E: 3}},
		{"another curve", auth.ES256, public(auth.ES384)},
		{"a curve of nobody's", auth.ES256, &p224.PublicKey},
		{"not on the curve", auth.ES256, &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}}, //nolint:staticcheck // on purpose
		{"Ed25519 for ECDSA", auth.ES256, public(auth.EdDSA)},
		{"short Ed25519", auth.EdDSA, ed25519.PublicKey("short")},
		{"nil RSA", auth.RS256, (*rsa.PublicKey)(nil)},
		{"nil ECDSA", auth.ES256, (*ecdsa.PublicKey)(nil)},
	} {
		k, err := auth.NewKey("k", tt.alg, tt.material)
		if err == nil {
			t.Errorf("%s: accepted as %v", tt.name, k)
		} else if strings.Contains(err.Error(), secret[:8]) {
			t.Errorf("%s: the secret is in the error", tt.name)
		}
	}
}

func TestSecretIsCopied(t *testing.T) {
	t.Parallel()
	mine := []byte(secret)
	k := must(auth.NewKey("HS256", auth.HS256, mine))
	clear(mine)
	v := newVerifier(t, func(c *auth.VerifierConfig) { c.Keys = must(auth.NewStaticKeys(k)) })
	if _, err := v.Verify(context.Background(), good(auth.HS256)); err != nil {
		t.Error(err)
	}
}

func TestPEM(t *testing.T) {
	t.Parallel()
	block := func(typ string, der []byte, err error) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: must(der, err)})
	}
	rsaKey, ec, ed := material()[auth.PS256].(*rsa.PrivateKey), material()[auth.ES256].(*ecdsa.PrivateKey), material()[auth.EdDSA].(ed25519.PrivateKey)
	_, cert := newCA(t).leaf(t, leafOptions{})
	pkix := func(k any) []byte {
		der, err := x509.MarshalPKIXPublicKey(k)
		return block("PUBLIC KEY", der, err)
	}
	pkcs8 := func(k any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		return block("PRIVATE KEY", der, err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	for _, tt := range []struct {
		name string
		alg  auth.Algorithm
		data []byte
		sign bool
	}{
		{"RSA", auth.PS256, pkix(&rsaKey.PublicKey), false},
		{"RSA PKCS #1", auth.RS512, block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey), nil), false},
		{"RSA private", auth.RS256, pkcs8(rsaKey), true},
		{"RSA private PKCS #1", auth.RS256, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), nil), true},
		{"ECDSA", auth.ES256, pkix(&ec.PublicKey), false},
		{"ECDSA private", auth.ES256, pkcs8(ec), true},
		{"ECDSA private SEC 1", auth.ES256, block("EC PRIVATE KEY", sec1, err), true},
		{"Ed25519", auth.EdDSA, pkix(ed.Public()), false},
		{"Ed25519 private", auth.EdDSA, pkcs8(ed), true},
		{"certificate", auth.ES256, cert, false},
	} {
		k, err := auth.ParsePEM("k", tt.alg, tt.data)
		if err != nil || k.CanSign() != tt.sign || k.Algorithm() != tt.alg || k.ID() != "k" {
			t.Errorf("%s: got %v, can sign %v, %v", tt.name, k, k.CanSign(), err)
		}
	}
	for name, data := range map[string][]byte{
		"nothing": nil, "no PEM": []byte("key.pem"), "unknown": block("SECRET", []byte("x"), nil), "broken": block("PUBLIC KEY", []byte("x"), nil),
		"broken certificate": block("CERTIFICATE", []byte("x"), nil), "another algorithm": pkix(&ec.PublicKey),
	} {
		if _, err := auth.ParsePEM("k", auth.RS256, data); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestPublishedKeysComeBack(t *testing.T) {
	t.Parallel()
	var keys []auth.Key
	for _, k := range verifying() {
		if k.Algorithm()[0] != 'H' {
			keys = append(keys, k)
		}
	}
	doc := must(auth.JWKS(keys...))
	if strings.Contains(string(doc), `"d"`) || strings.Contains(string(doc), `"k"`) {
		t.Errorf("private members in %s", doc)
	}
	back := must(auth.ParseJWKS(doc))
	if len(back) != len(keys) {
		t.Fatalf("%d keys came back, want %d", len(back), len(keys))
	}
	v := newVerifier(t, func(c *auth.VerifierConfig) { c.Keys = must(auth.NewStaticKeys(back...)) })
	for _, k := range back {
		if _, err := v.Verify(context.Background(), good(k.Algorithm())); err != nil {
			t.Errorf("%v: %v", k, err)
		}
	}
	if _, err := auth.JWKS(must(auth.NewKey("s", auth.HS256, []byte(secret)))); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("a secret: got %v, want it refused", err)
	}
	if _, err := auth.JWKS(auth.Key{}); err == nil {
		t.Error("the zero key was published")
	}
}

func TestJWK(t *testing.T) {
	t.Parallel()
	const ec = `"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"`
	const rsaN = `"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"`
	for text, alg := range map[string]auth.Algorithm{
		`{` + ec + `}`:                                 auth.ES256,
		`{` + ec + `,"alg":"ES256","use":"sig"}`:       auth.ES256,
		`{` + ec + `,"key_ops":["verify"]}`:            auth.ES256,
		`{` + rsaN + `}`:                               auth.RS256,
		`{` + rsaN + `,"alg":"PS512"}`:                 auth.PS512,
		`{` + rsaN + `,"d":"AAAA","alg":"RS512"}`:      auth.RS512,
		`{` + ec + `,"alg":"ES384"}`:                   "",
		`{` + ec + `,"alg":"HS256"}`:                   "",
		`{` + ec + `,"alg":"none"}`:                    "",
		`{` + ec + `,"use":"enc"}`:                     "",
		`{` + ec + `,"key_ops":["deriveKey"]}`:         "",
		`{` + ec + `,"key_ops":[]}`:                    "",
		`{` + rsaN + `,"alg":"RSA-OAEP"}`:              "",
		`{` + rsaN + `,"alg":"HS256"}`:                 "",
		`{"kty":"RSA","e":"AQAB","n":"AQAB"}`:          "",
		`{"kty":"RSA","e":"AQ==","n":"AQAB"}`:          "",
		`{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`: "",
		`{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"}`: "",
		`{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}`:                               "",
		`{"kty":"OKP","crv":"X25519","x":"3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"}`: "",
		`{"kty":"OKP","crv":"Ed25519","x":"AAAA"}`:                                       "",
		`{"kty":"oct","alg":"HS256","k":"` + encode(secret) + `"}`:                       auth.HS256,
		`{"kty":"oct","k":"` + encode(secret) + `"}`:                                     "",
		`{"kty":"oct","alg":"HS256","k":"c2hvcnQ"}`:                                      "",
		`{"kty":"oct","alg":"HS256"}`:                                                    "",
		`{"kty":"oct","alg":"RS256","k":"` + encode(secret) + `"}`:                       "",
		`{}`: "", `null`: "", `[]`: "", ``: "", `{"kty":1}`: "",
	} {
		k, err := auth.ParseJWK([]byte(text))
		if (err == nil) != (alg != "") || k.Algorithm() != alg {
			t.Errorf("%s: got %v, %v, want %q", text, k, err, alg)
		}
		if err != nil && strings.Contains(err.Error(), encode(secret)[:12]) {
			t.Errorf("%s: the secret is in the error", text)
		}
	}
	// One bad key does not spoil a set.
	keys, err := auth.ParseJWKS([]byte(`{"keys":[{` + ec + `,"kid":"a"},{"kty":"AKP"},{"kty":"RSA","n":"AQAB","e":"AQAB"},7,{` + rsaN + `,"kid":"b"}]}`))
	if err != nil || len(keys) != 2 || keys[0].ID() != "a" || keys[1].ID() != "b" {
		t.Errorf("got %v, %v", keys, err)
	}
	for _, text := range []string{``, `[]`, `{}`, `{"keys":{}}`, `{"keys":[]}`, `{"keys":[{"kty":"x"}]}`} {
		if keys, err := auth.ParseJWKS([]byte(text)); err == nil {
			t.Errorf("%s: got %v", text, keys)
		}
	}
}

func TestKeyOfOneIssuerDoesNotSignForAnother(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, func(c *auth.VerifierConfig) { c.Issuer = "https://other.example.com" })
	both := auth.AnyOf(newVerifier(t, func(c *auth.VerifierConfig) {
		c.Keys = must(auth.NewStaticKeys(must(auth.NewKey("ES384", auth.ES384, public(auth.ES384)))))
	}), v)
	g := must(auth.New(auth.Config{Authenticator: both}))
	h := g.HTTP(nil)
	// ES256 belongs to the other issuer only.
	if w := get(h, "Authorization", "Bearer "+good(auth.ES256)); w.Code != 401 {
		t.Errorf("got %d, want 401", w.Code)
	}
}

func TestStaticKeysAreChecked(t *testing.T) {
	t.Parallel()
	if _, err := auth.NewStaticKeys(); err == nil {
		t.Error("no keys were accepted")
	}
	if _, err := auth.NewStaticKeys(auth.Key{}); err == nil {
		t.Error("the zero key was accepted")
	}
	// A key without an id is meant by any.
	s := must(auth.NewStaticKeys(must(auth.NewKey("", auth.ES256, public(auth.ES256))), must(auth.NewKey("x", auth.ES256, public(auth.ES256)))))
	for kid, want := range map[string]int{"": 2, "x": 1, "y": 1} {
		if keys, _ := s.Find(context.Background(), kid); len(keys) != want {
			t.Errorf("%q: %d keys, want %d", kid, len(keys), want)
		}
	}
}
