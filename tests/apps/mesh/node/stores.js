// PostgreSQL (`PG`) and Redis (`REDIS`): a pool that has fewer connections than there are requests, and one connection for all.
'use strict';
const { Pool } = require('pg');
const Redis = require('ioredis');

const database = new Pool({ connectionString: process.env.PG, max: 24, idleTimeoutMillis: 0 });
const cache = new Redis(process.env.REDIS);

const seconds = (marker) => parseInt(marker[0], 16) / 2000;

// Its column has the name of the marker.
exports.query = (marker) => database.query(`SELECT pg_sleep(${seconds(marker)}) AS m_${marker}`);

// The number and the length of the keys tell the judge whose look-up it is.
exports.lookUp = (marker) => {
  const code = parseInt(marker.slice(0, 4), 16);
  const first = marker + 'x'.repeat(code % 4096);
  return cache.mget(first, ...Array(Math.floor(code / 4096)).fill('k'));
};
