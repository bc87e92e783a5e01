// A Node server that calls the next service with `http.request` on a keep-alive agent (/call) or with `fetch` (/fetch).
'use strict';
const http = require('http');

const next = process.env.NEXT || '';
const agent = new http.Agent({ keepAlive: true });

function forward(url, response) {
  http
    .get(url, { agent }, (answer) => {
      response.writeHead(answer.statusCode);
      answer.pipe(response);
    })
    .on('error', (error) => {
      response.writeHead(502);
      response.end(String(error));
    });
}

async function forwardWithFetch(url, response) {
  try {
    const answer = await fetch(url);
    const body = await answer.text();
    response.writeHead(answer.status);
    response.end(body);
  } catch (error) {
    response.writeHead(502);
    response.end(String(error));
  }
}

const server = http.createServer((request, response) => {
  const [, what, n] = request.url.split('/');
  switch (what) {
    case 'hello':
      return response.end(`hello ${n}\n`);
    case 'status':
      response.writeHead(Number(n));
      return response.end();
    case 'slow':
      return setTimeout(() => response.end('slow\n'), Number(n));
    case 'echo': {
      let bytes = 0;
      request.on('data', (chunk) => (bytes += chunk.length));
      return request.on('end', () => response.end(`${bytes}\n`));
    }
    case 'call':
      return forward(`${next}/hello/${n}`, response);
    case 'fetch':
      return forwardWithFetch(`${next}/hello/${n}`, response);
    default:
      response.writeHead(404);
      return response.end();
  }
});
server.keepAliveTimeout = 60000;
server.listen(Number(process.env.PORT), process.env.HOST || '0.0.0.0');
