// Charts, and the stream that keeps them going. A page without this has the readings as a table.
"use strict";
(() => {
  const MOST = 2000;
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const iso = (seconds) => new Date(Math.round(seconds * 1000)).toISOString();
  const number = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    const digits = size !== 0 && (size >= 1e9 || size < 1e-4) ? undefined : size >= 1000 ? 1 : 3;
    if (digits === undefined) return value.toExponential(3);
    return value.toLocaleString("en", { maximumFractionDigits: digits });
  };

  // "15 minutes" for 15m, "minute" for 1m
  const UNITS = { s: "second", m: "minute", h: "hour", d: "day", w: "week", mo: "month" };
  const spoken = (bucket) => {
    const [, count, unit] = /^(\d+)([a-z]+)$/.exec(bucket || "") || [];
    if (!UNITS[unit]) return bucket;
    return count === "1" ? UNITS[unit] : `${count} ${UNITS[unit]}s`;
  };
  const AGGREGATES = { avg: "average", min: "lowest", max: "highest", first: "first value", last: "last value", p50: "median", p95: "95th percentile" };

  // moments in the person's time zone, which need not be the browser's
  const clock = (zone) => {
    const made = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: zone, ...options });
    const time = made({ hour: "2-digit", minute: "2-digit" });
    const exact = made({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
    const day = made({ day: "numeric", month: "short" });
    const month = made({ month: "short", year: "numeric" });
    const full = made({ dateStyle: "medium", timeStyle: "medium" });
    const axis = (_, splits, __, ___, step) => {
      let before = "";
      return splits.map((split) => {
        const date = new Date(split * 1000);
        if (step >= 86400 * 28) return month.format(date);
        if (step >= 86400) return day.format(date);
        const text = (step >= 60 ? time : exact).format(date);
        const on = day.format(date);
        const told = on !== before ? `${text}\n${on}` : text;
        before = on;
        return step < 1 ? `${told.split("\n")[0]}.${String(date.getMilliseconds()).padStart(3, "0")}` : told;
      });
    };
    const field = (seconds) => {
      const text = new Date(seconds * 1000).toLocaleString("sv-SE", { timeZone: zone });
      return text.replace(" ", "T");
    };
    return { axis, full: (seconds) => full.format(new Date(seconds * 1000)), field };
  };

  // what is measured in one unit shares a scale; flags have one of their own
  const scaleOf = (line) => (line.kind === "boolean" ? "flags" : line.unit || "–");

  // dots, where there is room for them or too little for a line
  const sparse = (plot) => {
    const [first, last] = plot.series[0].idxs;
    const wide = plot.valToPos(plot.data[0][last], "x") - plot.valToPos(plot.data[0][first], "x");
    return last - first < 3 || 24 * (last - first) <= wide;
  };
  // values with a gap on either side, which no line would show
  const alone = (values) => {
    const known = [...values.keys()].filter((at) => values[at] !== undefined);
    const missing = (at) => at === undefined || values[at] === null;
    const found = known.filter((at, place) => values[at] !== null && missing(known[place - 1]) && missing(known[place + 1]));
    return found.length ? found : null;
  };

  const COUNTED = ["sum", "count"];
  const flag = (value) => (value === 1 ? "true" : value === 0 ? "false" : `${Math.round(value * 100)} % true`);

  // an axis is as wide as what stands on it
  const roomFor = (plot, labels, index, cycle) => {
    const axis = plot.axes[index];
    if (cycle > 1) return axis._size;
    plot.ctx.font = axis.font[0];
    const widest = Math.max(0, ...(labels || []).map((label) => plot.ctx.measureText(label).width));
    return Math.ceil(axis.ticks.size + axis.gap + 4 + widest / devicePixelRatio);
  };

  class Chart {
    constructor(figure) {
      this.figure = figure;
      this.area = figure.querySelector(".area");
      this.said = figure.querySelector(".said");
      this.tools = figure.querySelector(".tools");
      this.own = "address" in figure.dataset; // the page's address tells what is seen
      this.clock = clock(figure.dataset.zone);
      this.query = new URLSearchParams(figure.dataset.chart);
      this.home = this.query.toString();
      this.before = [];
      this.lines = [];
      this.cost = 0;
      this.asked = 0;
      if (this.tools) {
        this.tools.hidden = false;
        this.tools.addEventListener("click", (event) => this.press(event.target.closest("button")));
      }
      new ResizeObserver(() => this.fit()).observe(this.area);
    }

    get live() { return !this.query.has("from"); }

    points() { return Math.max(100, Math.min(MOST, Math.round(this.area.clientWidth * 1.5))); }

    async load() {
      this.asking?.abort();
      const asking = (this.asking = new AbortController());
      const asked = new URLSearchParams(this.query);
      asked.set("points", this.points());
      const began = performance.now();
      this.figure.setAttribute("aria-busy", "true");
      try {
        const answer = await fetch(`/charts/data?${asked}`, { signal: asking.signal, headers: { Accept: "application/json" } });
        const told = await answer.json();
        if (answer.ok) this.show(told);
        else this.say(told.detail || "The readings cannot be shown just now.");
      } catch (error) {
        if (error.name === "AbortError") return;
        this.say("The readings could not be loaded. Is the connection there?");
      }
      this.cost = performance.now() - began;
      this.asked = performance.now();
      this.figure.removeAttribute("aria-busy");
      this.figure.dataset.loaded = Number(this.figure.dataset.loaded || 0) + 1;
    }

    say(text) { this.said.textContent = text; }

    show(told) {
      const same = this.plot && this.lines.length === told.lines.length &&
        told.lines.every((line, i) => line.device === this.lines[i].device && line.metric === this.lines[i].metric && line.unit === this.lines[i].unit);
      Object.assign(this, { lines: told.lines, from: told.from / 1000, to: told.to / 1000, bucket: told.bucket });
      const count = this.lines.reduce((sum, line) => sum + line.values.filter((one) => one !== null).length, 0);
      this.figure.dataset.points = Math.max(0, ...this.lines.map((line) => line.times.length));
      this.figure.dataset.bucket = told.bucket || "";
      const span = `${this.clock.full(this.from)} to ${this.live ? "now" : this.clock.full(this.to)} (${this.figure.dataset.zone})`;
      const what = `${AGGREGATES[this.agg()] || this.agg()} of every ${spoken(told.bucket)}`;
      this.say(count ? `${span}, ${what}.` : `Nothing was stored from ${span}. Choose a longer range, or an earlier one.`);
      if (!this.lines.length) return;
      if (same) this.draw();
      else this.make();
      this.follow();
    }

    agg() { return this.query.get("agg") || "avg"; }

    data() {
      const tables = this.lines.map((line) => [line.times.map((time) => time / 1000), line.values]);
      return uPlot.join(tables, tables.map(() => [0, 2])); // a gap ends where its own line goes on, not at another's next value
    }

    draw() {
      this.plot.batch(() => {
        this.plot.setData(this.data(), false);
        this.plot.setScale("x", { min: this.from, max: this.to });
        for (const scale of new Set(this.lines.map(scaleOf))) this.plot.setScale(scale, this.reach(scale));
      });
      if (this.plot.cursor.idx === null || this.plot.cursor.idx === undefined) this.plot.setLegend({ idx: null }, false);
    }

    // the least and the greatest value of what has one unit, with some air
    reach(scale) {
      const flags = this.lines.some((line) => scaleOf(line) === "flags");
      // among numbers, what is true or false is a strip at the bottom, and they leave it room
      const strip = flags && this.lines.some((line) => scaleOf(line) !== "flags");
      if (scale === "flags" && !COUNTED.includes(this.agg())) return strip ? { min: -0.15, max: 9 } : { min: -0.1, max: 1.1 };
      let min = Infinity;
      let max = -Infinity;
      for (const line of this.lines) {
        if (scaleOf(line) !== scale) continue;
        for (const value of line.values) {
          if (value === null) continue;
          if (value < min) min = value;
          if (value > max) max = value;
        }
      }
      if (min > max) return { min: 0, max: 1 };
      const air = (max - min) * 0.08 || Math.abs(max) * 0.05 || 1;
      return { min: min - (strip ? 2.4 : 1) * air, max: max + air };
    }

    make() {
      this.plot?.destroy();
      const units = [...new Set(this.lines.map(scaleOf))];
      const several = new Set(this.lines.map((line) => line.device)).size > 1;
      const ink = colour("--soft");
      const grid = { stroke: colour("--line"), width: 1 };
      const font = "12px system-ui, sans-serif";
      const axis = { stroke: ink, grid, ticks: grid, font };
      const series = this.lines.map((line, i) => ({
        label: (several ? `${line.name}: ` : "") + line.title,
        scale: scaleOf(line),
        stroke: colour(`--series-${(i % 8) + 1}`),
        width: 1.75,
        ...(line.kind === "boolean" && { paths: uPlot.paths.stepped({ align: 1 }), fill: `${colour(`--series-${(i % 8) + 1}`)}33`, fillTo: () => 0 }),
        value: (plot, value, at, index) => this.told(line, index === null ? plot.data[at].findLast((one) => one !== null && one !== undefined) : value),
        points: { size: 5, show: sparse, filter: (plot, at, shown) => (shown ? null : alone(plot.data[at])) },
      }));
      this.plot = new uPlot({
        width: this.area.clientWidth,
        height: this.height(),
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), this.figure.dataset.zone),
        cursor: {
          drag: { x: true, y: false, setScale: false },
          bind: { dblclick: () => () => this.reset() },
          points: { size: 7 },
        },
        scales: {
          x: { time: true, auto: false, min: this.from, max: this.to },
          ...Object.fromEntries(units.map((unit) => [unit, { auto: false, ...this.reach(unit) }])),
        },
        series: [{ label: "Time", value: (_, seconds) => (seconds === null ? "latest values" : this.clock.full(seconds)) }, ...series],
        axes: [
          { ...axis, values: this.clock.axis, size: 48 },
          ...units.filter((unit) => unit !== "flags" || units.length === 1).map((unit, i) => ({
            ...axis, scale: unit, side: i % 2 ? 1 : 3, show: i < 2, size: roomFor, grid: i ? { show: false } : grid,
            label: this.label(unit), labelFont: font, labelSize: 20,
            ...(unit === "flags" && !COUNTED.includes(this.agg()) ? { splits: () => [0, 1], values: () => ["false", "true"] } : { values: (_, splits) => splits.map(number) }),
          })),
        ],
        hooks: {
          setSelect: [(plot) => {
            const { left, width } = plot.select;
            if (width < 4) return;
            const span = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
            plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            this.zoom(...span);
          }],
        },
      }, this.data(), this.area);
      this.plot.setScale("x", { min: this.from, max: this.to });
    }

    // what an axis measures: its unit, or the one metric on it that has none
    label(unit) {
      const own = this.lines.filter((line) => scaleOf(line) === unit);
      if (unit !== "–") return unit === "flags" ? undefined : unit;
      return own.length === 1 && own[0].title.length < 24 ? own[0].title : "no unit";
    }

    // a value with what it is measured in
    told(line, value) {
      if (value === null || value === undefined) return "–";
      if (line.kind === "boolean" && !COUNTED.includes(this.agg())) return flag(value);
      return line.unit ? `${number(value)} ${line.unit}` : number(value);
    }

    height() { return this.area.clientWidth < 500 ? 240 : 340; }

    fit() {
      if (this.plot && this.plot.width !== this.area.clientWidth) this.plot.setSize({ width: this.area.clientWidth, height: this.height() });
    }

    restyle() { if (this.plot) this.make(); }

    zoom(from, to) {
      if (to - from < 0.01) return undefined;
      this.before.push(this.query.toString());
      this.query.delete("range");
      this.query.set("from", iso(from));
      this.query.set("to", iso(to));
      return this.moved();
    }

    back() {
      if (!this.before.length) return undefined;
      this.query = new URLSearchParams(this.before.pop());
      return this.moved();
    }

    reset() {
      this.before = [];
      this.query = new URLSearchParams(this.home);
      return this.moved();
    }

    moved() {
      if (this.own) history.replaceState(null, "", `?${this.query}`);
      return this.load();
    }

    press(button) {
      const span = this.to - this.from;
      const middle = (this.from + this.to) / 2;
      ({
        in: () => this.zoom(middle - span / 4, middle + span / 4),
        out: () => this.zoom(middle - span, middle + span),
        earlier: () => this.zoom(this.from - span / 2, this.to - span / 2),
        later: () => this.zoom(this.from + span / 2, this.to + span / 2),
        back: () => this.back(),
        reset: () => this.reset(),
      })[button?.dataset.do]?.();
    }

    // links and forms that say what is seen
    follow() {
      if (!this.own) return;
      const exact = new URLSearchParams(this.query);
      exact.set("points", this.points());
      for (const link of document.querySelectorAll("a[data-follows]")) {
        const query = link.dataset.follows === "exact" ? exact : this.query;
        const kept = new URLSearchParams(query);
        for (const [name, value] of new URLSearchParams(link.dataset.more || "")) kept.set(name, value);
        link.href = `${link.pathname}?${kept}`;
      }
      const form = document.querySelector("form.ranges");
      if (!form) return;
      form.elements.range.value = this.live ? this.query.get("range") || "-24h" : "custom";
      form.elements.from.value = this.live ? "" : this.clock.field(this.from);
      form.elements.to.value = this.live ? "" : this.clock.field(this.to);
      for (const field of document.querySelectorAll("input[data-shown]")) field.value = this.query.toString();
    }

    // one reading more, as it was sent; what is stored is asked for again in a while
    add(told) {
      const line = this.lines.find((one) => one.device === told.device && one.metric === told.metric);
      if (!line) {
        if (this.query.getAll("s").includes(`${told.device}:`) && typeof told.value !== "string") this.soon(0);
        return;
      }
      if (!this.live || typeof told.value === "string") return;
      const time = Date.parse(told.time);
      if (this.agg() === "avg" && time > (line.times.at(-1) || 0)) {
        line.times.push(time);
        line.values.push(Number(told.value));
        const span = this.to - this.from;
        this.to = Math.max(this.to, time / 1000);
        this.from = this.to - span;
        this.next ||= requestAnimationFrame(() => { this.next = 0; this.draw(); });
      }
      this.soon(Math.max(5000, this.cost * 50));
    }

    soon(wait) {
      this.due ||= setTimeout(() => { this.due = 0; if (!document.hidden) this.load(); }, wait);
    }
  }

  const charts = [...document.querySelectorAll("figure[data-chart]")].map((figure) => new Chart(figure));
  for (const chart of charts) if (!chart.figure.hidden) chart.load();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.restyle()));

  // whoever chooses "from … to …" is shown the two fields; nothing unfolds by itself
  const range = document.querySelector("form.ranges select[name=range]");
  range?.addEventListener("change", () => { range.form.querySelector("details.span").open = range.value === "custom"; });

  // one stream for the page; whoever is interested listens to the document
  const tell = (name, detail) => document.dispatchEvent(new CustomEvent(`paqett:${name}`, { detail }));
  const path = document.querySelector("[data-stream]")?.dataset.stream;
  const poll = () => setInterval(() => {
    for (const chart of charts) if (chart.live && !document.hidden && !chart.figure.hidden) chart.soon(chart.cost * 50);
  }, 10000);
  if (path) {
    const source = new EventSource(path);
    for (const name of ["reading", "rejection", "status"]) source.addEventListener(name, (event) => tell(name, JSON.parse(event.data)));
    source.addEventListener("open", () => tell("open"));
    source.addEventListener("error", async () => {
      if (source.readyState !== EventSource.CLOSED) return;
      poll();
      const asking = new AbortController();
      const answer = await fetch(path, { signal: asking.signal, headers: { Accept: "application/json" } }).catch(() => null);
      const told = answer && !answer.ok ? await answer.json().catch(() => null) : null;
      asking.abort();
      tell("closed", told?.detail || "The live connection was closed.");
    });
    addEventListener("pagehide", () => source.close());
  } else if (charts.length) poll();
  document.addEventListener("paqett:reading", (event) => {
    for (const chart of charts) {
      if (chart.figure.hidden) {
        chart.figure.hidden = false;
        chart.load();
      } else chart.add(event.detail);
    }
  });
})();
