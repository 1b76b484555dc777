package server

import (
	"math/rand/v2"
	"net/netip"
)

// table is a set-associative cache of fixed size: of those whose keys fall into
// one set the one that was used last is kept longest. Who invents keys pushes
// others' out and gets no memory.
type table struct {
	seed    uint64
	buckets []bucket
}

type bucket struct {
	key    uint64
	at     int64 // milliseconds: last used; 0: free
	tokens float64
}

// ways is the size of a set.
const ways = 8

func newTable(size int) table {
	return table{seed: rand.Uint64() | 1, buckets: make([]bucket, size/ways*ways)}
}

// find returns the bucket of a key, or the one it may have.
func (t *table) find(key uint64) (b *bucket, known bool) {
	h := key * t.seed // multiplicative; the seed is nobody else's to know
	h ^= h >> 32
	h *= t.seed
	set := int(h>>33) % (len(t.buckets) / ways) * ways
	b = &t.buckets[set]
	for i := set; i < set+ways; i++ {
		switch c := &t.buckets[i]; {
		case c.at != 0 && c.key == key:
			return c, true
		case c.at < b.at:
			b = c
		}
	}
	return b, false
}

// budget is so many tokens for each key and span of time.
type budget struct {
	table
	rate, burst float64 // tokens a millisecond, and at most; burst < 0: no limit
}

// newBudget makes one of n tokens for each span of that many milliseconds, all
// of which may be used at once.
func newBudget(size, n int, span float64) budget {
	return budget{table: newTable(size), rate: float64(n) / span, burst: float64(n)}
}

// of returns the bucket of a key, filled up to now.
func (b *budget) of(key uint64, now int64) *bucket {
	k, known := b.find(key)
	if !known {
		*k = bucket{key: key, tokens: b.burst}
	} else {
		k.tokens = min(b.burst, k.tokens+float64(max(0, now-k.at))*b.rate)
	}
	k.at = max(now, k.at, 1) // the loops' clocks differ a little
	return k
}

// take uses a token and reports whether there was one.
func (b *budget) take(key uint64, now int64) bool {
	if b.burst < 0 {
		return true
	}
	k := b.of(key, now)
	if k.tokens < 1 {
		return false
	}
	k.tokens--
	return true
}

// spent says whether no token is left, and uses none.
func (b *budget) spent(key uint64, now int64) bool {
	return b.burst >= 0 && b.of(key, now).tokens < 1
}

// network is the key of the addresses that share a fate: an IPv4 /24, an IPv6
// /48. Behind one address of a carrier there may be a whole fleet, and who
// rents a /48 has more addresses than any table.
func network(a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return uint64(b[0])<<16 | uint64(b[1])<<8 | uint64(b[2])
	}
	return host(a) &^ 0xffff
}

// host is the key of one address; of an IPv6 one its /64.
func host(a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
	}
	b := a.As16()
	key := uint64(0)
	for _, c := range b[:8] {
		key = key<<8 | uint64(c)
	}
	return key
}
