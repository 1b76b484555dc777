-- The table of the usual Node service: npm gt06, mysql2, one INSERT a packet, the
-- times in Asia/Kolkata. mapping.yaml beside it says which of gt06's fields each
-- column is.
CREATE TABLE gps_positions (
  id BIGINT AUTO_INCREMENT PRIMARY KEY,
  imei VARCHAR(20) NOT NULL,
  latitude DECIMAL(10,6),
  longitude DECIMAL(10,6),
  speed INT,
  course INT,
  fix_time DATETIME NOT NULL,
  created_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
  raw TEXT NULL,
  KEY imei_time (imei, fix_time)
) ENGINE=InnoDB;
