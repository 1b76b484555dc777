package board

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// The page and what it is made of. vendor holds Leaflet, uPlot, topojson-client
// and the outlines of the countries (Natural Earth) as they were published, each
// with its licence.
//
//go:embed page
var files embed.FS

// asset is a file of the page, ready to be sent.
type asset struct {
	kind, tag   string
	plain, gzip []byte
}

func load() map[string]asset {
	kinds := map[string]string{
		".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
		".json": "application/json", ".svg": "image/svg+xml", ".LICENSE": "text/plain; charset=utf-8",
	}
	page := map[string]asset{}
	_ = fs.WalkDir(files, "page", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		var packed bytes.Buffer
		z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		_, _ = z.Write(b) // into memory
		_ = z.Close()
		at := strings.TrimPrefix(name, "page")
		if at == "/index.html" {
			at = "/"
		}
		page[at] = asset{kind: kinds[path.Ext(name)], tag: `"` + hex.EncodeToString(sum[:8]) + `"`, plain: b, gzip: packed.Bytes()}
		return nil
	})
	return page
}

// Handler serves the page and what it asks for.
func (b *Board) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/events", b.stream)
	mux.HandleFunc("GET /api/devices/{imei}/track", b.track)
	mux.HandleFunc("GET /api/devices/{imei}/frames", b.frames)
	mux.HandleFunc("GET /", b.file)
	return mux
}

func (b *Board) file(w http.ResponseWriter, r *http.Request) {
	a, ok := b.page[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Cache-Control", "no-cache") // ask, and mostly hear that nothing changed
	h.Set("ETag", a.tag)
	h.Set("Vary", "Accept-Encoding")
	if r.URL.Path == "/" {
		h.Set("Content-Security-Policy", b.policy())
	}
	if r.Header.Get("If-None-Match") == a.tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := a.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = a.gzip
	}
	_, _ = w.Write(body)
}

// policy lets the page reach nobody but this server, and the server of the
// tiles where one is set.
func (b *Board) policy() string {
	images := "'self' data:"
	if u, err := url.Parse(strings.Replace(b.opt.Tiles, "{s}", "*", 1)); err == nil && u.Host != "" {
		images += " " + u.Scheme + "://" + u.Host
	}
	return "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src " + images +
		"; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
}
