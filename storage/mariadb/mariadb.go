// Package mariadb opens connections as everybody here wants them: strict, so
// that no value is cut or guessed, and none that waits for ever.
package mariadb

import (
	"database/sql"
	"errors"
	"maps"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Timeout bounds one statement: a database that accepts and never answers must
// not hold anybody for ever.
const Timeout = 15 * time.Second

// ErrDSN is a DSN that cannot be read. The driver's own error may show a
// password.
var ErrDSN = errors.New("dsn: not of the form user:password@tcp(host:port)/database or user@unix(/path)/database")

// Check says what is wrong with a DSN, nil: nothing. Nothing is dialed.
func Check(dsn string) error {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return ErrDSN
	}
	if cfg.DBName == "" {
		return errors.New("dsn: names no database; it must exist, its tables are made")
	}
	return nil
}

// Open prepares connections; nothing is dialed yet. Session is variables that
// are set with each, as SQL.
func Open(dsn string, session map[string]string) (*sql.DB, error) {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, ErrDSN
	}
	cfg.ParseTime, cfg.Loc = true, time.UTC
	cfg.Timeout, cfg.ReadTimeout, cfg.WriteTimeout = 5*time.Second, Timeout, Timeout
	cfg.ClientFoundRows = false // the counts tell new rows from merged ones
	cfg.MultiStatements = false
	cfg.InterpolateParams = true
	if err := cfg.Apply(mysql.Charset("utf8mb4", "utf8mb4_bin")); err != nil {
		return nil, err
	}
	if cfg.Params == nil {
		cfg.Params = map[string]string{}
	}
	cfg.Params["sql_mode"] = "'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'"
	maps.Copy(cfg.Params, session)
	cfg.Logger = quiet{}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// quiet keeps the driver's own log lines off stderr; its errors are returned.
type quiet struct{}

// Print implements mysql.Logger.
func (quiet) Print(...any) {}
