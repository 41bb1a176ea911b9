package auth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/armature-go/armature/flow"
)

// CertificatesConfig describes [Certificates].
type CertificatesConfig struct {
	// TrustDomains are the SPIFFE trust domains whose members are recognised, as in
	// "prod.example.com". Empty means none: then CommonName is the only way.
	TrustDomains []string

	// CommonName recognises certificates without a SPIFFE id by the common name of
	// their subject.
	CommonName bool

	// Grant adds scopes and roles to who was recognised. Its error refuses the caller.
	// Optional.
	Grant func(cert *x509.Certificate, p flow.Principal) (flow.Principal, error)
}

// Certificates recognises callers by the client certificate of their connection,
// which the TLS layer must have verified: see [Files.Server]. The subject is the
// SPIFFE id, "spiffe://domain/path", or the common name.
type Certificates struct{ cfg CertificatesConfig }

// NewCertificates returns an authenticator.
func NewCertificates(cfg CertificatesConfig) (*Certificates, error) {
	const kind = "certificates"
	if len(cfg.TrustDomains) == 0 && !cfg.CommonName {
		return nil, configError(kind, "TrustDomains", "[]", "would recognise nobody", "name a trust domain, or set CommonName")
	}
	for _, d := range cfg.TrustDomains {
		if d == "" || strings.Trim(d, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
			return nil, configError(kind, "TrustDomains", fmt.Sprintf("%q", d), "is not a trust domain", `write "example.com", without scheme and path`)
		}
	}
	cfg.TrustDomains = slices.Clone(cfg.TrustDomains)
	return &Certificates{cfg: cfg}, nil
}

// Authenticate implements [Authenticator]. A certificate that was asked for and not
// verified counts for nothing.
func (c *Certificates) Authenticate(_ context.Context, r Request) (Identity, error) {
	state := r.TLS()
	if state == nil || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return Identity{}, fail(FaultMissing, "no verified client certificate")
	}
	cert := state.VerifiedChains[0][0]
	subject, err := spiffeID(cert)
	switch {
	case err != nil:
		return Identity{}, fail(FaultCertificate, "more than one URI, or not a SPIFFE id")
	case subject != "":
		domain, _, _ := strings.Cut(strings.TrimPrefix(subject, spiffeScheme), "/")
		if !slices.Contains(c.cfg.TrustDomains, domain) {
			return Identity{}, fail(FaultCertificate, "another trust domain")
		}
	case c.cfg.CommonName:
		subject = cert.Subject.CommonName
		if strings.HasPrefix(subject, spiffeScheme) { // a name must not pass for an id
			return Identity{}, fail(FaultCertificate, "a SPIFFE id in the common name")
		}
	}
	if !word(subject) {
		return Identity{}, fail(FaultCertificate, "no usable name")
	}
	p := flow.Principal{Subject: subject}
	if c.cfg.Grant != nil {
		if p, err = c.cfg.Grant(cert, p); err != nil {
			return Identity{}, failWith(FaultCertificate, "not granted", err)
		}
	}
	return Identity{Principal: p}, nil
}

const spiffeScheme = "spiffe://"

var errNotSPIFFE = errors.New("auth: read certificate: not a SPIFFE id")

// spiffeID returns "" for a certificate without URIs. One with several is refused,
// as the X.509-SVID standard asks, section 2.
func spiffeID(cert *x509.Certificate) (string, error) {
	switch len(cert.URIs) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", errNotSPIFFE
	}
	u := cert.URIs[0]
	if !validSPIFFE(u) {
		return "", errNotSPIFFE
	}
	return u.String(), nil
}

// validSPIFFE follows the SPIFFE-ID standard, section 2.
func validSPIFFE(u *url.URL) bool {
	if u.Scheme != "spiffe" || u.Host == "" || u.User != nil || u.Port() != "" || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return false
	}
	if u.RawPath != "" || strings.Trim(u.Host, "abcdefghijklmnopqrstuvwxyz0123456789.-_") != "" {
		return false
	}
	if u.Path == "" {
		return true
	}
	for _, segment := range strings.Split(u.Path[1:], "/") {
		if segment == "" || segment == "." || segment == ".." ||
			strings.Trim(segment, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") != "" {
			return false
		}
	}
	return true
}

var _ Authenticator = (*Certificates)(nil)
