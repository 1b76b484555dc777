// The usual Node service: the npm parser gt06, mysql2, one INSERT a packet. It
// answers before the row is stored, keeps nothing, and ends at a signal with
// whatever is under way: as those do that are found in the field.
const net = require('net');
const Gt06 = require('gt06');
const mysql = require('mysql2/promise');

const pool = mysql.createPool({ socketPath: '/run/mysqld/mysqld.sock', user: 'node', password: process.env.DB_PASSWORD, database: 'crm', timezone: '+05:30', connectionLimit: 4 });
const insert = 'INSERT INTO gps_positions (imei, latitude, longitude, speed, course, fix_time, raw) VALUES (?, ?, ?, ?, ?, ?, ?)';

net.createServer((socket) => {
  const gt06 = new Gt06();
  let buffer = Buffer.alloc(0);
  socket.on('error', () => socket.destroy());
  socket.on('data', (data) => {
    buffer = Buffer.concat([buffer, data]);
    while (buffer.length > 2 && buffer.length >= buffer[2] + 5) { // the parser mixes up packets that come together
      const frame = buffer.subarray(0, buffer[2] + 5);
      buffer = buffer.subarray(frame.length);
      try {
        gt06.parse(frame);
      } catch (e) {
        continue; // a kind it does not know
      }
      if (gt06.expectsResponse) socket.write(gt06.responseMsg);
      for (const m of gt06.msgBuffer) {
        if (m.event.string !== 'location') continue;
        pool.query(insert, [String(m.imei).padStart(15, '0'), m.lat, m.lon, m.speed, m.course, new Date(m.fixTime), frame.toString('hex')])
          .catch((e) => console.error(e.message));
      }
      gt06.clearMsgBuffer();
    }
  });
}).listen(Number(process.argv[2] || 5023));
