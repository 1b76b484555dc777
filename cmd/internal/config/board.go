package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Board is the page on the admin address.
type Board struct {
	TokenFile        string `yaml:"token_file" help:"File with the token of those who may see the page; needed on every address but loopback." default:"$CREDENTIALS_DIRECTORY/board_token where that exists"`
	TilesURL         string `yaml:"tiles_url" help:"Map tiles, https://host/{z}/{x}/{y}.png; without: outlines of the countries."`
	TilesAttribution string `yaml:"tiles_attribution" help:"What the owner of the tiles wants to be said."`

	Token string `yaml:"-"`
}

// Checks are the spans of the three checks of validate.
type Checks struct {
	Window Duration `yaml:"window" help:"In which places must change and reconnects are counted."`
	Silent Duration `yaml:"silent" help:"A device that has not spoken for longer is silent."`
}

// shortest is the shortest token that is taken: it is guessed at over the net.
const shortest = 16

// board reads the token: from the file, else from systemd's credentials.
func (c *Config) board(env func(string) string) error {
	b := &c.Board
	if dir := env("CREDENTIALS_DIRECTORY"); b.TokenFile == "" && dir != "" {
		if path := filepath.Join(dir, "board_token"); exists(path) {
			b.TokenFile = path
		}
	}
	if b.TokenFile != "" {
		text, err := os.ReadFile(b.TokenFile)
		if err != nil {
			return fmt.Errorf("board.token_file: %w", err)
		}
		if b.Token = strings.TrimSpace(string(text)); len(b.Token) < shortest {
			return fmt.Errorf("board.token_file: the token in %s is shorter than %d characters: make one with openssl rand -hex 32", b.TokenFile, shortest)
		}
	}
	if b.Token == "" && exposed(c.Admin) {
		return fmt.Errorf("admin is %s, where others can see it, and board.token_file is not set: openssl rand -hex 32 > FILE makes a token", c.Admin)
	}
	if u, err := url.Parse(strings.Replace(b.TilesURL, "{s}", "a", 1)); b.TilesURL != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || !strings.Contains(b.TilesURL, "{z}")) {
		return fmt.Errorf("board.tiles_url is %q: write https://host/{z}/{x}/{y}.png", b.TilesURL)
	}
	if b.TilesURL != "" && b.TilesAttribution == "" {
		return errors.New("board.tiles_url is set and board.tiles_attribution is not: the owners of maps want to be named")
	}
	if w, s := time.Duration(c.Checks.Window), time.Duration(c.Checks.Silent); w < 10*time.Second || w > 15*time.Minute || s < time.Second || s > w {
		return fmt.Errorf("checks: window is %v and silent %v: a window of 10s to 15m, and silent at most the window", w, s)
	}
	return nil
}

// exposed says whether an address is reached from elsewhere.
func exposed(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false // listening says what is wrong with it
	}
	ip := net.ParseIP(host)
	return host != "localhost" && (ip == nil || !ip.IsLoopback())
}
