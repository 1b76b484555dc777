-- +goose Up
-- What was sent is told by the log: its position makes a row of it once.
ALTER TABLE device_commands
  ADD COLUMN IF NOT EXISTS flag INT UNSIGNED NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS spool_position BIGINT UNSIGNED NULL,
  ADD UNIQUE INDEX IF NOT EXISTS device_commands_sent (device_id, sent_at, spool_position);
