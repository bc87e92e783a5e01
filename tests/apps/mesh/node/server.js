// Node: `http` on a keep-alive agent, or `fetch` in the styles that begin with it.
'use strict';
const crypto = require('crypto');
const dns = require('dns');
const fs = require('fs');
const http = require('http');
const { Worker, isMainThread, parentPort } = require('worker_threads');

const key = process.env.MARKER_KEY;
const bases = [`${process.env.A}/leaf/`, `${process.env.B}/branch/`];
const agent = new http.Agent({ keepAlive: true, maxFreeSockets: 512 });

const child = (marker, call) =>
  crypto.createHash('sha256').update(`${key}/${marker}/${call}`).digest('hex').slice(0, 16);
const pause = (marker, digit) => parseInt(marker[digit], 16) / 2;
const sleep = (marker, digit) =>
  new Promise((resolve) => setTimeout(resolve, pause(marker, digit)));

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

// Work in another thread; `then` is called back with the message that it is done.
let workers;
const waiting = new Map();
function elsewhere(marker, then) {
  workers ??= [0, 1].map(() => {
    const worker = new Worker(__filename);
    worker.on('message', (number) => {
      const callback = waiting.get(number);
      waiting.delete(number);
      callback();
    });
    return worker;
  });
  const number = elsewhere.number++;
  waiting.set(number, then);
  workers[number % 2].postMessage({ number, marker });
}
elsewhere.number = 0;

// Two calls, each in the callback of something else.
const inCallbacks = (request, begin) => (m) =>
  new Promise((resolve, reject) => {
    begin(m, 0, () => {
      request(m, 0).then(
        () => begin(m, 1, () => request(m, 1).then(resolve, reject)),
        reject,
      );
    });
  });

async function fetched(url) {
  const answer = await fetch(url);
  await answer.text();
}

const by = (request) => (marker, i) => request(bases[i % 2] + child(marker, i));
const call = by(get);
const callByFetch = by(fetched);

// They are loaded where they are needed.
const query = (m, i) => require('./stores').query(child(m, i));
const lookUp = (m, i) => require('./stores').lookUp(child(m, i));

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
  timer: inCallbacks(call, (m, i, then) => setTimeout(then, pause(m, i))),
  file: inCallbacks(call, (m, i, then) => fs.readFile(__filename, then)),
  dns: inCallbacks(call, (m, i, then) => dns.lookup('localhost', then)),
  worker: inCallbacks(call, (m, i, then) => elsewhere(m, then)),
  fetchseq: async (m) => {
    for (let i = 0; i < 3; i++) await callByFetch(m, i);
  },
  stores: async (m) => {
    await query(m, 2);
    await call(m, 0);
    await lookUp(m, 3);
    await call(m, 1);
  },
  storespar: (m) => Promise.all([query(m, 2), call(m, 0), lookUp(m, 3), call(m, 1)]),
  fetchpar: (m) => Promise.all([0, 1, 2].map((i) => callByFetch(m, i))),
};

if (!isMainThread) {
  parentPort.on('message', ({ number, marker }) => {
    work(marker);
    parentPort.postMessage(number);
  });
  return;
}

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
