package fake

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"time"
)

// node is an element of an answer of EC2: text, or elements.
type node struct {
	name string
	text string
	kids []node
}

// el is an element with a value; a zero time has no text.
func el(name string, value any) node {
	if t, ok := value.(time.Time); ok {
		return node{name: name, text: t.UTC().Format("2006-01-02T15:04:05.000Z")}
	}
	return node{name: name, text: fmt.Sprint(value)}
}

func in(name string, kids ...node) node { return node{name: name, kids: kids} }

// set is a list: each item's elements under an element item.
func set(name string, items ...[]node) node {
	n := node{name: name}
	for _, kids := range items {
		n.kids = append(n.kids, node{name: "item", kids: kids})
	}
	return n
}

func (n node) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "<%s>", n.name)
	_ = xml.EscapeText(b, []byte(n.text))
	for _, k := range n.kids {
		k.write(b)
	}
	fmt.Fprintf(b, "</%s>", n.name)
}

func document(name, space string, kids ...node) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?><%s xmlns="%s">`, name, space)
	for _, k := range kids {
		k.write(&b)
	}
	fmt.Fprintf(&b, "</%s>", name)
	return b.Bytes()
}
