"use strict";
// Everything shown is put in as text: names and bodies come from tenants.
const element = (id) => document.getElementById(id);
const kinds = {
  "application/vnd.edgeyard.report.v1+json": "report",
  "application/vnd.edgeyard.record.v1+json": "record",
};

async function ask(path) {
  const answer = await fetch(path, { headers: { authorization: "Bearer " + element("token").value.trim() } });
  if (!answer.ok) {
    const { reason, message } = await answer.json().catch(() => ({ reason: answer.status, message: answer.statusText }));
    throw new Error(`${reason}: ${message}`);
  }
  return answer;
}

function base() {
  return "v1/namespaces/" + encodeURIComponent(element("namespace").value.trim());
}

async function show(event) {
  event.preventDefault();
  element("body").hidden = true;
  element("results").hidden = true;
  element("message").textContent = "";
  try {
    const { items } = await (await ask(base() + "/results?limit=1000")).json();
    const { usedBytes, quotaBytes } = await (await ask(base() + "/usage")).json();
    const used = (usedBytes / 2 ** 20).toFixed(1) + " of " + (quotaBytes / 2 ** 20).toFixed(0) + " MiB used";
    element("message").textContent = items.length + " results, " + used;
    element("results").tBodies[0].replaceChildren(...items.map(row));
    element("results").hidden = items.length === 0;
  } catch (error) {
    element("message").textContent = error.message;
  }
}

function row(item) {
  const line = document.createElement("tr");
  const link = document.createElement("a");
  link.textContent = item.name || item.uid;
  link.addEventListener("click", () => open(item));
  const made = new Date(item.createdAt).toLocaleString();
  const texts = [kinds[item.mediaType] || item.mediaType, made, item.sizeBytes, item.attempt, item.digest.slice(7, 19)];
  const cell = (content) => {
    const made = document.createElement("td");
    made.append(content);
    return made;
  };
  line.append(cell(link), ...texts.map((text) => cell(String(text))));
  line.title = item.digest;
  return line;
}

async function open(item) {
  try {
    const path = base() + "/results/" + encodeURIComponent(item.uid) + "/" + item.attempt;
    element("body").textContent = JSON.stringify(await (await ask(path)).json(), null, 2);
    element("body").hidden = false;
    element("body").scrollIntoView({ behavior: "smooth" });
  } catch (error) {
    element("message").textContent = error.message;
  }
}

element("form").addEventListener("submit", show);
