package isolation

import (
	"fmt"
	"net/netip"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// maxPrefixes bounds how many prefixes of an address set are spelt out in a text.
const maxPrefixes = 16

// addresses is a set of IP addresses. IPv4 and IPv6 are separate: ::/0 holds no IPv4 address.
type addresses = spans[netip.Addr]

// parseCIDR reads a CIDR as net.ParseCIDR does, which ignores host bits. It refuses what implementations are known to read
// in different ways: leading zeros, and IPv4-mapped IPv6 addresses.
func parseCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("reading CIDR: %w", err)
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("reading CIDR %q: an IPv4-mapped IPv6 address is ambiguous", s)
	}
	return p.Masked(), nil
}

// parseBlock returns the addresses of an ipBlock (its cidr without its except list) and a description of it.
func parseBlock(block networkingv1.IPBlock) (addresses, string, error) {
	cidr, err := parseCIDR(block.CIDR)
	if err != nil {
		return nil, "", err
	}
	excluded := make([]span[netip.Addr], 0, len(block.Except))
	names := make([]string, 0, len(block.Except))
	for _, e := range block.Except {
		p, err := parseCIDR(e)
		if err != nil {
			return nil, "", err
		}
		excluded = append(excluded, spanOf(p))
		names = append(names, p.String())
	}
	text := "CIDR " + cidr.String()
	if len(names) > 0 {
		text += " except " + strings.Join(names, ", ")
	}
	return union(spanOf(cidr)).minus(union(excluded...)), text, nil
}

// spanOf returns the addresses of a masked prefix.
func spanOf(p netip.Prefix) span[netip.Addr] {
	return span[netip.Addr]{p.Addr(), lastAddr(p)}
}

// lastAddr returns the highest address of p.
func lastAddr(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(raw)*8; bit++ {
		raw[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(raw) // the length is right by construction
	return last
}

// prefixes returns the fewest prefixes that make up the set, in ascending order, but at most limit of them.
func prefixes(set addresses, limit int) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range set {
		for lo := s.lo; len(out) < limit; {
			p := widestPrefix(lo, s.hi)
			out = append(out, p)
			last := lastAddr(p)
			if last.Compare(s.hi) >= 0 {
				break
			}
			lo = last.Next()
		}
	}
	return out
}

// widestPrefix returns the largest prefix that starts at lo and does not reach beyond hi.
func widestPrefix(lo, hi netip.Addr) netip.Prefix {
	best := netip.PrefixFrom(lo, lo.BitLen())
	for bits := lo.BitLen() - 1; bits >= 0; bits-- {
		p := netip.PrefixFrom(lo, bits)
		if p.Masked().Addr() != lo || lastAddr(p).Compare(hi) > 0 {
			break
		}
		best = p
	}
	return best
}

// describeAddresses spells the set out as prefixes.
func describeAddresses(set addresses) string {
	found := prefixes(set, maxPrefixes+1)
	more := len(found) > maxPrefixes
	if more {
		found = found[:maxPrefixes]
	}
	names := make([]string, 0, len(found))
	for _, p := range found {
		names = append(names, p.String())
	}
	text := "CIDR " + strings.Join(names, ", ")
	if more {
		text += " and more"
	}
	return text
}
