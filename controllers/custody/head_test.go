package custody

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func signatureOf(t testing.TB, k Signer, h *Head) string {
	t.Helper()
	s, err := k.Sign(t.Context(), h.Message())
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(s)
}

func TestKeysSurviveTheirForm(t *testing.T) {
	k := newKey(t)
	data, err := k.PEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := KeyFromPEM(data)
	if err != nil || !again.PublicKey().Equal(k.PublicKey()) || !isHex(KeyID(k.PublicKey()), 32) {
		t.Errorf("%v", err)
	}
	for name, bad := range map[string][]byte{
		"nothing":      nil,
		"no PEM":       []byte("secret"),
		"a public key": PublicPEM(k.PublicKey()),
		"more":         append(bytes.Clone(data), "secret"...),
		"no PKCS #8":   []byte("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"),
	} {
		if _, err := KeyFromPEM(bad); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSignIsIdempotent(t *testing.T) {
	m := newMemory()
	l, k := open(t, m), newKey(t)
	if _, err := l.Sign(t.Context(), k, start); err == nil {
		t.Error("an empty ledger was signed")
	}
	add(t, l, facts("a", 2)...)
	first := sign(t, l, k)
	objects := len(m.objects)
	second, err := l.Sign(t.Context(), k, start.Add(time.Hour))
	if err != nil || second != first || len(m.objects) != objects {
		t.Errorf("signing again gives %+v, %v", second, err)
	}
	if first.Seq != 2 || first.Digest != l.Digest() || first.KeyID != KeyID(k.PublicKey()) || !first.At.Equal(start) {
		t.Errorf("the head is %+v", first)
	}
	signature, err := base64.StdEncoding.DecodeString(first.Signature)
	if err != nil || !ed25519.Verify(k.PublicKey(), first.Message(), signature) {
		t.Errorf("the signature does not verify: %v", err)
	}
	if !bytes.Equal(m.objects[keyObject(first.KeyID)], PublicPEM(k.PublicKey())) {
		t.Error("the public key is not in the store")
	}
	if diff := cmp.Diff([]Head{first}, open(t, m).Heads()); diff != "" {
		t.Error(diff)
	}
}

func TestTwoLeadersSign(t *testing.T) {
	m := newMemory()
	k := newKey(t)
	add(t, open(t, m), facts("a", 2)...)
	heads := make([]Head, 8)
	var group sync.WaitGroup
	for i := range heads {
		l := open(t, m)
		group.Go(func() {
			h, err := l.Sign(context.Background(), k, start.Add(time.Duration(i)*time.Second))
			if err != nil {
				t.Error(err)
			}
			heads[i] = h
		})
	}
	group.Wait()
	for _, h := range heads {
		if h != heads[0] {
			t.Errorf("two leaders have signed different heads: %+v and %+v", h, heads[0])
		}
	}
}

func TestHeadsOfOlderKeysStayValid(t *testing.T) {
	m := newMemory()
	l, old, young := open(t, m), newKey(t), newKey(t)
	add(t, l, fact("a"))
	sign(t, l, old)
	if h := sign(t, l, young); h.KeyID != KeyID(old.PublicKey()) {
		t.Error("the head of the older key was replaced")
	}
	add(t, l, fact("KeyChanged"))
	if h := sign(t, l, young); h.KeyID != KeyID(young.PublicKey()) {
		t.Error("the head after the change is not signed by the new key")
	}
	again := open(t, m)
	add(t, again, fact("b"))
	sign(t, again, young)
	var got []string
	for _, h := range open(t, m).Heads() {
		got = append(got, h.KeyID)
	}
	if diff := cmp.Diff([]string{KeyID(old.PublicKey()), KeyID(young.PublicKey()), KeyID(young.PublicKey())}, got); diff != "" {
		t.Error(diff)
	}
}

func TestHeadsThatTheStoreHasCutOff(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"nothing is left": func(b []byte) []byte { return b[:0] },
		"a part":          func(b []byte) []byte { return b[:100] },
		"all but a byte":  func(b []byte) []byte { return b[:len(b)-1] },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			l, k := open(t, m), newKey(t)
			add(t, l, fact("a"))
			m.damageNext(headsFolder, damage)
			if h := sign(t, l, k); h.Seq != 2 {
				t.Errorf("the head is that of entry %d", h.Seq)
			}
			again := open(t, m)
			if diff := cmp.Diff([]string{"a", "void/heads/000000000001.json"}, ids(again)); diff != "" || len(again.Heads()) != 1 {
				t.Error(diff)
			}
		})
	}
	t.Run("the process ends before it can tell", func(t *testing.T) {
		m := newMemory()
		add(t, open(t, m), fact("a"))
		m.objects[folder(uid)+headName(1)] = []byte(`{"format":"cof`)
		l := open(t, m)
		if h := sign(t, l, newKey(t)); h.Seq != 2 || l.Incomplete() != nil {
			t.Errorf("the head is that of entry %d", h.Seq)
		}
		if got := open(t, m).Seq(); got != 2 {
			t.Errorf("the ledger has %d entries", got)
		}
	})
	t.Run("every head", func(t *testing.T) {
		m := newMemory()
		l := open(t, m)
		add(t, l, fact("a"))
		m.before = func(key string, data []byte) ([]byte, error) {
			if strings.Contains(key, headsFolder) {
				data = data[:10]
			}
			return data, nil
		}
		if _, err := l.Sign(t.Context(), newKey(t), start); err == nil {
			t.Error("a part of a head was taken for one")
		}
		m.before = nil
		sign(t, l, newKey(t))
		open(t, m)
	})
}

// A head of another ledger, or one that was changed, is damage, and not void. Whether it stays so is seen when the ledger is opened anew.
func TestAHeadThatDoesNotFitIsDamage(t *testing.T) {
	other := open(t, newMemory())
	add(t, other, fact("x"))
	k := newKey(t)
	h := sign(t, other, k)
	changed := h
	changed.At = start.Add(time.Second)
	for name, tc := range map[string]struct {
		head Head
		want string
	}{"of a fork": {h, "written anew"}, "changed": {changed, "its signature is not one of the key"}} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			l := open(t, m)
			add(t, l, fact("a"))
			m.objects[folder(uid)+headName(1)] = tc.head.encode()
			for range 2 {
				_, err := l.Sign(t.Context(), k, start)
				if _, damaged := errors.AsType[*DamageError](err); err == nil || damaged {
					t.Errorf("the error is %v", err)
				}
			}
			_, err := Open(t.Context(), m, uid)
			checkPosition(t, err, position{folder(uid) + headName(1), 0, 1, tc.want})
		})
	}
}

func TestADamagedKeyObjectBlocksNothing(t *testing.T) {
	m := newMemory()
	l, k := open(t, m), newKey(t)
	add(t, l, fact("a"))
	m.objects[keyObject(KeyID(k.PublicKey()))] = []byte("-----BEGIN")
	var warnings []string
	if _, err := l.Sign(t.Context(), k, start, Warn(func(err error) { warnings = append(warnings, err.Error()) })); err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "is not the public key that its name says") {
		t.Errorf("warnings: %q", warnings)
	}
	if len(open(t, m).Heads()) != 1 {
		t.Error("there is no head")
	}
}

type brokenSigner struct {
	*Key
	err error
}

func (b brokenSigner) Sign(ctx context.Context, message []byte) ([]byte, error) {
	if b.err != nil {
		return nil, b.err
	}
	return b.Key.Sign(ctx, append(message, 'x'))
}

func TestASignatureThatDoesNotVerifyIsNotWritten(t *testing.T) {
	m := newMemory()
	l := open(t, m)
	add(t, l, fact("a"))
	if _, err := l.Sign(t.Context(), brokenSigner{Key: newKey(t)}, start); err == nil {
		t.Error("a wrong signature was taken")
	}
	if _, err := l.Sign(t.Context(), brokenSigner{Key: newKey(t), err: errStore}, start); !errors.Is(err, errStore) {
		t.Error(err)
	}
	if len(m.objects) != 1 {
		t.Errorf("%d objects", len(m.objects))
	}
}
