"use strict";
// The page of the console: draws what the server's board says, sends what the person says. No library.

const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token") || "";
const KEPT = 600, COLORS = ["#0969da", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#bf3989", "#0a7ea4", "#57606a"];
const history = [], samples = [], pictures = [];
const MOVES = "wsadrfqe", ONCE = "gp", held = new Set(), REPEAT_MS = 80;
let place = 0, socket = null, names = { state: [], action: [] }, cameras = "", suggested = "";

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/ws?token=${encodeURIComponent(token)}`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => (typeof data === "string" ? show(JSON.parse(data)) : picture(new Uint8Array(data)));
  socket.onclose = ({ code }) => {
    status(code === 1008 ? "no such token" : "gone");
    if (code !== 1008) setTimeout(connect, 1000);
  };
}

function send(message) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  else log("not connected: nothing was sent");
}

function stop() {  // by whatever gets through: the socket may be busy, a request is not
  fetch(`stop?token=${encodeURIComponent(token)}`, { method: "POST" }).catch(() => send({ stop: true }));
}

function status(text) {
  $("status").textContent = text;
  $("status").className = `pill ${text.split(" ")[0]}`;
}

function log(text) {
  const item = document.createElement("li"), list = $("log");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 30;
  item.textContent = text;
  list.append(item);
  while (list.children.length > KEPT) list.firstChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function show(now) {
  $("robot").textContent = now.robot;
  $("policy").textContent = now.policy;
  status(now.status);
  $("sentence").textContent = now.sentence;
  $("sentence").classList.toggle("done", now.success);
  $("record").disabled = !now.can_record;
  $("record").checked = now.recording;
  $("move").disabled = !now.can_move;
  for (const [, text] of now.messages) log(text);
  if (now.cameras.join() !== cameras) frames(now.cameras);
  names = { state: now.state_names, action: now.action_names };
  samples.push(...now.samples);
  samples.splice(0, samples.length - KEPT);
  if (now.samples.length) { plot("state", 1); plot("action", 2); }
  if (now.suggestions.join("\n") !== suggested) {
    suggested = now.suggestions.join("\n");
    $("known").replaceChildren(...now.suggestions.map((text) => Object.assign(document.createElement("option"), { value: text })));
  }
  const latency = now.latency_ms ? `${now.latency_ms[0]} ms median, ${now.latency_ms[1]} ms 95 %` : "-";
  list($("numbers"), { rate: `${now.rate_hz} of ${now.control_hz} Hz`, "policy latency": latency, steps: now.steps });
  const rows = Object.entries(now.safety).map(([name, count]) => row(name, count));
  $("safety").tBodies[0].replaceChildren(...(rows.length ? rows : [row("none", 0)]));
}

function list(at, values) {
  at.replaceChildren(...Object.entries(values).flatMap(([name, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name; dd.textContent = value;
    return [dt, dd];
  }));
}

function row(...cells) {
  const tr = document.createElement("tr");
  for (const cell of cells) tr.insertCell().textContent = cell;
  return tr;
}

function frames(found) {
  cameras = found.join();
  pictures.length = 0;
  $("cameras").replaceChildren(...found.map((name) => {
    const figure = document.createElement("figure"), image = new Image(), caption = document.createElement("figcaption");
    image.alt = `camera ${name}`;
    caption.textContent = name;
    figure.append(image, caption);
    pictures.push(image);
    return figure;
  }));
}

function picture(bytes) {
  const image = pictures[bytes[0]];
  if (!image) return;
  const old = image.src;
  image.src = URL.createObjectURL(new Blob([bytes.subarray(1)], { type: "image/jpeg" }));
  if (old) URL.revokeObjectURL(old);
}

function plot(id, part) {
  const canvas = $(id), pen = canvas.getContext("2d"), { width, height } = canvas;
  const values = samples.map((sample) => sample[part]), all = values.flat();
  const low = Math.min(...all), high = Math.max(...all), span = high - low || 1;
  pen.clearRect(0, 0, width, height);
  pen.font = "12px sans-serif";
  names[id].forEach((name, line) => {
    pen.strokeStyle = pen.fillStyle = COLORS[line % COLORS.length];
    pen.beginPath();
    values.forEach((value, i) => {
      if (value[line] === undefined) return;
      const x = (i / KEPT) * width, y = height - 8 - ((value[line] - low) / span) * (height - 16);
      i ? pen.lineTo(x, y) : pen.moveTo(x, y);
    });
    pen.stroke();
    pen.fillText(name, width - 150, 14 + 14 * line);
  });
  pen.fillStyle = "#888";
  pen.fillText(high.toPrecision(3), 4, 12);
  pen.fillText(low.toPrecision(3), 4, height - 4);
}

$("command").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("line").value.trim();
  if (!text) return;
  send({ say: text });
  if (history.at(-1) !== text) history.push(text);
  place = history.length;
  $("line").value = "";
});
$("line").addEventListener("keydown", (event) => {
  if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
  event.preventDefault();
  place = Math.max(0, Math.min(history.length, place + (event.key === "ArrowUp" ? -1 : 1)));
  $("line").value = history[place] || "";
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { event.preventDefault(); stop(); }
  else if (event.altKey && event.key.toLowerCase() === "p") { event.preventDefault(); send({ say: "stop" }); }
  else if (event.key === "/" && document.activeElement !== $("line")) { event.preventDefault(); $("line").focus(); }
});
// A held key is sent again and again: a page that hangs, or is left, moves nothing.
const moving = (event) => $("move").checked && document.activeElement !== $("line") && !event.ctrlKey && !event.altKey && !event.metaKey;
document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  if (!moving(event) || event.repeat || key.length !== 1) return;
  if (MOVES.includes(key)) held.add(key);
  if ((MOVES + ONCE).includes(key)) { event.preventDefault(); send({ key }); }
});
document.addEventListener("keyup", (event) => held.delete(event.key.toLowerCase()));
window.addEventListener("blur", () => held.clear());
setInterval(() => { for (const key of held) send({ key }); }, REPEAT_MS);
$("move").addEventListener("change", (event) => {
  held.clear();
  $("keys").hidden = !event.target.checked;
  if (event.target.checked) event.target.blur();
  else send({ key: "p" });
});
$("stop").addEventListener("click", stop);
$("pause").addEventListener("click", () => send({ say: "stop" }));
$("record").addEventListener("change", (event) => send({ record: event.target.checked }));
for (const button of document.querySelectorAll("[data-say]"))
  button.addEventListener("click", () => send({ say: button.dataset.say }));
connect();
