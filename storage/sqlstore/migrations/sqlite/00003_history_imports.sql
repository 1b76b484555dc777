-- +goose Up
-- How far the history of somebody else's table is in positions.
CREATE TABLE IF NOT EXISTS history_imports (
  name TEXT NOT NULL PRIMARY KEY,
  source TEXT NOT NULL,
  last_key INTEGER NOT NULL,
  rows_read INTEGER NOT NULL DEFAULT 0,
  rows_written INTEGER NOT NULL DEFAULT 0,
  rows_there INTEGER NOT NULL DEFAULT 0,
  refused TEXT NOT NULL,
  updated_at TEXT NOT NULL
);
