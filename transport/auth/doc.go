// Package auth tells who sent a request and what they may do, over HTTP, gRPC and
// go-kit alike, and gives a service's own calls credentials of their own.
//
//	keys, err := auth.NewRemoteKeys(auth.RemoteKeysConfig{Issuer: "https://id.example.com"})
//	verifier, err := auth.NewVerifier(auth.VerifierConfig{
//		Keys: keys, Issuer: "https://id.example.com", Audiences: []string{"orders"},
//	})
//	guard, err := auth.New(auth.Config{Authenticator: verifier})
//	handler := guard.HTTP(auth.Require("orders:read").HTTP(orders))
//
// A [Guard] asks an [Authenticator] who the caller is: a [Verifier] for signed
// tokens, [APIKeys], [Certificates] of mutual TLS, or several of them with
// [AnyOf]. It puts the answer into the context, where flow.PrincipalFrom finds it.
// A [Check] then says whether the principal may go on. The methods of both have the
// standard shapes: func(http.Handler) http.Handler, endpoint.Middleware, and the
// two kinds of gRPC interceptors.
//
// # Trust
//
// A key verifies one algorithm, chosen when the key was made, never by the token:
// "none" and the confusion of public keys with secrets cannot happen. Keys named or
// carried by a token's header (jwk, jku, x5u, x5c) are ignored. A Verifier has one
// issuer, so that the keys of one issuer cannot sign for another. Identity headers
// and metadata that a caller sends (X-Principal-...) are removed, not believed.
//
// # Failures
//
// Every refusal is an [*Error] that is also a *transport.Error: UNAUTHENTICATED (401)
// when nobody was recognised, PERMISSION_DENIED (403) when somebody was. What a
// stranger is told is the same for every bad token; [Error.Fault] and Error() say
// more and are for logs. No token, key or secret is ever part of an error. When the
// credentials could not be judged, because the keys are out of reach, the answer is
// UNAVAILABLE: nobody is let in, and nobody is told that their token is bad.
//
// Everything in this package is safe for concurrent use.
package auth
