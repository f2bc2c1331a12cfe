"""The look of all pages: one style sheet, light and dark, without a font or file from elsewhere."""

CSS = """
:root { color-scheme: light dark; --ink: #18181b; --muted: #6b7280; --paper: #fafafa; --card: #fff;
  --line: #e4e4e7; --s0: #2563eb; --s1: #ea580c; --s2: #7c3aed; --s3: #0d9488; --s4: #db2777; --s5: #ca8a04;
  --s6: #475569; --s7: #65a30d; }
@media (prefers-color-scheme: dark) { :root { --ink: #f4f4f5; --muted: #9ca3af; --paper: #18181b;
  --card: #232327; --line: #3f3f46; --s0: #60a5fa; --s1: #fb923c; --s2: #a78bfa; --s3: #2dd4bf;
  --s4: #f472b6; --s5: #facc15; --s6: #94a3b8; --s7: #a3e635; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 80px; }
h1 { font-size: 28px; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 44px 0 12px; }
p { margin: 4px 0 12px; }
.kicker { text-transform: uppercase; letter-spacing: .08em; font-size: 12px; color: var(--muted); margin: 0; }
.muted, small { color: var(--muted); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px;
  margin-top: 20px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.card p { margin: 0; color: var(--muted); }
.card strong { display: block; font-size: 26px; font-variant-numeric: tabular-nums; }
.card small { display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px; }
th, td { padding: 6px 12px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child { text-align: left; }
thead th, .grid tr:first-child th { color: var(--muted); font-weight: 500; }
tbody th { font-weight: 500; }
.grids { display: flex; flex-wrap: wrap; gap: 8px 36px; }
.grid { border-collapse: separate; border-spacing: 3px; border: 0; background: none; }
.grid th, .grid td { border: 0; border-radius: 6px; text-align: center; }
.grid th:first-child { text-align: left; }
.grid td { padding: 6px 8px; min-width: 84px; }
.grid td small { display: block; font-size: 11px; color: inherit; opacity: .72; }
.grid td.none { color: var(--muted); }
figure { margin: 0 0 18px; }
figcaption { font-size: 13.5px; margin: 4px 0; }
svg { width: 100%; max-width: 760px; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); }
svg .axis { fill: var(--muted); font-size: 11px; }
svg .tick { stroke: var(--line); }
.whisker { stroke-width: 3; opacity: .55; stroke-linecap: round; }
.series0 { fill: var(--s0); stroke: var(--s0); background: var(--s0); }
.series1 { fill: var(--s1); stroke: var(--s1); background: var(--s1); }
.series2 { fill: var(--s2); stroke: var(--s2); background: var(--s2); }
.series3 { fill: var(--s3); stroke: var(--s3); background: var(--s3); }
.series4 { fill: var(--s4); stroke: var(--s4); background: var(--s4); }
.series5 { fill: var(--s5); stroke: var(--s5); background: var(--s5); }
.series6 { fill: var(--s6); stroke: var(--s6); background: var(--s6); }
.series7 { fill: var(--s7); stroke: var(--s7); background: var(--s7); }
polyline { fill: none !important; stroke-width: 1.6; stroke-linejoin: round; }
.executed { stroke-dasharray: 3 3; opacity: .7; }
.spread { opacity: .16; stroke: none; }
.band { fill: var(--s1); opacity: .16; }
.cursor { stroke: var(--ink); stroke-width: 1; opacity: .8; }
.badge { border-radius: 99px; padding: 2px 10px; font-size: 12px; font-weight: 600; color: #fff;
  vertical-align: 2px; margin-left: 6px; }
.badge.error { background: #dc2626; }
.badge.warning { background: #b45309; }
.badge.note { background: #6b7280; }
.facts td { text-align: left; vertical-align: top; white-space: normal; }
.facts th { text-align: left; vertical-align: top; }
.facts th.long { white-space: normal; min-width: 12em; }
.finding { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.finding p { margin: 0 0 4px; font-size: 13px; }
.finding svg.plot { max-width: none; }
.film { width: auto; max-width: 100%; margin-bottom: 8px; }
code { font: 13px ui-monospace, SFMono-Regular, Menlo, monospace; background: var(--line); border-radius: 4px;
  padding: 1px 5px; }
.legend span { margin-right: 18px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 6px; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 14px; }
video, .strip { width: 100%; border-radius: 8px; display: block; background: #000; }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--muted); }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px; }
"""
