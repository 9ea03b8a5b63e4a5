// What the function node does when it starts.
const pool = new pg.Pool({ connectionString: env.get("DATABASE_URL"), max: 10 });
const rows = [];
const keep = (some) => pool.query(
    "INSERT INTO nodered (time, device, temperature, humidity, battery)" +
    " SELECT to_timestamp(t), d, a, b, c FROM" +
    " unnest($1::float8[], $2::text[], $3::float8[], $4::float8[], $5::float8[])" +
    " AS message (t, d, a, b, c)",
    [0, 1, 2, 3, 4].map((n) => some.map((row) => row[n]))
).catch((error) => node.error(error.message));
context.set("rows", rows);
context.set("keep", keep);
if (@batched@) setInterval(() => rows.length && keep(rows.splice(0)), 250);
