// The token endpoint of build/demo: oidc-provider, a certified OAuth server, with three additions:
// minting takes as long as it does in real life, every mint is written down, and the list can be read.
//
//   node server.mjs      settings come from the environment:
//     TOKEN_TTL_S        lifetime of an access token
//     MINT_DELAY_MS      how long the endpoint thinks before it answers
//     CLIENTS            client ids, separated by commas; the secret of each is its id + "-secret"
//     PORT_FILE          where to write the port (the kernel chooses it: no two runs can collide)
import { createHash } from 'node:crypto';
import { renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import Provider from 'oidc-provider';

const ttl = Number(process.env.TOKEN_TTL_S ?? 5);
const delay = Number(process.env.MINT_DELAY_MS ?? 200);
const clients = (process.env.CLIENTS ?? 'shop').split(',');

/** One line per mint. Tokens leave this process only through /token: here they are known by a digest. */
const mints = [];

const server = createServer();
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const { port } = server.address();

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: clients.map((id) => ({
    client_id: id,
    client_secret: `${id}-secret`,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  })),
  features: {
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    devInteractions: { enabled: false },
  },
  ttl: { ClientCredentials: ttl },
});

provider.use(async (ctx, next) => {
  if (ctx.path === '/token') await sleep(delay);
  await next();
});

provider.on('grant.success', async (ctx) => {
  const token = ctx.body.access_token;
  const client = ctx.oidc.client.clientId;
  // `exp` is in whole seconds, rounded down: a "5 second" token lives 4 to 5 seconds. Margins exist for this.
  const { exp } = await provider.ClientCredentials.find(token);
  mints.push({ client, id: createHash('sha256').update(token).digest('hex').slice(0, 16), exp });
});

const oauth = provider.callback();
server.on('request', (request, response) => {
  if (request.url !== '/mints') return oauth(request, response);
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(mints));
});

// Renamed into place, so that who waits for the file never reads half a number.
writeFileSync(`${process.env.PORT_FILE}.new`, String(port));
renameSync(`${process.env.PORT_FILE}.new`, process.env.PORT_FILE);
