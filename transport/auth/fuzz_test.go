package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"testing"

	"github.com/armature-go/armature/transport/auth"
)

// FuzzVerify asserts that no input makes the verifier panic, that a refusal is always
// one a stranger may see, and that only what was signed here is accepted.
func FuzzVerify(f *testing.F) {
	for _, tt := range forgeries() {
		f.Add(tt.token)
	}
	v := newVerifier(f, func(c *auth.VerifierConfig) { c.CacheSize = -1 })
	signed := map[string]bool{}
	for alg := range material() {
		// Workers are processes of their own with the same secret: their tokens must not
		// differ by the second in which they were made.
		token := sign(alg, header(alg, nil), claims(object{"exp": 4102444800}))
		signed[token] = true
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		c, err := v.Verify(context.Background(), token)
		switch {
		case err == nil && !signed[token]:
			t.Errorf("accepted %q as %v", token, c)
		case err != nil && !errors.Is(err, auth.ErrInvalid):
			t.Errorf("got %v, want a refusal", err)
		}
	})
}

// FuzzPayload lets the fuzzer write claims and header, and signs what it wrote: what
// comes after the signature is right must hold as well.
func FuzzPayload(f *testing.F) {
	f.Add(`{"alg":"HS256"}`, `{"iss":"https://id.example.com","aud":"orders","sub":"ann","exp":99999999999}`)
	f.Add(`{"alg":"HS256","kid":"HS256","typ":"JWT","crit":[]}`, `{"aud":["orders",null],"exp":1e400,"scope":["a b"],"roles":[1]}`)
	f.Add(`null`, `[]`)
	v := newVerifier(f, func(c *auth.VerifierConfig) { c.CacheSize, c.RolesClaim = -1, "a.b.c" })
	f.Fuzz(func(t *testing.T, header, payload string) {
		c, err := v.Verify(context.Background(), sign(auth.HS256, header, payload))
		if err != nil {
			if !errors.Is(err, auth.ErrInvalid) {
				t.Errorf("got %v, want a refusal", err)
			}
			return
		}
		var read map[string]json.RawMessage
		if err := json.Unmarshal([]byte(payload), &read); err != nil {
			t.Fatalf("accepted claims that cannot be decoded: %v", err)
		}
		var subject string
		if err := json.Unmarshal(read["sub"], &subject); err != nil || subject != c.Principal.Subject || subject == "" {
			t.Errorf("subject %q, want %q", c.Principal.Subject, subject)
		}
		for _, word := range append(c.Principal.Scopes, c.Principal.Roles...) {
			for i := range len(word) {
				if word[i] <= 0x20 || word[i] > 0x7e {
					t.Errorf("%q cannot travel", word)
				}
			}
		}
	})
}

// FuzzJWKS asserts that whatever is parsed is usable and can be published again.
func FuzzJWKS(f *testing.F) {
	for _, tt := range vectors {
		f.Add([]byte(`{"keys":[` + tt.key + `]}`))
	}
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},null,7,{"kty":"oct"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := auth.ParseJWKS(data)
		if (err == nil) != (len(keys) > 0) {
			t.Fatalf("%d keys and %v", len(keys), err)
		}
		var public []auth.Key
		for _, k := range keys {
			_ = auth.VerifyCompact(k, "a.b.c") // must not panic
			if k.Algorithm()[0] != 'H' {
				public = append(public, k)
			}
		}
		if len(public) == 0 {
			return
		}
		back, err := auth.ParseJWKS(must(auth.JWKS(public...)))
		if err != nil || len(back) != len(public) {
			t.Errorf("%d of %d keys came back: %v", len(back), len(public), err)
		}
	})
}

// FuzzAuthorization asserts that no header panics, or gets in without a token.
func FuzzAuthorization(f *testing.F) {
	for _, s := range []string{"", "Bearer", "Bearer ", "bearer  x", "Basic YTpi", "Bearer a.b.c", "Bearer\ta.b.c", "BEARER " + good(auth.HS256) + " "} {
		f.Add(s)
	}
	v := newVerifier(f, nil)
	f.Fuzz(func(t *testing.T, value string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Authorization"] = []string{value}
		id, err := v.Authenticate(context.Background(), auth.FromHTTP(r))
		if err == nil && id.Subject != "ann" || err != nil && !errors.Is(err, auth.ErrInvalid) && !errors.Is(err, auth.ErrMissing) {
			t.Errorf("%q: got %+v, %v", value, id, err)
		}
	})
}
