CREATE TABLE alarms (
  device_id INTEGER NOT NULL,
  fix_time TEXT NOT NULL,
  alarm TEXT NOT NULL,
  code INTEGER NULL,
  received_at TEXT NOT NULL,
  latitude REAL NULL,
  longitude REAL NULL,
  fix_hash INTEGER NOT NULL,
  PRIMARY KEY (device_id, fix_time, alarm, fix_hash)
) WITHOUT ROWID;

CREATE TABLE device_commands (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  device_id INTEGER NOT NULL,
  command TEXT NOT NULL,
  requested_by TEXT NULL,
  sent_at TEXT NULL,
  reply TEXT NULL,
  replied_at TEXT NULL
);

CREATE TABLE device_events (
  device_id INTEGER NOT NULL,
  received_at TEXT NOT NULL,
  spool_position INTEGER NOT NULL,
  kind TEXT NOT NULL,
  attributes TEXT NOT NULL,
  PRIMARY KEY (device_id, received_at, spool_position)
) WITHOUT ROWID;

CREATE TABLE devices (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  imei TEXT NOT NULL UNIQUE,
  name TEXT NULL,
  model TEXT NULL,
  utc_offset_s INTEGER NULL,
  status TEXT NOT NULL DEFAULT 'allowed',
  attributes TEXT NULL,
  first_seen_at TEXT NULL,
  last_seen_at TEXT NULL,
  created_at TEXT NOT NULL,
  updated_at TEXT NOT NULL
);

CREATE TABLE goose_db_version (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	);

CREATE TABLE heartbeats (
  device_id INTEGER NOT NULL,
  received_at TEXT NOT NULL,
  spool_position INTEGER NOT NULL,
  ignition INTEGER NULL,
  charging INTEGER NULL,
  blocked INTEGER NULL,
  battery_level INTEGER NULL,
  rssi INTEGER NULL,
  attributes TEXT NOT NULL,
  PRIMARY KEY (device_id, received_at, spool_position)
) WITHOUT ROWID;

CREATE TABLE ingest_cursors (
  node TEXT NOT NULL,
  shard INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  position INTEGER NOT NULL,
  merged INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (node, shard)
) WITHOUT ROWID;

CREATE TABLE latest_positions (
  device_id INTEGER NOT NULL PRIMARY KEY,
  fix_time TEXT NOT NULL,
  kind TEXT NOT NULL,
  fix_hash INTEGER NOT NULL,
  time_source TEXT NOT NULL,
  received_at TEXT NOT NULL,
  latitude REAL NULL,
  longitude REAL NULL,
  altitude REAL NULL,
  speed_kmh REAL NULL,
  course REAL NULL,
  satellites INTEGER NULL,
  valid INTEGER NOT NULL,
  ignition INTEGER NULL,
  archived INTEGER NOT NULL,
  protocol INTEGER NOT NULL,
  serial INTEGER NOT NULL,
  alarm TEXT NULL,
  mcc INTEGER NULL,
  mnc INTEGER NULL,
  lac INTEGER NULL,
  cid INTEGER NULL,
  attributes TEXT NOT NULL
);

CREATE TABLE positions (
  device_id INTEGER NOT NULL,
  fix_time TEXT NOT NULL,
  kind TEXT NOT NULL,
  fix_hash INTEGER NOT NULL,
  time_source TEXT NOT NULL,
  received_at TEXT NOT NULL,
  latitude REAL NULL,
  longitude REAL NULL,
  altitude REAL NULL,
  speed_kmh REAL NULL,
  course REAL NULL,
  satellites INTEGER NULL,
  valid INTEGER NOT NULL,
  ignition INTEGER NULL,
  archived INTEGER NOT NULL,
  protocol INTEGER NOT NULL,
  serial INTEGER NOT NULL,
  alarm TEXT NULL,
  mcc INTEGER NULL,
  mnc INTEGER NULL,
  lac INTEGER NULL,
  cid INTEGER NULL,
  attributes TEXT NOT NULL,
  PRIMARY KEY (device_id, fix_time, kind, fix_hash)
) WITHOUT ROWID;

CREATE TABLE quarantined_frames (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  imei TEXT NULL,
  received_at TEXT NOT NULL,
  spool_position INTEGER NOT NULL,
  frame BLOB NOT NULL,
  reason TEXT NOT NULL,
  UNIQUE (received_at, spool_position)
);

INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1);

INSERT INTO goose_db_version (version_id, is_applied) VALUES (1, 1);

INSERT INTO devices (imei, status, created_at, updated_at) VALUES ('490154203237518', 'allowed', '2026-11-24 00:00:00', '2026-11-24 00:00:00')
