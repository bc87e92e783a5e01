// Node: `http` on a keep-alive agent, or `fetch` in the styles that begin with it.
'use strict';
const crypto = require('crypto');
const http = require('http');

const key = process.env.MARKER_KEY;
const bases = [`${process.env.A}/leaf/`, `${process.env.B}/branch/`];
const agent = new http.Agent({ keepAlive: true, maxFreeSockets: 512 });

const child = (marker, call) =>
  crypto.createHash('sha256').update(`${key}/${marker}/${call}`).digest('hex').slice(0, 16);
const sleep = (marker, digit) =>
  new Promise((resolve) => setTimeout(resolve, parseInt(marker[digit], 16) / 2));

function work(marker) {
  let sum = marker;
  for (let i = 0; i < 300; i++) sum = crypto.createHash('sha256').update(sum).digest();
}

function get(url) {
  return new Promise((resolve, reject) => {
    http
      .get(url, { agent }, (answer) => {
        answer.resume();
        answer.on('end', resolve);
      })
      .on('error', reject);
  });
}

async function fetched(url) {
  const answer = await fetch(url);
  await answer.text();
}

const by = (request) => (marker, i) => request(bases[i % 2] + child(marker, i));
const call = by(get);
const callByFetch = by(fetched);

const styles = {
  leaf: (m) => sleep(m, 0),
  branch: (m) => get(bases[0] + child(m, 0)),
  seq: async (m) => {
    for (let i = 0; i < 3; i++) await call(m, i);
  },
  par: (m) => Promise.all([0, 1, 2].map((i) => call(m, i))),
  sleep: async (m) => {
    await sleep(m, 1);
    await call(m, 0);
    await sleep(m, 2);
    await call(m, 1);
  },
  cpu: async (m) => {
    work(m);
    await call(m, 0);
    work(m);
    await call(m, 1);
  },
  nested: (m) =>
    Promise.all([
      call(m, 0).then(() => call(m, 1)),
      call(m, 2).then(() => call(m, 3)),
    ]),
  fetchseq: async (m) => {
    for (let i = 0; i < 3; i++) await callByFetch(m, i);
  },
  fetchpar: (m) => Promise.all([0, 1, 2].map((i) => callByFetch(m, i))),
};

const server = http.createServer((request, response) => {
  const [, style, marker] = request.url.split('/');
  Promise.resolve(styles[style](marker)).then(
    () => response.end('ok\n'),
    (error) => {
      response.writeHead(502);
      response.end(String(error));
    },
  );
});
server.keepAliveTimeout = 60000;
server.listen(Number(process.env.PORT), '0.0.0.0');
