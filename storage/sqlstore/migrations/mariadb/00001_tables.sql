-- +goose Up
-- IF NOT EXISTS: a kill in the middle must not stop the next start, for DDL is
-- not transactional everywhere. A table of somebody else is refused before.
CREATE TABLE IF NOT EXISTS devices (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  imei CHAR(15) CHARACTER SET ascii NOT NULL UNIQUE,
  name VARCHAR(255) NULL,
  model VARCHAR(32) NULL,
  utc_offset_s INT NULL,
  status ENUM('allowed','quarantined','blocked') NOT NULL DEFAULT 'allowed',
  attributes LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL,
  first_seen_at DATETIME(6) NULL,
  last_seen_at DATETIME(6) NULL,
  created_at DATETIME(6) NOT NULL,
  updated_at DATETIME(6) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE IF NOT EXISTS positions (
  device_id BIGINT UNSIGNED NOT NULL,
  fix_time DATETIME NOT NULL,
  kind ENUM('location','alarm','lbs','wifi','info','string','command_reply','obd','status') NOT NULL,
  fix_hash BIGINT UNSIGNED NOT NULL,
  time_source ENUM('gps','device','server') NOT NULL,
  received_at DATETIME(6) NOT NULL,
  latitude DOUBLE NULL,
  longitude DOUBLE NULL,
  altitude DOUBLE NULL,
  speed_kmh DOUBLE NULL,
  course DOUBLE NULL,
  satellites SMALLINT NULL,
  valid BOOLEAN NOT NULL,
  ignition BOOLEAN NULL,
  archived BOOLEAN NOT NULL,
  protocol TINYINT UNSIGNED NOT NULL,
  serial SMALLINT UNSIGNED NOT NULL,
  alarm VARCHAR(32) NULL,
  mcc SMALLINT UNSIGNED NULL,
  mnc SMALLINT UNSIGNED NULL,
  lac BIGINT NULL,
  cid BIGINT NULL,
  attributes LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  PRIMARY KEY (device_id, fix_time, kind, fix_hash)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
PARTITION BY RANGE COLUMNS(fix_time) (PARTITION pmax VALUES LESS THAN (MAXVALUE));

CREATE TABLE IF NOT EXISTS latest_positions (
  device_id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
  fix_time DATETIME NOT NULL,
  kind ENUM('location','alarm','lbs','wifi','info','string','command_reply','obd','status') NOT NULL,
  fix_hash BIGINT UNSIGNED NOT NULL,
  time_source ENUM('gps','device','server') NOT NULL,
  received_at DATETIME(6) NOT NULL,
  latitude DOUBLE NULL,
  longitude DOUBLE NULL,
  altitude DOUBLE NULL,
  speed_kmh DOUBLE NULL,
  course DOUBLE NULL,
  satellites SMALLINT NULL,
  valid BOOLEAN NOT NULL,
  ignition BOOLEAN NULL,
  archived BOOLEAN NOT NULL,
  protocol TINYINT UNSIGNED NOT NULL,
  serial SMALLINT UNSIGNED NOT NULL,
  alarm VARCHAR(32) NULL,
  mcc SMALLINT UNSIGNED NULL,
  mnc SMALLINT UNSIGNED NULL,
  lac BIGINT NULL,
  cid BIGINT NULL,
  attributes LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE IF NOT EXISTS alarms (
  device_id BIGINT UNSIGNED NOT NULL,
  fix_time DATETIME NOT NULL,
  alarm VARCHAR(32) NOT NULL,
  code SMALLINT UNSIGNED NULL,
  received_at DATETIME(6) NOT NULL,
  latitude DOUBLE NULL,
  longitude DOUBLE NULL,
  fix_hash BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (device_id, fix_time, alarm, fix_hash)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
PARTITION BY RANGE COLUMNS(fix_time) (PARTITION pmax VALUES LESS THAN (MAXVALUE));

CREATE TABLE IF NOT EXISTS heartbeats (
  device_id BIGINT UNSIGNED NOT NULL,
  received_at DATETIME(6) NOT NULL,
  spool_position BIGINT NOT NULL,
  ignition BOOLEAN NULL,
  charging BOOLEAN NULL,
  blocked BOOLEAN NULL,
  battery_level SMALLINT NULL,
  rssi SMALLINT NULL,
  attributes LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  PRIMARY KEY (device_id, received_at, spool_position)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
PARTITION BY RANGE COLUMNS(received_at) (PARTITION pmax VALUES LESS THAN (MAXVALUE));

CREATE TABLE IF NOT EXISTS device_events (
  device_id BIGINT UNSIGNED NOT NULL,
  received_at DATETIME(6) NOT NULL,
  spool_position BIGINT NOT NULL,
  kind VARCHAR(32) NOT NULL,
  attributes LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  PRIMARY KEY (device_id, received_at, spool_position)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
PARTITION BY RANGE COLUMNS(received_at) (PARTITION pmax VALUES LESS THAN (MAXVALUE));

CREATE TABLE IF NOT EXISTS device_commands (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  device_id BIGINT UNSIGNED NOT NULL,
  command VARCHAR(255) NOT NULL,
  requested_by VARCHAR(255) NULL,
  sent_at DATETIME(6) NULL,
  reply TEXT NULL,
  replied_at DATETIME(6) NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE IF NOT EXISTS quarantined_frames (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  imei CHAR(15) CHARACTER SET ascii NULL,
  received_at DATETIME(6) NOT NULL,
  spool_position BIGINT NOT NULL,
  frame MEDIUMBLOB NOT NULL,
  reason VARCHAR(255) NOT NULL,
  UNIQUE (received_at, spool_position)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE TABLE IF NOT EXISTS ingest_cursors (
  node VARCHAR(64) CHARACTER SET ascii NOT NULL,
  shard INT NOT NULL,
  epoch BIGINT NOT NULL,
  position BIGINT NOT NULL,
  merged BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (node, shard)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
