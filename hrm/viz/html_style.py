"""The style sheet of an HTML report: light, dark, paper, and any width."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --panel: #f7f8fa; --ink: #1d2129; --faint: #5d6673; --rule: #d5dae1;
  --right: #1f6fb4; --wrong: #c02f1d; --tint: #fbdcd7; --wall: #3a414c; --link: #0b5cad;
  --run-0: #1f6fb4; --run-1: #c2500a; --run-2: #0f7b4f; --run-3: #8a3fb8;
  --run-4: #9a6b00; --run-5: #0b7f8c; --run-6: #b8326f; --run-7: #515c6b;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #14171c; --panel: #1b1f26; --ink: #e8ebf0; --faint: #a3adba; --rule: #39414d;
    --right: #62aef0; --wrong: #ff8a75; --tint: #5a221a; --wall: #8d97a5; --link: #7dbcf5;
    --run-0: #62aef0; --run-1: #f59a52; --run-2: #4fc58f; --run-3: #c990ee;
    --run-4: #dcb04a; --run-5: #4cc7d4; --run-6: #f285b4; --run-7: #aab4c2;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 76rem; margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 2.5rem) 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 {
  font-size: 1.3rem; margin: 3rem 0 .75rem; padding-top: 1.25rem;
  border-top: 1px solid var(--rule); overflow-wrap: anywhere;
}
h3, h4 { font-size: 1rem; margin: 0 0 .5rem; }
section > h3 { margin-top: 1.75rem; }
p { max-width: 46rem; margin: .5rem 0 1rem; }
.lead { color: var(--faint); }
.note {
  border-left: 4px solid var(--wrong); padding: .25rem 0 .25rem .9rem; overflow-wrap: anywhere;
}
a { color: var(--link); }
nav ul {
  list-style: none; display: flex; flex-wrap: wrap; gap: .35rem 1.25rem; padding: 0;
  margin: 1rem 0 0;
}
nav .sample { display: none; }
.figures + p { margin-top: 1.25rem; }
.figures {
  display: grid; gap: 1.25rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr));
}
figure {
  margin: 0; padding: 1rem 1.1rem; background: var(--panel); border: 1px solid var(--rule);
  border-radius: .6rem; min-width: 0;
}
figcaption { color: var(--faint); font-size: .9rem; margin-top: .5rem; max-width: 46rem; }
svg.chart { display: block; width: 100%; max-width: 38rem; height: auto; margin: 0 auto; }
svg.chart text {
 
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif !important;
}
.legend {
  display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; padding: 0; margin: 0 0 1rem;
  list-style: none;
}
.run { overflow-wrap: anywhere; }
svg.sample { width: 34px; height: 8px; margin-right: .5rem; vertical-align: middle; }
svg.sample path { stroke-width: 2.5; fill: none; }
details { margin-top: .6rem; font-size: .9rem; }
summary { cursor: pointer; color: var(--link); }
.scroll { overflow-x: auto; margin: .5rem 0 1.25rem; }
.scroll:focus-visible, a:focus-visible, summary:focus-visible {
  outline: 2px solid var(--link); outline-offset: 2px;
}
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faint); padding-bottom: .4rem; }
th, td {
  padding: .32rem .9rem .32rem 0; text-align: right; border-bottom: 1px solid var(--rule);
  vertical-align: top;
}
th { font-weight: 600; }
thead th { border-bottom-width: 2px; }
tbody th, thead th:first-child { text-align: left; min-width: 8rem; }
.failures { display: flex; flex-wrap: wrap; gap: 1.25rem; }
.grids { display: flex; flex-wrap: wrap; gap: 1rem; }
.grids > div { min-width: 0; max-width: 100%; }
.grids span { display: block; font-size: .85rem; color: var(--faint); margin-bottom: .25rem; }
svg.grid { display: block; max-width: 100%; height: auto; }
svg.grid text { font: 13px system-ui, sans-serif; text-anchor: middle; fill: var(--right); }
svg.grid text.given { fill: var(--ink); font-weight: 700; }
svg.grid text.mistake { fill: var(--wrong); font-weight: 700; }
svg.grid rect.mistake { fill: var(--tint); }
svg.grid rect.bar { fill: var(--wrong); }
svg.grid rect.frame { fill: none; stroke-width: 2; }
svg.grid rect.heat { fill: var(--right); }
svg.grid text.end { fill: var(--faint); }
svg.grid rect.wall { fill: var(--wall); }
svg.grid path { fill: none; stroke: var(--rule); stroke-width: 1; }
svg.grid path.border { stroke: var(--ink); stroke-width: 1.6; }
@media print {
  main { max-width: none; padding: 0; }
  body { font-size: 10pt; }
  nav { display: none; }
  figure, table { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .figures { grid-template-columns: 1fr 1fr; }
  .scroll { overflow: visible; }
  svg rect, svg path { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
