package custody

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// headFormat is in every head, so that a signature over one cannot be taken for a signature over anything else.
const headFormat = "cofferdam.dev/head/v1"

// Head is a signed statement: the ledger of this Incident has this many entries, and the last one has this digest.
type Head struct {
	Format   string `json:"format"`
	Incident string `json:"incident"`
	// Seq and Digest are those of the last entry.
	Seq    int64  `json:"seq"`
	Digest string `json:"digest"`
	// At is when it was signed, by the operator's clock.
	At time.Time `json:"at"`
	// KeyID is the SHA-256 of the public key in hexadecimal digits, and PublicKey its SubjectPublicKeyInfo in base64. A head needs no other object to be checked; whose key it is, it cannot say.
	KeyID     string `json:"keyID"`
	PublicKey string `json:"publicKey"`
	// Signature is the Ed25519 signature over the canonical form of the head without signature and timestamp, in base64.
	Signature string `json:"signature"`
	// Timestamp is an RFC 3161 token over the SHA-256 of the 64 bytes of the signature, in base64; empty if there is none.
	Timestamp string `json:"timestamp,omitempty"`
}

// Message is what the signature is over.
func (h *Head) Message() []byte {
	return append(h.appendBody(nil), '}')
}

func (h *Head) appendBody(line []byte) []byte {
	line = appendText(line, `{"format":`, h.Format)
	line = appendText(line, `,"incident":`, h.Incident)
	line = append(line, `,"seq":`...)
	line = strconv.AppendInt(line, h.Seq, 10)
	line = appendText(line, `,"digest":`, h.Digest)
	line = appendTime(line, `,"at":`, h.At)
	line = appendText(line, `,"keyID":`, h.KeyID)
	return appendText(line, `,"publicKey":`, h.PublicKey)
}

// encode is the canonical form: one line, with its newline.
func (h *Head) encode() []byte {
	line := h.appendBody(nil)
	line = appendText(line, `,"signature":`, h.Signature)
	line = appendNotEmpty(line, `,"timestamp":`, h.Timestamp)
	return append(line, "}\n"...)
}

// parseHead reads a head that has to be canonical and to have a signature that fits the key in it.
func parseHead(data []byte, incidentUID string) (Head, error) {
	return parseHeadLike(data, incidentUID, Head{})
}

// parseHeadLike is parseHead, and does not check the signature once more if the head is, but for its time stamp, one that was checked.
func parseHeadLike(data []byte, incidentUID string, checked Head) (Head, error) {
	var h Head
	if err := json.Unmarshal(data, &h); err != nil {
		return h, fmt.Errorf("it is not a head: %w", err)
	}
	if !bytes.Equal(h.encode(), data) {
		return h, errors.New("it is not in canonical form")
	}
	switch {
	case h.Format != headFormat:
		return h, fmt.Errorf("its format is %q, not %q", h.Format, headFormat)
	case h.Incident != incidentUID:
		return h, fmt.Errorf("it is of the Incident with the UID %q, not %s", h.Incident, incidentUID)
	}
	if checked.Timestamp = h.Timestamp; h == checked {
		return h, nil
	}
	public, err := h.key()
	if err != nil {
		return h, err
	}
	signature, err := h.signature()
	if err != nil || !ed25519.Verify(public, h.Message(), signature) {
		return h, fmt.Errorf("its signature is not one of the key %s", h.KeyID)
	}
	return h, nil
}

// key is the key that the head says it was signed with.
func (h *Head) key() (ed25519.PublicKey, error) {
	der, err := base64.StdEncoding.Strict().DecodeString(h.PublicKey)
	if err != nil {
		return nil, errors.New("its public key is not base64")
	}
	public, err := keyFromDER(der)
	if err != nil {
		return nil, err
	}
	// Comparing with the id of the key as encoded anew refuses a second encoding of the same key.
	if KeyID(public) != h.KeyID {
		return nil, fmt.Errorf("its public key is %s, and it says %q", KeyID(public), h.KeyID)
	}
	return public, nil
}

func (h *Head) signature() ([]byte, error) {
	return base64.StdEncoding.Strict().DecodeString(h.Signature)
}

// takeHeads takes heads that were read. The entries that they are about have to be there.
func (l *Ledger) takeHeads(names []string, contents [][]byte) *DamageError {
	for i, name := range names {
		at := Place{Object: l.key(name)}
		seq, _ := parseHeadName(name)
		seal, _ := find(l.seals, seq)
		h, err := parseHeadLike(contents[i], l.incident, seal)
		if err == nil && h.Seq != seq {
			err = fmt.Errorf("it is about entry %d", h.Seq)
		}
		if err == nil {
			if damage := l.takeHead(h, at); damage != nil {
				return damage
			}
			continue
		}
		if bytes.HasSuffix(contents[i], []byte("\n")) {
			return damagef(at, seq, "this is not the head of entry %d: %v", seq, err)
		}
		l.read[name] = true
		l.voids = append(l.voids, void{name: name, digest: digest(contents[i]), size: len(contents[i])})
	}
	return nil
}

// takeHead takes a head whose signature is right.
func (l *Ledger) takeHead(h Head, at Place) *DamageError {
	if damage := l.contains(h.Seq, h.Digest, at); damage != nil {
		if damage.Object == at.Object {
			damage.Problem = "this head does not fit the ledger: " + damage.Problem
		}
		return damage
	}
	if l.trust.refuses(&h) {
		return l.foreignHead(&h)
	}
	l.read[headName(h.Seq)] = true
	i, _ := search(l.heads, h.Seq)
	l.heads = slices.Insert(l.heads, i, h)
	return nil
}

// headOf is the head of an entry that was read.
func (l *Ledger) headOf(seq int64) (Head, bool) { return find(l.heads, seq) }

// find finds the head of an entry among heads in order.
func find(heads []Head, seq int64) (Head, bool) {
	i, found := search(heads, seq)
	if !found {
		return Head{}, false
	}
	return heads[i], true
}

func search(heads []Head, seq int64) (int, bool) {
	return slices.BinarySearchFunc(heads, seq, func(h Head, seq int64) int { return cmp.Compare(h.Seq, seq) })
}

// signOptions are what SignOptions set.
type signOptions struct {
	timestamper *Timestamper
	warn        func(error)
}

// SignOption changes how a head is signed.
type SignOption func(*signOptions)

// TimestampBy asks a time-stamp authority to confirm when the head existed. A head is written without a time stamp when it does not answer; Warn tells.
func TimestampBy(t *Timestamper) SignOption {
	return func(o *signOptions) { o.timestamper = t }
}

// Warn is told what went wrong without keeping the head from being written.
func Warn(warn func(error)) SignOption {
	return func(o *signOptions) { o.warn = warn }
}

// Sign signs the ledger as it is, unless Append did so with the same key, writes the head into the store, and, for readers without Cofferdam, the public key beside it. Where the entry has a head already, that one is returned, whichever of the keys that are
// trusted and whichever operator signed it: a change of keys should be recorded in an entry, which then has the first head of the new key. A head by another key is damage, and never returned. An empty ledger cannot
// be signed. After an error the ledger has to be opened anew.
func (l *Ledger) Sign(ctx context.Context, key Signer, now time.Time, options ...SignOption) (Head, error) {
	o := signOptions{warn: func(error) {}}
	for _, option := range options {
		option(&o)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for range maxTorn {
		// An entry has to tell of what does not count, at the end of the ledger or in the place of a head, before the ledger is signed.
		if _, err := l.append(ctx, key, nil, inSeconds(now)); err != nil {
			return Head{}, err
		}
		seq := l.chain.seq()
		if seq == 0 {
			return Head{}, errors.New("signing the ledger: it has no entries")
		}
		if h, signed := l.headOf(seq); signed {
			return l.own(h)
		}
		// The last entry has a seal. Where it is by the same key, it is the head too: a signer may be slow, and a reader has to check it only once.
		h, _ := find(l.seals, seq)
		if h.KeyID != KeyID(key.PublicKey()) {
			var err error
			if h, err = l.newHead(ctx, key, seq, l.chain.previous, inSeconds(now)); err != nil {
				return Head{}, err
			}
		}
		o.stamp(ctx, &h)
		l.publish(ctx, key.PublicKey(), &o)
		h, written, err := l.writeHead(ctx, h)
		if written || err != nil {
			return h, err
		}
	}
	return Head{}, fmt.Errorf("signing the ledger: the store has cut off %d heads in a row", maxTorn)
}

// own returns a head that was there. What is noted elsewhere vouches for an entry, but not for a key that somebody else has signed it with.
func (l *Ledger) own(h Head) (Head, error) {
	if l.trust.foreign(h.KeyID) {
		return Head{}, l.breaks(l.foreignHead(&h))
	}
	return h, nil
}

func (l *Ledger) foreignHead(h *Head) *DamageError {
	return damagef(Place{Object: l.key(headName(h.Seq))}, h.Seq, "this head is signed by the key %s, which is not the operator's", h.KeyID)
}

// newHead signs an entry. What comes out is checked as a reader would check it: a signer may be a device that is not ours.
func (l *Ledger) newHead(ctx context.Context, key Signer, seq int64, digest string, now time.Time) (Head, error) {
	public := key.PublicKey()
	h := Head{
		Format: headFormat, Incident: l.incident, Seq: seq, Digest: digest, At: now,
		KeyID: KeyID(public), PublicKey: base64.StdEncoding.EncodeToString(publicDER(public)),
	}
	signature, err := key.Sign(ctx, h.Message())
	if err != nil {
		return h, fmt.Errorf("signing entry %d of the ledger: %w", seq, err)
	}
	h.Signature = base64.StdEncoding.EncodeToString(signature)
	if _, err := parseHead(h.encode(), l.incident); err != nil {
		return h, fmt.Errorf("signing entry %d of the ledger: the head that came out is of no use: %w", seq, err)
	}
	return h, nil
}

// stamp adds a time stamp, if one is wanted and can be had.
func (o *signOptions) stamp(ctx context.Context, h *Head) {
	if o.timestamper == nil {
		return
	}
	signature, err := h.signature()
	if err != nil {
		o.warn(err)
		return
	}
	token, err := o.timestamper.Token(ctx, signature)
	if err != nil {
		o.warn(fmt.Errorf("the head of entry %d has no time stamp: %w", h.Seq, err))
		return
	}
	h.Timestamp = base64.StdEncoding.EncodeToString(token)
}

// publish writes the public key into the store. Heads do not depend on it.
func (l *Ledger) publish(ctx context.Context, public ed25519.PublicKey, o *signOptions) {
	key, want := keyObject(KeyID(public)), PublicPEM(public)
	err := l.objects.Create(ctx, key, want)
	if err == nil {
		return
	}
	there, rerr := l.objects.Read(ctx, key)
	switch {
	case rerr != nil:
		o.warn(fmt.Errorf("writing the public key %s: %w", key, err))
	case !bytes.Equal(there, want):
		o.warn(fmt.Errorf("the object %s is not the public key that its name says; the heads have the right one", key))
	}
}

// writeHead writes a head or finds the one that is there. Not written without an error means that the store has cut off what is in its place.
func (l *Ledger) writeHead(ctx context.Context, h Head) (there Head, written bool, err error) {
	name := headName(h.Seq)
	at := Place{Object: l.key(name)}
	werr := l.objects.Create(ctx, at.Object, h.encode())
	if werr == nil {
		return h, true, l.breaks(l.takeHead(h, at))
	}
	content, err := l.objects.Read(ctx, at.Object)
	if err != nil {
		return h, false, fmt.Errorf("writing the head %s: %w; and reading it: %w", at.Object, werr, err)
	}
	damage := l.takeHeads([]string{name}, [][]byte{content})
	if h, written = l.headOf(h.Seq); written && l.trust.foreign(h.KeyID) {
		damage = l.foreignHead(&h)
	}
	if damage != nil {
		// As with a segment, it remains to be seen whether that is damage.
		l.broken = fmt.Errorf("writing the head %s: %w; and what is there is not what was written: %s", at.Object, werr, damage.Error())
		return h, false, l.broken
	}
	return h, written, nil
}
