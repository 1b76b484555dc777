-- +goose Up
-- What was sent is told by the log: its position makes a row of it once.
ALTER TABLE device_commands ADD COLUMN flag INTEGER NOT NULL DEFAULT 0;
ALTER TABLE device_commands ADD COLUMN spool_position INTEGER NULL;
CREATE UNIQUE INDEX device_commands_sent ON device_commands (device_id, sent_at, spool_position);
