package custody

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/digitorus/pkcs7"
	"github.com/digitorus/timestamp"
)

const (
	// tsaTimeout bounds the wait for a time-stamp authority: a head must not wait long for one.
	tsaTimeout = 10 * time.Second
	// maxToken bounds its answer, in bytes. With a long chain of certificates it has about 10,000.
	maxToken = 128 << 10
)

// Timestamper asks a time-stamp authority (RFC 3161).
type Timestamper struct {
	// URL is that of the authority, http or https.
	URL string
	// Client sends the request; nil is http.DefaultClient. The wait is bounded to ten seconds in any case.
	Client *http.Client
}

// Token gets a token over the SHA-256 of the message, in DER. It is checked as a reader would check it, but for the trust in the authority. The authority sees the digest and nothing else.
func (t *Timestamper) Token(ctx context.Context, message []byte) ([]byte, error) {
	if u, err := url.Parse(t.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("asking a time-stamp authority: its URL has to begin with http:// or https:// and to name a host")
	}
	// 64 random bits tell the answer to this request from the answer to another one.
	nonce, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, fmt.Errorf("asking a time-stamp authority: %w", err)
	}
	imprint := sha256.Sum256(message)
	query, err := (&timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: imprint[:], Certificates: true, Nonce: nonce}).Marshal()
	if err != nil {
		return nil, fmt.Errorf("asking a time-stamp authority: %w", err)
	}
	answer, err := t.ask(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("asking a time-stamp authority: %w", err)
	}
	token, err := parseAnswer(answer)
	if err != nil {
		return nil, fmt.Errorf("reading the answer of a time-stamp authority: %w", err)
	}
	if token.Nonce == nil || token.Nonce.Cmp(nonce) != 0 {
		return nil, errors.New("reading the answer of a time-stamp authority: it is the answer to another request")
	}
	report, err := checkToken(token.RawToken, message, nil)
	if err == nil && report.Authority == "" {
		err = errors.New("it has no certificate, so that nobody could check it later")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the answer of a time-stamp authority: %w", err)
	}
	return token.RawToken, nil
}

func (t *Timestamper) ask(ctx context.Context, query []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, tsaTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, bytes.NewReader(query))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/timestamp-query")
	client := t.Client
	if client == nil {
		client = http.DefaultClient
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers with the HTTP status %d", response.StatusCode)
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxToken+1))
	if err != nil {
		return nil, err
	}
	if len(answer) > maxToken {
		return nil, fmt.Errorf("its answer has more than %d bytes", maxToken)
	}
	return answer, nil
}

// parseAnswer reads an answer. The parsers of ASN.1 are somebody else's, and what they read is anybody's: a panic in there must not end the operator.
func parseAnswer(answer []byte) (token *timestamp.Timestamp, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it cannot be read: %v", r)
		}
	}()
	return timestamp.ParseResponse(answer)
}

// Stamp is what the time stamp of the head says; nil if it has none. The trust in the authority is not established.
func (h *Head) Stamp() (*TimestampReport, error) {
	if h.Timestamp == "" {
		return nil, nil
	}
	return h.stamp(nil)
}

func (h *Head) stamp(roots *x509.CertPool) (*TimestampReport, error) {
	token, err := base64.StdEncoding.Strict().DecodeString(h.Timestamp)
	if err != nil {
		return nil, errors.New("the time stamp is not base64")
	}
	signature, err := h.signature()
	if err != nil {
		return nil, errors.New("the signature is not base64")
	}
	return checkToken(token, signature, roots)
}

// TimestampReport is what a token says.
type TimestampReport struct {
	// Time is when the authority saw the head.
	Time time.Time
	// Authority and Issuer are the names in the certificate of the authority. Empty if the token has no certificate.
	Authority string
	Issuer    string
	// Serial is the number of the token.
	Serial string
	// Trusted says that the certificate leads to one of the roots that were given. If none were given, whether the authority can be trusted remains to be established.
	Trusted bool
}

// checkToken checks that a token covers the message and, with roots, that it comes from an authority that they vouch for. A token that does not name its certificate cannot be checked here beyond what it covers.
func checkToken(der, message []byte, roots *x509.CertPool) (report *TimestampReport, err error) {
	defer func() {
		if r := recover(); r != nil {
			report, err = nil, fmt.Errorf("the time stamp cannot be read: %v", r)
		}
	}()
	token, err := timestamp.Parse(der)
	if err != nil {
		return nil, fmt.Errorf("the time stamp is not genuine: %w", err)
	}
	imprint := sha256.Sum256(message)
	if token.HashAlgorithm != crypto.SHA256 || !bytes.Equal(token.HashedMessage, imprint[:]) {
		return nil, errors.New("the time stamp is of something else")
	}
	report = &TimestampReport{Time: token.Time.UTC()}
	if token.SerialNumber != nil {
		report.Serial = token.SerialNumber.String()
	}
	if len(token.Certificates) == 0 {
		if roots != nil {
			return nil, errors.New("the time stamp has no certificate, so that the roots cannot be applied")
		}
		return report, nil
	}
	signed, err := pkcs7.Parse(der)
	if err != nil {
		return nil, fmt.Errorf("the time stamp is not genuine: %w", err)
	}
	return report, report.authority(signed, roots)
}

// authority takes the signer's certificate.
func (r *TimestampReport) authority(signed *pkcs7.PKCS7, roots *x509.CertPool) error {
	signer := signed.GetOnlySigner()
	if signer == nil {
		return errors.New("the time stamp does not have exactly one signer with a certificate")
	}
	r.Authority, r.Issuer = signer.Subject.String(), signer.Issuer.String()
	if !slices.Contains(signer.ExtKeyUsage, x509.ExtKeyUsageTimeStamping) {
		return errors.New("the certificate of the time stamp is not one for time stamps")
	}
	if roots == nil {
		return nil
	}
	intermediates := x509.NewCertPool()
	for _, certificate := range signed.Certificates {
		intermediates.AddCert(certificate)
	}
	_, err := signer.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: r.Time, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping},
	})
	if err != nil {
		return fmt.Errorf("the roots that were given do not vouch for the time-stamp authority: %w", err)
	}
	r.Trusted = true
	return nil
}
