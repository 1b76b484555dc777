-- +goose Up
ALTER TABLE heartbeats ADD COLUMN next_version TEXT NULL;
