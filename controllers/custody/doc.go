// Package custody keeps the ledger of an Incident: what was done, what was seen and what was stored as evidence, so that somebody who trusts neither the cluster nor the operator can check it.
//
// # Ledger
//
// The ledger is a sequence of entries. An entry is one line of canonical JSON (see [AppendEntry]). It has the number of the entry, from 1 and without gaps, and in "previous" the SHA-256 of the line
// before it, without its newline; the first entry has the SHA-256 of the text "cofferdam ledger <UID of the Incident>". The last field, "sum", is made from the line itself, so that a line that a
// failing disk has changed is known as damaged even if no other line follows. An ID occurs once.
//
// # Where it is
//
// A store cannot append to an object. The ledger is therefore kept in segments, each of which is created once and never changed:
//
//	incidents/<UID>/ledger/<number of its first entry>-<attempt>.jsonl
//
// Whoever wants to write entry n has to create the segment that begins with it, which only one writer can. The other one sees that it has lost, reads what the winner wrote, and goes on from there.
//
// After its entries a segment has its seal, one more line: the signed head (see below) of its last entry, without a time stamp. A segment is complete with its seal, and by its seal it is known whose it is. The seal
// is not an entry.
//
// A store that fails may keep only a part of a segment: it is empty, or ends within a line or with an entry. Nothing in it counts, and the next attempt to write the same entry has them all again. What does not
// count is called void. So is what somebody writes who has access to the store and no key. The next thing written is an entry that says so ([ActionVoid]) with the digest of the object, which from then on must not
// change either. Anything else that is not as it was written is damage: a line that is neither the next entry nor the right seal, and, for the operator (see [TrustOnly]), a seal or a head by a key that is not its own.
//
// # Heads
//
// A head (see [Head]) is a signature over the digest of one entry and so over every entry up to it. The chain alone shows only that lines fit together, and anybody could write such lines; a
// head shows that the holder of the key stood behind them. What neither shows is that later entries and later heads were cut off: for that one has to know a head from elsewhere, such as
// the status of the Incident.
//
// # Archive
//
// [Export] writes everything about one Incident into one tar file with instructions in plain text: the entries in one file, and heads and seals among the heads. And [VerifyArchive] checks one without a cluster or a store.
package custody
