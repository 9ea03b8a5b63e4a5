// The box that waits for a device's first reading: it lists what comes, and why something did not.
"use strict";
(() => {
  const box = document.querySelector("[data-wait]");
  if (!box) return;
  const list = box.querySelector(".came");
  const advice = box.querySelector(".advice");
  const reasons = JSON.parse(box.dataset.reasons);
  const zone = box.dataset.zone;
  const time = (text) => new Date(text).toLocaleTimeString("en-GB", { timeZone: zone });
  let arrived = false;

  const add = (kind, words, code) => {
    const item = document.createElement("li");
    item.className = kind;
    item.append(words);
    if (code) {
      const link = document.createElement("a");
      link.href = `/docs/errors#${code}`;
      link.textContent = code;
      item.append(" ", link);
    }
    list.prepend(item);
    list.hidden = false;
    while (list.children.length > 20) list.lastChild.remove();
  };
  const look = async () => {
    const answer = await fetch(box.dataset.wait, { headers: { Accept: "text/html" } }).catch(() => null);
    if (!answer?.ok || answer.redirected) return;
    const made = new DOMParser().parseFromString(await answer.text(), "text/html").body;
    if (made.innerHTML.trim() !== advice.innerHTML.trim()) advice.replaceChildren(...made.childNodes);
  };
  document.addEventListener("paqett:reading", ({ detail }) => {
    const unit = detail.unit ? ` ${detail.unit}` : "";
    add("good", `${time(detail.time)} ${detail.metric} = ${detail.value}${unit}`);
    if (!arrived) look();
    arrived = true;
    const heading = box.querySelector("[data-arrived]");
    heading.textContent = heading.dataset.arrived;
  });
  document.addEventListener("paqett:rejection", ({ detail }) => {
    const count = detail.count === 1 ? "1 point" : `${detail.count} points`;
    const why = reasons[detail.code];
    add("bad", `${time(detail.last_ts)} ${count} refused${why ? `: ${why}` : "."}`, detail.code);
    look();
  });
  document.addEventListener("paqett:status", look);
  document.addEventListener("paqett:closed", ({ detail }) => add("warn", `${detail} Load the page again to see what is new.`));
  setInterval(() => { if (!document.hidden && !arrived) look(); }, 4000);
})();
