-- +goose Up
-- How far the history of somebody else's table is in positions.
CREATE TABLE IF NOT EXISTS history_imports (
  name CHAR(24) CHARACTER SET ascii NOT NULL PRIMARY KEY,
  source VARCHAR(255) NOT NULL,
  last_key BIGINT NOT NULL,
  rows_read BIGINT NOT NULL DEFAULT 0,
  rows_written BIGINT NOT NULL DEFAULT 0,
  rows_there BIGINT NOT NULL DEFAULT 0,
  refused LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  updated_at DATETIME(6) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
