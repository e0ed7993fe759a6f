/**
 * Colours from Okabe and Ito's palette (2008), told apart with every kind of colour blindness, darkened for light paper and lightened for
 * dark screens until they have a contrast of 3 to 1 with it; shapes and labels say the same.
 */
export const STYLE = `
:root{color-scheme:light dark;--paper:#fff;--ink:#1a1c20;--soft:#565c66;--line:#d9dce1;--panel:#f5f6f8;--focus:#0b57d0;
--c0:#0072b2;--c1:#c44e00;--c2:#00795a;--c3:#b0568c;--c4:#946c00;--c5:#6b7280;--heat:0,114,178}
@media (prefers-color-scheme:dark){:root{--paper:#14161a;--ink:#e8eaee;--soft:#a7aeb9;--line:#363b44;--panel:#1d2026;--focus:#8ab4f8;
--c0:#56b4e9;--c1:#ff8f47;--c2:#2ec79b;--c3:#e79ec9;--c4:#e3c13a;--c5:#9aa3b0;--heat:86,180,233}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main,header,footer{max-width:960px;margin:0 auto;padding:0 16px}
header{padding-top:24px}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 8px;overflow-wrap:anywhere}
h2{font-size:1.25rem;line-height:1.3;margin:0 0 8px}
h3{font-size:1rem;margin:24px 0 8px}
section{margin:40px 0;scroll-margin-top:8px}
p{margin:0 0 12px;max-width:70ch}
.see{font-size:1.05rem}
a{color:var(--focus)}
.skip{position:absolute;left:-9999px}
.skip:focus{position:static}
nav ul{display:flex;flex-wrap:wrap;gap:4px 16px;list-style:none;padding:0;margin:12px 0}
nav a{display:inline-block;padding:4px 0}
dl.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:8px 16px;margin:16px 0}
dl.facts div{background:var(--panel);border-radius:6px;padding:8px 12px}
dl.facts dt{color:var(--soft);font-size:.85rem}
dl.facts dd{margin:0;font-size:1.1rem;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
blockquote{margin:0 0 12px;padding:8px 12px;border-left:4px solid var(--c0);background:var(--panel);white-space:pre-wrap;overflow-wrap:anywhere}
figure{margin:12px 0}
figure svg{display:block;max-width:100%;height:auto}
.wide{display:none}
@media (min-width:680px){.wide{display:block}.narrow{display:none}}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--ink)}
@media screen and (min-width:680px) and (max-width:920px){svg text{font-size:14px}}
svg .mid{text-anchor:middle}
svg .end{text-anchor:end}
svg .title{fill:var(--soft)}
svg .halo{paint-order:stroke;stroke:var(--paper);stroke-width:4px}
svg .grid{stroke:var(--line)}
svg .axis{fill:none;stroke:var(--soft)}
svg .roof{fill:none;stroke:var(--ink);stroke-width:2}
svg .mark{stroke:var(--paper);stroke-width:1;vector-effect:non-scaling-stroke}
svg .hollow{stroke-width:2}
svg .curve{fill:none;stroke-width:2}
svg .cell{fill:rgb(var(--heat))}
${[0, 1, 2, 3, 4, 5].map((i) => `svg .c${i}{fill:var(--c${i})}svg .curve.c${i}{fill:none;stroke:var(--c${i})}svg .hollow.c${i}{fill:var(--paper);stroke:var(--c${i})}`).join("\n")}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;list-style:none;padding:0;margin:0 0 8px;font-size:.9rem;color:var(--soft)}
.legend li{display:flex;align-items:center;gap:6px}
details{margin:8px 0;border-top:1px solid var(--line)}
summary{cursor:pointer;padding:8px 0;color:var(--focus)}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding:4px 0}
th,td{padding:4px 10px 4px 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;white-space:nowrap}
td.n,th.n{text-align:right}
thead th{border-bottom:2px solid var(--soft)}
:focus-visible{outline:3px solid var(--focus);outline-offset:2px}
footer{padding-bottom:32px;color:var(--soft);font-size:.9rem}
@media print{:root{--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;--panel:#f3f3f3;--focus:#000;--c0:#0072b2;--c1:#c44e00;--c2:#00795a;--c3:#b0568c;--c4:#946c00;--c5:#6b7280;--heat:0,114,178}
nav,.skip{display:none}.scroll{overflow:visible}table{font-size:8pt}th,td{padding:2px 6px 2px 0;white-space:normal}td.n{white-space:nowrap}figure,tr,.see{break-inside:avoid}h2,h3,.see,summary,.legend{break-after:avoid}
details:not([open])::details-content{content-visibility:visible;block-size:auto}}
`;
