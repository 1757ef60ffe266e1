"use strict";
// A link to a folded part opens it.
const reveal = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", reveal);
addEventListener("load", reveal);
// Escape closes what a word tells.
addEventListener("keydown", event => {
  if (event.key === "Escape" && document.activeElement.matches(".term, .spot")) document.activeElement.blur();
});
// The search among the study's questions. Texts are set as text, never as HTML.
const data = document.getElementById("questions");
if (data) {
  const {models, questions} = JSON.parse(data.textContent);
  const at = name => document.getElementById(name);
  const make = (tag, text, parent, attributes = {}) => {
    const made = Object.assign(document.createElement(tag), attributes);
    made.textContent = text;
    parent.append(made);
    return made;
  };
  const show = one => {
    const place = at("shown-question");
    place.replaceChildren();
    make("blockquote", one.q, place);
    const frame = make("div", "", place, {className: "scroll", tabIndex: 0});
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", "The question, model by model");
    const table = make("table", "", frame, {className: "shares"});
    const head = make("tr", "", make("thead", "", table));
    make("th", "Model", head, {scope: "col"});
    one.c.forEach((choice, i) => make("th", choice + (i === one.a ? " (right)" : ""), head, {scope: "col"}));
    const body = make("tbody", "", table);
    models.forEach((model, m) => {
      const row = make("tr", "", body);
      make("th", model, row, {scope: "row"});
      one.p[m].forEach((share, i) => {
        const cell = make("td", "", row, {className: i === one.a ? "answer" : ""});
        make("span", "", cell, {className: "bar"}).style.setProperty("--w", share + "%");
        cell.append(share + " %");
      });
    });
  };
  const find = () => {
    const wanted = at("find").value.trim().toLowerCase();
    const hits = questions.filter(one => [one.q, ...one.c].some(text => text.toLowerCase().includes(wanted)));
    at("found").textContent = hits.length + " of " + questions.length + " questions" + (hits.length > 10 ? ", the first 10:" : ":");
    at("hits").replaceChildren();
    for (const one of hits.slice(0, 10))
      make("button", one.q, make("li", "", at("hits")), {type: "button"}).addEventListener("click", () => show(one));
  };
  at("finder").hidden = false;
  at("find").addEventListener("input", find);
  find();
}
