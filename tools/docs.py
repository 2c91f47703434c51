"""README.md and the docs site, made from the notebooks by nbdev and smalldocs, without Quarto.

    python tools/docs.py readme [--check]    write README.md and its figures from nbs/index.ipynb, or fail if they are stale
    python tools/docs.py site [OUT]          build the site, with its search index and llms.txt (OUT: _docs)
    python tools/docs.py check [OUT]         list broken links and anchors, and images without alt text
    python tools/docs.py run [NOTEBOOK ...]  execute notebooks in place and save their outputs (all of them by default);
                                             --hub: with the cells that need DINOv2's own weights, so a network
"""
import argparse, ast, io, json, re, shutil, sys, tempfile, tokenize, warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat, yaml
from fastcore.xtras import working_directory
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup, nbglob

from pages import finish, fonts, slim

cfg = get_config()
root,nbs = cfg.config_path,cfg.nbs_path
assets = Path(__file__).parent/'site'
base = cfg.doc_host + cfg.doc_baseurl + '/'
notebooks = f'{cfg.git_url}/blob/{cfg.branch}/{nbs.name}/'

# ---- notebooks: what a page can't show ----

WIDGET = 'application/vnd.jupyter.widget-view+json'
NOTE = '<p class="widget-note">An interactive widget: run this notebook to use it.</p>'
GALLERY = '<div class="dinoinv-gallery"' # needs its script, so it is for pages alone
_bar = re.compile(r'.*\d+%\|.*\n?')

def options(cell):
    "The `#| key: value` lines of a code cell, and the code without them"
    lines = re.findall(r'^#\|\s*([\w-]+:.*)$', cell.source, re.M)
    return yaml.safe_load('\n'.join(lines)) or {}, re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M)

def still(o):
    "`o` as a page shows it: progress bars are dropped, and widgets become their fallback picture or a note"
    data = o.get('data', {})
    if 'text' in o: o.text = _bar.sub('', o.text)
    if WIDGET in data:
        if _bar.match(data.get('text/plain', '')): data.clear()
        elif not any(k in data for k in ('text/html', 'image/png', 'image/jpeg')): data['text/html'] = NOTE
        data.pop(WIDGET, None)
    return o if data or o.get('text') or o.output_type=='error' else None

def tidy(nb):
    "Give `nb`'s pictures alt text, and its live outputs a still form"
    nb.metadata.setdefault('language_info', {'name':'python'})
    nb = CoalesceStreamsPreprocessor().preprocess(nb, {})[0] # a slow loop's prints come in pieces
    for c in nb.cells:
        if c.cell_type!='code': continue
        o = options(c)[0]
        alt = o.get('fig-alt', o.get('fig-cap'))
        if isinstance(alt, list): alt = '; '.join(alt)
        if alt and o.get('fig-alt')!=alt:
            c.source = f'#| fig-alt: {json.dumps(alt)}\n' + re.sub(r'^#\|\s*fig-alt:.*\n', '', c.source, flags=re.M)
        c.outputs = [x for x in map(still, c.outputs) if x]
    return nb

def load(path):
    "A tidied notebook"
    with warnings.catch_warnings(): # nbdev adds cells without ids
        warnings.simplefilter('ignore')
        return tidy(nbformat.read(path, 4))

# ---- README ----

def alert(m):
    "A callout as GitHub writes it"
    title = re.search(r'title="([^"]*)"', m[2])
    body = (f'**{title[1]}**\n\n' if title else '') + m[3].strip()
    return f'> [!{m[1].upper()}]\n' + re.sub(r'^(?=(.))?', lambda l: '> ' if l[1] else '>', body, flags=re.M)

def for_github(md):
    "Markdown outside code fences, with callouts and links as they work in README.md"
    parts = re.split(r'(^```.*?^```)', md, flags=re.M|re.S)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r'(\]\(|src="|href=")(?!\w+:|[#/"])', rf'\1{nbs.name}/', parts[i]) # the notebook's links start from its folder
        parts[i] = re.sub(r'(\]\([^)\s]+\))\{[^}\n]*\}', r'\1', parts[i]) # Pandoc's attributes
    return re.sub(r'^:::+ *\{\.callout-(\w+)([^}]*)\}\n(.*?)\n:::+ *$', alert, ''.join(parts), flags=re.M|re.S)

def badges():
    "The line of badges that GitHub and PyPI show; the site has none, since they are loaded from elsewhere"
    found = {'CI': (f'{cfg.git_url}/actions/workflows/test.yaml/badge.svg', f'{cfg.git_url}/actions/workflows/test.yaml'),
             f'Python {cfg.min_python} or newer': (f'https://img.shields.io/badge/python-{cfg.min_python}%2B-blue', f'{cfg.git_url}/blob/{cfg.branch}/settings.ini'),
             'Apache 2.0': ('https://img.shields.io/badge/licence-Apache_2.0-blue', f'{cfg.git_url}/blob/{cfg.branch}/LICENSE'),
             'Open in Colab': ('https://colab.research.google.com/assets/colab-badge.svg', f"https://colab.research.google.com/github/{notebooks.split('github.com/')[1]}02_decoder.ipynb")}
    return ' '.join(f'[![{name}]({image})]({to})' for name,(image,to) in found.items())

def readme():
    "README.md's text, and its figures as `{path: bytes}`"
    from nbconvert import MarkdownExporter
    from nbdev.processors import FilterDefaults
    from nbdev.serve_drv import exec_nb
    with tempfile.TemporaryDirectory() as tmp:
        exec_nb(nbs/cfg.readme_nb, Path(tmp)/'index.ipynb', FilterDefaults)
        nb = load(Path(tmp)/'index.ipynb')
    head,alts = yaml.safe_load(nb.cells.pop(0).source.strip(' -\n')),{}
    for i,c in enumerate(nb.cells):
        if c.cell_type=='markdown': c.source = for_github(c.source)
        if c.cell_type!='code': continue
        o,c.source = options(c)
        alts[i] = o.get('fig-alt', '')
        if not o.get('include', True): o = dict(echo=False, output=False)
        if not o.get('echo', True) or not c.source.strip(): c.metadata.tags = ['no-input']
        c.outputs = [] if o.get('output') is False else [x for x in c.outputs if 'text/html' not in x.get('data', {})]
    exp = MarkdownExporter(config=dict(
        ExtractOutputPreprocessor=dict(enabled=True, output_filename_template=f'{nbs.name}/images/readme-{{cell_index}}-{{index}}{{extension}}'),
        TagRemovePreprocessor=dict(enabled=True, remove_input_tags={'no-input'})))
    md,res = exp.from_notebook_node(nb)
    md = re.sub(r'!\[\w+\](\(\w+/images/readme-(\d+)-)', lambda m: f'![{alts[int(m[2])]}]{m[1]}', md)
    md = f"# {head['title']}\n\n> {head.get('description', cfg.description)}\n\n{badges()}\n\n{md}"
    return re.sub(r'\n([ \t]*\n){2,}', '\n\n', md).strip()+'\n', {root/k:v for k,v in res['outputs'].items()}

def do_readme(check):
    "Write README.md and its figures, or say which are stale"
    md,figs = readme()
    want = {root/'README.md': md.encode(), **figs}
    old = set((nbs/'images').glob('readme-*'))
    if check:
        stale = [p for p in old.union(want) if not p.exists() or p.read_bytes()!=want.get(p)]
        return [f'{p.relative_to(root)} is stale: run `python tools/docs.py readme`' for p in sorted(stale)]
    for p in old-want.keys(): p.unlink()
    for p,b in want.items():
        p.parent.mkdir(exist_ok=True)
        p.write_bytes(b)

# ---- site: what an exported name is, and its code ----

EXPORTED = re.compile(r'^#\|\s*export', re.M)

def code_of(cell): return re.sub(r'^#\|.*\n', '', cell.source, flags=re.M).strip()

def defined(source):
    "The functions, classes and patched methods of `source`: name → (node, whether it is patched)"
    found = {}
    for o in ast.parse(source).body:
        if not isinstance(o, (ast.FunctionDef, ast.ClassDef)): continue
        patched = any(getattr(d, 'id', '')=='patch' for d in o.decorator_list)
        found[f'{ast.unparse(o.args.args[0].annotation)}.{o.name}' if patched else o.name] = o, patched
    return found

def function_of(node):
    "The function that is called: `node` itself, or the `__init__` of a class; None for a dataclass"
    if isinstance(node, ast.FunctionDef): return node
    return next((o for o in node.body if isinstance(o, ast.FunctionDef) and o.name=='__init__'), None)

def parameters(node, patched):
    "(name, type, default, line) of each parameter of a function or class, or field of a dataclass"
    func = function_of(node)
    if not func:
        fields = [o for o in node.body if isinstance(o, ast.AnnAssign)]
        return [(o.target.id, o.annotation, o.value, o.end_lineno) for o in fields]
    a = func.args
    plain = a.posonlyargs + a.args
    defaults = [None]*(len(plain)-len(a.defaults)) + a.defaults
    pairs = [*zip(plain, defaults), *zip(a.kwonlyargs, a.kw_defaults)]
    rows = [(o.arg, o.annotation, d, (d or o).end_lineno) for o,d in pairs]
    rows += [(f'*{o.arg}', o.annotation, None, o.end_lineno) for o in [a.vararg] if o]
    rows += [(f'**{o.arg}', o.annotation, None, o.end_lineno) for o in [a.kwarg] if o]
    return rows[patched or func is not node:] # without `self`

def comments(source):
    "line → its comment"
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip('# ') for t in tokens if t.type==tokenize.COMMENT}

def entry(name, source):
    "What stands under a name: how it is called, what it does, its parameters as a list"
    node,patched = defined(source)[name]
    rows,func,said = parameters(node, patched),function_of(node),comments(source)
    def text(o, before=''):
        if o is None: return ''
        if ast.unparse(o).startswith('Annotated['): o = o.slice.elts[0]
        return before + ast.get_source_segment(source, o)
    def line(words, at): return f'* {words} – {said[at]}' if at in said else f'* {words}'
    call = ', '.join(k + text(d, '=') for k,_,d,_ in rows)
    lines = [line(f"`{k}{text(t, ': ')}{text(d, ' = ')}`", at) for k,t,d,at in rows]
    returns = text(func.returns) if func else ''
    if returns not in ('', 'None'): lines.append(line(f'returns `{returns}`', func.returns.end_lineno))
    about = ast.get_docstring(node) or (func and ast.get_docstring(func))
    parts = [f'### {name}', f'```python\n{name}({call})\n```', about, '\n'.join(lines)]
    return '\n\n'.join(filter(None, parts))

def folded(source):
    return f'<details class="code"><summary>Code</summary>\n\n```python\n{source}\n```\n\n</details>'

def shows(cell):
    "The name that a cell of nbdev's documents"
    m = re.search(r'^show_doc\(([\w.]+)', cell.source, re.M) if cell.cell_type=='code' else None
    return m[1] if m and cell.outputs else None

def documented(nb, path):
    "`nb` with an entry for each public name that the notebook at `path` exports, and all its code, folded"
    shown = {shows(c): c for c in nb.cells}
    cells,last = {c.get('id'): c for c in nb.cells},None
    for c in nbformat.read(path, 4).cells:
        if c.id in cells: last = cells[c.id]
        if c.id in cells or c.cell_type!='code' or not EXPORTED.search(c.source): continue
        source = code_of(c)
        names = [k for k in defined(source) if k in shown]
        for k in names:
            last = shown[k]
            data = last.outputs[0].data
            link = ''.join(data['text/markdown']).partition('### ')[0] # nbdev's, to the repository
            data['text/markdown'] = link + NbdevLookup().linkify(entry(k, source))
        if names: data['text/markdown'] += '\n\n' + folded(source)
        elif last is not None:
            at = nb.cells.index(last)+1
            last = nbformat.v4.new_markdown_cell(folded(source))
            nb.cells.insert(at, last)
    return nb

# ---- site ----

NOT_FOUND = """---
title: No such page
---

There is no page at this address. [Start here](index.ipynb), or use the search.
"""

def finish_all(out):
    "Finish the pages of the site at `out`, and write what its search knows"
    for k in 'site.js','search.js': shutil.copy(assets/k, out/'site_libs')
    for k in 'bootstrap-icons','fuse': shutil.rmtree(out/'site_libs'/k)
    fonts(out)
    card = min((nbs/'images').glob('readme-*.png')).name
    words = yaml.safe_load((assets/'words.yml').read_text())
    found = []
    pages = [p for p in sorted(out.rglob('*.html')) if p.parent.name != 'try'] # what lies there is no page
    of_page = [words.pop(p.relative_to(out).as_posix(), '') for p in pages]
    with ProcessPoolExecutor(2) as pool: # parsing takes most of the time
        same = map(repeat, (out, base, cfg.version, card)) # for each page
        for entries in pool.map(finish, pages, *same, of_page): found += entries
    if words: raise SystemExit(f"tools/site/words.yml: no such page: {', '.join(words)}")
    slim(out)
    (out/'search.json').write_text(json.dumps(found, ensure_ascii=False))

def do_site(out):
    "Build the site into `out`, and return smalldocs' warnings"
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    refresh_quarto_yml()
    with working_directory(root): # nbdev skips any path with a dot folder in it, so give it one without
        proc = proc_nbs(nbs.relative_to(root), force=True, n_workers=2)
    return build(proc, Path(out).resolve())

def build(proc, out):
    "Render the notebooks that nbdev processed into `proc`"
    from smalldocs.config import load as load_project
    from smalldocs.site import Site

    class NbdevSite(Site):
        "smalldocs with nbdev's page names; links to the published site stay inside this one"
        def read(self, src):
            page = super().read(src)
            page.out = page.out.with_name(page.front.get('output-file', page.out.name))
            return page
        def find_page(self, target):
            return super().find_page(target) or next((p for p in self.pages.values() if p.out==target), None)
        def inside(self, href):
            for a in base, notebooks:
                if href.startswith(a): return '/'+href.removeprefix(a)
            return href
        def resolve(self, href, page, record=True): return super().resolve(self.inside(href), page, record)
        def llms_link(self, href, page): return super().llms_link(self.inside(href), page)

    for p in nbglob(proc, as_path=True): nbformat.write(documented(load(p), nbs/p.relative_to(proc)), p)
    (proc/'404.qmd').write_text(NOT_FOUND)
    site = NbdevSite(load_project(proc))
    site.out = out
    site.build()
    import try_page # slow to import
    try_page.build(out/'try')
    finish_all(out)
    (out/'404.llms.md').unlink(missing_ok=True)
    instead = 'An interactive gallery of reconstructions: open the page.'
    for p in out.rglob('*.llms.md'):
        p.write_text(re.sub(rf'{GALLERY}.*?</script>', instead, p.read_text(), flags=re.S))
    return [w for w in site.warnings if 'output-file' not in w]

# ---- checks ----

class Page(HTMLParser):
    "The ids, links and images without alt text of an HTML page"
    def __init__(self, path):
        super().__init__()
        self.ids,self.links,self.bare,self.near = {'', 'top'},[],[],'top'
        self.foreign = [] # what a page loads from elsewhere, and links to sources of pages
        self.feed(path.read_text())
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if a.get('id'):
            self.ids.add(a['id'])
            if re.fullmatch(r'section|h\d', tag): self.near = a['id']
        if tag=='img' and not a.get('alt') and a.get('role')!='presentation': self.bare.append(self.near)
        loads = a.get('src') or (a.get('href') if tag=='link' and a.get('rel')!='canonical' else '') or ''
        source = tag=='a' and (a.get('href') or '').startswith(notebooks) and a.get('class')!='toc-action'
        if urlsplit(loads).netloc or source: self.foreign.append(loads or a['href'])
        if tag!='base' and a.get('rel')!='canonical': self.links += [a[k] for k in ('href', 'src') if a.get(k)]

def do_check(out):
    "What is broken in the site at `out`"
    out = Path(out).resolve()
    pages = {p.resolve():Page(p) for p in sorted(out.rglob('*.html'))}
    if not pages: return [f'{out} has no pages']
    todo = [(p,l) for p,o in pages.items() for l in o.links] + [(out/'search.json', o['href']) for o in json.loads((out/'search.json').read_text())]
    bad = [f'{p.relative_to(out)}: image without alt text near #{i} (use `#| fig-alt:`)' for p,o in pages.items() for i in o.bare]
    bad += [f'{p.relative_to(out)}: {l} should be of the site itself' for p,o in pages.items() for l in o.foreign]
    bad += [f'{p.relative_to(out)} has {p.stat().st_size:,} bytes before pictures, more than 600 kB' for p in pages if p.stat().st_size > 600_000]
    for p,l in todo:
        u = urlsplit(l)
        if l.startswith(base): bad.append(f'{p.relative_to(out)}: {l} leaves the site for its published copy')
        if u.scheme or u.netloc: continue
        t = (p.parent/unquote(u.path)).resolve() if u.path else p
        if t.is_dir(): t = t/'index.html'
        if not t.exists() or out not in t.parents: bad.append(f'{p.relative_to(out)}: broken link {l}')
        elif t in pages and unquote(u.fragment) not in pages[t].ids: bad.append(f'{p.relative_to(out)}: no anchor {l}')
    print(f'{len(pages)} pages, {len(todo)} links')
    return list(dict.fromkeys(bad))

# ---- execution ----

def do_run(paths, hub):
    "Run notebooks in a fresh kernel each, with the cells that take long, which `nbdev_test` leaves out"
    from nbclient import NotebookClient
    flags = ['notest'] if hub else ['notest','hub']
    skip = re.compile(rf"^#\|\s*(eval:\s*false|({'|'.join(flags)})\b)", re.M|re.I)
    for p in map(Path, paths or sorted(nbglob(as_path=True))):
        print('running', p.name, flush=True)
        nb = nbformat.read(p, 4)
        for c in nb.cells:
            if c.cell_type=='code' and skip.search(c.source): c.metadata.tags = ['skip-execution']
        NotebookClient(nb, timeout=None, kernel_name='python3', record_timing=False, resources=dict(metadata=dict(path=str(p.parent)))).execute()
        for c in nb.cells: c.metadata.pop('tags', None)
        nbformat.write(nb, p)

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(dest='cmd', required=True)
    sub.add_parser('readme').add_argument('--check', action='store_true')
    for o in 'site','check': sub.add_parser(o).add_argument('out', nargs='?', default=cfg.doc_path)
    run = sub.add_parser('run')
    run.add_argument('paths', nargs='*')
    run.add_argument('--hub', action='store_true')
    a = vars(ap.parse_args())
    bad = globals()[f"do_{a.pop('cmd')}"](*a.values()) or []
    for o in bad: print(o, file=sys.stderr)
    return bool(bad)

if __name__=='__main__': sys.exit(main())
