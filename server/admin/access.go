package admin

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"strings"
	"time"
)

// Who may ask. On loopback everybody on the machine may, under the name of a
// loopback address only: another host name is a page of somebody else that asks
// through a browser. Where a token is set it is needed for all but /healthz and
// /readyz, as "Authorization: Bearer TOKEN" or in the cookie that a login sets;
// a foreign page has neither, so the name does not matter then.

const (
	cookieName = "gt06"
	cookieLife = 30 * 24 * time.Hour
	maxForm    = 4 << 10
)

// access guards next.
type access struct {
	token string // "": none, loopback names only
	next  http.Handler
}

func (a *access) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	if a.token == "" {
		if !loopbackName(r.Host) {
			http.Error(w, "this address answers on loopback only", http.StatusForbidden)
			return
		}
		a.next.ServeHTTP(w, r)
		return
	}
	switch {
	case r.URL.Path == "/login":
		a.login(w, r)
	case r.URL.Path == "/healthz", r.URL.Path == "/readyz", r.URL.Path == "/app.css", a.allowed(r):
		a.next.ServeHTTP(w, r)
	case r.URL.Path != "/":
		h.Set("WWW-Authenticate", `Bearer realm="gt06"`)
		http.Error(w, "a token is needed: Authorization: Bearer TOKEN", http.StatusUnauthorized)
	case r.Method == http.MethodGet && a.equal(r.URL.Query().Get("token")): // a link that is opened once
		a.admit(w, r)
	default:
		http.Redirect(w, r, "/login", http.StatusSeeOther)
	}
}

// allowed says whether a request carries the token or a cookie made of it.
func (a *access) allowed(r *http.Request) bool {
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return a.equal(bearer)
	}
	c, err := r.Cookie(cookieName)
	return err == nil && hmac.Equal([]byte(c.Value), []byte(a.session()))
}

// equal compares in a time that does not depend on how much is right, nor on
// how long the token is.
func (a *access) equal(given string) bool {
	have, want := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(a.token))
	return hmac.Equal(have[:], want[:])
}

// session is what the cookie holds: made of the token, so that it is good for
// the next server, too, and ends with the token.
func (a *access) session() string {
	m := hmac.New(sha256.New, []byte(a.token))
	m.Write([]byte("gt06 board 1"))
	return hex.EncodeToString(m.Sum(nil))
}

func (a *access) admit(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: a.session(), Path: "/", MaxAge: int(cookieLife / time.Second), HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https",
	})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// login shows the form and takes it. It is the only thing that is not GET.
func (a *access) login(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	wrong := ""
	switch r.Method {
	case http.MethodGet:
	case http.MethodPost:
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := http.NewCrossOriginProtection().Check(r); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		if a.equal(r.PostFormValue("token")) {
			a.admit(w, r)
			return
		}
		wrong = `<p role="alert">That is not the token.</p>`
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if wrong != "" {
		w.WriteHeader(http.StatusUnauthorized)
	}
	_, _ = w.Write([]byte(`<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>gt06: log in</title><link rel="stylesheet" href="/app.css">
<body class="login"><main><h1>gt06</h1><form method="post" action="/login"><label for="token">Token</label><input id="token" name="token" type="password" autocomplete="current-password" required autofocus><button>Log in</button>` + wrong +
		`<p>It is in the file that <code>board.token_file</code> names on the server.</p></form></main></body></html>`))
}

func loopbackName(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
