"""The look of the report: sober, readable at arm's length, and on A4 without a lost line. Colour-blind safe levels."""

STYLE = """
:root{--ink:#1b2530;--soft:#5b6975;--line:#d8dee3;--wash:#f4f6f8;--accent:#17486b;
--good:#00694e;--check:#8a5a00;--refused:#a8280c}
*{box-sizing:border-box}
html{background:#e9edf0}
body{margin:0;color:var(--ink);font:14px/1.45 "Inter","Segoe UI","Helvetica Neue",Arial,"DejaVu Sans",sans-serif;
-webkit-print-color-adjust:exact;print-color-adjust:exact}
main{max-width:1040px;margin:24px auto;background:#fff;padding:0 40px 32px;box-shadow:0 1px 6px rgba(20,40,60,.12)}
.warning{margin:0 -40px;padding:9px 40px;background:#fdf0ea;color:var(--refused);font-weight:650;letter-spacing:.02em;
border-bottom:2px solid var(--refused)}
header{padding:26px 0 18px;border-bottom:1px solid var(--line)}
h1{margin:0 0 18px;font-size:27px;font-weight:650;letter-spacing:-.01em;color:var(--accent)}
h1 span{margin-left:12px;font-size:17px;font-weight:400;color:var(--soft)}
h2{margin:30px 0 10px;font-size:17px;font-weight:650;color:var(--accent)}
h3{margin:0;font-size:14px;font-weight:600}
.facts{display:grid;grid-template-columns:repeat(3,1fr);gap:10px 28px;margin:0}
.facts dt{color:var(--soft);font-size:12px}
.facts dd{margin:0;font-weight:600;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(4,1fr);gap:12px}
.card{border:1px solid var(--line);border-top:3px solid var(--accent);border-radius:4px;padding:12px 14px 10px;
background:#fff;break-inside:avoid}
.card h3{color:var(--soft);font-weight:550;font-size:13px;min-height:2.5em;line-height:1.25}
.card .value{margin:2px 0 4px;font-size:29px;font-weight:650;line-height:1.15;font-variant-numeric:tabular-nums}
.card .value small{margin-left:5px;font-size:16px;font-weight:500;color:var(--soft)}
.card .below{margin:0;font-size:12.5px;color:var(--soft)}
.card p.none{margin:4px 0;font-size:20px;font-weight:600;color:var(--refused)}
.none{color:var(--refused)}
svg{display:block;max-width:100%;font-family:inherit}
.summary svg{margin-top:14px}
.level{display:inline-block;border-radius:3px;padding:1px 8px;font-size:12.5px;font-weight:600;border:1px solid;
vertical-align:.08em}
.card .level{font-size:22px;padding:1px 11px}
.good{color:var(--good);background:#e8f5f0}.check{color:var(--check);background:#fdf4e0}
.refused{color:var(--refused);background:#fdeeea}
.band{display:inline-block;margin:0 8px;padding:1px 8px;border-radius:3px;background:var(--wash);
border:1px solid var(--line);font-size:12.5px}
table{width:100%;border-collapse:collapse;font-size:13px}
th,td{padding:6px 10px 6px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
tr{break-inside:avoid}
thead th{color:var(--soft);font-size:12px;font-weight:550;border-bottom:1.5px solid var(--soft)}
tbody th{font-weight:600;min-width:11em}
.number{white-space:nowrap;font-variant-numeric:tabular-nums}
.source{display:block;color:var(--soft);font-size:12px}
.uid{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:11px;overflow-wrap:anywhere}
.note{color:var(--soft);font-size:13px;margin:8px 0}
.pictures{display:grid;grid-template-columns:1fr 1fr;gap:14px}
figure{margin:0;break-inside:avoid}
figure:first-child:nth-last-child(odd){grid-column:1/-1}
figure img{display:block;width:100%;background:#000;border-radius:3px}
figcaption{margin-top:5px;color:var(--soft);font-size:12.5px}
.implant{margin:14px 0 20px;break-inside:avoid}
.implant h3{font-size:15px;margin-bottom:8px}
.beside{display:grid;grid-template-columns:200px 1fr;gap:22px;align-items:start}
.pieces{margin:18px 0 6px}
.piece img{display:block;width:330px;background:#000;border-radius:3px}
.piece p{margin:3px 0}
.piece .judged{color:var(--check);font-weight:600}
.piece th{min-width:0}
.piece .number{white-space:normal;min-width:8.5em}
.course{display:grid;grid-template-columns:1fr 1fr;gap:36px}
.course>:only-child{grid-column:1/-1}
.events th{min-width:0}
footer{margin-top:32px;padding-top:12px;border-top:2px solid var(--refused);font-size:12.5px;color:var(--soft)}
footer strong{color:var(--refused)}
@media screen and (max-width:760px){main{padding:0 18px 24px}.warning{margin:0 -18px;padding:9px 18px}
.cards,.facts{grid-template-columns:1fr 1fr}.beside,.course,.pictures{grid-template-columns:1fr}}
@page{size:A4;margin:16mm 13mm}
@media print{html{background:#fff}body{font-size:10.5pt}main{max-width:none;margin:0;padding:0;box-shadow:none}
.warning{margin:0;padding:6px 10px}h2,h3{break-after:avoid}.views{break-inside:auto}.card .value{font-size:22pt}
.cards{grid-template-columns:repeat(3,1fr)}.pictures,.course{grid-template-columns:1fr}.course svg{max-width:120mm}
.piece img{width:58mm}.piece strong,.piece p{overflow-wrap:anywhere}}
"""


def running(patient: str, about: str) -> str:
    """What stands on each printed page, since pages part: whose it is, what it is, which page of how many."""
    said = {"top-left": _string(f"Patient {patient}"), "top-right": _string(about)}
    said["bottom-right"] = '"Page " counter(page) " of " counter(pages)'
    boxes = "".join(f"@{place}{{content:{text}}}" for place, text in said.items())
    return f"@page{{font:8.5pt Arial,'DejaVu Sans',sans-serif;color:#5b6975;{boxes}}}"


def _string(text: str) -> str:
    """A CSS string, whatever is in the text: each character that could end it, or its style element, by its number."""
    return '"' + "".join(c if c.isalnum() or c in " .,:-_/()" else f"\\{ord(c):x} " for c in text) + '"'
