package auth_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/armature-go/armature/transport/auth"
)

func BenchmarkVerify(b *testing.B) {
	for _, alg := range []auth.Algorithm{auth.HS256, auth.RS256, auth.PS256, auth.ES256, auth.EdDSA} {
		b.Run(string(alg), func(b *testing.B) {
			v := newVerifier(b, func(c *auth.VerifierConfig) { c.CacheSize = -1 })
			token := good(alg)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(context.Background(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for name, digests := range map[string]bool{"Cached": false, "CachedDigest": true} {
		b.Run(name, func(b *testing.B) {
			v := newVerifier(b, func(c *auth.VerifierConfig) { c.CacheDigests = digests })
			token := good(auth.RS256)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(context.Background(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("Forged", func(b *testing.B) {
		v := newVerifier(b, nil)
		token := good(auth.HS256)
		token = token[:len(token)-4] + "AAAA"
		b.ReportAllocs()
		for b.Loop() {
			if _, err := v.Verify(context.Background(), token); err == nil {
				b.Fatal("accepted")
			}
		}
	})
}

func BenchmarkVerifyParallel(b *testing.B) {
	v := newVerifier(b, nil)
	token := good(auth.RS256)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := v.Verify(context.Background(), token); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

type discard struct{ h http.Header }

func (d discard) Header() http.Header       { return d.h }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

func BenchmarkGuardHTTP(b *testing.B) {
	g := must(auth.New(auth.Config{Authenticator: newVerifier(b, nil)}))
	h := g.HTTP(auth.Require("orders:read").HTTP(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+good(auth.RS256))
	w := discard{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

func BenchmarkSignerToken(b *testing.B) {
	s := signer(b, auth.ES256, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Token(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
