package e2e

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// browser is a Chromium with one page.
type browser struct {
	*testing.T
	ctx context.Context

	mu       sync.Mutex
	requests []string
	trouble  []string // what the console complained of
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("under CI chromium must be installed")
		}
		t.Skip("chromium is not installed")
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.ExecPath("chromium"))...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 4*time.Minute)
	t.Cleanup(cancel)
	b := &browser{T: t, ctx: ctx}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Listen(ctx, func(ev any) {
		if e, ok := ev.(*network.EventRequestWillBeSent); ok {
			b.mu.Lock()
			b.requests = append(b.requests, e.Request.URL)
			b.mu.Unlock()
		}
	}); err != nil {
		t.Fatal(err)
	}
	go func() {
		for m, err := range chromedp.Console(ctx) {
			if err != nil {
				return
			}
			if m.Type == chromedp.ConsoleException || m.Type == "error" {
				b.mu.Lock()
				b.trouble = append(b.trouble, m.Text)
				b.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		if t.Failed() {
			if shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(90)); err == nil && os.Getenv("GT06_SHOTS") != "" {
				_ = os.WriteFile(filepath.Join(os.Getenv("GT06_SHOTS"), t.Name()+".png"), shot, 0o600)
			}
		}
	})
	return b
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.Fatal(err)
	}
}

// js evaluates an expression in the page.
func js[T any](b *browser, expression string) T {
	b.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits for an expression to be true. One that fails is not true yet:
// between two pages there is not even a body.
func (b *browser) until(what, expression string) {
	b.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(60 * time.Second)
	for !js[bool](b, "(() => { try { return !!("+expression+") } catch { return false } })()") {
		select {
		case <-tick.C:
		case <-limit:
			b.Fatalf("did not happen: %s: %s; the page says %.3000s", what, expression, js[string](b, "String(document.body?.innerText)"))
		}
	}
}

func (b *browser) click(selector string) {
	b.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

func text(selector string) string {
	return fmt.Sprintf("document.querySelector(%q).textContent", selector)
}

func (b *browser) scheme(name string) {
	b.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}}); err != nil {
		b.Fatal(err)
	}
}

// stayed fails when a request went anywhere but to the server.
func (b *browser) stayed(admin string) {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, r := range b.requests {
		u, err := url.Parse(r)
		switch {
		case err != nil || u.Scheme != "data" && u.Host != admin:
			b.Errorf("a request left the machine: %s", r)
		case u.Host == admin:
			n++
		}
	}
	if n < 5 {
		b.Errorf("%d requests were seen: the test shows nothing", n)
	}
}

// quietConsole fails when the page complained.
func (b *browser) quietConsole() {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.trouble {
		b.Errorf("console: %s", m)
	}
	b.trouble = nil
}
