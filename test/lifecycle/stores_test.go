package lifecycle

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/digitorus/timestamp"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cofferdam.dev/cofferdam/api/v1alpha1"
	"cofferdam.dev/cofferdam/controllers/custody"
	"cofferdam.dev/cofferdam/controllers/evidence"
	"cofferdam.dev/cofferdam/test/cluster"
	"cofferdam.dev/cofferdam/test/fakes3"
	"cofferdam.dev/cofferdam/test/scenario"
)

var _ = Describe("What the standing orders say about the evidence store", func() {
	orders := func(store v1alpha1.EvidenceStore) func(*v1alpha1.ContainmentPolicy) {
		return func(p *v1alpha1.ContainmentPolicy) { p.Spec.Evidence.Store = store }
	}
	custodyOf := func(inc *v1alpha1.Incident) string {
		return apimeta.FindStatusCondition(inc.Status.Conditions, v1alpha1.ConditionCustody).Message
	}

	It("encrypts what is collected to the recipients, and says when the store cannot lock", func(ctx SpecContext) {
		identity, err := age.GenerateX25519Identity()
		Expect(err).NotTo(HaveOccurred())
		shop := openShop(ctx, orders(v1alpha1.EvidenceStore{EncryptTo: []string{identity.Recipient().String()}, LockDays: 30}))
		declare(ctx, shop, "miner")
		inc := await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		read := 0
		for _, item := range inc.Status.Evidence {
			if !evidence.InStore(&item) {
				continue
			}
			read++
			raw := readItem(ctx, item)
			Expect(digest(raw)).To(Equal(item.StoredDigest), item.ID)
			plain, err := age.Decrypt(bytes.NewReader(raw), identity)
			Expect(err).NotTo(HaveOccurred())
			content, err := io.ReadAll(plain)
			Expect(err).NotTo(HaveOccurred())
			Expect(digest(content)).To(Equal(item.Digest), item.ID)
		}
		Expect(read).To(BeNumerically(">=", 2), "manifests, logs and surroundings are in the store")
		Expect(custodyOf(inc)).To(ContainSubstring("does not lock what is in it"))
	})

	It("signs requests with the credentials of the Secret, new ones once they are changed, and locks every object", func(ctx SpecContext) {
		bucket := fakes3.New(GinkgoTB())
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: cluster.OperatorNamespace, GenerateName: "bucket-"}, Data: s3Keys("AKIDFIRST")}
		shop := openShop(ctx)
		Expect(shop.Admin.Create(ctx, secret)).To(Succeed())
		DeferCleanup(func(ctx context.Context) error { return shop.Admin.Delete(ctx, secret) })
		editPolicy(ctx, shop, func(p *v1alpha1.ContainmentPolicy) {
			p.Spec.Evidence.Store = v1alpha1.EvidenceStore{URL: bucket.StoreURL(""), CredentialsSecret: secret.Name, LockDays: 30}
			p.Spec.Evidence.Retention.RequiredApprovals = 1
		})
		declare(ctx, shop, "miner")
		inc := await(ctx, shop, "miner", "contained with evidence", func(inc *v1alpha1.Incident) bool {
			return scenario.Is(v1alpha1.ConditionReady)(inc) && scenario.HasReason(v1alpha1.ConditionCustody, v1alpha1.ReasonLedgerSigned)(inc)
		})
		Expect(bucket.Signers()).To(HaveExactElements("AKIDFIRST"))
		Expect(inc.Status.Custody.Store).To(HavePrefix("s3://evidence"))
		Expect(custodyOf(inc)).NotTo(ContainSubstring("does not lock"))
		var items, ledger int
		for _, change := range bucket.Changes() {
			if verb, key, _ := strings.Cut(change, " "); verb == "PUT" && strings.HasPrefix(key, "incidents/") {
				Expect(change).To(ContainSubstring(" COMPLIANCE "))
				items += strings.Count(key, "/items/")
				ledger += strings.Count(key, "/ledger/")
			}
		}
		Expect(items).To(BeNumerically(">", 0))
		Expect(ledger).To(BeNumerically(">", 0))

		By("changing the credentials")
		secret.Data = s3Keys("AKIDSECOND")
		Expect(shop.Admin.Update(ctx, secret)).To(Succeed())
		Expect(shop.SetGoal(ctx, "miner", v1alpha1.GoalClose)).To(Succeed())
		Eventually(ctx, bucket.Signers).WithTimeout(scenario.Patience).Should(ContainElement("AKIDSECOND"))
		await(ctx, shop, "miner", "waiting for approval", scenario.HasReason(v1alpha1.ConditionReleased, v1alpha1.ReasonWaitingForApproval))

		By("removing nothing before the locks end, whoever approves")
		Expect(shop.Approve(ctx, "miner", v1alpha1.CloseStage)).To(Succeed())
		await(ctx, shop, "miner", "asking about removal", func(inc *v1alpha1.Incident) bool { return closedIncident(inc) && inc.Status.RemovalDigest != "" })
		Expect(shop.Approve(ctx, "miner", v1alpha1.RemoveStage)).To(Succeed())
		await(ctx, shop, "miner", "waiting", func(inc *v1alpha1.Incident) bool {
			return strings.Contains(custodyOf(inc), "removal is approved and waits until")
		})
		Expect(bucket.Changes()).NotTo(ContainElement(And(HavePrefix("DELETE "), ContainSubstring("/items/"))))
	})

	It("has a time-stamp authority confirm when the ledger was signed", func(ctx SpecContext) {
		url, roots := timeAuthority()
		shop := openShop(ctx, orders(v1alpha1.EvidenceStore{TimeAuthorityURL: url}))
		declare(ctx, shop, "miner")
		await(ctx, shop, "miner", "contained with evidence", scenario.Is(v1alpha1.ConditionReady))
		inc := closeAndRead(ctx, shop, "miner")
		settle(ctx, inc)
		var archive bytes.Buffer
		_, err := custody.Export(ctx, evidenceStore(ctx), custody.Incident{Namespace: inc.Namespace, Name: inc.Name, UID: string(inc.UID)}, &archive,
			custody.ExportOptions{Now: time.Unix(0, 0), Tool: "test"})
		Expect(err).NotTo(HaveOccurred())
		report, err := custody.VerifyArchive(&archive, custody.VerifyOptions{KeyIDs: []string{inc.Status.Custody.KeyID}, Roots: roots})
		Expect(err).NotTo(HaveOccurred())
		stamped := slices.DeleteFunc(report.Heads, func(head custody.HeadReport) bool { return head.Timestamp == nil })
		Expect(stamped).NotTo(BeEmpty())
		Expect(stamped).To(HaveEach(HaveField("Timestamp", And(HaveField("Trusted", BeTrue()), HaveField("Authority", "CN=Authority")))))
	})
})

func digest(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func s3Keys(id string) map[string][]byte {
	return map[string][]byte{"accessKeyID": []byte(id), "secretAccessKey": []byte("wJalrXUtnFEMI/K7MDENG")}
}

// timeAuthority starts a time-stamp authority on loopback, and returns its URL and who vouches for it.
func timeAuthority() (string, *x509.CertPool) {
	GinkgoHelper()
	// RFC 3161, section 2.3: the extension is critical.
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	Expect(err).NotTo(HaveOccurred())
	root, rootKey := certify(&x509.Certificate{Subject: pkix.Name{CommonName: "Root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	signer, key := certify(&x509.Certificate{
		Subject: pkix.Name{CommonName: "Authority"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}},
	}, root, rootKey)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		request, err := timestamp.ParseRequest(query)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		token := &timestamp.Timestamp{
			HashAlgorithm: request.HashAlgorithm, HashedMessage: request.HashedMessage, Nonce: request.Nonce, Time: time.Now(),
			Policy: asn1.ObjectIdentifier{1, 2, 3}, AddTSACertificate: request.Certificates, Certificates: []*x509.Certificate{root},
		}
		response, err := token.CreateResponseWithOpts(signer, key, crypto.SHA256)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/timestamp-reply")
		_, _ = w.Write(response)
	}))
	DeferCleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(root)
	return server.URL, roots
}

// certify makes a certificate; without a parent it vouches for itself.
func certify(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	GinkgoHelper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	Expect(err).NotTo(HaveOccurred())
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(int64(len(template.Subject.CommonName))), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	Expect(err).NotTo(HaveOccurred())
	out, err := x509.ParseCertificate(der)
	Expect(err).NotTo(HaveOccurred())
	return out, key
}
