package host

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// Laravel is an application with its artisan. It runs as the owner of its
// directory: files in its caches that belong to root would stop it.
type Laravel struct {
	System
	Dir string
}

func (l Laravel) artisan(ctx context.Context, args ...string) (Result, error) {
	if !exists(filepath.Join(l.Dir, "artisan")) {
		return Result{}, fmt.Errorf("%s has no artisan", l.Dir)
	}
	return l.run(ctx, Command{
		Name: "php", Args: append([]string{"artisan"}, append(args, "--no-interaction", "--no-ansi")...),
		Dir: l.Dir, User: owner(l.Dir), Env: []string{"COLUMNS=1000"}, // errors are not broken into lines
	})
}

// Pending returns the statements that a migration would run, "" when there is
// none. It creates the table `migrations` where that is missing, and nothing
// else. In production even the pretence needs --force.
func (l Laravel) Pending(ctx context.Context) (string, error) {
	r, err := l.artisan(ctx, "migrate", "--pretend", "--force")
	if err == nil && strings.Contains(r.Stdout, "igration table") {
		// It has just made that table and says so: once, and not when asked again.
		r, err = l.artisan(ctx, "migrate", "--pretend", "--force")
	}
	if err != nil {
		return "", err
	}
	if strings.Contains(r.Stdout, "Nothing to migrate") {
		return "", nil
	}
	return strings.TrimSpace(r.Stdout), nil
}

// Migrate runs the migrations. MariaDB commits every statement of a schema at
// once, so one that fails leaves those before it done.
func (l Laravel) Migrate(ctx context.Context) error {
	_, err := l.artisan(ctx, "migrate", "--force")
	return err
}
