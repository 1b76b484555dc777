-- +goose Up
ALTER TABLE heartbeats ADD COLUMN IF NOT EXISTS next_version VARCHAR(10) NULL;
