package custody

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
)

// authority is a time-stamp authority on loopback. Its clock stands.
type authority struct {
	*httptest.Server
	root   *x509.Certificate
	signer *x509.Certificate
	key    *ecdsa.PrivateKey
	// change changes a token before it is signed, and answer what is sent.
	change func(*timestamp.Timestamp)
	answer func(http.ResponseWriter, []byte)
	asked  int
}

func certificate(t testing.TB, name string, usage []x509.ExtKeyUsage, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(name))), Subject: pkix.Name{CommonName: name}, NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(1, 0, 0),
		IsCA: parent == nil, BasicConstraintsValid: parent == nil, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if len(usage) > 0 {
		// RFC 3161, section 2.3: the extension is critical.
		oid, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
		if err != nil {
			t.Fatal(err)
		}
		template.KeyUsage = x509.KeyUsageDigitalSignature
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: oid}}
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out, key
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{}
	root, rootKey := certificate(t, "Root", nil, nil, nil)
	a.root = root
	a.signer, a.key = certificate(t, "Authority", []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping}, root, rootKey)
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked++
		query, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		response := a.respond(t, query)
		if a.answer != nil {
			a.answer(w, response)
			return
		}
		w.Header().Set("Content-Type", "application/timestamp-reply")
		_, _ = w.Write(response)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *authority) respond(t testing.TB, query []byte) []byte {
	request, err := timestamp.ParseRequest(query)
	if err != nil {
		t.Error(err)
		return nil
	}
	token := &timestamp.Timestamp{
		HashAlgorithm: request.HashAlgorithm, HashedMessage: request.HashedMessage, Nonce: request.Nonce, Time: start.Add(time.Minute),
		Policy: asn1.ObjectIdentifier{1, 2, 3}, AddTSACertificate: request.Certificates, Certificates: []*x509.Certificate{a.root},
	}
	if a.change != nil {
		a.change(token)
	}
	response, err := token.CreateResponseWithOpts(a.signer, a.key, crypto.SHA256)
	if err != nil {
		t.Error(err)
	}
	return response
}

func (a *authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.root)
	return pool
}

// stamped is a store whose ledger has one head, with a time stamp of the authority.
func stamped(t testing.TB, a *authority) (*memory, Head) {
	t.Helper()
	m := newMemory()
	l := open(t, m)
	add(t, l, fact("a"))
	h, err := l.Sign(t.Context(), newKey(t), start, TimestampBy(&Timestamper{URL: a.URL}), Warn(func(err error) { t.Error(err) }))
	if err != nil {
		t.Fatal(err)
	}
	return m, h
}

func TestHeadsAreTimestamped(t *testing.T) {
	a := newAuthority(t)
	m, h := stamped(t, a)
	if h.Timestamp == "" || len(open(t, m).Heads()) != 1 {
		t.Fatal("the head has no time stamp")
	}
	if stamp, err := h.Stamp(); err != nil || !stamp.Time.Equal(start.Add(time.Minute)) {
		t.Errorf("the head says %+v: %v", stamp, err)
	}
	archive := exported(t, m)
	report, err := verify(archive, VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := report.Heads[0].Timestamp
	if got == nil || !got.Time.Equal(start.Add(time.Minute)) || got.Authority != "CN=Authority" || got.Issuer != "CN=Root" || got.Trusted {
		t.Errorf("the time stamp is %+v", got)
	}
	if !strings.Contains(strings.Join(report.Notes, "\n"), "Whether its authority can be trusted is for the reader to establish") {
		t.Errorf("the report does not say that the authority is not established: %q", report.Notes)
	}
	report, err = verify(archive, VerifyOptions{Roots: a.roots()})
	if err != nil || !report.Heads[0].Timestamp.Trusted {
		t.Errorf("the roots do not vouch: %v", err)
	}
	_, err = verify(archive, VerifyOptions{Roots: newAuthority(t).roots()})
	checkPosition(t, err, position{"heads/000000000001.json", 0, 1, "the roots that were given do not vouch"})
}

// A head never waits for an authority that does not do what it should.
func TestAnAuthorityThatFails(t *testing.T) {
	text := func(status int, body string) func(http.ResponseWriter, []byte) {
		return func(w http.ResponseWriter, _ []byte) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	rejection, err := timestamp.CreateErrorResponse(timestamp.Rejection, timestamp.SystemFailure)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		set  func(a *authority)
		want string
	}{
		"an error":        {func(a *authority) { a.answer = text(503, "\x1b[2J") }, "HTTP status 503"},
		"nothing":         {func(a *authority) { a.answer = text(200, "") }, "reading the answer"},
		"no ASN.1":        {func(a *authority) { a.answer = text(200, "<html>") }, "reading the answer"},
		"without an end":  {func(a *authority) { a.answer = text(200, strings.Repeat("x", 2*maxToken)) }, "more than"},
		"a rejection":     {func(a *authority) { a.answer = text(200, string(rejection)) }, "rejected"},
		"down":            {func(a *authority) { a.Close() }, "asking a time-stamp authority"},
		"another request": {func(a *authority) { a.change = func(s *timestamp.Timestamp) { s.Nonce = big.NewInt(1) } }, "answer to another request"},
		"no nonce":        {func(a *authority) { a.change = func(s *timestamp.Timestamp) { s.Nonce = nil } }, "answer to another request"},
		"something else":  {func(a *authority) { a.change = func(s *timestamp.Timestamp) { s.HashedMessage = make([]byte, 32) } }, "of something else"},
		"no certificate": {func(a *authority) {
			a.change = func(s *timestamp.Timestamp) { s.AddTSACertificate = false; s.Certificates = nil }
		}, "no certificate"},
		"another certificate": {func(a *authority) { a.signer, a.key = certificate(t, "Web", nil, nil, nil); a.root = a.signer }, "not one for time stamps"},
		"a changed token": {func(a *authority) {
			a.answer = func(w http.ResponseWriter, b []byte) { b[len(b)-3] ^= 1; _, _ = w.Write(b) }
		}, "reading the answer"},
		"half a token":         {func(a *authority) { a.answer = func(w http.ResponseWriter, b []byte) { _, _ = w.Write(b[:len(b)/2]) } }, "reading the answer"},
		"a connection cut off": {func(a *authority) { a.answer = func(http.ResponseWriter, []byte) { panic(http.ErrAbortHandler) } }, "asking a time-stamp authority"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			tc.set(a)
			m := newMemory()
			l := open(t, m)
			add(t, l, fact("a"))
			var warning error
			h, err := l.Sign(t.Context(), newKey(t), start, TimestampBy(&Timestamper{URL: a.URL, Client: a.Client()}), Warn(func(err error) { warning = err }))
			if err != nil || h.Seq != 1 || h.Timestamp != "" {
				t.Fatalf("the head is %+v: %v", h, err)
			}
			if warning == nil || !strings.Contains(warning.Error(), tc.want) {
				t.Errorf("the warning is %v, want %q", warning, tc.want)
			}
			if report, err := verify(exported(t, m), VerifyOptions{Roots: a.roots()}); err != nil || report.Heads[0].Timestamp != nil {
				t.Errorf("without a time stamp the archive is refused: %v", err)
			}
		})
	}
}

func TestURLsOfAuthorities(t *testing.T) {
	for _, bad := range []string{"", "ftp://x", "file:///etc/passwd", "http://", "x", "http://\x00"} {
		if _, err := (&Timestamper{URL: bad}).Token(t.Context(), nil); err == nil {
			t.Errorf("%q was asked", bad)
		}
	}
}

func TestTheCallerEndsTheWait(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	a := newAuthority(t)
	given := make(chan struct{})
	a.answer = func(http.ResponseWriter, []byte) {
		cancel()
		<-given
	}
	_, err := (&Timestamper{URL: a.URL}).Token(ctx, nil)
	close(given)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Signing again asks nobody.
func TestAnAuthorityIsAskedOnceForAHead(t *testing.T) {
	a := newAuthority(t)
	m, _ := stamped(t, a)
	if _, err := open(t, m).Sign(t.Context(), newKey(t), start, TimestampBy(&Timestamper{URL: a.URL})); err != nil || a.asked != 1 {
		t.Errorf("asked %d times: %v", a.asked, err)
	}
}

// A token of another head does not pass, although it is genuine.
func TestATimestampOfSomethingElseIsFound(t *testing.T) {
	a := newAuthority(t)
	m, h := stamped(t, a)
	other, err := (&Timestamper{URL: a.URL}).Token(t.Context(), []byte("another signature"))
	if err != nil {
		t.Fatal(err)
	}
	der, err := base64.StdEncoding.DecodeString(h.Timestamp)
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(der)
	broken[len(broken)-3] ^= 1
	cases := map[string]struct{ token, want string }{
		"another head": {base64.StdEncoding.EncodeToString(other), "of something else"},
		"changed":      {base64.StdEncoding.EncodeToString(broken), "not genuine"},
		"cut off":      {base64.StdEncoding.EncodeToString(der[:len(der)/2]), "not genuine"},
		"no base64":    {"***", "not base64"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			u := unpack(t, exported(t, m))
			changed := h
			changed.Timestamp = tc.token
			u[u.index(t, headsFolder)].content = changed.encode()
			_, err := verify(u.pack(t), VerifyOptions{})
			checkPosition(t, err, position{"heads/000000000001.json", 0, 1, tc.want})
		})
	}
}

func FuzzToken(f *testing.F) {
	a := newAuthority(f)
	token, err := (&Timestamper{URL: a.URL}).Token(f.Context(), []byte("x"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token, 5, byte(0x80))
	f.Fuzz(func(_ *testing.T, token []byte, at int, b byte) {
		if at >= 0 && at < len(token) {
			token[at] = b
		}
		_, _ = checkToken(token, []byte("x"), nil)
		_, _ = parseAnswer(token)
	})
}

// pemOf is a certificate for openssl.
func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// imprintOf is what a token is over.
func imprintOf(t testing.TB, h *Head) string {
	t.Helper()
	signature, err := h.signature()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(digest(signature), "sha256:")
}
