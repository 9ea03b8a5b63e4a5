// The function node. Everything between at signs is filled in.
const rows = @batched@ ? context.get("rows") : [];
const m = JSON.parse(msg.payload);
rows.push([m.ts / 1e6, msg.topic.split("/")[2], m.temperature, m.humidity, m.battery]);
if (!@batched@) context.get("keep")(rows);
return null;
