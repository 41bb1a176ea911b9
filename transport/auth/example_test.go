package auth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"google.golang.org/grpc"

	"github.com/armature-go/armature/flow"
	"github.com/armature-go/armature/transport/auth"
)

// exampleKey is the key of an issuer.
func exampleKey() auth.Key {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	key, err := auth.NewKey("2026-11", auth.ES256, private)
	if err != nil {
		panic(err)
	}
	return key
}

// exampleToken is a token for the service "orders".
func exampleToken(key auth.Key) string {
	signer, err := auth.NewSigner(auth.SignerConfig{
		Key: key, Issuer: "https://id.example.com", Subject: "ann", Audience: []string{"orders"}, Scopes: []string{"orders:read"},
	})
	if err != nil {
		panic(err)
	}
	token, err := signer.Token(context.Background())
	if err != nil {
		panic(err)
	}
	return token
}

func Example() {
	key := exampleKey()
	keys, err := auth.NewStaticKeys(key)
	if err != nil {
		fmt.Println(err)
		return
	}
	verifier, err := auth.NewVerifier(auth.VerifierConfig{Keys: keys, Issuer: "https://id.example.com", Audiences: []string{"orders"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	guard, err := auth.New(auth.Config{Authenticator: verifier})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /orders", auth.Require("orders:read").HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := flow.PrincipalFrom(r.Context())
		fmt.Fprint(w, "orders of ", p.Subject)
	})))
	mux.Handle("POST /orders", auth.Require("orders:write").HTTP(http.NotFoundHandler()))
	handler := guard.HTTP(mux)

	call := func(method, token string) {
		r := httptest.NewRequest(method, "/orders", nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code == http.StatusOK {
			fmt.Println(w.Code, w.Body)
			return
		}
		fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	}
	token := exampleToken(key)
	call("GET", token)
	call("GET", "")
	call("GET", token+"x")
	call("POST", token)
	// Output:
	// 200 orders of ann
	// 401 Bearer
	// 401 Bearer error="invalid_token"
	// 403 Bearer error="insufficient_scope", scope="orders:write"
}

func ExampleNewVerifier() {
	key := exampleKey()
	keys, err := auth.NewStaticKeys(key)
	if err != nil {
		fmt.Println(err)
		return
	}
	verifier, err := auth.NewVerifier(auth.VerifierConfig{Keys: keys, Issuer: "https://id.example.com", Audiences: []string{"billing"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = verifier.Verify(context.Background(), exampleToken(key))
	fmt.Println(errors.Is(err, auth.ErrInvalid), err)
	// Output: true auth: refuse request: wrong audience
}

func ExampleNewStaticKeys() {
	key, err := auth.ParseJWK([]byte(`{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	keys, err := auth.NewStaticKeys(key)
	if err != nil {
		fmt.Println(err)
		return
	}
	found, err := keys.Find(context.Background(), "a")
	fmt.Println(found, err)
	// Output: [key "a" EdDSA] <nil>
}

func ExampleNewKey() {
	_, err := auth.NewKey("2026-11", auth.HS256, []byte("too short"))
	fmt.Println(err)
	// Output: auth: configure key: material = ([]uint8): 9 bytes are too short for HS256; use at least 32 random bytes
}

func ExampleNewRemoteKeys() {
	keySet, err := auth.JWKS(exampleKey())
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	issuer := httptest.NewTLSServer(mux)
	defer issuer.Close()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, issuer.URL, issuer.URL+"/keys")
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(keySet) })

	keys, err := auth.NewRemoteKeys(auth.RemoteKeysConfig{Issuer: issuer.URL, Client: issuer.Client()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer keys.Close()
	found, err := keys.Find(context.Background(), "2026-11")
	fmt.Println(found, err)
	// Output: [key "2026-11" ES256] <nil>
}

func ExampleNew() {
	key, digest := auth.NewAPIKey("shop_")
	apiKeys, err := auth.NewAPIKeys(auth.APIKeysConfig{Store: auth.StaticAPIKeys(auth.APIKey{Digest: digest, Principal: flow.Principal{Subject: "partner"}})})
	if err != nil {
		fmt.Println(err)
		return
	}
	guard, err := auth.New(auth.Config{Authenticator: apiKeys, PublicMethods: []string{"/grpc.health.v1.Health/*"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	// Over gRPC:
	_ = grpc.NewServer(
		grpc.ChainUnaryInterceptor(guard.Unary, auth.Require().Unary),
		grpc.ChainStreamInterceptor(guard.Stream),
	)
	// Over HTTP:
	handler := guard.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _ := auth.IdentityFrom(r.Context())
		fmt.Println("hello,", id.Subject)
	}))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Api-Key", key)
	handler.ServeHTTP(httptest.NewRecorder(), r)
	// Output: hello, partner
}

func ExampleNewAPIKeys() {
	key, digest := auth.NewAPIKey("shop_")
	keys, err := auth.NewAPIKeys(auth.APIKeysConfig{Store: auth.StaticAPIKeys(auth.APIKey{
		Digest: digest, Principal: flow.Principal{Subject: "partner", Scopes: []string{"orders:read"}}, ExpiresAt: time.Now().Add(24 * time.Hour),
	})})
	if err != nil {
		fmt.Println(err)
		return
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("X-Api-Key", key)
	id, err := keys.Authenticate(context.Background(), auth.FromHTTP(r))
	fmt.Println(id.Subject, id.Scopes, err)
	// Output: partner [orders:read] <nil>
}

func ExampleNewCertificates() {
	certificates, err := auth.NewCertificates(auth.CertificatesConfig{TrustDomains: []string{"prod.example.com"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = certificates.Authenticate(context.Background(), auth.FromHTTP(httptest.NewRequest("GET", "/", nil)))
	fmt.Println(err)
	// Output: auth: refuse request: missing: no verified client certificate
}

func ExampleNewFiles() {
	_, err := auth.NewFiles(auth.FilesConfig{Cert: "/etc/tls/tls.crt", Key: "/etc/tls/tls.key", CA: "/nowhere/ca.crt"})
	// server := &http.Server{Handler: handler, TLSConfig: files.Server()}
	// client := &http.Client{Transport: files.Transport(nil)}
	// grpcServer := grpc.NewServer(grpc.Creds(files.Credentials()))
	fmt.Println(errors.Is(err, os.ErrNotExist))
	// Output: true
}

func ExampleNewSigner() {
	signer, err := auth.NewSigner(auth.SignerConfig{
		Key: exampleKey(), Issuer: "billing", Audience: []string{"orders"}, Scopes: []string{"orders:read"}, Life: time.Minute,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	first, err := signer.Token(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	second, err := signer.Token(context.Background())
	fmt.Println(first == second, err)
	// Output: true <nil>
}

func ExampleNewClientCredentials() {
	endpoint := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _, _ := r.BasicAuth()
		fmt.Fprintf(w, `{"access_token":"token-of-%s","token_type":"Bearer","expires_in":300}`, id)
	}))
	defer endpoint.Close()
	source, err := auth.NewClientCredentials(auth.ClientCredentialsConfig{
		TokenURL: endpoint.URL, ClientID: "billing", ClientSecret: "from a file", Scopes: []string{"orders:read"}, Client: endpoint.Client(),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	token, err := source.Token(context.Background())
	fmt.Println(token, err)
	// Output: token-of-billing <nil>
}

func ExampleNewTransport() {
	orders := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, len(r.Header.Get("Authorization")) > len("Bearer "))
	}))
	defer orders.Close()
	signer, err := auth.NewSigner(auth.SignerConfig{Key: exampleKey(), Issuer: "billing", Audience: []string{"orders"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	client := &http.Client{Transport: auth.NewTransport(signer, orders.Client().Transport)}
	res, err := client.Get(orders.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	fmt.Println(string(body), err)
	// Output: true <nil>
}

func ExampleNewCallCredentials() {
	signer, err := auth.NewSigner(auth.SignerConfig{Key: exampleKey(), Issuer: "billing", Audience: []string{"orders"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	credentials := auth.NewCallCredentials(signer)
	// cc, err := grpc.NewClient(target, grpc.WithPerRPCCredentials(credentials), ...)
	fmt.Println(credentials.RequireTransportSecurity())
	// Output: true
}

func ExampleCheck() {
	type cancelOrder struct{ Owner string }
	own := auth.Check(func(_ context.Context, p flow.Principal, request any) error {
		if c, ok := request.(*cancelOrder); !ok || c.Owner != p.Subject {
			return errors.New("the order is somebody else's")
		}
		return nil
	})
	cancel := auth.All(auth.Require("orders:write"), own).Endpoint(func(context.Context, any) (any, error) { return "canceled", nil })

	ctx := flow.WithPrincipal(context.Background(), flow.Principal{Subject: "ann", Scopes: []string{"orders:write"}})
	fmt.Println(cancel(ctx, &cancelOrder{Owner: "ann"}))
	_, err := cancel(ctx, &cancelOrder{Owner: "bob"})
	fmt.Println(errors.Is(err, auth.ErrForbidden))
	// Output:
	// canceled <nil>
	// true
}
