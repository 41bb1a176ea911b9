package auth_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/armature-go/armature/transport"
	"github.com/armature-go/armature/transport/auth"
)

// TestNothingSecretIsShown puts secrets through everything that prints, logs, encodes
// or fails, and looks for them, or for their encodings, in what comes out.
func TestNothingSecretIsShown(t *testing.T) {
	t.Parallel()
	const word, password, personal = "correct-horse-battery-staple-0123456789", "pa55word-of-the-client", "ann@example.com"
	key := must(auth.NewKey("k", auth.HS256, []byte(word)))
	private := must(auth.NewKey("p", auth.ES256, material()[auth.ES256]))
	token := signWith(auth.HS256, []byte(word), object{"alg": "HS256", "kid": "k"}, claims(object{"email": personal}))
	forged := token[:len(token)-6] + "AAAAAA"
	apiKey, _ := auth.NewAPIKey("shop_")

	v := newVerifier(t, func(c *auth.VerifierConfig) { c.Keys = must(auth.NewStaticKeys(key, private)) })
	good, err := v.Verify(context.Background(), token)
	if err != nil {
		t.Fatal(err)
	}
	credentials := auth.ClientCredentialsConfig{TokenURL: "https://id.example.com/t", ClientID: "c", ClientSecret: password, Client: &http.Client{
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }),
	}}
	source := must(auth.NewClientCredentials(credentials))
	signing := must(auth.NewSigner(auth.SignerConfig{Key: key, Issuer: "a", Audience: []string{"b"}}))
	signed := must(signing.Token(context.Background()))
	keys := must(auth.NewAPIKeys(auth.APIKeysConfig{Store: auth.StaticAPIKeys()}))

	folder := newStore(t, newCA(t), leafOptions{})
	certificates := files(t, folder, nil)
	pemKey := string(must(os.ReadFile(folder.key)))[40:80]

	values := map[string]any{
		"key": key, "pointer to key": &key, "private key": private, "keys": []auth.Key{key, private}, "in a struct": struct{ K auth.Key }{key},
		"claims": good, "in a slice": []*auth.Claims{good}, "identity": auth.Identity{Principal: good.Principal, Claims: good},
		"secret": auth.Secret(password), "config": credentials, "signer config": auth.SignerConfig{Key: key},
		"key set": must(auth.NewStaticKeys(key, private)), "unexported field": struct{ k auth.Key }{key}, "signer": signing, "token source": source, "verifier": v,
		"transport": auth.NewTransport(signing, nil), "call credentials": auth.NewCallCredentials(signing), "files": certificates,
	}
	fails := func(name string, err error) {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		values[name] = err
		values[name+" for the caller"] = transport.AsError(err)
	}
	_, err = v.Verify(context.Background(), forged)
	fails("forged token", err)
	_, err = v.Verify(context.Background(), token+".")
	fails("malformed token", err)
	_, err = v.Verify(context.Background(), strings.Repeat(token, 100))
	fails("large token", err)
	_, err = source.Token(context.Background())
	fails("token endpoint", err)
	r := must(http.NewRequest(http.MethodGet, "http://x/", nil))
	r.Header.Set("X-Api-Key", apiKey)
	_, err = keys.Authenticate(context.Background(), auth.FromHTTP(r))
	fails("API key", err)
	_, err = auth.NewTransport(signing, nil).RoundTrip(r)
	fails("plaintext", err)
	_, err = auth.NewKey("k", auth.HS512, []byte(word))
	fails("short secret", err)
	_, err = auth.ParsePEM("k", auth.RS256, []byte("-----BEGIN PRIVATE KEY-----\n"+base64.StdEncoding.EncodeToString([]byte(word))+"\n-----END PRIVATE KEY-----\n"))
	fails("broken PEM", err)
	_, err = auth.ParseJWK([]byte(`{"kty":"oct","alg":"HS512","k":"` + encode(word) + `"}`))
	fails("short JWK", err)
	_, err = auth.JWKS(key)
	fails("published secret", err)
	var number int
	fails("claim of another type", good.Decode("email", &number))

	hidden := map[string]string{
		"secret": word, "secret in base64": encode(word)[:40], "secret in hex": hex.EncodeToString([]byte(word)), "secret as numbers": "99 111 114 114 101 99 116",
		"token": token[:40], "forged token": forged[len(forged)-40:], "signed token": signed[:40], "signature": signed[len(signed)-20:],
		"client's password": password, "API key": apiKey, "personal data": personal, "private key": pemKey, "private key as numbers": numbers(pemKey),
	}
	look := func(name, how, text string) {
		for what, s := range hidden {
			if strings.Contains(text, s) {
				t.Errorf("%s by %s shows the %s: %s", name, how, what, text)
			}
		}
	}
	for name, value := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			look(name, verb, fmt.Sprintf(verb, value))
		}
		if data, err := json.Marshal(value); err == nil {
			look(name, "JSON", string(data))
		}
		var out bytes.Buffer
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "value", value)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "value", value)
		look(name, "log", out.String())
	}
}

// numbers writes text as fmt writes bytes.
func numbers(text string) string {
	var list []string
	for _, b := range []byte(text) {
		list = append(list, strconv.Itoa(int(b)))
	}
	return strings.Join(list, " ")
}
