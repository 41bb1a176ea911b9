package auth_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/auth"
)

func TestEveryAlgorithmIsAccepted(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	for alg := range material() {
		c, err := v.Verify(context.Background(), good(alg))
		if err != nil {
			t.Errorf("%s: %v", alg, err)
			continue
		}
		want := flow.Principal{Subject: "ann", Scopes: []string{"orders:read", "orders:write"}, Roles: []string{"clerk"}}
		if diff := cmp.Diff(want, c.Principal); diff != "" {
			t.Errorf("%s: principal (-want +got):\n%s", alg, diff)
		}
	}
}

// forgeries are tokens that must be refused, each made from a good one.
func forgeries() []struct {
	name  string
	token string
	fault auth.Fault
} {
	const alg = auth.ES256
	type forgery = struct {
		name  string
		token string
		fault auth.Fault
	}
	var list []forgery
	add := func(name, token string, fault auth.Fault) { list = append(list, forgery{name, token, fault}) }
	h, c := header(alg, nil), claims(nil)
	fine := good(alg)
	parts := strings.Split(fine, ".")
	join := func(p ...string) string { return strings.Join(p, ".") }

	// Shape.
	add("empty", "", auth.FaultMalformed)
	add("one dot", ".", auth.FaultMalformed)
	add("two dots", "..", auth.FaultMalformed)
	add("three dots", "...", auth.FaultMalformed)
	add("word", "token", auth.FaultMalformed)
	add("two parts", join(parts[0], parts[1]), auth.FaultMalformed)
	add("four parts", join(fine, parts[2]), auth.FaultMalformed)
	add("five parts, as encrypted tokens have", join(fine, parts[1], parts[2]), auth.FaultMalformed)
	add("no header", join("", parts[1], parts[2]), auth.FaultMalformed)
	add("no payload", join(parts[0], "", parts[2]), auth.FaultMalformed)
	add("no signature", join(parts[0], parts[1], ""), auth.FaultSignature)
	add("signature of one byte", join(parts[0], parts[1], "AA"), auth.FaultSignature)
	add("signature cut short", fine[:len(fine)-2], auth.FaultSignature)
	add("signature too long", fine+"AAAA", auth.FaultSignature)
	add("signature of zeros", join(parts[0], parts[1], strings.Repeat("A", len(parts[2]))), auth.FaultSignature)
	add("payload for signature", join(parts[0], parts[1], parts[1]), auth.FaultSignature)
	add("header and payload swapped", join(parts[1], parts[0], parts[2]), auth.FaultMalformed)
	add("larger than allowed", fine+strings.Repeat("A", 8<<10), auth.FaultOversized)
	for _, c := range []string{" ", "\n", "\r\n", "\t", "\x00", "=", "==", "+", "/", "é", "%", "\"", "{"} {
		add(fmt.Sprintf("%q in the header", c), parts[0][:4]+c+parts[0][4:]+"."+parts[1]+"."+parts[2], auth.FaultMalformed)
		add(fmt.Sprintf("%q in the payload", c), parts[0]+"."+parts[1][:4]+c+parts[1][4:]+"."+parts[2], auth.FaultMalformed)
		add(fmt.Sprintf("%q at the end", c), fine+c, auth.FaultMalformed)
	}
	// 64 bytes leave two unused bits in the last character of their 86.
	add("unused bits of the signature", fine[:len(fine)-1]+string(rune(fine[len(fine)-1]+1)), auth.FaultMalformed)
	add("JSON serialization", `{"payload":"`+parts[1]+`","signature":"`+parts[2]+`"}`, auth.FaultMalformed)

	// Header.
	for name, text := range map[string]string{
		"null": "null", "array": `["alg"]`, "number": "1", "string": `"ES256"`, "empty": " ", "not JSON": "{", "two objects": `{"alg":"ES256"}{}`,
		"no alg": `{"typ":"JWT"}`, "alg null": `{"alg":null}`, "alg number": `{"alg":256}`, "alg array": `{"alg":["ES256"]}`,
		"ALG": `{"ALG":"ES256"}`, "kid number": `{"alg":"ES256","kid":1}`, "kid null": `{"alg":"ES256","kid":null}`,
		"kid object": `{"alg":"ES256","kid":{}}`, "kid empty": `{"alg":"ES256","kid":""}`, "typ number": `{"alg":"ES256","typ":1}`, "typ null": `{"alg":"ES256","typ":null}`,
	} {
		add("header: "+name, sign(alg, text, c), auth.FaultMalformed)
	}
	for _, name := range []string{"none", "None", "NONE", "nOnE", "", "es256", "HS1", "RS1", "ES256K", "Ed25519", "dir", "ES256 ", "RSA-OAEP", "HS2048"} {
		add("alg "+name, sign(alg, header(alg, object{"alg": name}), c), auth.FaultAlgorithm)
		add("alg "+name+" without a signature", encode(header(alg, object{"alg": name}))+"."+parts[1]+".", auth.FaultAlgorithm)
	}
	add("crit", sign(alg, header(alg, object{"crit": []string{"exp"}}), c), auth.FaultCritical)
	add("crit empty", sign(alg, header(alg, object{"crit": []string{}}), c), auth.FaultCritical)
	add("crit b64", sign(alg, header(alg, object{"crit": []string{"b64"}, "b64": false}), c), auth.FaultCritical)
	add("crit of one's own", sign(alg, header(alg, object{"crit": []string{"x"}, "x": true}), c), auth.FaultCritical)
	for _, typ := range []string{"logout+jwt", "secevent+jwt", "dpop+jwt", "JOSE", "application/", "JWT "} {
		add("typ "+typ, sign(alg, header(alg, object{"typ": typ}), c), auth.FaultType)
	}

	// Keys that the token names or brings along.
	stranger, other := must(rsa.GenerateKey(rand.Reader, 2048)), material()[auth.RS256]
	jwk := object{"kty": "RSA", "alg": "RS256", "n": base64.RawURLEncoding.EncodeToString(stranger.N.Bytes()), "e": "AQAB"}
	for name, extra := range map[string]object{
		"jwk": {"jwk": jwk}, "jwk without kid": {"jwk": jwk, "kid": nil}, "jku": {"jku": "https://evil.example/keys"},
		"x5u": {"x5u": "https://evil.example/cert"}, "x5c": {"x5c": []string{"AAAA"}}, "x5t": {"x5t": "AAAA"},
	} {
		add("own key by "+name, signWith(auth.RS256, stranger, header(auth.RS256, extra), c), auth.FaultSignature)
	}
	for _, kid := range []string{
		"../../../dev/null", "/dev/null", "ES256' OR '1'='1", "ES256\x00", "es256", " ES256", "https://evil.example/keys", "|cat /etc/passwd", strings.Repeat("k", 1000), "0", "*",
	} {
		add(fmt.Sprintf("kid %.20q", kid), sign(alg, header(alg, object{"kid": kid}), c), auth.FaultUnknownKey)
	}
	add("kid of a key for another algorithm", sign(alg, header(alg, object{"kid": "RS256"}), c), auth.FaultAlgorithm)

	// Confusion: the public key, in every form an attacker has it in, as a secret.
	pub := must(x509.MarshalPKIXPublicKey(public(auth.RS256)))
	n := public(auth.RS256).(*rsa.PublicKey).N.Bytes()
	for name, forged := range map[string][]byte{
		"PEM":        pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}),
		"PKCS #1":    pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(public(auth.RS256).(*rsa.PublicKey))}),
		"DER":        pub,
		"modulus":    n,
		"nothing":    nil,
		"JSON":       must(auth.JWKS(must(auth.NewKey("RS256", auth.RS256, public(auth.RS256))))),
		"trimmed":    bytes.TrimSpace(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub})),
		"base64 PEM": []byte(base64.StdEncoding.EncodeToString(pub)),
	} {
		input := encode(header(auth.HS256, object{"kid": "RS256"})) + "." + encode(c)
		mac := hmac.New(sha256.New, forged)
		mac.Write([]byte(input))
		token := input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
		add("public RSA key as a secret: "+name, token, auth.FaultAlgorithm)
		input = encode(header(auth.HS256, object{"kid": nil})) + "." + encode(c)
		mac = hmac.New(sha256.New, forged)
		mac.Write([]byte(input))
		add("public RSA key as a secret, no kid: "+name, input+"."+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), auth.FaultSignature)
	}
	add("RS256 signature called PS256", signAs(auth.PS256, auth.RS256, other, c), auth.FaultSignature)
	add("PS256 signature called RS256", signAs(auth.RS256, auth.PS256, other, c), auth.FaultSignature)
	add("RS256 with the key of PS256", sign(auth.RS256, header(auth.RS256, object{"kid": "PS256"}), c), auth.FaultAlgorithm)
	add("another hash", signAs(auth.RS256, auth.RS512, other, c), auth.FaultSignature)
	add("PSS salt of no length", pss(0, c), auth.FaultSignature)
	add("PSS salt of another length", pss(20, c), auth.FaultSignature)
	add("PSS salt as long as possible", pss(rsa.PSSSaltLengthAuto, c), auth.FaultSignature)
	add("ES256 signature in ASN.1", asn1(c), auth.FaultSignature)

	// Payload.
	for name, text := range map[string]string{
		"null": "null", "array": "[]", "string": `"x"`, "number": "1", "not JSON": "{", "empty": " ", "two objects": "{}{}", "trailing comma": `{"a":1,}`, "NaN": `{"exp":NaN}`,
		"deep": strings.Repeat(`{"a":`, 500),
	} {
		add("payload: "+name, sign(alg, h, text), auth.FaultMalformed)
	}
	for name, change := range map[string]struct {
		c object
		f auth.Fault
	}{
		"no iss":             {object{"iss": nil}, auth.FaultIssuer},
		"iss with a slash":   {object{"iss": issuer + "/"}, auth.FaultIssuer},
		"iss in upper case":  {object{"iss": strings.ToUpper(issuer)}, auth.FaultIssuer},
		"iss array":          {object{"iss": []string{issuer}}, auth.FaultClaim},
		"iss number":         {object{"iss": 1}, auth.FaultClaim},
		"ISS":                {object{"iss": nil, "ISS": issuer}, auth.FaultIssuer},
		"no aud":             {object{"aud": nil}, auth.FaultAudience},
		"aud of another":     {object{"aud": "billing"}, auth.FaultAudience},
		"aud list of others": {object{"aud": []string{"billing", "orders2"}}, auth.FaultAudience},
		"aud empty list":     {object{"aud": []string{}}, auth.FaultAudience},
		"aud empty":          {object{"aud": ""}, auth.FaultAudience},
		"aud object":         {object{"aud": object{"orders": true}}, auth.FaultClaim},
		"aud numbers":        {object{"aud": []int{1}}, auth.FaultClaim},
		"aud with null":      {object{"aud": []any{audience, nil}}, auth.FaultClaim},
		"AUD":                {object{"aud": nil, "AUD": audience}, auth.FaultAudience},
		"no exp":             {object{"exp": nil}, auth.FaultClaim},
		"exp past":           {object{"exp": time.Now().Add(-time.Hour).Unix()}, auth.FaultExpired},
		"exp zero":           {object{"exp": 0}, auth.FaultExpired},
		"exp negative":       {object{"exp": -1}, auth.FaultClaim},
		"exp text":           {object{"exp": "9999999999"}, auth.FaultClaim},
		"exp huge":           {object{"exp": json.RawMessage("1e300")}, auth.FaultClaim},
		"exp too huge":       {object{"exp": json.RawMessage("1e400")}, auth.FaultClaim},
		"exp null":           {object{"exp": json.RawMessage("null")}, auth.FaultClaim},
		"exp true":           {object{"exp": true}, auth.FaultClaim},
		"exp list":           {object{"exp": []int{9999999999}}, auth.FaultClaim},
		"Exp":                {object{"exp": nil, "Exp": time.Now().Add(time.Hour).Unix()}, auth.FaultClaim},
		"nbf future":         {object{"nbf": time.Now().Add(time.Hour).Unix()}, auth.FaultNotYet},
		"nbf huge":           {object{"nbf": json.RawMessage("1e300")}, auth.FaultClaim},
		"nbf text":           {object{"nbf": "1"}, auth.FaultClaim},
		"iat future":         {object{"iat": time.Now().Add(time.Hour).Unix()}, auth.FaultNotYet},
		"iat text":           {object{"iat": "now"}, auth.FaultClaim},
		"no sub":             {object{"sub": nil}, auth.FaultClaim},
		"sub empty":          {object{"sub": ""}, auth.FaultClaim},
		"sub number":         {object{"sub": 1}, auth.FaultClaim},
		"sub null":           {object{"sub": json.RawMessage("null")}, auth.FaultClaim},
		"sub line break":     {object{"sub": "ann\r\nX-Principal-Roles: admin"}, auth.FaultClaim},
		"sub not ASCII":      {object{"sub": "änn"}, auth.FaultClaim},
		"sub long":           {object{"sub": strings.Repeat("a", 257)}, auth.FaultClaim},
		"jti number":         {object{"jti": 1}, auth.FaultClaim},
		"scope number":       {object{"scope": 1}, auth.FaultClaim},
		"scp object":         {object{"scp": object{}}, auth.FaultClaim},
		"roles number":       {object{"roles": 7}, auth.FaultClaim},
	} {
		add("claims: "+name, sign(alg, h, claims(change.c)), change.f)
	}

	// Every bit counts: one character of each of sixteen places.
	for i := range 16 {
		at := i * len(fine) / 16
		if fine[at] == '.' {
			at++
		}
		add(fmt.Sprintf("character %d of 16 changed", i), fine[:at]+string(flip(fine[at]))+fine[at+1:], 0)
	}
	return list
}

func signAs(claimed, real auth.Algorithm, key any, payload any) string {
	return signWith(real, key, header(claimed, nil), payload)
}

func pss(salt int, payload any) string {
	m := *jwt.SigningMethodPS256
	m.Options = &rsa.PSSOptions{SaltLength: salt}
	input := encode(header(auth.PS256, nil)) + "." + encode(payload)
	return input + "." + base64.RawURLEncoding.EncodeToString(must(m.Sign(input, material()[auth.PS256])))
}

func TestForgedTokensAreRefused(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	guard := must(auth.New(auth.Config{Authenticator: v}))
	reached := false
	h := guard.HTTP(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	list := forgeries()
	if len(list) < 100 {
		t.Fatalf("%d forgeries, want 100 at least", len(list))
	}
	for _, f := range list {
		_, err := v.Verify(context.Background(), f.token)
		if !errors.Is(err, auth.ErrInvalid) {
			t.Errorf("%s: got %v, want it refused", f.name, err)
			continue
		}
		if got := faultOf(err); f.fault != 0 && got != f.fault {
			t.Errorf("%s: refused as %q, want %q", f.name, got, f.fault)
		}
		if len(f.token) > 8 && strings.Contains(err.Error()+fmt.Sprintf("%+v", errors.Unwrap(err)), f.token[:8]) {
			t.Errorf("%s: the token is in the error %q", f.name, err)
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+f.token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") != `Bearer error="invalid_token"` {
			t.Errorf("%s: answered %d with %q", f.name, w.Code, w.Header().Get("WWW-Authenticate"))
		}
		if body := w.Body.String(); body != `{"type":"about:blank","title":"Unauthorized","status":401,"detail":"the credentials are not valid","code":"UNAUTHENTICATED","domain":"auth.armature","reason":"CREDENTIALS_INVALID","not_executed":true}` {
			t.Errorf("%s: a stranger is told %s", f.name, body)
		}
	}
	if reached {
		t.Error("a forged token reached the handler")
	}
	// Over HTTP the empty one is no token at all, which the guard sees by itself.
	if st := v.Stats(); st.Accepted != 0 || st.Refused != uint64(2*len(list)-1) || st.Cached != 0 {
		t.Errorf("stats %+v, want %d refused and nothing cached", st, 2*len(list)-1)
	}
}

func TestKeysInTheHeaderDoNoHarmToAGoodToken(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	token := sign(auth.ES256, header(auth.ES256, object{"jku": "https://evil.example", "jwk": object{"kty": "oct", "k": "AAAA"}, "x5u": "https://evil.example"}), claims(nil))
	if _, err := v.Verify(context.Background(), token); err != nil {
		t.Error(err)
	}
}

func TestAlgorithmsCanBeNarrowed(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, func(c *auth.VerifierConfig) { c.Algorithms = []auth.Algorithm{auth.ES256} })
	if _, err := v.Verify(context.Background(), good(auth.ES256)); err != nil {
		t.Error(err)
	}
	if _, err := v.Verify(context.Background(), good(auth.RS256)); faultOf(err) != auth.FaultAlgorithm {
		t.Errorf("RS256: got %v, want the algorithm refused", err)
	}
}

func TestTypesOfTokens(t *testing.T) {
	t.Parallel()
	token := func(typ any) string { return sign(auth.ES256, header(auth.ES256, object{"typ": typ}), claims(nil)) }
	usual := newVerifier(t, nil)
	for _, typ := range []any{nil, "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "APPLICATION/JWT"} {
		if _, err := usual.Verify(context.Background(), token(typ)); err != nil {
			t.Errorf("typ %v: %v", typ, err)
		}
	}
	strict := newVerifier(t, func(c *auth.VerifierConfig) { c.Types = []string{"at+jwt"} })
	if _, err := strict.Verify(context.Background(), token("JWT")); faultOf(err) != auth.FaultType {
		t.Errorf("got %v, want the type refused", err)
	}
}

func TestScopesAndRoles(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		claims object
		path   string
		scopes []string
		roles  []string
	}{
		{"scope string", object{"scope": "a  b", "roles": nil}, "", []string{"a", "b"}, nil},
		{"scope list", object{"scope": []string{"a", "b"}, "roles": nil}, "", []string{"a", "b"}, nil},
		{"scp string", object{"scope": nil, "scp": "a b", "roles": nil}, "", []string{"a", "b"}, nil},
		{"scp list", object{"scope": nil, "scp": []string{"a", "b"}, "roles": nil}, "", []string{"a", "b"}, nil},
		{"one role", object{"scope": nil, "roles": "clerk"}, "", nil, []string{"clerk"}},
		{"nested roles", object{"scope": nil, "realm_access": object{"roles": []string{"clerk"}}}, "realm_access.roles", nil, []string{"clerk"}},
		{"deeper roles", object{"scope": nil, "r": object{"my-app": object{"roles": []string{"clerk"}}}}, "r.my-app.roles", nil, []string{"clerk"}},
		{"name with dots", object{"scope": nil, "https://example.com/roles": []string{"clerk"}}, "https://example.com/roles", nil, []string{"clerk"}},
		{"path through a string", object{"scope": nil, "realm_access": "x"}, "realm_access.roles", nil, nil},
		{"words that would become two", object{"scope": []string{"read admin", "read", ""}, "roles": []string{"not admin", "clerk", "tab\tadmin", ""}}, "", []string{"read"}, []string{"clerk"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := newVerifier(t, func(c *auth.VerifierConfig) { c.RolesClaim = tt.path })
			c, err := v.Verify(context.Background(), sign(auth.HS256, header(auth.HS256, nil), claims(tt.claims)))
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Principal; strings.Join(got.Scopes, "|") != strings.Join(tt.scopes, "|") || strings.Join(got.Roles, "|") != strings.Join(tt.roles, "|") {
				t.Errorf("got scopes %q and roles %q, want %q and %q", got.Scopes, got.Roles, tt.scopes, tt.roles)
			}
		})
	}
}

func TestClaimsAreDecodedByTheirExactName(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, nil)
	c, err := v.Verify(context.Background(), sign(auth.HS256, header(auth.HS256, nil), claims(object{"tenant": "acme", "SUB": "root", "jti": "7"})))
	if err != nil {
		t.Fatal(err)
	}
	var tenant string
	if err := c.Decode("tenant", &tenant); err != nil || tenant != "acme" {
		t.Errorf("got %q, %v", tenant, err)
	}
	if err := c.Decode("Tenant", &tenant); !errors.Is(err, auth.ErrNoClaim) {
		t.Errorf("got %v, want ErrNoClaim", err)
	}
	var number int
	if err := c.Decode("tenant", &number); err == nil || strings.Contains(err.Error(), "acme") {
		t.Errorf("got %v, want an error without the value", err)
	}
	if c.Subject != "ann" || c.ID != "7" {
		t.Errorf("subject %q, id %q", c.Subject, c.ID)
	}
}

func TestClocksMayDifferByTheLeeway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier(t, func(c *auth.VerifierConfig) { c.CacheSize = -1 })
		start := time.Now()
		token := sign(auth.HS256, header(auth.HS256, nil), claims(object{
			"nbf": start.Add(time.Minute).Unix(), "iat": start.Add(time.Minute).Unix(), "exp": start.Add(10 * time.Minute).Unix(),
		}))
		at := func(d time.Duration, want auth.Fault) {
			t.Helper()
			time.Sleep(time.Until(start.Add(d)))
			if _, err := v.Verify(t.Context(), token); faultOf(err) != want || (err == nil) != (want == 0) {
				t.Errorf("after %v: got %v, want %v", d, err, want)
			}
		}
		at(0, auth.FaultNotYet)
		at(30*time.Second-time.Nanosecond, auth.FaultNotYet)
		at(30*time.Second, 0)
		at(10*time.Minute+30*time.Second-time.Nanosecond, 0)
		at(10*time.Minute+30*time.Second, auth.FaultExpired)
	})
}

func TestLeewayCanBeNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier(t, func(c *auth.VerifierConfig) { c.Leeway = -1 })
		token := sign(auth.HS256, header(auth.HS256, nil), claims(object{"exp": time.Now().Add(time.Minute).Unix()}))
		time.Sleep(time.Minute - time.Nanosecond)
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := v.Verify(t.Context(), token); !errors.Is(err, auth.ErrExpired) {
			t.Errorf("got %v, want it expired", err)
		}
	})
}

func TestTokensWithoutEndMustBeAllowed(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, func(c *auth.VerifierConfig) { c.AllowNoExpiry = true })
	if _, err := v.Verify(context.Background(), sign(auth.HS256, header(auth.HS256, nil), claims(object{"exp": nil}))); err != nil {
		t.Error(err)
	}
}

// countingKeys counts how often keys are looked for, which a cached token does not do.
type countingKeys struct {
	auth.KeySet

	n   atomic.Int64
	err error
}

func (k *countingKeys) Find(ctx context.Context, kid string) ([]auth.Key, error) {
	k.n.Add(1)
	if k.err != nil {
		return nil, k.err
	}
	return k.KeySet.Find(ctx, kid)
}

func TestVerifiedTokensAreRemembered(t *testing.T) {
	t.Parallel()
	for name, digests := range map[string]bool{"tokens": false, "digests": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				keys := &countingKeys{KeySet: must(auth.NewStaticKeys(verifying()...))}
				v := newVerifier(t, func(c *auth.VerifierConfig) { c.Keys, c.CacheDigests, c.Leeway = keys, digests, -1 })
				long, short := good(auth.HS256), sign(auth.HS256, header(auth.HS256, nil), claims(object{"exp": time.Now().Add(10 * time.Second).Unix()}))
				looked := func(token string, want int64) {
					t.Helper()
					before := keys.n.Load()
					if _, err := v.Verify(t.Context(), token); err != nil {
						t.Fatal(err)
					}
					if got := keys.n.Load() - before; got != want {
						t.Errorf("keys were looked for %d times, want %d", got, want)
					}
				}
				looked(long, 1)
				looked(long, 0)
				looked(short, 1)
				looked(short, 0)
				// The same payload with another signature is another token.
				if _, err := v.Verify(t.Context(), long[:len(long)-10]+"AAAAAAAAAA"); faultOf(err) != auth.FaultSignature {
					t.Errorf("got %v, want a wrong signature", err)
				}
				time.Sleep(10 * time.Second)
				if _, err := v.Verify(t.Context(), short); !errors.Is(err, auth.ErrExpired) {
					t.Errorf("got %v, want the remembered token expired", err)
				}
				time.Sleep(50*time.Second - time.Nanosecond)
				looked(long, 0)
				time.Sleep(time.Nanosecond)
				looked(long, 1)
				if st := v.Stats(); st.Hits != 3 || st.Accepted != 6 || st.Refused != 2 {
					t.Errorf("stats %+v", st)
				}
			})
		})
	}
}

func TestMemoryOfTokensIsBounded(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, func(c *auth.VerifierConfig) { c.CacheSize = 50 })
	hot := good(auth.HS256)
	for i := range 500 {
		if _, err := v.Verify(context.Background(), sign(auth.HS256, header(auth.HS256, nil), claims(object{"jti": fmt.Sprint(i)}))); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(context.Background(), hot); err != nil {
			t.Fatal(err)
		}
		if n := v.Stats().Cached; n > 50 {
			t.Fatalf("%d tokens remembered, want 50 at most", n)
		}
	}
	if hits := v.Stats().Hits; hits != 499 {
		t.Errorf("the token that is always used was found %d times, want 499", hits)
	}
}

func TestRevokedTokensAreRefusedThoughRemembered(t *testing.T) {
	t.Parallel()
	var revoked atomic.Bool
	var broken atomic.Bool
	v := newVerifier(t, func(c *auth.VerifierConfig) {
		c.Revoked = func(_ context.Context, c *auth.Claims) (bool, error) {
			if broken.Load() {
				return false, errors.New("redis is away")
			}
			return revoked.Load() && c.ID == "7", nil
		}
	})
	token := sign(auth.HS256, header(auth.HS256, nil), claims(object{"jti": "7"}))
	for range 2 {
		if _, err := v.Verify(context.Background(), token); err != nil {
			t.Fatal(err)
		}
	}
	revoked.Store(true)
	if _, err := v.Verify(context.Background(), token); faultOf(err) != auth.FaultRevoked {
		t.Errorf("got %v, want it revoked", err)
	}
	broken.Store(true)
	if _, err := v.Verify(context.Background(), token); transport.CodeOf(err) != transport.Unavailable || errors.Is(err, auth.ErrInvalid) {
		t.Errorf("got %v, want UNAVAILABLE", err)
	}
}

func TestNobodyIsBlamedWhenKeysCannotBeHad(t *testing.T) {
	t.Parallel()
	keys := &countingKeys{err: errors.New("issuer is away")}
	v := newVerifier(t, func(c *auth.VerifierConfig) { c.Keys = keys })
	_, err := v.Verify(context.Background(), good(auth.HS256))
	if e := transport.AsError(err); e.Code != transport.Unavailable || !e.Retryable() || strings.Contains(e.Message, "issuer") {
		t.Errorf("got %v, want UNAVAILABLE without details", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := v.Verify(ctx, good(auth.HS256)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	// A token that cannot be good does not make anybody fetch keys.
	before := keys.n.Load()
	for _, c := range []object{{"iss": "https://evil.example"}, {"aud": "x"}, {"exp": 1}} {
		if _, err := v.Verify(context.Background(), sign(auth.HS256, header(auth.HS256, object{"kid": "new"}), claims(c))); !errors.Is(err, auth.ErrInvalid) {
			t.Errorf("got %v, want it refused", err)
		}
	}
	if keys.n.Load() != before {
		t.Error("keys were looked for")
	}
}

func TestTokenThatNamesNoKeyIsTriedWithFew(t *testing.T) {
	t.Parallel()
	var keys []auth.Key
	for i := range 20 {
		keys = append(keys, must(auth.NewKey(fmt.Sprint(i), auth.HS256, fmt.Appendf(nil, "%032d", i))))
	}
	v := newVerifier(t, func(c *auth.VerifierConfig) { c.Keys = must(auth.NewStaticKeys(keys...)) })
	token := func(i int) string {
		return signWith(auth.HS256, fmt.Appendf(nil, "%032d", i), header(auth.HS256, object{"kid": nil}), claims(nil))
	}
	if _, err := v.Verify(context.Background(), token(7)); err != nil {
		t.Errorf("the eighth key: %v", err)
	}
	if _, err := v.Verify(context.Background(), token(8)); faultOf(err) != auth.FaultSignature {
		t.Errorf("the ninth key: got %v, want it not tried", err)
	}
}

func TestVerifierIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, func(c *auth.VerifierConfig) { c.CacheSize = 8 })
	tokens := make([]string, 32)
	for i := range tokens {
		tokens[i] = sign(auth.HS256, header(auth.HS256, nil), claims(object{"sub": fmt.Sprint("u", i)}))
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				at := (i*7 + g) % len(tokens)
				c, err := v.Verify(context.Background(), tokens[at])
				if err != nil || c.Subject != fmt.Sprint("u", at) {
					t.Errorf("token %d: got %v, %v", at, c, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestVerifierConfigIsChecked(t *testing.T) {
	t.Parallel()
	keys := must(auth.NewStaticKeys(verifying()...))
	for field, cfg := range map[string]auth.VerifierConfig{
		"Keys":       {Issuer: issuer, AnyAudience: true},
		"Issuer":     {Keys: keys, AnyAudience: true},
		"Audiences":  {Keys: keys, Issuer: issuer},
		"Audiences ": {Keys: keys, Issuer: issuer, Audiences: []string{""}},
		"Leeway":     {Keys: keys, Issuer: issuer, AnyAudience: true, Leeway: time.Hour},
		"MaxSize":    {Keys: keys, Issuer: issuer, AnyAudience: true, MaxSize: -1},
		"CacheTTL":   {Keys: keys, Issuer: issuer, AnyAudience: true, CacheTTL: -1},
		"Algorithms": {Keys: keys, Issuer: issuer, AnyAudience: true, Algorithms: []auth.Algorithm{"none"}},
	} {
		if _, err := auth.NewVerifier(cfg); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(field)) {
			t.Errorf("%s: got %v, want an error that names it", field, err)
		}
	}
}

func TestCachedTokenCostsNoAllocation(t *testing.T) {
	v := newVerifier(t, nil)
	token, ctx := good(auth.RS256), context.Background()
	must(v.Verify(ctx, token))
	if n := testing.AllocsPerRun(100, func() { _, _ = v.Verify(ctx, token) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
