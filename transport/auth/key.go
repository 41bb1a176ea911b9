package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// Algorithm is a signature algorithm of JSON Web Signature (RFC 7518, RFC 8037).
type Algorithm string

// The algorithms. "none" is not among them and cannot be had.
const (
	HS256 Algorithm = "HS256" // HMAC with SHA-2; the verifier could sign as well
	HS384 Algorithm = "HS384"
	HS512 Algorithm = "HS512"
	RS256 Algorithm = "RS256" // RSA PKCS #1 v1.5
	RS384 Algorithm = "RS384"
	RS512 Algorithm = "RS512"
	PS256 Algorithm = "PS256" // RSA-PSS, with a salt as long as the hash
	PS384 Algorithm = "PS384"
	PS512 Algorithm = "PS512"
	ES256 Algorithm = "ES256" // ECDSA on P-256
	ES384 Algorithm = "ES384" // on P-384
	ES512 Algorithm = "ES512" // on P-521
	EdDSA Algorithm = "EdDSA" // Ed25519
)

// methods are those of the library, except that PSS takes no salt length but the
// one of RFC 7518, section 3.5.
var methods = map[Algorithm]jwt.SigningMethod{
	HS256: jwt.SigningMethodHS256, HS384: jwt.SigningMethodHS384, HS512: jwt.SigningMethodHS512,
	RS256: jwt.SigningMethodRS256, RS384: jwt.SigningMethodRS384, RS512: jwt.SigningMethodRS512,
	PS256: strictPSS(jwt.SigningMethodPS256), PS384: strictPSS(jwt.SigningMethodPS384), PS512: strictPSS(jwt.SigningMethodPS512),
	ES256: jwt.SigningMethodES256, ES384: jwt.SigningMethodES384, ES512: jwt.SigningMethodES512,
	EdDSA: jwt.SigningMethodEdDSA,
}

func strictPSS(m *jwt.SigningMethodRSAPSS) *jwt.SigningMethodRSAPSS {
	strict := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: m.Hash}
	return &jwt.SigningMethodRSAPSS{SigningMethodRSA: m.SigningMethodRSA, Options: strict, VerifyOptions: strict}
}

var curves = map[Algorithm]elliptic.Curve{ES256: elliptic.P256(), ES384: elliptic.P384(), ES512: elliptic.P521()}

var secretSizes = map[Algorithm]int{HS256: 32, HS384: 48, HS512: 64}

// RSA moduli in bits: below is weak (RFC 7518, section 3.3), above costs a verifier
// milliseconds per token.
const (
	minRSA = 2048
	maxRSA = 8192
)

// Key is a key pinned to one algorithm. It is immutable. Printing it in any way
// shows its id and algorithm, never what is in it.
type Key struct {
	// A function, because fmt does not call the methods of what is in an unexported
	// field of somebody's struct, and finds its way through everything else, by "%s"
	// even through pointers.
	material func() *keyMaterial
}

type keyMaterial struct {
	id      string
	alg     Algorithm
	method  jwt.SigningMethod
	verify  any // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey or []byte
	private any // nil when the key cannot sign
}

// NewKey pins material to an algorithm. id is the "kid" by which tokens name the key;
// it may be empty. material is a secret ([]byte, at least as long as the hash), an
// RSA, ECDSA or Ed25519 public key, or a private key, which verifies and signs. RSA
// keys have between 2048 and 8192 bits. A secret is copied.
func NewKey(id string, alg Algorithm, material any) (Key, error) {
	k := &keyMaterial{id: id, alg: alg, method: methods[alg]}
	bad := func(rule, fix string) (Key, error) {
		return Key{}, configError("key", "material", fmt.Sprintf("(%T)", material), rule, fix)
	}
	if k.method == nil {
		return Key{}, configError("key", "alg", fmt.Sprintf("%q", string(alg)), "is not an algorithm of this package", "use a constant such as auth.ES256")
	}
	if signer, ok := material.(crypto.Signer); ok {
		k.private, k.verify = material, signer.Public()
	} else {
		k.verify = material
	}
	switch pub := k.verify.(type) {
	case []byte:
		size, ok := secretSizes[alg]
		if !ok {
			return bad("a secret does not fit "+string(alg), "use HS256, HS384 or HS512")
		}
		if len(pub) < size {
			return bad(fmt.Sprintf("%d bytes are too short for %s", len(pub), alg), fmt.Sprintf("use at least %d random bytes", size))
		}
		secret := slices.Clone(pub)
		k.verify, k.private = secret, secret
	case *rsa.PublicKey:
		switch alg {
		case RS256, RS384, RS512, PS256, PS384, PS512:
		default:
			return bad("an RSA key does not fit "+string(alg), "use RS256 or PS256, or one of their kind")
		}
		if pub == nil || pub.N == nil || pub.N.BitLen() < minRSA || pub.N.BitLen() > maxRSA || pub.N.Bit(0) == 0 || pub.E < 3 || pub.E%2 == 0 {
			return bad(fmt.Sprintf("the RSA key must have %d to %d bits and an odd exponent", minRSA, maxRSA), "make a new one")
		}
	case *ecdsa.PublicKey:
		if pub == nil || pub.Curve == nil || curves[alg] != pub.Curve {
			return bad("the ECDSA key does not fit "+string(alg), "use ES256 for P-256, ES384 for P-384, ES512 for P-521")
		}
		if _, err := pub.Bytes(); err != nil {
			return bad("the ECDSA key is not a point of its curve", "make a new one")
		}
	case ed25519.PublicKey:
		if alg != EdDSA || len(pub) != ed25519.PublicKeySize {
			return bad("an Ed25519 key does not fit "+string(alg), "use EdDSA and 32 bytes")
		}
	default:
		return bad("is no key", "pass []byte, an RSA, ECDSA or Ed25519 key")
	}
	switch k.private.(type) {
	case nil, []byte, *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
	default:
		return bad("is a kind of private key that cannot sign tokens here", "pass *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey")
	}
	return Key{func() *keyMaterial { return k }}, nil
}

// ParsePEM reads the first block of a PEM file: a public key, a certificate or a
// private key. It does not judge whether a certificate is valid.
func ParsePEM(id string, alg Algorithm, data []byte) (Key, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return Key{}, configError("key", "data", fmt.Sprintf("(%d bytes)", len(data)), "holds no PEM block", "pass the content of the file, not its name")
	}
	material, err := parseDER(block)
	if err != nil {
		// The words of the parser may quote what it read.
		return Key{}, configError("key", "data", fmt.Sprintf("(PEM %q)", block.Type), "cannot be read", "use PKIX, PKCS #1, PKCS #8, SEC 1 or a certificate, not encrypted")
	}
	return NewKey(id, alg, material)
}

func parseDER(block *pem.Block) (any, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	case "PRIVATE KEY":
		return x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(block.Bytes)
	}
	return nil, errors.New("unknown type of block")
}

func (k Key) isZero() bool { return k.material == nil }

// ID returns the "kid", which may be empty.
func (k Key) ID() string {
	if k.isZero() {
		return ""
	}
	return k.material().id
}

// Algorithm returns the one algorithm of the key, "" for the zero Key.
func (k Key) Algorithm() Algorithm {
	if k.isZero() {
		return ""
	}
	return k.material().alg
}

// CanSign reports whether the key has a private part or is a secret.
func (k Key) CanSign() bool { return !k.isZero() && k.material().private != nil }

// Format prints id and algorithm whatever the verb, so that %+v and %#v show no
// secret.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "key %q %s", k.ID(), k.Algorithm()) }

// MarshalJSON returns what Format prints, because a secret must not leave by
// accident; [JWKS] publishes keys.
func (k Key) MarshalJSON() ([]byte, error) { return json.Marshal(fmt.Sprint(k)) }

// jwk is a JSON Web Key (RFC 7517). Private members are never read.
type jwk struct {
	Kty    string   `json:"kty"`
	Kid    string   `json:"kid,omitempty"`
	Alg    string   `json:"alg,omitempty"`
	Use    string   `json:"use,omitempty"`
	KeyOps []string `json:"key_ops,omitempty"`
	Crv    string   `json:"crv,omitempty"`
	N      string   `json:"n,omitempty"`
	E      string   `json:"e,omitempty"`
	X      string   `json:"x,omitempty"`
	Y      string   `json:"y,omitempty"`
	K      string   `json:"k,omitempty"`
}

var errNotForSignatures = errors.New("auth: parse key: not a key that verifies signatures")

// ParseJWK reads one JSON Web Key (RFC 7517). Its "alg" pins it; without one the
// curve does, and an RSA key is RS256. A secret must have an "alg". The private
// members of other keys are ignored.
func ParseJWK(data []byte) (Key, error) {
	var j jwk
	if err := json.Unmarshal(data, &j); err != nil {
		return Key{}, errors.New("auth: parse key: not a JSON Web Key")
	}
	return j.key(RS256)
}

func (j jwk) key(bareRSA Algorithm) (Key, error) {
	if j.Use != "" && j.Use != "sig" || j.KeyOps != nil && !slices.Contains(j.KeyOps, "verify") && !slices.Contains(j.KeyOps, "sign") {
		return Key{}, errNotForSignatures
	}
	alg := Algorithm(j.Alg)
	material, natural, err := j.material()
	if err != nil {
		return Key{}, err
	}
	if alg == "" {
		alg = natural
		if j.Kty == "RSA" {
			alg = bareRSA
		}
	}
	if methods[alg] == nil {
		return Key{}, errNotForSignatures
	}
	return NewKey(j.Kid, alg, material)
}

// material returns the key and the algorithm that follows from it, if any.
func (j jwk) material() (any, Algorithm, error) {
	broken := func() (any, Algorithm, error) {
		return nil, "", fmt.Errorf("auth: parse key: the members of a key of type %q are broken", j.Kty)
	}
	switch j.Kty {
	case "RSA":
		n, e := octets(j.N), octets(j.E)
		if len(n) == 0 || len(n) > maxRSA/8 || len(e) == 0 || len(e) > 4 {
			return broken()
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, "", nil
	case "EC":
		alg := map[string]Algorithm{"P-256": ES256, "P-384": ES384, "P-521": ES512}[j.Crv]
		if alg == "" {
			return nil, "", errNotForSignatures
		}
		x, y := octets(j.X), octets(j.Y)
		size := (curves[alg].Params().BitSize + 7) / 8
		if len(x) != size || len(y) != size {
			return broken()
		}
		pub, err := ecdsa.ParseUncompressedPublicKey(curves[alg], slices.Concat([]byte{4}, x, y))
		if err != nil {
			return broken()
		}
		return pub, alg, nil
	case "OKP":
		if j.Crv != "Ed25519" {
			return nil, "", errNotForSignatures
		}
		x := octets(j.X)
		if len(x) != ed25519.PublicKeySize {
			return broken()
		}
		return ed25519.PublicKey(x), EdDSA, nil
	case "oct":
		k := octets(j.K)
		if len(k) == 0 {
			return broken()
		}
		return k, "", nil
	}
	return nil, "", errNotForSignatures
}

// octets returns nil for what is not base64url.
func octets(s string) []byte {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil
	}
	return b
}

// maxKeys bounds a key set: each key is a candidate for a token that names none.
const maxKeys = 128

// ParseJWKS reads a JSON Web Key Set. Keys of other uses or unknown types, and broken
// or weak ones, are left out, as RFC 7517, section 5, asks. A set without any usable
// key is an error, and so is one of more than 128 keys.
func ParseJWKS(data []byte) ([]Key, error) { return parseJWKS(data, RS256, true) }

func parseJWKS(data []byte, bareRSA Algorithm, secrets bool) ([]Key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, errors.New("auth: parse key set: not a JSON Web Key Set")
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("auth: parse key set: %d keys; at most %d are accepted", len(set.Keys), maxKeys)
	}
	var keys []Key
	for _, raw := range set.Keys {
		var j jwk
		if json.Unmarshal(raw, &j) != nil || j.Kty == "oct" && !secrets { // a secret that is published is none
			continue
		}
		if k, err := j.key(bareRSA); err == nil {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("auth: parse key set: no key that verifies signatures")
	}
	return keys, nil
}

// JWKS returns the public parts of keys as a JSON Web Key Set, for a service that
// signs its own tokens to publish. It refuses secrets.
func JWKS(keys ...Key) ([]byte, error) {
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: []jwk{}}
	text := base64.RawURLEncoding.EncodeToString
	for _, k := range keys {
		if k.isZero() {
			return nil, errors.New("auth: publish keys: one is the zero Key")
		}
		j := jwk{Kid: k.ID(), Alg: string(k.Algorithm()), Use: "sig"}
		switch pub := k.material().verify.(type) {
		case *rsa.PublicKey:
			j.Kty, j.N, j.E = "RSA", text(pub.N.Bytes()), text(big.NewInt(int64(pub.E)).Bytes())
		case *ecdsa.PublicKey:
			point, err := pub.Bytes()
			if err != nil {
				return nil, fmt.Errorf("auth: publish keys: %v: not a point of its curve", k)
			}
			size := len(point) / 2
			j.Kty, j.Crv, j.X, j.Y = "EC", pub.Curve.Params().Name, text(point[1:1+size]), text(point[1+size:])
		case ed25519.PublicKey:
			j.Kty, j.Crv, j.X = "OKP", "Ed25519", text(pub)
		default:
			return nil, fmt.Errorf("auth: publish keys: %v: is a secret", k)
		}
		set.Keys = append(set.Keys, j)
	}
	return json.Marshal(set)
}
