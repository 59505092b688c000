"use strict";
const COLORS = ["#0b5cad", "#c2571a", "#14733c", "#8a3ffc", "#b3261e", "#7a6a00"];
const at = (id) => document.getElementById(id);
const make = (tag, text, name) => {
  const element = document.createElement(tag);
  if (text !== null && text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
};
const time = (s) => s === null ? "" : s < 60 ? `${Math.round(s)} s`
  : s < 3600 ? `${Math.floor(s / 60)} min ${String(Math.round(s % 60)).padStart(2, "0")} s`
  : `${Math.floor(s / 3600)} h ${String(Math.floor(s % 3600 / 60)).padStart(2, "0")} min`;
const usd = (x) => x === null ? "unknown" : `$${x.toFixed(2)}`;
const points = (x) => (x >= 0 ? "+" : "") + (100 * x).toFixed(1);

function show(view) {
  document.title = `${view.project}: ${view.phase}`;
  at("project").textContent = view.project;
  at("phase").textContent = view.phase;
  at("phase").className = `phase ${view.phase}`;
  at("goal").textContent = `${view.pipeline ? `${view.pipeline} · ` : ""}${view.goal} · ${view.method} of ${view.model} on ${view.dataset}`;
  at("reason").textContent = view.reason || "";
  at("verdict").textContent = (view.claim ? `${view.claim.replaceAll("_", " ")}: ` : "") + view.verdict;
  at("waits").textContent = view.waits_for.map((run) => `${run} waits for your approval`).join(", ");
  const b = view.budget;
  const cards = [["spent", usd(b.spent_usd)], ["held", usd(b.held_usd)], ["cap", b.cap_usd === null ? "none" : usd(b.cap_usd)],
    ["taken", time(b.taken_s)], ["time left", b.left_s === null ? "no limit" : time(b.left_s)],
    ["planner's tokens", view.planner.tokens === null ? "none" : view.planner.tokens.toLocaleString("en")]];
  at("cards").replaceChildren(...cards.map(([label, value]) => {
    const card = make("div", null, "card");
    card.append(make("span", label, "dim"), make("b", value));
    return card;
  }));
  at("runs").replaceChildren(...view.runs.map((run) => {
    const row = document.createElement("tr");
    row.title = run.why;
    const score = run.score === null ? "" : `${run.score.toFixed(3)} (n=${run.n})`;
    const delta = run.delta === null ? "" : `${points(run.delta)} [${points(run.ci[0])}, ${points(run.ci[1])}]`;
    row.append(make("td", run.name, "name"), make("td", run.kind), make("td", run.stage.toLowerCase()),
      make("td", run.progress), make("td", score), make("td", delta), make("td", time(run.seconds)), make("td", run.decision));
    return row;
  }));
  at("decisions").replaceChildren(...view.decisions.slice().reverse().map((d) => {
    const item = make("li");
    item.append(make("b", `${d.about}: ${d.action}`), make("span", ` by ${d.rule} · `, "dim"), make("span", d.reason));
    return item;
  }));
  at("trackio").textContent = view.trackio;
  at("updated").textContent = `as of ${view.updated_at}`;
  draw(view.curves, view.method === "grpo" ? "reward" : "loss");
}

function draw(curves, name) {
  const svg = at("curves"), all = curves.flatMap((curve) => curve.loss);
  svg.replaceChildren();
  at("legend").textContent = curves.length ? "" : "nothing is logged yet";
  if (!all.length) return;
  const [x0, x1] = [Math.min(...all.map((p) => p[0])), Math.max(...all.map((p) => p[0]))];
  const [y0, y1] = [Math.min(...all.map((p) => p[1])), Math.max(...all.map((p) => p[1]))];
  const x = (v) => 10 + 780 * (v - x0) / (x1 - x0 || 1), y = (v) => 230 - 220 * (v - y0) / (y1 - y0 || 1);
  curves.forEach((curve, i) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    line.setAttribute("points", curve.loss.map((p) => `${x(p[0])},${y(p[1])}`).join(" "));
    line.setAttribute("fill", "none");
    line.setAttribute("stroke", COLORS[i % COLORS.length]);
    line.setAttribute("stroke-width", "2");
    line.setAttribute("vector-effect", "non-scaling-stroke");
    svg.append(line);
    const label = make("span", `■ ${curve.run} ${curve.loss.at(-1)[1].toFixed(3)}  `);
    label.style.color = COLORS[i % COLORS.length];
    at("legend").append(label);
  });
  at("legend").append(make("span", `steps ${x0} to ${x1}, ${name} ${y0.toFixed(3)} to ${y1.toFixed(3)}`));
}

const events = new EventSource("events");
events.onmessage = (message) => { at("gone").hidden = true; show(JSON.parse(message.data)); };
events.onerror = () => { at("gone").hidden = false; };
