CREATE TABLE `alarms` (
  `device_id` bigint(20) unsigned NOT NULL,
  `fix_time` datetime NOT NULL,
  `alarm` varchar(32) NOT NULL,
  `code` smallint(5) unsigned DEFAULT NULL,
  `received_at` datetime(6) NOT NULL,
  `latitude` double DEFAULT NULL,
  `longitude` double DEFAULT NULL,
  `fix_hash` bigint(20) unsigned NOT NULL,
  PRIMARY KEY (`device_id`,`fix_time`,`alarm`,`fix_hash`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci
 PARTITION BY RANGE  COLUMNS(`fix_time`)
(PARTITION `p20261117` VALUES LESS THAN ('2026-11-18') ENGINE = InnoDB,
 PARTITION `p20261118` VALUES LESS THAN ('2026-11-19') ENGINE = InnoDB,
 PARTITION `p20261119` VALUES LESS THAN ('2026-11-20') ENGINE = InnoDB,
 PARTITION `p20261120` VALUES LESS THAN ('2026-11-21') ENGINE = InnoDB,
 PARTITION `p20261121` VALUES LESS THAN ('2026-11-22') ENGINE = InnoDB,
 PARTITION `p20261122` VALUES LESS THAN ('2026-11-23') ENGINE = InnoDB,
 PARTITION `p20261123` VALUES LESS THAN ('2026-11-24') ENGINE = InnoDB,
 PARTITION `p20261124` VALUES LESS THAN ('2026-11-25') ENGINE = InnoDB,
 PARTITION `p20261125` VALUES LESS THAN ('2026-11-26') ENGINE = InnoDB,
 PARTITION `p20261126` VALUES LESS THAN ('2026-11-27') ENGINE = InnoDB,
 PARTITION `p20261127` VALUES LESS THAN ('2026-11-28') ENGINE = InnoDB,
 PARTITION `p20261128` VALUES LESS THAN ('2026-11-29') ENGINE = InnoDB,
 PARTITION `p20261129` VALUES LESS THAN ('2026-11-30') ENGINE = InnoDB,
 PARTITION `p20261130` VALUES LESS THAN ('2026-12-01') ENGINE = InnoDB,
 PARTITION `p20261201` VALUES LESS THAN ('2026-12-02') ENGINE = InnoDB,
 PARTITION `pmax` VALUES LESS THAN (MAXVALUE) ENGINE = InnoDB);

CREATE TABLE `device_commands` (
  `id` bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  `device_id` bigint(20) unsigned NOT NULL,
  `command` varchar(255) NOT NULL,
  `requested_by` varchar(255) DEFAULT NULL,
  `sent_at` datetime(6) DEFAULT NULL,
  `reply` text DEFAULT NULL,
  `replied_at` datetime(6) DEFAULT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `device_events` (
  `device_id` bigint(20) unsigned NOT NULL,
  `received_at` datetime(6) NOT NULL,
  `spool_position` bigint(20) NOT NULL,
  `kind` varchar(32) NOT NULL,
  `attributes` longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  PRIMARY KEY (`device_id`,`received_at`,`spool_position`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci
 PARTITION BY RANGE  COLUMNS(`received_at`)
(PARTITION `p20261117` VALUES LESS THAN ('2026-11-18') ENGINE = InnoDB,
 PARTITION `p20261118` VALUES LESS THAN ('2026-11-19') ENGINE = InnoDB,
 PARTITION `p20261119` VALUES LESS THAN ('2026-11-20') ENGINE = InnoDB,
 PARTITION `p20261120` VALUES LESS THAN ('2026-11-21') ENGINE = InnoDB,
 PARTITION `p20261121` VALUES LESS THAN ('2026-11-22') ENGINE = InnoDB,
 PARTITION `p20261122` VALUES LESS THAN ('2026-11-23') ENGINE = InnoDB,
 PARTITION `p20261123` VALUES LESS THAN ('2026-11-24') ENGINE = InnoDB,
 PARTITION `p20261124` VALUES LESS THAN ('2026-11-25') ENGINE = InnoDB,
 PARTITION `p20261125` VALUES LESS THAN ('2026-11-26') ENGINE = InnoDB,
 PARTITION `p20261126` VALUES LESS THAN ('2026-11-27') ENGINE = InnoDB,
 PARTITION `p20261127` VALUES LESS THAN ('2026-11-28') ENGINE = InnoDB,
 PARTITION `p20261128` VALUES LESS THAN ('2026-11-29') ENGINE = InnoDB,
 PARTITION `p20261129` VALUES LESS THAN ('2026-11-30') ENGINE = InnoDB,
 PARTITION `p20261130` VALUES LESS THAN ('2026-12-01') ENGINE = InnoDB,
 PARTITION `p20261201` VALUES LESS THAN ('2026-12-02') ENGINE = InnoDB,
 PARTITION `pmax` VALUES LESS THAN (MAXVALUE) ENGINE = InnoDB);

CREATE TABLE `devices` (
  `id` bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  `imei` char(15) CHARACTER SET ascii COLLATE ascii_general_ci NOT NULL,
  `name` varchar(255) DEFAULT NULL,
  `model` varchar(32) DEFAULT NULL,
  `utc_offset_s` int(11) DEFAULT NULL,
  `status` enum('allowed','quarantined','blocked') NOT NULL DEFAULT 'allowed',
  `attributes` longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL,
  `first_seen_at` datetime(6) DEFAULT NULL,
  `last_seen_at` datetime(6) DEFAULT NULL,
  `created_at` datetime(6) NOT NULL,
  `updated_at` datetime(6) NOT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `imei` (`imei`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `goose_db_version` (
  `id` bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  `version_id` bigint(20) NOT NULL,
  `is_applied` tinyint(1) NOT NULL,
  `tstamp` datetime DEFAULT current_timestamp(),
  PRIMARY KEY (`id`)
) ENGINE=InnoDB AUTO_INCREMENT=3 DEFAULT CHARSET=latin1 COLLATE=latin1_swedish_ci;

CREATE TABLE `heartbeats` (
  `device_id` bigint(20) unsigned NOT NULL,
  `received_at` datetime(6) NOT NULL,
  `spool_position` bigint(20) NOT NULL,
  `ignition` tinyint(1) DEFAULT NULL,
  `charging` tinyint(1) DEFAULT NULL,
  `blocked` tinyint(1) DEFAULT NULL,
  `battery_level` smallint(6) DEFAULT NULL,
  `rssi` smallint(6) DEFAULT NULL,
  `attributes` longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  PRIMARY KEY (`device_id`,`received_at`,`spool_position`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci
 PARTITION BY RANGE  COLUMNS(`received_at`)
(PARTITION `p20261117` VALUES LESS THAN ('2026-11-18') ENGINE = InnoDB,
 PARTITION `p20261118` VALUES LESS THAN ('2026-11-19') ENGINE = InnoDB,
 PARTITION `p20261119` VALUES LESS THAN ('2026-11-20') ENGINE = InnoDB,
 PARTITION `p20261120` VALUES LESS THAN ('2026-11-21') ENGINE = InnoDB,
 PARTITION `p20261121` VALUES LESS THAN ('2026-11-22') ENGINE = InnoDB,
 PARTITION `p20261122` VALUES LESS THAN ('2026-11-23') ENGINE = InnoDB,
 PARTITION `p20261123` VALUES LESS THAN ('2026-11-24') ENGINE = InnoDB,
 PARTITION `p20261124` VALUES LESS THAN ('2026-11-25') ENGINE = InnoDB,
 PARTITION `p20261125` VALUES LESS THAN ('2026-11-26') ENGINE = InnoDB,
 PARTITION `p20261126` VALUES LESS THAN ('2026-11-27') ENGINE = InnoDB,
 PARTITION `p20261127` VALUES LESS THAN ('2026-11-28') ENGINE = InnoDB,
 PARTITION `p20261128` VALUES LESS THAN ('2026-11-29') ENGINE = InnoDB,
 PARTITION `p20261129` VALUES LESS THAN ('2026-11-30') ENGINE = InnoDB,
 PARTITION `p20261130` VALUES LESS THAN ('2026-12-01') ENGINE = InnoDB,
 PARTITION `p20261201` VALUES LESS THAN ('2026-12-02') ENGINE = InnoDB,
 PARTITION `pmax` VALUES LESS THAN (MAXVALUE) ENGINE = InnoDB);

CREATE TABLE `ingest_cursors` (
  `node` varchar(64) CHARACTER SET ascii COLLATE ascii_general_ci NOT NULL,
  `shard` int(11) NOT NULL,
  `epoch` bigint(20) NOT NULL,
  `position` bigint(20) NOT NULL,
  `merged` bigint(20) NOT NULL DEFAULT 0,
  PRIMARY KEY (`node`,`shard`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `latest_positions` (
  `device_id` bigint(20) unsigned NOT NULL,
  `fix_time` datetime NOT NULL,
  `kind` enum('location','alarm','lbs','wifi','info','string','command_reply','obd','status') NOT NULL,
  `fix_hash` bigint(20) unsigned NOT NULL,
  `time_source` enum('gps','device','server') NOT NULL,
  `received_at` datetime(6) NOT NULL,
  `latitude` double DEFAULT NULL,
  `longitude` double DEFAULT NULL,
  `altitude` double DEFAULT NULL,
  `speed_kmh` double DEFAULT NULL,
  `course` double DEFAULT NULL,
  `satellites` smallint(6) DEFAULT NULL,
  `valid` tinyint(1) NOT NULL,
  `ignition` tinyint(1) DEFAULT NULL,
  `archived` tinyint(1) NOT NULL,
  `protocol` tinyint(3) unsigned NOT NULL,
  `serial` smallint(5) unsigned NOT NULL,
  `alarm` varchar(32) DEFAULT NULL,
  `mcc` smallint(5) unsigned DEFAULT NULL,
  `mnc` smallint(5) unsigned DEFAULT NULL,
  `lac` bigint(20) DEFAULT NULL,
  `cid` bigint(20) DEFAULT NULL,
  `attributes` longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  PRIMARY KEY (`device_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE `positions` (
  `device_id` bigint(20) unsigned NOT NULL,
  `fix_time` datetime NOT NULL,
  `kind` enum('location','alarm','lbs','wifi','info','string','command_reply','obd','status') NOT NULL,
  `fix_hash` bigint(20) unsigned NOT NULL,
  `time_source` enum('gps','device','server') NOT NULL,
  `received_at` datetime(6) NOT NULL,
  `latitude` double DEFAULT NULL,
  `longitude` double DEFAULT NULL,
  `altitude` double DEFAULT NULL,
  `speed_kmh` double DEFAULT NULL,
  `course` double DEFAULT NULL,
  `satellites` smallint(6) DEFAULT NULL,
  `valid` tinyint(1) NOT NULL,
  `ignition` tinyint(1) DEFAULT NULL,
  `archived` tinyint(1) NOT NULL,
  `protocol` tinyint(3) unsigned NOT NULL,
  `serial` smallint(5) unsigned NOT NULL,
  `alarm` varchar(32) DEFAULT NULL,
  `mcc` smallint(5) unsigned DEFAULT NULL,
  `mnc` smallint(5) unsigned DEFAULT NULL,
  `lac` bigint(20) DEFAULT NULL,
  `cid` bigint(20) DEFAULT NULL,
  `attributes` longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
  PRIMARY KEY (`device_id`,`fix_time`,`kind`,`fix_hash`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci
 PARTITION BY RANGE  COLUMNS(`fix_time`)
(PARTITION `p20261117` VALUES LESS THAN ('2026-11-18') ENGINE = InnoDB,
 PARTITION `p20261118` VALUES LESS THAN ('2026-11-19') ENGINE = InnoDB,
 PARTITION `p20261119` VALUES LESS THAN ('2026-11-20') ENGINE = InnoDB,
 PARTITION `p20261120` VALUES LESS THAN ('2026-11-21') ENGINE = InnoDB,
 PARTITION `p20261121` VALUES LESS THAN ('2026-11-22') ENGINE = InnoDB,
 PARTITION `p20261122` VALUES LESS THAN ('2026-11-23') ENGINE = InnoDB,
 PARTITION `p20261123` VALUES LESS THAN ('2026-11-24') ENGINE = InnoDB,
 PARTITION `p20261124` VALUES LESS THAN ('2026-11-25') ENGINE = InnoDB,
 PARTITION `p20261125` VALUES LESS THAN ('2026-11-26') ENGINE = InnoDB,
 PARTITION `p20261126` VALUES LESS THAN ('2026-11-27') ENGINE = InnoDB,
 PARTITION `p20261127` VALUES LESS THAN ('2026-11-28') ENGINE = InnoDB,
 PARTITION `p20261128` VALUES LESS THAN ('2026-11-29') ENGINE = InnoDB,
 PARTITION `p20261129` VALUES LESS THAN ('2026-11-30') ENGINE = InnoDB,
 PARTITION `p20261130` VALUES LESS THAN ('2026-12-01') ENGINE = InnoDB,
 PARTITION `p20261201` VALUES LESS THAN ('2026-12-02') ENGINE = InnoDB,
 PARTITION `pmax` VALUES LESS THAN (MAXVALUE) ENGINE = InnoDB);

CREATE TABLE `quarantined_frames` (
  `id` bigint(20) unsigned NOT NULL AUTO_INCREMENT,
  `imei` char(15) CHARACTER SET ascii COLLATE ascii_general_ci DEFAULT NULL,
  `received_at` datetime(6) NOT NULL,
  `spool_position` bigint(20) NOT NULL,
  `frame` mediumblob NOT NULL,
  `reason` varchar(255) NOT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `received_at` (`received_at`,`spool_position`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

;

INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1);

INSERT INTO goose_db_version (version_id, is_applied) VALUES (1, 1);

INSERT INTO devices (imei, status, created_at, updated_at) VALUES ('490154203237518', 'allowed', '2026-11-24 00:00:00', '2026-11-24 00:00:00')
