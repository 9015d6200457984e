package isolation

import "slices"

// point is an element of a discrete, totally ordered domain, such as a port number or a [net/netip.Addr].
type point[T any] interface {
	Compare(T) int
	Next() T
	Prev() T
}

// span is the closed interval from lo to hi.
type span[T point[T]] struct{ lo, hi T }

// spans is a set of points: sorted spans that neither overlap nor touch. The zero value is the empty set.
type spans[T point[T]] []span[T]

// union returns the points that are in at least one of the given intervals, which may come in any order and overlap.
func union[T point[T]](in ...span[T]) spans[T] {
	sorted := slices.Clone(in)
	slices.SortFunc(sorted, func(a, b span[T]) int { return a.lo.Compare(b.lo) })
	var out spans[T]
	for _, s := range sorted {
		if len(out) == 0 {
			out = append(out, s)
			continue
		}
		last := &out[len(out)-1]
		switch {
		case s.lo.Compare(last.hi) > 0 && s.lo.Compare(last.hi.Next()) != 0:
			out = append(out, s)
		case s.hi.Compare(last.hi) > 0:
			last.hi = s.hi
		}
	}
	return out
}

// minus returns the points of s that are not in other.
func (s spans[T]) minus(other spans[T]) spans[T] {
	var out spans[T]
	next := 0
	for _, rest := range s {
		for next < len(other) && other[next].hi.Compare(rest.lo) < 0 {
			next++
		}
		consumed := false
		for i := next; i < len(other) && other[i].lo.Compare(rest.hi) <= 0; i++ {
			cut := other[i]
			if cut.lo.Compare(rest.lo) > 0 {
				out = append(out, span[T]{rest.lo, cut.lo.Prev()})
			}
			if cut.hi.Compare(rest.hi) >= 0 {
				consumed = true
				break
			}
			rest.lo = cut.hi.Next()
		}
		if !consumed {
			out = append(out, rest)
		}
	}
	return out
}

// intersect returns the points that are in both sets.
func (s spans[T]) intersect(other spans[T]) spans[T] {
	return s.minus(s.minus(other))
}

// equal says whether both sets hold the same points.
func (s spans[T]) equal(other spans[T]) bool {
	return slices.EqualFunc(s, other, func(a, b span[T]) bool {
		return a.lo.Compare(b.lo) == 0 && a.hi.Compare(b.hi) == 0
	})
}

// contains says whether the point is in the set.
func (s spans[T]) contains(p T) bool {
	_, found := slices.BinarySearchFunc(s, p, func(one span[T], p T) int {
		switch {
		case one.hi.Compare(p) < 0:
			return -1
		case one.lo.Compare(p) > 0:
			return 1
		}
		return 0
	})
	return found
}
